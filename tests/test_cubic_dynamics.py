"""Polynomial dynamics: terms, messages and the fit to networks, each against plain loops."""

from itertools import combinations_with_replacement

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from mrsds_ppl.models.covariance import Covariance
from mrsds_ppl.models.dynamics import Dynamics, DynamicsOptions, Rows
from mrsds_ppl.start.ascent.cubic_dynamics import CubicDynamics, cubic_from
from mrsds_ppl.start.ascent.polynomials import num_features

SIZES, INPUTS = (2, 1, 3), 2


def _terms(region: np.ndarray) -> list[float]:
    return [
        float(np.prod([region[i] for i in term]))
        for degree in (1, 2, 3)
        for term in combinations_with_replacement(range(len(region)), degree)
    ]


@pytest.fixture
def cubic() -> CubicDynamics:
    weights = np.random.default_rng(0).normal(size=(2, sum(SIZES), num_features(SIZES, INPUTS)))
    return CubicDynamics(jnp.asarray(weights), Covariance((6,), 0.3, triangular=False, trainable=True), SIZES)


def test_the_dynamics_are_the_sum_of_their_terms(cubic: CubicDynamics) -> None:
    rng = np.random.default_rng(1)
    x, u = rng.normal(size=(4, 6)), rng.normal(size=(4, INPUTS))
    for row in range(4):
        phi = np.array([1.0, *_terms(x[row, :2]), *_terms(x[row, 2:3]), *_terms(x[row, 3:]), *u[row]])
        assert len(phi) == num_features(SIZES, INPUTS) == 1 + 9 + 3 + 19 + 2
        found = cubic.means(jnp.asarray(x), jnp.asarray(u))[:, row]
        np.testing.assert_allclose(found, np.asarray(cubic.weights) @ phi, rtol=2e-5, atol=2e-5)


def test_messages_constants_and_inputs_add_up_to_the_dynamics(cubic: CubicDynamics) -> None:
    rng = np.random.default_rng(2)
    x, u = jnp.asarray(rng.normal(size=(5, 6))), jnp.asarray(rng.normal(size=(5, INPUTS)))
    messages = cubic.messages(x, u)
    assert messages.shape == (2, 3, 5, 6)
    rest = cubic.weights[..., 0][:, None] + jnp.einsum("kif,nf->kni", cubic.weights[..., -INPUTS:], u)
    np.testing.assert_allclose(messages.sum(1) + rest, cubic.means(x, u), rtol=2e-5, atol=2e-5)
    # What region 1 tells depends on nothing but the latent of region 1.
    moved = cubic.messages(x.at[:, 2].add(1.0), u) - messages
    assert np.abs(moved[:, 1]).min() > 0
    np.testing.assert_array_equal(moved[:, [0, 2]], 0.0)


def test_linear_dynamics_are_fitted_exactly_in_the_rows_that_count() -> None:
    with jax.enable_x64(True):
        dynamics = Dynamics(
            2, SIZES, INPUTS, DynamicsOptions(layers=(), activations=(None,)), key=random.key(0)
        )  # fmt: skip
        rng = np.random.default_rng(3)
        x, u = jnp.asarray(rng.normal(size=(400, 6))), jnp.asarray(rng.normal(size=(400, INPUTS)))
        weights = np.eye(2)[rng.integers(0, 2, 400)]
        weights[:100] = 0.0
        found = cubic_from(dynamics, dynamics.latent_sizes, Rows(x.at[:100].set(1e3), u, jnp.asarray(weights)))
        np.testing.assert_allclose(found.means(x, u), dynamics.means(x, u), atol=1e-3)
        np.testing.assert_array_equal(found.noise.scale, dynamics.noise.scale)
