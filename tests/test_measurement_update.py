"""The update of a filter by a signal, in value and derivative, against plain algebra in x64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from mrsds_ppl.statespace.measurement_update import update

Terms = tuple[Array, Array, Array, Array]


def _plain(mean: Array, covariance: Array, precision: Array, shift: Array) -> tuple[Array, Array, Array]:
    """Posterior mean, covariance and log integral of one filter through inverses of LAPACK."""
    known = jnp.linalg.inv(covariance)
    after = jnp.linalg.inv(known + precision)
    moved = after @ (shift + known @ mean)
    quadratic = moved @ (known + precision) @ moved - mean @ known @ mean
    spread = jnp.linalg.slogdet(after)[1] - jnp.linalg.slogdet(covariance)[1]
    return moved, after, 0.5 * (quadratic + spread)


def _terms() -> Terms:
    """Of 2 x 4 filters of three latents, some of whose axes are shared."""
    rng = np.random.default_rng(0)
    factor, seen = rng.normal(size=(3, 3, 2, 1)), rng.normal(size=(3, 2, 1, 4))
    covariance = np.einsum("ij...,kj...->ik...", factor, factor) + 0.1 * np.eye(3)[..., None, None]
    # A signal of two dimensions, which leaves one of the latents' unseen.
    precision = np.einsum("ij...,kj...->ik...", seen, seen)
    mean, shift = rng.normal(size=(3, 2, 4)), rng.normal(size=(3, 1, 4))
    return jnp.asarray(mean), jnp.asarray(covariance), jnp.asarray(precision), jnp.asarray(shift)


def _each(terms: Terms) -> tuple[Array, Array, Array]:
    mean, covariance, precision, shift = (jnp.broadcast_to(a, (*a.shape[:-2], 2, 4)) for a in terms)
    both = jax.vmap(jax.vmap(_plain, -1, -1), -1, -1)
    return both(mean, covariance, precision, shift)


def test_the_update_is_that_of_plain_algebra() -> None:
    with jax.enable_x64(True):
        terms = _terms()
        # The covariance comes with every axis, as that of a prediction does.
        full = (terms[0], jnp.broadcast_to(terms[1], (3, 3, 2, 4)), *terms[2:])
        for found, expected in zip(update(*full), _each(terms), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("of", [(0,), (1,), (2,), (3,), (0, 1, 2, 3)])
def test_derivatives_of_the_update_are_those_of_plain_algebra(of: tuple[int, ...]) -> None:
    with jax.enable_x64(True):
        terms = _terms()
        rng = np.random.default_rng(1)
        weights = [jnp.asarray(rng.normal(size=shape)) for shape in ((3, 2, 4), (3, 3, 2, 4), (2, 4))]

        def symmetric(matrices: Array) -> Array:
            return (matrices + jnp.swapaxes(matrices, 0, 1)) / 2

        def told(rule, *terms: Array) -> Array:
            mean, covariance, precision, shift = terms
            covariance = jnp.broadcast_to(symmetric(covariance), (3, 3, 2, 4))
            found = rule(mean, covariance, symmetric(precision), shift)
            return sum((w * a).sum() for w, a in zip(weights, found, strict=True))

        def slopes(rule) -> tuple[Array, ...]:
            return jax.grad(lambda *some: told(rule, *some), of)(*terms)

        for found, expected in zip(slopes(update), slopes(lambda *some: _each(some)), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)
