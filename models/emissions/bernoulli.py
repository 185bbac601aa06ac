"""Bernoulli spikes, y ~ Bernoulli(sigmoid(eta)): bins of at most one."""

from typing import ClassVar

import equinox as eqx
import jax
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, Int

from mrsds_ppl.data.signals import NOT_COUNTS, Refused
from mrsds_ppl.errors import ConfigError
from mrsds_ppl.models.protocols import LawStart
from mrsds_ppl.statespace.principal_components import Components

_FLOOR = 1e-6
_SMALLEST_START = 1e-3
_SEVERAL = Refused(
    "a count above one",
    lambda y: y > 1,
    "Bernoulli emissions need bins of at most one spike; use narrower bins, or poisson.",
)


class Bernoulli(eqx.Module):
    """y = 1 with probability sigmoid(eta), otherwise 0."""

    counts: ClassVar[bool] = True
    refused: ClassVar[tuple[Refused, ...]] = (*NOT_COUNTS, _SEVERAL)

    def __init__(
        self, num_neurons: int, *, final_activation: str | None = None, triangular: bool = False, trainable: bool = True
    ) -> None:
        """Nothing of this law is learned, so the last two choices do not apply.

        Raises:
            ConfigError: a final activation, which would be no probability.
        """
        if final_activation is not None:
            raise ConfigError(
                f"model.emissions.final_activation: found {final_activation} with bernoulli, whose probability of a "
                "spike is the sigmoid of the readout; allowed: none"
            )

    def parameters(self) -> dict[str, Float[Array, " neuron"]]:
        """Nothing: all follows from the probability."""
        return {}

    def mean(self, eta: Float[Array, "*batch neuron"]) -> Float[Array, "*batch neuron"]:
        """Probability of a spike, at least 1e-6 from 0 and 1."""
        return _FLOOR + (1 - 2 * _FLOOR) * jax.nn.sigmoid(eta)

    def information(self, mean: Float[Array, "*batch neuron"]) -> Float[Array, "*batch neuron"]:
        """1 / (p (1 - p))."""
        return 1.0 / (mean * (1.0 - mean))

    def distribution(
        self, eta: Float[Array, "trial bin neuron"], observed: Bool[Array, "trial bin neuron"]
    ) -> dist.Distribution:
        """p(y | eta) over the observed entries."""
        return dist.BernoulliLogits(eta).mask(observed).to_event(2)

    def draw(
        self, rng: np.random.Generator, mean: Float[np.ndarray, "*batch neuron"]
    ) -> Int[np.ndarray, "*batch neuron"]:
        """Spikes; -1 where the probability is not a number."""
        spikes = rng.random(mean.shape) < mean
        return np.where(np.isnan(mean), -1, spikes).astype(np.int32)

    def at_components(self, found: Components) -> LawStart:
        """The principal components of spikes, through the sigmoid to first order."""
        p = np.clip(found.center, _SMALLEST_START, 1 - _SMALLEST_START)
        return LawStart(self, np.log(p) - np.log1p(-p), found.loadings / (p * (1 - p))[:, None])

    def with_residual(self, square: Float[Array, " neuron"]) -> "Bernoulli":
        """Itself: the variance of a spike follows from its probability."""
        return self
