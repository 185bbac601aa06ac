"""Algebra of many small matrices at once: products, inverses and determinants, the batch standing last.

    A^-1 and log |A| of a positive definite A by the sweep of every diagonal element,
    A  <-  A - a_k a_k^T / a_kk,   its row and column k  <-  a_k / a_kk,   a_kk  <-  -1 / a_kk;      k = 1 ... n

A library's routine is called once for each matrix, which takes tens of times as long as the arithmetic of a few
latents, and as long as that of some forty. Inside loops over bins with 24 latents it did not come to an end on a CPU.
Here every element of all matrices is one long vector. Source: Goodnight (1979), the sweep operator.
"""

from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_SMALLEST_PIVOT = 1e-30


def product(
    a: Float[Array, "row inner *left"], b: Float[Array, "inner column *right"]
) -> Float[Array, "row column *n"]:
    """A B of every pair of matrices; batch axes, as many on either side, broadcast."""
    return reduce(jnp.add, (a[:, j, None] * b[None, j] for j in range(a.shape[1])))


def congruence(a: Float[Array, "size size *left"], c: Float[Array, "size size *right"]) -> Float[Array, "size size *n"]:
    """A C A^T of every pair of matrices; batch axes, as many on either side, broadcast."""
    # A C^T, then A (A C^T)^T: as a loop, since products in a row are fused, and the inner one is then made anew for
    # each element of the outer one.
    start = jnp.broadcast_to(c, (*c.shape[:2], *jnp.broadcast_shapes(a.shape[2:], c.shape[2:])))
    return lax.fori_loop(0, 2, lambda _, made: product(a, jnp.swapaxes(made, 0, 1)), start)


def applied(a: Float[Array, "row inner *left"], x: Float[Array, "inner *right"]) -> Float[Array, "row *n"]:
    """A x of every matrix and its vector; batch axes, as many on either side, broadcast."""
    return reduce(jnp.add, (a[:, j] * x[None, j] for j in range(a.shape[1])))


@jax.custom_jvp
def inverse(matrix: Float[Array, "size size *n"]) -> tuple[Float[Array, "size size *n"], Float[Array, "*n"]]:
    """A^-1 and log |A| of symmetric positive definite matrices."""
    size = matrix.shape[0]
    batch = matrix.shape[2:]

    def sweep(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        matrix, log_det = carry
        # Rounding may leave nothing of the last pivots of a matrix that is nearly singular.
        pivot = jnp.maximum(matrix[0, 0], _SMALLEST_PIVOT)
        root = lax.rsqrt(pivot)
        row = matrix[0, 1:] * root
        rest = matrix[1:, 1:] - row[:, None] * row[None]  # of one vector, so that symmetric stays symmetric to the bit
        row = row * root
        above = jnp.concatenate([rest, row[:, None]], axis=1)
        return jnp.concatenate([above, jnp.append(row, -1.0 / pivot[None], axis=0)[None]]), log_det + jnp.log(pivot)

    # A loop, as compiling takes long where every element is written out. Swept rows go to the end, so that the next one
    # is always the first: a row that is looked up by its number is read element by element, at a tenth of the speed.
    flat = matrix.reshape(size, size, -1)
    flat, log_det = lax.fori_loop(0, size, sweep, (flat, jnp.zeros(flat.shape[2:], matrix.dtype)))
    return -flat.reshape(matrix.shape), log_det.reshape(batch)


@inverse.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    found, log_det = inverse(*primals)
    (change,) = tangents
    return (found, log_det), (-congruence(found, change), (found * change).sum((0, 1)))


def batch_last(stack: Float[Array, "*batch row column"]) -> Float[Array, "row column *batch"]:
    """The same matrices with the batch axes behind."""
    return jnp.moveaxis(stack, (-2, -1), (0, 1))


def batch_first(stack: Float[Array, "row column *batch"]) -> Float[Array, "*batch row column"]:
    """The same matrices with the batch axes in front."""
    return jnp.moveaxis(stack, (0, 1), (-2, -1))
