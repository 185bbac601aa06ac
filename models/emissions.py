"""Emissions: what the neurons of region r show of its latents, y_t^r | x_t^r.

    Gaussian    y ~ N(C_r(x^r), S_r)
    Poisson     y ~ Poisson(rate(C_r(x^r))), rate = softplus or exp

C_r is affine, or a perceptron per region. A missing entry of y scores nothing. A new kind of emission is one class with
``activity`` and ``law`` here and one line in :data:`EMISSIONS`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax, random
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from numpyro.distributions import constraints

from mrsds_ppl.models.covariance import Covariance
from mrsds_ppl.nn import draws
from mrsds_ppl.nn.activations import ACTIVATIONS
from mrsds_ppl.nn.stacked import StackedMLP

_LARGEST_COUNT = 1e9  # that 32 bits hold with room for chance


@runtime_checkable
class Emissions(Protocol):
    """What the program asks of an emission."""

    @property
    def readout(self) -> "Readout": ...

    @property
    def final_activation(self) -> str | None: ...

    def activity(self, x: Array) -> Array:
        """Expected y given x: (*batch, latent) -> (*batch, neuron)."""
        ...

    def variance_of(self, activity: Array) -> Array:
        """Variance of each y for an expected y, both (*batch, neuron)."""
        ...

    def law(self, x: Array, observed: Array) -> dist.Distribution:
        """p(y | x) of whole trials: batch (trial,), event (bin, neuron)."""
        ...

    def draw(self, rng: np.random.Generator, activity: np.ndarray) -> np.ndarray:
        """Signals with an expected y, both (*batch, neuron), drawn on the host."""
        ...


class Readout(eqx.Module):
    """C_r for all regions at once: each neuron sees the latents of its own region alone.

    Args:
        region_sizes: neurons of each region.
        latent_sizes: latents of each region; a single pooled latent has one entry and is seen by all neurons.
        layers, activations: hidden layers of each region's perceptron; empty for an affine map.
        key: random key.
    """

    hidden: StackedMLP | None
    weight: Float[Array, "neuron feature"]
    bias: Float[Array, " neuron"]
    region_sizes: tuple[int, ...] = eqx.field(static=True)
    latent_sizes: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        region_sizes: Sequence[int],
        latent_sizes: Sequence[int],
        layers: Sequence[int],
        activations: Sequence[str | None],
        *,
        key: PRNGKeyArray,
    ) -> None:
        self.region_sizes = tuple(region_sizes)
        self.latent_sizes = tuple(latent_sizes)
        hidden_key, weight_key = draws.split(key, 2)
        self.hidden = None
        if layers:
            sizes = (max(latent_sizes), *layers)
            self.hidden = StackedMLP((len(latent_sizes),), sizes, activations, key=hidden_key)
        features = layers[-1] if layers else max(latent_sizes)
        self.weight = draws.normal(weight_key, (sum(region_sizes), features), 1 / np.sqrt(features))
        self.bias = jnp.zeros(sum(region_sizes))

    def __call__(self, x: Float[Array, "*batch latent"]) -> Float[Array, "*batch neuron"]:
        features = self._by_region(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]))
        if self.hidden is not None:
            features = self.hidden(features)
        regions, _, width = features.shape
        neurons = np.arange(self.weight.shape[0])
        spread = jnp.zeros((regions, width, len(neurons)), x.dtype)
        spread = spread.at[self.owner(), :, neurons].set(self.weight).reshape(regions * width, -1)
        flat = jnp.swapaxes(features, 0, 1).reshape(-1, regions * width)
        return (flat @ spread + self.bias).reshape(*x.shape[:-1], len(neurons))

    def owner(self) -> np.ndarray:
        """Number of the region whose latents each neuron sees."""
        if len(self.latent_sizes) == 1:
            return np.zeros(sum(self.region_sizes), int)
        return np.repeat(np.arange(len(self.region_sizes)), self.region_sizes)

    def _by_region(self, rows: Array) -> Array:
        """(row, latent) -> (region, row, widest), zeros where a region is narrower than the widest."""
        regions, width = len(self.latent_sizes), max(self.latent_sizes)
        if min(self.latent_sizes) != width:
            slots = np.concatenate([r * width + np.arange(size) for r, size in enumerate(self.latent_sizes)])
            rows = jnp.zeros((rows.shape[0], regions * width), rows.dtype).at[:, slots].set(rows)
        return jnp.swapaxes(rows.reshape(-1, regions, width), 0, 1)


class GaussianEmissions(eqx.Module):
    """y ~ N(C(x), S): S diagonal, or full over all recorded neurons (``triangular``)."""

    readout: Readout
    noise: Covariance
    final_activation: str | None = eqx.field(static=True)

    def activity(self, x: Float[Array, "*batch latent"]) -> Float[Array, "*batch neuron"]:
        """Expected signal of each neuron."""
        return ACTIVATIONS[self.final_activation](self.readout(x))

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


class PoissonEmissions(eqx.Module):
    """y ~ Poisson(rate(C(x))) per bin; ``final_activation`` names the rate function, softplus or exp."""

    readout: Readout
    final_activation: str = eqx.field(static=True)

    def activity(self, x: Float[Array, "*batch latent"]) -> Float[Array, "*batch neuron"]:
        """Expected count of each neuron per bin."""
        return ACTIVATIONS[self.final_activation](self.readout(x)) + 1e-6

    def variance_of(self, activity: Float[Array, "*batch neuron"]) -> Float[Array, "*batch neuron"]:
        """Variance of each neuron's count."""
        return activity

    def law(self, x: Float[Array, "trial bin latent"], observed: Bool[Array, "trial bin neuron"]) -> dist.Distribution:
        """p(y | x) over the observed entries."""
        return dist.Poisson(self.activity(x)).mask(observed).to_event(2)

    def draw(
        self, rng: np.random.Generator, activity: Float[np.ndarray, "*batch neuron"]
    ) -> Int[np.ndarray, "*batch neuron"]:
        """Counts of every neuron; -1 where nothing is expected because the expected count is not a number."""
        known = ~np.isnan(activity)
        counts = rng.poisson(np.where(known, np.minimum(activity, _LARGEST_COUNT), 0.0))
        return np.where(known, counts, -1).astype(np.int32)


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


def make_gaussian(
    readout: Readout, *, final_activation: str | None, triangular: bool, trainable: bool
) -> GaussianEmissions:
    """Gaussian emissions with unit initial noise."""
    noise = Covariance((sum(readout.region_sizes),), 1.0, triangular=triangular, trainable=trainable)
    return GaussianEmissions(readout, noise, final_activation)


def make_poisson(
    readout: Readout, *, final_activation: str | None, triangular: bool, trainable: bool
) -> PoissonEmissions:
    """Poisson emissions; counts have no covariance, so the last two choices do not apply."""
    return PoissonEmissions(readout, final_activation or "softplus")


EMISSIONS: dict[str, Callable[..., Emissions]] = {"gaussian": make_gaussian, "poisson": make_poisson}
