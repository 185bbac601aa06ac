"""Mean-field guide: independent bins, q(x) = prod_t N(m_t, S_t). Published name ``mrsds``.

Fast and simple, but it leaves out the temporal covariance of x; the fitted Q swallows it and states become hard to tell
apart. Prefer :class:`mrsds_ppl.guides.GaussianMarkov` unless you compare with published runs.
"""

from collections.abc import Callable, Sequence
from typing import Unpack

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array

from mrsds_ppl.data.batch import Batch
from mrsds_ppl.guides.base import AmortizedGuide, AmortizedOptions, lower_triangle, padding, positive
from mrsds_ppl.models.mrsds import Networks
from mrsds_ppl.models.program import Program


class MeanField(AmortizedGuide):
    """q(x) = prod_t N(m_t, S_t), m_t from the encoder.

    Args:
        per_bin: S_t from the encoder; otherwise one S for all bins and trials.
        triangular: S full within a bin; otherwise diagonal.
        (others): see :class:`AmortizedGuide`.
    """

    def __init__(self, model: Program, *, per_bin: bool = True, **kwargs: Unpack[AmortizedOptions]) -> None:
        self.per_bin = per_bin
        self._triangular = kwargs.get("triangular", False)
        super().__init__(model, **kwargs)

    def head_sizes(self) -> Sequence[int]:
        latents = self.model.num_latents
        if not self.per_bin:
            return (latents,)
        return (latents, latents) + ((latents * (latents - 1) // 2,) if self._triangular else ())

    def law(self, outputs: list[Array], batch: Batch, networks: Callable[[], Networks]) -> dist.Distribution:
        latents, pad = self.num_latents, padding(batch)
        scale, lower = self._covariance(outputs, batch)
        if not self.trainable_covariance:
            scale, lower = lax.stop_gradient((scale, lower))
        mean = jnp.where(pad, 0.0, outputs[0])
        scale = jnp.where(pad, 1.0, positive(scale))
        if not self.triangular:
            return dist.Normal(mean, scale).to_event(2)
        cholesky = jnp.where(pad[..., None], 0.0, lower_triangle(lower, latents)) + scale[..., None] * jnp.eye(latents)
        return dist.MultivariateNormal(mean, scale_tril=cholesky).to_event(1)

    def _covariance(self, outputs: list[Array], batch: Batch) -> tuple[Array, Array]:
        latents = self.num_latents
        entries = latents * (latents - 1) // 2
        if self.per_bin:
            return outputs[1], outputs[2] if self.triangular else jnp.zeros((*batch.y.shape[:2], entries))
        shared = numpyro.param("shared_covariance", jnp.zeros(latents + entries))
        both = jnp.broadcast_to(shared, (*batch.y.shape[:2], latents + entries))
        return both[..., :latents], both[..., latents:]
