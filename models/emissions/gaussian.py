"""Gaussian signals, y ~ N(eta, S)."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax, random
from jaxtyping import Array, Bool, Float
from numpyro.distributions import constraints

from mrsds_ppl.data.signals import Refused
from mrsds_ppl.models.covariance import Covariance, inverse_softplus
from mrsds_ppl.models.protocols import LawStart
from mrsds_ppl.nn.activations import ACTIVATIONS
from mrsds_ppl.statespace.principal_components import Components


class Gaussian(eqx.Module):
    """y ~ N(eta, S): S diagonal, or full over all neurons of this law (``triangular``)."""

    noise: Covariance
    final_activation: str | None = eqx.field(static=True)
    counts: ClassVar[bool] = False
    refused: ClassVar[tuple[Refused, ...]] = ()

    def __init__(self, num_neurons: int, *, final_activation: str | None, triangular: bool, trainable: bool) -> None:
        self.final_activation = final_activation
        self.noise = Covariance((num_neurons,), 1.0, triangular=triangular, trainable=trainable)

    def parameters(self) -> dict[str, Float[Array, " neuron"]]:
        """Standard deviation of each neuron's signal around its mean."""
        return {"noise_scale": jnp.sqrt((self.noise.cholesky**2).sum(-1))}

    def mean(self, eta: Float[Array, "*batch neuron"]) -> Float[Array, "*batch neuron"]:
        """Expected signal: the readout's number, or a function of it."""
        return ACTIVATIONS[self.final_activation](eta)

    def information(self, mean: Float[Array, "*batch neuron"]) -> Float[Array, "*batch neuron"]:
        """1 / variance of each neuron's signal."""
        return jnp.broadcast_to(1.0 / (self.noise.cholesky**2).sum(-1), mean.shape)

    def distribution(
        self, eta: Float[Array, "trial bin neuron"], observed: Bool[Array, "trial bin neuron"]
    ) -> dist.Distribution:
        """p(y | eta) over the observed entries."""
        if self.noise.lower is None:
            return dist.Normal(self.mean(eta), self.noise.scale).mask(observed).to_event(2)
        return PartlyObservedNormal(self.mean(eta), self.noise.cholesky, observed)

    def draw(
        self, rng: np.random.Generator, mean: Float[np.ndarray, "*batch neuron"]
    ) -> Float[np.ndarray, "*batch neuron"]:
        """Signals."""
        noise = rng.standard_normal(mean.shape, np.float32).astype(mean.dtype)
        return mean + noise @ np.asarray(self.noise.cholesky, mean.dtype).T

    def at_components(self, found: Components) -> LawStart:
        """The principal components of signals; S is what they leave."""
        start = Covariance(
            self.noise.raw_diagonal.shape, np.sqrt(found.residual), triangular=False, trainable=self.noise.trainable
        )
        law = eqx.tree_at(lambda e: e.noise.raw_diagonal, self, start.raw_diagonal.astype(jnp.float32))
        return LawStart(law, found.center, found.loadings)

    def with_residual(self, square: Float[Array, " neuron"]) -> "Gaussian":
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
