"""Steps drawn by state: their means are sums over all bins and states, and networks are asked at their own alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from mrsds_ppl.data.batch import Batch
from mrsds_ppl.models.dynamics import Dynamics, DynamicsOptions
from mrsds_ppl.models.filtering import SmoothedPaths
from mrsds_ppl.start.refit.drawn_steps import each_state, step_draws
from mrsds_ppl.statespace.smoothing import PathMoments

TRIALS, BINS, STATES = 3, 6, 2
LENGTHS = np.array([6, 4, 2])


def recording(states: np.ndarray) -> tuple[Batch, SmoothedPaths]:
    """Trials whose input is the number of each bin, and whose latents are a stationary chain about their own means."""
    rng = np.random.default_rng(0)
    nothing = np.zeros((TRIALS, BINS, 0))
    numbers = np.arange(TRIALS * BINS, dtype=np.float32).reshape(TRIALS, BINS, 1)
    batch = Batch(nothing, numbers, nothing > 0, nothing > 0, LENGTHS, nothing, np.arange(TRIALS))
    gain, eye = np.array([[0.8, 0.2], [-0.3, 0.6]]), np.broadcast_to(np.eye(2), (TRIALS, BINS, 2, 2))
    lagged = np.broadcast_to(gain.T, eye.shape) * (np.arange(BINS) < LENGTHS[:, None] - 1)[..., None, None]
    moments = PathMoments(*(jnp.asarray(part, jnp.float32) for part in (rng.normal(size=eye.shape[:3]), eye, lagged)))
    return jax.tree.map(jnp.asarray, batch), SmoothedPaths(moments, jnp.asarray(states, jnp.float32))


@pytest.mark.parametrize("certain", [False, True])
def test_means_over_drawn_steps_are_sums_over_bins_and_states(certain):
    rng = np.random.default_rng(1)
    states = rng.dirichlet([1.0, 1.0], (TRIALS, BINS))
    if certain:
        states = np.eye(2)[states.argmax(-1)]
    batch, paths = recording(states)
    draw = step_draws(batch, paths, 4001)

    @jax.jit
    def told(key):
        """Of steps into each state: E[x_{t-1} x_t^T], E[x_t x_t^T], the input, and the state that is left."""
        steps = draw(key)
        first, then = steps.x[:, 0], steps.x[:, 1]
        values = [first[:, :, None] * then[:, None], then[:, :, None] * then[:, None]]
        flat = [value.reshape(-1, 4) for value in values]
        each = steps.by_state(jnp.concatenate([*flat, steps.trials.u[:, 1], steps.before], axis=1))
        return steps.share[:, None] * each.mean(1)

    found = np.mean([told(random.key(number)) for number in range(60)], axis=0)
    mean, covariance, lagged = (np.asarray(part, float) for part in paths.moments)
    expected = np.zeros((STATES, 11))
    for trial, length in enumerate(LENGTHS):
        for t in range(1, length):
            across = np.outer(mean[trial, t - 1], mean[trial, t]) + lagged[trial, t - 1]
            now = np.outer(mean[trial, t], mean[trial, t]) + covariance[trial, t]
            of_step = [*across.ravel(), *now.ravel(), trial * BINS + t, *states[trial, t - 1]]
            expected += states[trial, t][:, None] * of_step / LENGTHS.sum()
    np.testing.assert_allclose(found, expected, atol=0.03)
    # Inputs and states hardly vary from draw to draw: steps are spread over the recording.
    np.testing.assert_allclose(found[:, 8:], expected[:, 8:], rtol=2e-3)


def test_a_state_of_no_bin_has_no_share():
    batch, paths = recording(np.eye(2)[np.zeros((TRIALS, BINS), int)])
    steps = step_draws(batch, paths, 50)(random.key(0))
    np.testing.assert_allclose(steps.share, [9 / 12, 0.0])
    assert np.isfinite(steps.x).all()


@pytest.mark.parametrize(
    "options",
    [
        DynamicsOptions(layers=(4,)),
        DynamicsOptions(layers=(4,), zcond=True),
        DynamicsOptions(layers=(4,), communication_type="additive-shared"),
        DynamicsOptions(layers=(4,), communication_type="additive-linear"),
        DynamicsOptions(layers=(4,), communication_type="conditional", input_type="conditional", input_layers=(3,)),
    ],
    ids=["additive", "zcond", "shared", "linear", "conditional"],
)
def test_each_state_says_at_its_own_steps_what_all_states_say_there(options):
    dynamics = Dynamics(STATES, (2, 1), 2, options, key=random.key(0))
    x, u = random.normal(random.key(1), (STATES, 5, 3)), random.normal(random.key(2), (STATES, 5, 2))

    def alone(dynamics):
        return each_state(lambda one, x, u: one.means(x, u)[0], dynamics, x, u)

    def of_all(dynamics):
        every = dynamics.means(x, u)
        return jnp.stack([every[k, k] for k in range(STATES)])

    @jax.jit
    def both(dynamics):
        return [
            (said(dynamics), jax.grad(lambda d, said=said: (said(d) ** 2).sum())(dynamics)) for said in (alone, of_all)
        ]

    for own, of_every in zip(*map(jax.tree.leaves, both(dynamics)), strict=True):
        np.testing.assert_allclose(own, of_every, rtol=1e-4, atol=1e-5)
