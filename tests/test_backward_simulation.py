"""Draws of states and latents against every path of states, with an exact Kalman filter and smoother for each."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy.special import logsumexp

from mrsds_ppl.statespace.backward_simulation import simulate_paths
from mrsds_ppl.statespace.linear_gaussian import LinearSteps, SharedTerms, SignalTerms, TrialTerms
from mrsds_ppl.statespace.smoothing import smooth_path

LENGTHS, NUM_STATES, NUM_LATENTS = (6, 4), 2, 2


def program(noise: float = 0.3) -> tuple[SharedTerms, TrialTerms]:
    """Two rotations of different speed, seen through noise; transitions of each bin their own; two trials."""
    rng = np.random.default_rng(0)
    grid = (len(LENGTHS), max(LENGTHS))
    pairs = (grid[0], grid[1] - 1)
    turns = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in (0.3, 0.9)]
    factor = rng.normal(size=(*grid, NUM_LATENTS, 1))
    odds = rng.normal(size=(*pairs, NUM_STATES, NUM_STATES)) + 1.5 * np.eye(NUM_STATES)
    shared = SharedTerms(
        first_log_prob=jnp.log(jnp.array([0.6, 0.4])),
        first_means=jnp.array([[1.0, 0.0], [0.0, 1.0]]),
        first_covariance=jnp.array([[0.5, 0.1], [0.1, 0.4]]),
        noise_covariance=noise * jnp.array([[0.5, 0.2], [0.2, 0.4]]),
    )
    trials = TrialTerms(
        steps=LinearSteps(
            jnp.asarray(np.stack(turns) + 0.05 * rng.normal(size=(*pairs, NUM_STATES, NUM_LATENTS, NUM_LATENTS))),
            jnp.asarray(0.2 * rng.normal(size=(*pairs, NUM_STATES, NUM_LATENTS))),
        ),
        signals=SignalTerms(
            # One direction of x is seen in each bin.
            jnp.asarray(factor @ np.swapaxes(factor, -1, -2)),
            jnp.asarray(rng.normal(size=(*grid, 1)) * factor[..., 0]),
            jnp.asarray(rng.normal(size=grid[0])),
        ),
        log_transition=jnp.asarray(odds - logsumexp(odds, axis=-1, keepdims=True)),
        lengths=jnp.asarray(LENGTHS),
    )
    return shared, trials


def log_joint(shared: SharedTerms, trials: TrialTerms, trial: int, path: tuple[int, ...]) -> float:
    """log p(z, y) of one path of states by a Kalman filter in plain numpy."""
    mean, covariance = np.asarray(shared.first_means)[path[0]], np.asarray(shared.first_covariance)
    total = float(shared.first_log_prob[path[0]] + trials.signals.constant[trial])
    for t, state in enumerate(path):
        if t:
            gain, offset = (np.asarray(a)[trial, t - 1, state] for a in trials.steps)
            mean = gain @ mean + offset
            covariance = gain @ covariance @ gain.T + np.asarray(shared.noise_covariance)
            total += float(trials.log_transition[trial, t - 1, path[t - 1], state])
        precision, shift = np.asarray(trials.signals.precision)[trial, t], np.asarray(trials.signals.shift)[trial, t]
        after = np.linalg.inv(np.linalg.inv(covariance) + precision)
        known = np.linalg.solve(covariance, mean)
        total += 0.5 * ((known + shift) @ after @ (known + shift) - known @ mean)
        total += 0.5 * (np.linalg.slogdet(after)[1] - np.linalg.slogdet(covariance)[1])
        mean, covariance = after @ (known + shift), after
    return total


def all_paths(shared: SharedTerms, trials: TrialTerms, trial: int) -> dict[tuple[int, ...], float]:
    return {path: log_joint(shared, trials, trial, path) for path in product(range(NUM_STATES), repeat=LENGTHS[trial])}


def marginals(joint: dict[tuple[int, ...], float]) -> np.ndarray:
    """p(z_t | y), (bin, state)."""
    paths, scores = np.array(list(joint)), np.array(list(joint.values()))
    share = np.exp(scores - logsumexp(scores))
    return np.stack([(share[:, None] * (paths == state)).sum(0) for state in range(NUM_STATES)], axis=1)


def test_draws_have_the_law_of_the_sum_over_every_path_where_nothing_is_merged() -> None:
    with jax.enable_x64(True):
        shared, trials = program()
        found = jax.jit(lambda key: simulate_paths(key, shared, trials, draws=4000, order=6))(random.key(0))
        for trial, length in enumerate(LENGTHS):
            joint = all_paths(shared, trials, trial)
            # p(z, y) of a draw over the probability with which it was drawn is p(y), whatever the draw.
            np.testing.assert_allclose(found.log_weight[trial], logsumexp(list(joint.values())), rtol=1e-12, atol=1e-11)
            exact, drawn = marginals(joint), np.asarray(found.states[trial, :, :length])
            by_count = np.stack([(drawn == state).mean(0) for state in range(NUM_STATES)], axis=1)
            error = np.sqrt(exact * (1 - exact) / 4000)
            assert (np.abs(by_count - exact) < 4.5 * error).all()
            averaged = np.asarray(found.probabilities[trial, :length])
            assert (np.abs(averaged - exact) < 4.5 * error).all()
            # The average of probabilities is nearer than that of draws.
            assert np.abs(averaged - exact).sum() < np.abs(by_count - exact).sum()
            assert (found.states[trial, :, length:] == found.states[trial, :, length - 1 : length]).all()


@pytest.mark.parametrize(("order", "off", "spread"), [(1, 0.03, 0.06), (2, 0.015, 0.03)])
def test_merging_moves_probabilities_little_and_the_weights_say_how_much(order: int, off: float, spread: float) -> None:
    with jax.enable_x64(True):
        shared, trials = program()
        found = jax.jit(lambda key: simulate_paths(key, shared, trials, draws=4000, order=order))(random.key(0))
        joint = all_paths(shared, trials, 0)
        # Of that, 0.01 is what 4,000 draws leave to chance.
        assert np.abs(np.asarray(found.probabilities[0]) - marginals(joint)).max() < off
        weight = np.asarray(found.log_weight[0])
        assert weight.std() < spread
        assert logsumexp(weight) - np.log(len(weight)) == pytest.approx(logsumexp(list(joint.values())), abs=0.003)


def test_latents_have_the_law_of_the_smoother_given_their_states() -> None:
    count = 4000
    with jax.enable_x64(True):
        shared, trials = program()
        found = jax.jit(lambda key: simulate_paths(key, shared, trials, draws=count))(random.key(0))
        given = jax.nn.one_hot(jnp.swapaxes(found.states, 0, 1), NUM_STATES)
        smoothed = jax.jit(jax.vmap(lambda states: smooth_path(shared, trials, states)))(given)
        for trial, length in enumerate(LENGTHS):
            mean, spread, lagged = (np.asarray(a)[:, trial, :length] for a in smoothed)
            means, x = np.asarray(found.means)[trial, :, :length], np.asarray(found.x)[trial, :, :length]
            np.testing.assert_allclose(means, mean, rtol=1e-10, atol=1e-10)
            off, scale = x - means, np.sqrt(np.einsum("btii->ti", spread) / count)
            assert (np.abs(off.mean(0)) < 5 * scale / np.sqrt(count)).all()
            for drawn, exact, last in (
                (np.einsum("nti,ntj->tij", off, off), spread, length),
                (np.einsum("nti,ntj->tij", off[:, :-1], off[:, 1:]), lagged[:, : length - 1], length - 1),
            ):
                ends = scale[:last, :, None] * scale[length - last :, None]
                assert (np.abs(drawn / count - exact.mean(0)) < 7 * ends / np.sqrt(count)).all()
