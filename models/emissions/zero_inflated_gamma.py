"""Zero-inflated gamma signals, for calcium events that were deconvolved: zeros, and positive values that are skewed.

    y = 0 with probability 1 - q,    y ~ Gamma(shape k, mean s l / q) with probability q
    q = 1 - exp(-l),    l = rate(eta),    E y = s l

Events come at the rate l and add s each; a bin without any shows zero. The size s and the shape k of each neuron are
learned. Source: Wei et al., "A zero-inflated gamma model for deconvolved calcium imaging traces", Neurons, Behavior,
Data analysis, and Theory 2020. There q and the mean of the gamma are two functions of what drives a neuron, and the
gamma begins at the smallest event; here one readout gives both, and the gamma begins at zero.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import random
from jaxtyping import Array, Bool, Float
from numpyro.distributions import constraints

from mrsds_ppl.data.signals import Refused
from mrsds_ppl.models.emissions.rate import Rate
from mrsds_ppl.models.protocols import LawStart
from mrsds_ppl.statespace.principal_components import Components

# Where a neuron was never at zero, or always but once, the rate of its events is not known any better.
_SMALLEST_SHARE = 1e-3
_SMALLEST_SHAPE, _LARGEST_SHAPE = 0.3, 10.0
_NEGATIVE = Refused(
    "a negative value",
    lambda y: y < 0,
    "Zero-inflated gamma emissions need deconvolved events, zero or positive; for dF/F and other signals use gaussian.",
)


class ZeroInflatedGamma(eqx.Module):
    """Zero with probability exp(-l), l = rate(eta), otherwise gamma; ``final_activation`` names the rate function."""

    log_size: Float[Array, " neuron"]
    log_shape: Float[Array, " neuron"]
    rate: Rate = eqx.field(static=True)
    counts: ClassVar[bool] = False
    refused: ClassVar[tuple[Refused, ...]] = (_NEGATIVE,)

    def __init__(
        self, num_neurons: int, *, final_activation: str | None, triangular: bool = False, trainable: bool = True
    ) -> None:
        """Neurons are independent given the latents, so the last two choices do not apply."""
        self.rate = Rate(final_activation or "softplus")
        self.log_size, self.log_shape = jnp.zeros(num_neurons), jnp.zeros(num_neurons)

    @property
    def size(self) -> Float[Array, " neuron"]:
        """s: expected signal of one event."""
        return jnp.exp(self.log_size)

    @property
    def shape(self) -> Float[Array, " neuron"]:
        """k."""
        return jnp.exp(self.log_shape)

    def parameters(self) -> dict[str, Float[Array, " neuron"]]:
        """s, the size of an event, and k, the shape of the gamma."""
        return {"event_size": self.size, "gamma_shape": self.shape}

    def mean(self, eta: Float[Array, "*batch neuron"]) -> Float[Array, "*batch neuron"]:
        """Expected signal, s l."""
        return self.size * self.rate(eta)

    def information(self, mean: Float[Array, "*batch neuron"]) -> Float[Array, "*batch neuron"]:
        """Of whether there is an event, q'^2 / (q (1 - q)), and of how large it is, q k (g' / g)^2 with g = s l / q."""
        events = mean / self.size
        none, some = jnp.exp(-events), -jnp.expm1(-events)
        return none / (some * self.size**2) + self.shape * (some - events * none) ** 2 / (some * mean**2)

    def distribution(
        self, eta: Float[Array, "trial bin neuron"], observed: Bool[Array, "trial bin neuron"]
    ) -> dist.Distribution:
        """p(y | eta) over the observed entries."""
        return EventsAndZeros(self.rate(eta), self.size, self.shape).mask(observed).to_event(2)

    def draw(
        self, rng: np.random.Generator, mean: Float[np.ndarray, "*batch neuron"]
    ) -> Float[np.ndarray, "*batch neuron"]:
        """Signals."""
        shape, some = np.asarray(self.shape, float), -np.expm1(-mean / np.asarray(self.size, mean.dtype))
        drawn = rng.gamma(shape, 1.0 / shape, mean.shape) * mean / some
        return np.where(rng.random(mean.shape) < some, drawn, 0.0 * mean).astype(mean.dtype)

    def at_components(self, found: Components) -> LawStart:
        """The principal components of signals; s by the share of zeros, and k by what the components leave."""
        some = np.clip(1.0 - found.zeros, _SMALLEST_SHARE, 1.0 - _SMALLEST_SHARE)
        events, mean = -np.log1p(-some), np.maximum(found.center, 1e-12)
        size = mean / events
        # The variance is (s l)^2 ((1 + 1 / k) / q - 1).
        shape = 1.0 / np.maximum(some * (1.0 + found.residual / mean**2) - 1.0, 1.0 / _LARGEST_SHAPE)
        values = (np.log(size), np.log(np.maximum(shape, _SMALLEST_SHAPE)))
        kind = self.log_size.dtype
        law = eqx.tree_at(
            lambda law: (law.log_size, law.log_shape), self, tuple(jnp.asarray(value, kind) for value in values)
        )
        return LawStart(law, *self.rate.inverse(events, found.loadings / size[:, None]))

    def with_residual(self, square: Float[Array, " neuron"]) -> "ZeroInflatedGamma":
        """Itself: what squared residuals say of k depends on the mean of each bin."""
        return self


class EventsAndZeros(dist.Distribution):
    """Zero with probability exp(-l), otherwise Gamma(shape k, mean s l / (1 - exp(-l))); density by that and the zeros.

    Args:
        events: l.
        size: s.
        shape: k; all broadcast.
    """

    support = constraints.nonnegative
    reparametrized_params: list[str] = []  # noqa: RUF012 - the name and type are numpyro's

    def __init__(self, events: Array, size: Array, shape: Array) -> None:
        self.events, self.size, self.shape_ = jnp.broadcast_arrays(events, size, shape)
        super().__init__(self.events.shape, validate_args=False)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        some_key, size_key = random.split(key)
        shape, some = (*sample_shape, *self.batch_shape), -jnp.expm1(-self.events)
        drawn = random.gamma(size_key, self.shape_, shape) / self.shape_ * self.size * self.events / some
        return jnp.where(random.uniform(some_key, shape) < some, drawn, 0.0)

    def log_prob(self, value: Array, intermediates: None = None) -> Array:
        some, positive, k = -jnp.expm1(-self.events), value > 0, self.shape_
        # Where there is no event its size is 1, which keeps the slope of what is not chosen finite.
        relative = jnp.where(positive, value, 1.0) * some / (self.size * self.events)
        size = k * jnp.log(k * relative) - k * relative - jax.lax.lgamma(k)
        return jnp.where(positive, jnp.log(some) + size - jnp.log(jnp.where(positive, value, 1.0)), -self.events)
