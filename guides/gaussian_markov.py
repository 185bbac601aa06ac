"""Gaussian Markov guide, the default: q(x) is a Gaussian chain with block-tridiagonal precision.

    x_t - m_t = A_t (x_{t-1} - m_{t-1}) + L_t eps_t,    eps_t ~ N(0, I),    m_t, A_t, L_t from the encoder

It has the exact temporal covariance of a linear-Gaussian posterior, at O(T D^2) a draw; its density needs no solve,
since the draw knows its own eps.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax, random
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.guides.base import AmortizedGuide, lower_triangle, padding, positive
from mrsds_ppl.models.mrsds import Networks


class GaussianMarkov(AmortizedGuide):
    """Gaussian chain guide; ``triangular`` (the default here) makes L_t full, which an exact posterior needs."""

    def __init__(self, model: Any, *, triangular: bool = True, **kwargs: Any) -> None:
        super().__init__(model, triangular=triangular, **kwargs)

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


class GaussianChain(dist.Distribution):
    """Law of x_t = m_t + A_t (x_{t-1} - m_{t-1}) + L_t eps_t; batch (trial,), event (bin, latent).

    Args:
        mean: m_t.
        gain: A_t; that of the first bin is not used.
        cholesky: L_t, lower triangular with positive diagonal.
    """

    support = constraints.independent(constraints.real, 2)
    reparametrized_params = ["mean", "gain", "cholesky"]  # noqa: RUF012 - the name and type are numpyro's
    has_rsample = True

    def __init__(
        self,
        mean: Float[Array, "trial bin latent"],
        gain: Float[Array, "trial bin latent latent"],
        cholesky: Float[Array, "trial bin latent latent"],
    ) -> None:
        self.mean_, self.gain, self.cholesky = mean, gain, cholesky
        super().__init__(mean.shape[:1], mean.shape[1:], validate_args=False)

    @property
    def mean(self) -> Float[Array, "trial bin latent"]:
        return self.mean_

    @property
    def covariances(self) -> Float[Array, "trial bin latent latent"]:
        """Cov(x_t) of each bin: P_t = A_t P_{t-1} A_t^T + L_t L_t^T."""

        def step(previous: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
            gain, cholesky = now
            current = gain @ previous @ jnp.swapaxes(gain, -1, -2) + cholesky @ jnp.swapaxes(cholesky, -1, -2)
            return current, current

        first = jnp.zeros((self.gain.shape[0], *self.gain.shape[2:]), self.gain.dtype)
        _, all_bins = lax.scan(step, first, (jnp.moveaxis(self.gain, 1, 0), jnp.moveaxis(self.cholesky, 1, 0)))
        return jnp.moveaxis(all_bins, 0, 1)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Float[Array, "*sample trial bin latent"]:
        return self.sample_with_intermediates(key, sample_shape)[0]

    def sample_with_intermediates(self, key: Array, sample_shape: tuple[int, ...] = ()) -> tuple[Array, list[Array]]:
        eps = random.normal(key, (*sample_shape, *self.batch_shape, *self.event_shape), self.mean_.dtype)
        noise = (self.cholesky * eps[..., None, :]).sum(-1)
        # Trials stand last in the recursion, so that its small sums run along the long axis.
        steps = jnp.moveaxis(noise, (-3, -2, -1), (-1, 0, 1))
        gains = jnp.transpose(self.gain, (1, 2, 3, 0))

        def step(previous: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
            gain, innovation = now
            current = (
                (gain.swapaxes(0, 1) * jnp.expand_dims(previous, 1)).sum(0)
                if previous.ndim == 2
                else (jnp.einsum("ijb,j...b->i...b", gain, previous))
            )
            current = current + innovation
            return current, current

        _, path = lax.scan(step, jnp.zeros_like(steps[0]), (gains, steps))
        return self.mean_ + jnp.moveaxis(path, (0, 1, -1), (-2, -1, -3)), [eps]

    def log_prob(
        self, value: Float[Array, "*sample trial bin latent"], intermediates: list[Array] | None = None
    ) -> Float[Array, "*sample trial"]:
        if intermediates:
            eps = intermediates[0]
        else:
            deviation = value - self.mean_
            before = jnp.concatenate([jnp.zeros_like(deviation[..., :1, :]), deviation[..., :-1, :]], axis=-2)
            innovation = deviation - (self.gain * before[..., None, :]).sum(-1)
            factor = jnp.broadcast_to(self.cholesky, (*innovation.shape, innovation.shape[-1]))
            eps = jax.scipy.linalg.solve_triangular(factor, innovation[..., None], lower=True)[..., 0]
        log_det = jnp.log(jnp.diagonal(self.cholesky, axis1=-2, axis2=-1)).sum(-1)
        per_bin = -0.5 * (eps**2).sum(-1) - 0.5 * eps.shape[-1] * jnp.log(2 * jnp.pi) - log_det
        return per_bin.sum(-1)
