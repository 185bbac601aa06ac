"""Gaussian emissions, y_t^r ~ N(C_r(x_t^r), S_r)."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax, random
from jaxtyping import Array, Bool, Float
from numpyro.distributions import constraints

from mrsds_ppl.models.covariance import Covariance, inverse_softplus
from mrsds_ppl.models.readout import Readout
from mrsds_ppl.nn.activations import ACTIVATIONS
from mrsds_ppl.statespace.principal_components import Components


class GaussianEmissions(eqx.Module):
    """y ~ N(C(x), S): S diagonal, or full over all recorded neurons (``triangular``)."""

    readout: Readout
    noise: Covariance
    final_activation: str | None = eqx.field(static=True)
    counts: ClassVar[bool] = False

    def __init__(self, readout: Readout, *, final_activation: str | None, triangular: bool, trainable: bool) -> None:
        self.readout, self.final_activation = readout, final_activation
        self.noise = Covariance((sum(readout.region_sizes),), 1.0, triangular=triangular, trainable=trainable)

    def inverse_link(self, eta: Float[Array, "*batch neuron"]) -> Float[Array, "*batch neuron"]:
        """Expected signal for a readout."""
        return ACTIVATIONS[self.final_activation](eta)

    def activity(self, x: Float[Array, "*batch latent"]) -> Float[Array, "*batch neuron"]:
        """Expected signal of each neuron."""
        return self.inverse_link(self.readout(x))

    def variance_of(self, activity: Float[Array, "*batch neuron"]) -> Float[Array, "*batch neuron"]:
        """Variance of each neuron's signal."""
        return jnp.broadcast_to((self.noise.cholesky**2).sum(-1), activity.shape)

    def law(self, x: Float[Array, "trial bin latent"], observed: Bool[Array, "trial bin neuron"]) -> dist.Distribution:
        """p(y | x) over the observed entries."""
        if self.noise.lower is None:
            return dist.Normal(self.activity(x), self.noise.scale).mask(observed).to_event(2)
        return PartlyObservedNormal(self.activity(x), self.noise.cholesky, observed)

    def draw(
        self, rng: np.random.Generator, activity: Float[np.ndarray, "*batch neuron"]
    ) -> Float[np.ndarray, "*batch neuron"]:
        """Signals of every neuron."""
        noise = rng.standard_normal(activity.shape, np.float32).astype(activity.dtype)
        return activity + noise @ np.asarray(self.noise.cholesky, activity.dtype).T

    def at_components(self, found: Components) -> "GaussianEmissions":
        """The principal components of signals as a start; S is what they leave."""
        start = Covariance(
            self.noise.raw_diagonal.shape, np.sqrt(found.residual), triangular=False, trainable=self.noise.trainable
        )
        return eqx.tree_at(
            lambda e: (e.readout, e.noise.raw_diagonal),
            self,
            (self.readout.with_affine(found.center, found.loadings), start.raw_diagonal.astype(jnp.float32)),
        )

    def with_residual(self, square: Float[Array, " neuron"]) -> "GaussianEmissions":
        """S of these mean squared residuals, where it is trained."""
        if not self.noise.trainable:
            return self
        raw = inverse_softplus(jnp.sqrt(jnp.maximum(square, 1e-6)))
        return eqx.tree_at(lambda e: e.noise.raw_diagonal, self, raw)


class PartlyObservedNormal(dist.Distribution):
    """N(mean, L L^T) over the neurons of each bin, marginal over those not observed: event (bin, neuron).

    With O the diagonal indicator of observed neurons, S_O = O S O + (I - O) has the determinant of the observed block
    and leaves the others out of the quadratic form.
    """

    support = constraints.independent(constraints.real, 2)
    reparametrized_params: list[str] = []  # noqa: RUF012 - the name and type are numpyro's

    def __init__(self, mean: Array, cholesky: Array, observed: Array) -> None:
        self.mean_, self.cholesky, self.observed = mean, cholesky, observed
        super().__init__(mean.shape[:-2], mean.shape[-2:], validate_args=False)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        noise = random.normal(key, (*sample_shape, *self.mean_.shape), self.mean_.dtype)
        return self.mean_ + noise @ self.cholesky.T

    def log_prob(self, value: Array, intermediates: None = None) -> Array:
        residual = jnp.where(self.observed, value - self.mean_, 0.0)

        def whole(_: None) -> Array:
            scaled = jax.scipy.linalg.solve_triangular(
                self.cholesky, residual.reshape(-1, residual.shape[-1]).T, lower=True
            )
            half_log_det = jnp.log(jnp.diagonal(self.cholesky)).sum()
            counted = self.observed.any(-1)
            return -0.5 * (scaled**2).sum(0).reshape(counted.shape) - half_log_det * counted

        def partial(_: None) -> Array:
            seen = self.observed.astype(residual.dtype)
            full = self.cholesky @ self.cholesky.T
            block = full * seen[..., :, None] * seen[..., None, :] + jnp.eye(full.shape[0]) * (1.0 - seen)[..., None]
            factor = jnp.linalg.cholesky(block)
            scaled = jax.scipy.linalg.solve_triangular(factor, residual[..., None], lower=True)[..., 0]
            return -0.5 * (scaled**2).sum(-1) - jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)

        # Factorising once is a thousand times cheaper; it holds whenever bins are observed whole or not at all.
        all_or_none = (self.observed.all(-1) | ~self.observed.any(-1)).all()
        per_bin = lax.cond(all_or_none, whole, partial, None)
        return (per_bin - 0.5 * jnp.log(2 * jnp.pi) * self.observed.sum(-1)).sum(-1)
