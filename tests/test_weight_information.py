"""The information about weights of linear-in-weights dynamics, against dense Gaussians of whole trials."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from mrsds_ppl.data.trials import Trials
from mrsds_ppl.models import MRSDS, ModelOptions
from mrsds_ppl.models.linearised import linearised, shared_terms, with_dynamics
from mrsds_ppl.start.ascent.cubic_dynamics import CubicDynamics
from mrsds_ppl.start.ascent.polynomials import num_features
from mrsds_ppl.start.ascent.weight_information import weight_information
from mrsds_ppl.statespace.gaussian_sum import state_posterior
from mrsds_ppl.statespace.linear_gaussian import LinearSteps, SignalTerms, TrialTerms

TRIALS, BINS, LATENTS, STATES, FEATURES = 2, 5, 2, 2, 3


def _definite(rng: np.random.Generator, *shape: int) -> np.ndarray:
    root = rng.normal(size=(*shape, LATENTS, LATENTS))
    return root @ np.swapaxes(root, -1, -2) + 0.3 * np.eye(LATENTS)


def _dense(gain, offset, noise, start, first, precision, shift, x, phi, slope, states):
    """I(W) of one trial: its signals have a joint Gaussian law, whose mean moves with W."""
    bins, size = len(shift), STATES * LATENTS * FEATURES
    # x = M^-1 (c + e) with M lower bidiagonal.
    lower, spread, constant = np.eye(bins * LATENTS), np.zeros((bins * LATENTS,) * 2), np.zeros(bins * LATENTS)
    for t in range(bins):
        here = slice(t * LATENTS, (t + 1) * LATENTS)
        spread[here, here], constant[here] = (first, start) if t == 0 else (noise, offset[t - 1])
        if t:
            lower[here, (t - 1) * LATENTS : t * LATENTS] = -gain[t - 1]
    inverse = np.linalg.inv(lower)
    covariance, mean = inverse @ spread @ inverse.T, inverse @ constant
    forced = np.zeros((bins * LATENTS, size))
    for t in range(1, bins):
        seen = slice(0, t * LATENTS)
        told = np.zeros((t * LATENTS,) * 2)
        for s in range(t):
            told[s * LATENTS : (s + 1) * LATENTS, s * LATENTS : (s + 1) * LATENTS] = precision[s]
        prior = np.linalg.inv(covariance[seen, seen])
        filtered = np.linalg.solve(prior + told, prior @ mean[seen] + shift[:t].reshape(-1))[-LATENTS:]
        now = phi[t - 1] + slope[t - 1] @ (filtered - x[t - 1])
        for i in range(LATENTS):
            forced[t * LATENTS + i] = np.kron(states[t], np.kron(np.eye(LATENTS)[i], now))
    moved, blocks = inverse @ forced, np.zeros_like(covariance)
    for t in range(bins):
        here = slice(t * LATENTS, (t + 1) * LATENTS)
        blocks[here, here] = np.linalg.inv(precision[t])
    return moved.T @ np.linalg.solve(covariance + blocks, moved)


@pytest.mark.slow
def test_the_information_is_that_of_the_joint_law_of_all_signals() -> None:
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        lengths = (BINS, BINS - 1)
        gain = 0.5 * rng.normal(size=(TRIALS, BINS - 1, STATES, LATENTS, LATENTS))
        offset = rng.normal(size=(TRIALS, BINS - 1, STATES, LATENTS))
        precision, shift = _definite(rng, TRIALS, BINS), rng.normal(size=(TRIALS, BINS, LATENTS))
        precision[1, -1] = 0.0
        x, states = rng.normal(size=(TRIALS, BINS, LATENTS)), np.eye(STATES)[rng.integers(0, STATES, (TRIALS, BINS))]
        phi = rng.normal(size=(TRIALS, BINS - 1, FEATURES))
        slope = rng.normal(size=(TRIALS, BINS - 1, FEATURES, LATENTS))
        networks = MRSDS([4], LATENTS, STATES, key=random.key(0), options=ModelOptions(ux=False, xz=False)).networks
        steps, signals = LinearSteps(gain, offset), SignalTerms(precision, shift, np.zeros(TRIALS))
        given = TrialTerms(steps, signals, np.zeros((TRIALS, BINS - 1, STATES, STATES)), np.array(lengths))
        arrays = jax.tree.map(jnp.asarray, (given, x, states, phi, slope))
        found = weight_information(shared_terms(networks), *arrays)

        noise, first = (np.asarray(part.noise.cholesky) ** 2 for part in (networks.dynamics, networks.initial))
        expected = 0.0
        for b, length in enumerate(lengths):
            chosen = [states[b, t + 1].argmax() for t in range(BINS - 1)]
            step = np.arange(BINS - 1)
            parts = gain[b, step, chosen], offset[b, step, chosen]
            start = states[b, 0] @ np.asarray(networks.initial.means)
            n = length
            expected = expected + _dense(
                parts[0][: n - 1], parts[1][: n - 1], noise, start, first, precision[b, :n], shift[b, :n],
                x[b, :n], phi[b, : n - 1], slope[b, : n - 1], states[b, :n],
            )  # fmt: skip
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        assert np.linalg.eigvalsh(expected).max() > 1.0


@pytest.mark.slow
@pytest.mark.compiling
def test_the_information_of_constants_is_the_curvature_of_the_evidence() -> None:
    """One state, Gaussian signals and linear dynamics: the evidence is quadratic in the constants."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        trials = Trials.from_arrays([rng.normal(size=(6, 4)), rng.normal(size=(4, 4))], region_sizes=[2, 2])
        model = MRSDS([2, 2], 1, 1, key=random.key(0), options=ModelOptions(ux=False, xz=False))
        batch, count = jax.tree.map(jnp.asarray, trials.batch()), num_features((1, 1), 0)
        weights = jnp.zeros((1, 2, count)).at[0, 0, 1].set(0.8).at[0, 1, 4].set(0.7).at[0, 0, 4].set(0.3)
        cubic = CubicDynamics(weights, model.networks.dynamics.noise, (1, 1))
        x = jnp.zeros((2, 6, 2))

        def evidence(constant):
            moved = CubicDynamics(weights.at[0, :, 0].set(constant), cubic.noise, (1, 1))
            networks = with_dynamics(model.networks, moved)
            trials = linearised(networks, model, batch, x)
            return state_posterior(shared_terms(networks), trials, num_kept=1).log_evidence.sum()

        @jax.jit
        def both():
            networks = with_dynamics(model.networks, cubic)
            given = linearised(networks, model, batch, x)
            slopes = jax.vmap(jax.vmap(jax.jacfwd(cubic.features)))(x[:, :-1], jnp.zeros((2, 5, 0)))
            phi = cubic.features(x[:, :-1], jnp.zeros((2, 5, 0)))
            found = weight_information(shared_terms(networks), given, x, jnp.ones((2, 6, 1)), phi, slopes)
            return found, -jax.jacfwd(jax.jacfwd(evidence))(jnp.zeros(2))

        found, curvature = both()
        at = np.array([0, count])  # the constants of both latents
        np.testing.assert_allclose(found[np.ix_(at, at)], curvature, rtol=1e-5)
