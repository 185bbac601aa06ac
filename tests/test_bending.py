"""The penalty on what is not linear in the messages: its size by loops, what it leaves free, and what it takes away."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from mrsds_ppl.models.dynamics import Dynamics, DynamicsOptions, Rows, with_scaled_noise
from mrsds_ppl.nn.adam import descend
from mrsds_ppl.train.regimen.bending import message_bends


def rows(sizes=(2, 1), num_states=2, count=60, **options):
    rng = np.random.default_rng(0)
    options = {"layers": (4,), "activations": ("tanh", None), **options}
    dynamics = Dynamics(num_states, sizes, 1, DynamicsOptions(**options), key=random.key(0))
    x, u = 2 * rng.normal(size=(count, sum(sizes))), rng.normal(size=(count, 1))
    weights = rng.dirichlet(np.ones(num_states), size=count)
    weights[-5:] = 0.0
    return dynamics, *(jnp.asarray(a, jnp.float32) for a in (x, u, weights))


@pytest.mark.parametrize("communication", ["additive", "conditional"])
def test_bends_equal_what_weighted_regressions_leave_by_loops(communication) -> None:
    dynamics, x, u, weights = rows(communication_type=communication)
    found = jax.jit(lambda x: message_bends(dynamics, Rows(x, u, weights)))(x)
    told, noise, ends = dynamics.messages(x, u), np.asarray(dynamics.noise.scale), [(0, 2), (2, 3)]
    design = np.column_stack([np.ones(len(x)), x]).astype(float)
    for state in range(2):
        root = np.sqrt(np.asarray(weights[:, state], float) / float(weights[:, state].sum()))[:, None]
        for target, source in np.ndindex(2, 2):
            start, stop = ends[target]
            m = told.local[state, target] if target == source else told.cross[state, target, source]
            m = np.asarray(m, float)[:, : stop - start] / noise[start:stop]
            solved = np.linalg.lstsq(root * design, root * m, rcond=None)[0]
            expected = np.linalg.norm(root * (m - design @ solved))
            assert expected > 1e-3
            np.testing.assert_allclose(found[state, target, source], expected, rtol=5e-3, atol=2e-4)


def test_linear_messages_and_the_scale_of_latents_cost_nothing() -> None:
    dynamics, x, u, weights = rows(layers=(), activations=(None,))
    np.testing.assert_allclose(message_bends(dynamics, Rows(x, u, weights)), 0.0, atol=2e-3)
    dynamics, x, u, weights = rows()
    plain = message_bends(dynamics, Rows(x, u, weights))
    noisier = with_scaled_noise(dynamics, 2.0)
    larger = eqx.tree_at(lambda d: d.pairs.weights[-1], noisier, dynamics.pairs.weights[-1] * 2.0)
    same = np.eye(2, dtype=bool)
    # x itself is linear, so that the local message bends by its change alone.
    np.testing.assert_allclose(message_bends(larger, Rows(x, u, weights)), plain, rtol=1e-2, atol=2e-4)
    assert (np.asarray(plain)[:, same] > 0).all()


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.compiling
def test_a_network_fitted_to_a_line_bends_less_and_to_a_curve_keeps_its_bend() -> None:
    """Steps of one region: a line with noise that a network can follow, and a curve that needs its bend."""
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(150, 1)), jnp.float32)
    noise = 0.3 * rng.normal(size=(150, 1))
    u, weights = jnp.zeros((150, 0)), jnp.ones((150, 1))
    options = DynamicsOptions(layers=(16,), activations=("tanh", None))
    start = Dynamics(1, (1,), 0, options, key=random.key(0))
    free, fixed = eqx.partition(start, eqx.tree_at(lambda d: d.noise, jax.tree.map(lambda _: True, start), False))

    @jax.jit(static_argnames="coefficient")
    def fitted(steps, coefficient):
        def loss(free, key):
            dynamics = eqx.combine(free, fixed)
            apart = (dynamics.means(x, u)[0] - steps) / dynamics.noise.scale
            return 0.5 * (apart**2).mean() + coefficient * message_bends(dynamics, Rows(x, u, weights)).sum()

        return eqx.combine(descend(random.key(1), loss, free, num_steps=1000, rate=2e-2, last=0.01).params, fixed)

    def error(curve, coefficient):
        found = fitted(jnp.asarray(curve(x) + noise, jnp.float32), coefficient)
        apart = found.means(x, u)[0] - curve(x)
        return float((apart**2).mean()), float(message_bends(found, Rows(x, u, weights)).sum())

    (loose, bent), (straight, left) = error(lambda x: 0.5 * x, 0.0), error(lambda x: 0.5 * x, 0.2)
    design = np.column_stack([np.ones(150), np.asarray(x)])
    line = np.mean((design @ np.linalg.lstsq(design, noise, rcond=None)[0]) ** 2)
    assert left < 0.2 * bent, (left, bent)
    assert straight - line < 0.3 * (loose - line), (straight, loose, line)
    curved, kept = error(lambda x: 2.0 * jnp.tanh(2 * x), 0.2)
    assert kept > 1.0
    assert curved < 0.02, curved
