"""Trainable covariances by their Cholesky factor, diagonal or full."""

from types import ModuleType
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array, Float

_FLOOR = 1e-4
# What comes from the host stays there.
AnyArray = TypeVar("AnyArray", Array, np.ndarray)


class Covariance(eqx.Module):
    """L L^T with L lower triangular, diagonal softplus(raw) + 1e-4, and strictly lower part free (or zero).

    Args:
        size: dimension, or leading axes and dimension.
        scale: initial standard deviation.
        triangular: whether L has a lower part, that is, whether the covariance is full.
        trainable: whether gradients flow; otherwise it stays as set.
    """

    raw_diagonal: Float[Array, "*stack size"]
    lower: Float[Array, "*stack size size"] | None
    trainable: bool = eqx.field(static=True)

    def __init__(
        self, size: tuple[int, ...], scale: float | Array | np.ndarray, *, triangular: bool, trainable: bool
    ) -> None:
        raw = inverse_softplus(np.broadcast_to(np.asarray(scale, dtype=float), size))
        self.raw_diagonal = jnp.asarray(raw, jax.dtypes.canonicalize_dtype(float))
        self.lower = jnp.zeros((*size, size[-1])) if triangular else None
        self.trainable = trainable

    @property
    def scale(self) -> Float[Array, "*stack size"]:
        """Diagonal of L."""
        raw = self.raw_diagonal if self.trainable else lax.stop_gradient(self.raw_diagonal)
        return jax.nn.softplus(raw) + _FLOOR

    @property
    def cholesky(self) -> Float[Array, "*stack size size"]:
        """L itself."""
        diagonal = self.scale[..., None] * jnp.eye(self.scale.shape[-1])
        if self.lower is None:
            return diagonal
        lower = self.lower if self.trainable else lax.stop_gradient(self.lower)
        return diagonal + jnp.tril(lower, -1)

    def scaled(self, factor: float | Float[Array, ""] | Float[Array, " size"]) -> "Covariance":
        """The same with L, or each of its rows, times ``factor``."""
        scaled = eqx.tree_at(lambda n: n.raw_diagonal, self, inverse_softplus(self.scale * factor))
        rows = jnp.asarray(factor)[..., None]
        return scaled if self.lower is None else eqx.tree_at(lambda n: n.lower, scaled, self.lower * rows)

    def around(self, mean: Float[Array, "*batch size"]) -> dist.Distribution:
        """N(mean, L L^T), for one covariance without leading axes."""
        if self.lower is None:
            return dist.Normal(mean, self.scale).to_event(1)
        return dist.MultivariateNormal(mean, scale_tril=self.cholesky)


def inverse_softplus(scale: AnyArray) -> AnyArray:
    """raw such that softplus(raw) + 1e-4 = scale, elementwise."""
    # On the host where it can be: at the start of a program every small operation of JAX is one to compile.
    numpy: ModuleType = np if isinstance(scale, np.ndarray) else jnp
    positive = numpy.maximum(scale - _FLOOR, _FLOOR)
    return positive + numpy.log(-numpy.expm1(-positive))
