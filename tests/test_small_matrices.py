"""Stacks of small matrices against LAPACK, one matrix after another, in x64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from mrsds_ppl.statespace.small_matrices import applied, batch_first, batch_last, congruence, inverse, product


def positive_definite(size: int, *batch: int) -> np.ndarray:
    factor = np.random.default_rng(size).normal(size=(*batch, size, size))
    return factor @ np.swapaxes(factor, -1, -2) + 0.1 * np.eye(size)


@pytest.mark.parametrize("size", [1, 2, 6, 20])
def test_inverse_and_determinant_are_those_of_lapack(size: int) -> None:
    with jax.enable_x64(True):
        matrices = positive_definite(size, 3, 4)
        found, log_det = inverse(batch_last(jnp.asarray(matrices)))
        assert log_det.shape == (3, 4)
        np.testing.assert_allclose(batch_first(found), np.linalg.inv(matrices), rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(log_det, np.linalg.slogdet(matrices)[1], rtol=1e-10)


def test_products_broadcast_over_the_batch() -> None:
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        a, b, x = rng.normal(size=(5, 1, 2, 3)), rng.normal(size=(1, 4, 3, 6)), rng.normal(size=(1, 4, 3))
        found = batch_first(product(batch_last(jnp.asarray(a)), batch_last(jnp.asarray(b))))
        np.testing.assert_allclose(found, a @ b, rtol=1e-12)
        told = applied(batch_last(jnp.asarray(a)), jnp.moveaxis(jnp.asarray(x), -1, 0))
        np.testing.assert_allclose(jnp.moveaxis(told, 0, -1), (a @ x[..., None])[..., 0], rtol=1e-12)


def test_congruences_broadcast_over_the_batch_and_have_the_derivatives_of_products() -> None:
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        a, c = rng.normal(size=(5, 1, 3, 3)), rng.normal(size=(1, 4, 3, 3))
        last = batch_last(jnp.asarray(a)), batch_last(jnp.asarray(c))
        np.testing.assert_allclose(batch_first(congruence(*last)), a @ c @ np.swapaxes(a, -1, -2), rtol=1e-12)
        check_grads(jax.jit(congruence), last, order=1, modes=("fwd", "rev"))


def test_no_routine_of_a_library_is_called() -> None:
    """In loops over bins such calls may wait for each other for ever, where there are many latents."""
    assert "custom_call" not in jax.jit(inverse).lower(jnp.ones((24, 24, 2))).as_text()


def test_derivatives_of_the_inverse_are_those_of_finite_differences() -> None:
    with jax.enable_x64(True):
        matrices = batch_last(jnp.asarray(positive_definite(3, 2)))
        # Symmetric changes, as of every matrix that this is for.
        symmetric = jax.jit(lambda m: inverse((m + jnp.swapaxes(m, 0, 1)) / 2))
        check_grads(symmetric, (matrices,), order=2, modes=("fwd", "rev"))


def test_a_matrix_that_rounding_made_singular_gives_numbers() -> None:
    found, log_det = inverse(jnp.zeros((2, 2, 1)))
    assert np.isfinite(log_det).all()
    assert not np.isnan(found).any()
