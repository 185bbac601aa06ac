"""Poisson counts, y ~ Poisson(rate(eta)), rate = softplus or exp."""

from typing import ClassVar

import equinox as eqx
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, Int

from mrsds_ppl.data.signals import NOT_COUNTS, Refused
from mrsds_ppl.models.emissions.rate import Rate, drawn_counts
from mrsds_ppl.models.protocols import LawStart
from mrsds_ppl.statespace.principal_components import Components


class Poisson(eqx.Module):
    """y ~ Poisson(rate(eta)) per bin; ``final_activation`` names the rate function, softplus or exp."""

    rate: Rate = eqx.field(static=True)
    counts: ClassVar[bool] = True
    refused: ClassVar[tuple[Refused, ...]] = NOT_COUNTS

    def __init__(
        self, num_neurons: int, *, final_activation: str | None, triangular: bool = False, trainable: bool = True
    ) -> None:
        """Counts have no covariance, so the last two choices do not apply."""
        self.rate = Rate(final_activation or "softplus")

    def parameters(self) -> dict[str, Float[Array, " neuron"]]:
        """Nothing: all follows from the rate."""
        return {}

    def mean(self, eta: Float[Array, "*batch neuron"]) -> Float[Array, "*batch neuron"]:
        """Expected count per bin."""
        return self.rate(eta)

    def information(self, mean: Float[Array, "*batch neuron"]) -> Float[Array, "*batch neuron"]:
        """1 / m: the variance of a count is its mean."""
        return 1.0 / mean

    def distribution(
        self, eta: Float[Array, "trial bin neuron"], observed: Bool[Array, "trial bin neuron"]
    ) -> dist.Distribution:
        """p(y | eta) over the observed entries."""
        return dist.Poisson(self.mean(eta)).mask(observed).to_event(2)

    def draw(
        self, rng: np.random.Generator, mean: Float[np.ndarray, "*batch neuron"]
    ) -> Int[np.ndarray, "*batch neuron"]:
        """Counts; -1 where the expected count is not a number."""
        return drawn_counts(rng, mean)

    def at_components(self, found: Components) -> LawStart:
        """The principal components of counts, through the rate function to first order."""
        return LawStart(self, *self.rate.inverse(found.center, found.loadings))

    def with_residual(self, square: Float[Array, " neuron"]) -> "Poisson":
        """Itself: what squared residuals say of a count depends on the mean of each bin."""
        return self
