"""The law of a Gaussian chain, drawn and scored without solving for anything: O(T D^2) a draw."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax, random
from jaxtyping import Array, Float
from numpyro.distributions import constraints


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
