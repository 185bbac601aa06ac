"""Algebra of many small matrices at once: products, inverses and determinants, the batch standing last.

    A^-1 and log |A| of a positive definite A by the sweep of every diagonal element,
    A  <-  A - a_k a_k^T / a_kk,   its row and column k  <-  a_k / a_kk,   a_kk  <-  -1 / a_kk;      k = 1 ... n

A library's routine is called once for each matrix, which takes tens of times as long as the arithmetic of a few
latents; here every element of all matrices is one long vector. Source: Goodnight (1979), the sweep operator.
"""

from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# From here on a matrix is work enough for a routine of its own.
_LARGE = 17
_SMALLEST_PIVOT = 1e-30


def product(
    a: Float[Array, "row inner *left"], b: Float[Array, "inner column *right"]
) -> Float[Array, "row column *n"]:
    """A B of every pair of matrices; batch axes, as many on either side, broadcast."""
    return reduce(jnp.add, (a[:, j, None] * b[None, j] for j in range(a.shape[1])))


def applied(a: Float[Array, "row inner *left"], x: Float[Array, "inner *right"]) -> Float[Array, "row *n"]:
    """A x of every matrix and its vector; batch axes, as many on either side, broadcast."""
    return reduce(jnp.add, (a[:, j] * x[None, j] for j in range(a.shape[1])))


@jax.custom_jvp
def inverse(matrix: Float[Array, "size size *n"]) -> tuple[Float[Array, "size size *n"], Float[Array, "*n"]]:
    """A^-1 and log |A| of symmetric positive definite matrices."""
    size = matrix.shape[0]
    if size >= _LARGE:
        stack = batch_first(matrix)
        return batch_last(jnp.linalg.inv(stack)), jnp.linalg.slogdet(stack)[1]
    numbers = jnp.arange(size).reshape(size, *(1 for _ in matrix.shape[2:]))

    def sweep(k: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        matrix, log_det = carry
        row, here = lax.dynamic_index_in_dim(matrix, k, keepdims=False), numbers == k
        # Rounding may leave nothing of the last pivots of a matrix that is nearly singular.
        pivot = jnp.maximum(lax.dynamic_index_in_dim(row, k, keepdims=False), _SMALLEST_PIVOT)
        root = lax.rsqrt(pivot)
        row = row * root
        matrix = matrix - row[:, None] * row[None]  # of one vector, so that symmetric stays symmetric to the bit
        row = jnp.where(here, -1.0 / pivot, row * root)
        matrix = jnp.where(here[:, None], row[None], jnp.where(here[None], row[:, None], matrix))
        return matrix, log_det + jnp.log(pivot)

    # A loop, as compiling takes long where every element is written out, and running does not.
    matrix, log_det = lax.fori_loop(0, size, sweep, (matrix, jnp.zeros(matrix.shape[2:], matrix.dtype)))
    return -matrix, log_det


@inverse.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    found, log_det = inverse(*primals)
    (change,) = tangents
    return (found, log_det), (-product(product(found, change), found), (found * change).sum((0, 1)))


def batch_last(stack: Float[Array, "*batch row column"]) -> Float[Array, "row column *batch"]:
    """The same matrices with the batch axes behind."""
    return jnp.moveaxis(stack, (-2, -1), (0, 1))


def batch_first(stack: Float[Array, "row column *batch"]) -> Float[Array, "*batch row column"]:
    """The same matrices with the batch axes in front."""
    return jnp.moveaxis(stack, (0, 1), (-2, -1))
