"""Sessions in one set of coordinates, and emissions of each: against what is known of them by other routes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mrsds_ppl.models.emissions import EMISSIONS
from mrsds_ppl.models.emissions.emissions import Emissions
from mrsds_ppl.models.emissions.sessions import SessionEmissions
from mrsds_ppl.models.readout import Readout
from mrsds_ppl.statespace.moment_alignment import aligned, moments_of

TRIALS, BINS, SIZES = 60, 40, (2, 1, 2)


def driven_paths(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Latents of three regions that an input drives, which tells signs that the dynamics alone leave open."""
    latents = sum(SIZES)
    step = 0.85 * np.linalg.qr(rng.normal(size=(latents, latents)))[0]
    push, u = rng.normal(size=(latents, 2)), rng.normal(size=(TRIALS, BINS, 2))
    x = np.zeros((TRIALS, BINS, latents))
    x[:, 0] = rng.normal(size=(TRIALS, latents))
    for t in range(1, BINS):
        x[:, t] = x[:, t - 1] @ step.T + u[:, t] @ push.T + 0.3 * rng.normal(size=(TRIALS, latents))
    return x - x.mean((0, 1)), u


def test_moments_give_back_the_coordinates_of_every_region():
    rng = np.random.default_rng(0)
    x, u = driven_paths(rng)
    lengths, matrix, first = np.full(TRIALS, BINS), np.zeros((5, 5)), 0
    for size in SIZES:
        block = slice(first, first + size)
        matrix[block, block] = rng.normal(size=(size, size)) + 2 * np.linalg.qr(rng.normal(size=(size, size)))[0]
        first += size
    own = x @ np.linalg.inv(matrix).T
    moments = (moments_of(some, u, lengths, SIZES, noisy=False) for some in (own, x))
    found = aligned(*moments, SIZES, np.ones(3, bool))
    np.testing.assert_allclose(found, matrix, atol=0.02)


def test_a_region_that_a_session_lacks_keeps_its_coordinates():
    rng = np.random.default_rng(1)
    x, u = driven_paths(rng)
    moments = [moments_of(some, u, np.full(TRIALS, BINS), SIZES, noisy=False) for some in (-x, x)]
    found = aligned(*moments, SIZES, np.array([True, False, True]))
    np.testing.assert_allclose(np.diag(found), [-1, -1, 1, -1, -1], atol=0.05)


def test_each_trial_has_the_emissions_of_its_session():
    rng = np.random.default_rng(0)
    readout = Readout((3, 2), (2, 2), (), (), key=jax.random.key(0))
    one = Emissions(readout, [EMISSIONS["gaussian"], EMISSIONS["poisson"]])
    leaves, form = jax.tree.flatten(one)
    drawn = [[np.asarray(rng.normal(size=leaf.shape), np.float32) for leaf in leaves] for _ in range(2)]
    each = [jax.tree.unflatten(form, own) for own in drawn]
    session, x = np.array([1, 0, 1]), jnp.asarray(rng.normal(size=(3, 4, 4)), jnp.float32)
    y, observed = jnp.asarray(rng.poisson(1.0, (3, 4, 5)), jnp.float32), jnp.asarray(rng.uniform(size=(3, 4, 5)) < 0.8)

    @jax.jit
    def joined() -> tuple[jax.Array, ...]:
        emissions = SessionEmissions(one, 2).of_sessions(each)
        shifted = emissions.each(lambda own, n: eqx.tree_at(lambda e: e.readout.bias, own, own.readout.bias + n))
        of_trials = emissions.of_trials(session)
        return of_trials.activity(x), of_trials.law(x, observed).log_prob(y), shifted.readout.bias

    @jax.jit
    def alone(own: Emissions) -> tuple[jax.Array, jax.Array]:
        return own.activity(x), own.law(x, observed).log_prob(y)

    activity, densities, bias = joined()
    own_activity, own_densities = (np.stack(some) for some in zip(*map(alone, each), strict=True))
    trials = np.arange(3)
    np.testing.assert_allclose(activity, own_activity[session, trials], rtol=1e-4)
    np.testing.assert_allclose(densities, own_densities[session, trials], rtol=1e-4)
    np.testing.assert_allclose(bias, [each[0].readout.bias, each[1].readout.bias + 1])
