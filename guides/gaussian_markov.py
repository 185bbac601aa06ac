"""Gaussian Markov guide, the default: q(x) is a Gaussian chain with block-tridiagonal precision.

    x_t - m_t = A_t (x_{t-1} - m_{t-1}) + L_t eps_t,    eps_t ~ N(0, I),    m_t, A_t, L_t from the encoder

It has the exact temporal covariance of a linear-Gaussian posterior, at O(T D^2) a draw; its density needs no solve,
since the draw knows its own eps.
"""

from collections.abc import Callable, Sequence
from typing import Unpack

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array, Float

from mrsds_ppl.data.batch import Batch
from mrsds_ppl.guides.base import AmortizedGuide, AmortizedOptions, lower_triangle, padding, positive
from mrsds_ppl.models.mrsds import Networks
from mrsds_ppl.models.program import Program
from mrsds_ppl.ppl.gaussian_chain import GaussianChain


class GaussianMarkov(AmortizedGuide):
    """Gaussian chain guide; ``triangular`` (the default here) makes L_t full, which an exact posterior needs."""

    def __init__(self, model: Program, **kwargs: Unpack[AmortizedOptions]) -> None:
        kwargs.setdefault("triangular", True)
        super().__init__(model, **kwargs)

    def head_sizes(self) -> Sequence[int]:
        latents = self.model.num_latents
        return (latents, latents, latents**2, latents * (latents - 1) // 2)

    def law(self, outputs: list[Array], batch: Batch, networks: Callable[[], Networks]) -> dist.Distribution:
        latents, pad = self.num_latents, padding(batch)
        mean, raw_scale, gains, lower = outputs
        scale = jnp.where(pad, 1.0, positive(raw_scale))
        cholesky = scale[..., None] * jnp.eye(latents, dtype=mean.dtype)
        if self.triangular:
            cholesky = cholesky + jnp.where(pad[..., None], 0.0, lower_triangle(lower, latents))
        if not self.trainable_covariance:
            cholesky = lax.stop_gradient(cholesky)
        gain = jnp.where(pad[..., None], 0.0, bounded(gains).reshape(*gains.shape[:-1], latents, latents))
        return GaussianChain(jnp.where(pad, 0.0, mean), gain, cholesky)


def bounded(gains: Float[Array, "*batch entry"]) -> Float[Array, "*batch entry"]:
    """Gains shrunk smoothly to a root mean square eigenvalue below 1.2, so that no step of training can blow up a path.

    A -> A / sqrt(1 + |A|_F^2 / (1.2^2 D)); a posterior of stable dynamics has gains below 1.
    """
    latents = gains.shape[-1] ** 0.5
    return gains * lax.rsqrt(1.0 + (gains**2).sum(-1, keepdims=True) / (1.44 * latents))
