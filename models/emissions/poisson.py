"""Poisson emissions, y_t^r ~ Poisson(rate(C_r(x_t^r))), rate = softplus or exp."""

from typing import ClassVar

import equinox as eqx
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, Int

from mrsds_ppl.models.readout import Readout
from mrsds_ppl.nn.activations import ACTIVATIONS
from mrsds_ppl.statespace.principal_components import Components

_LARGEST_COUNT = 1e9  # that 32 bits hold with room for chance


class PoissonEmissions(eqx.Module):
    """y ~ Poisson(rate(C(x))) per bin; ``final_activation`` names the rate function, softplus or exp."""

    readout: Readout
    final_activation: str = eqx.field(static=True)
    counts: ClassVar[bool] = True

    def __init__(
        self, readout: Readout, *, final_activation: str | None, triangular: bool = False, trainable: bool = True
    ) -> None:
        """Counts have no covariance, so the last two choices do not apply."""
        self.readout, self.final_activation = readout, final_activation or "softplus"

    def inverse_link(self, eta: Float[Array, "*batch neuron"]) -> Float[Array, "*batch neuron"]:
        """Expected count per bin for a readout."""
        return ACTIVATIONS[self.final_activation](eta)

    def activity(self, x: Float[Array, "*batch latent"]) -> Float[Array, "*batch neuron"]:
        """Expected count of each neuron per bin."""
        return self.inverse_link(self.readout(x)) + 1e-6

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

    def at_components(self, found: Components) -> "PoissonEmissions":
        """The principal components of counts as a start, through the rate function to first order."""
        rate = np.maximum(found.center, 1e-3)
        if self.final_activation == "exp":
            bias, slope = np.log(rate), rate
        else:
            slope = -np.expm1(-rate)
            bias = rate + np.log(slope)
        readout = self.readout.with_affine(bias, (1.0 / slope)[:, None] * found.loadings)
        return eqx.tree_at(lambda e: e.readout, self, readout)

    def with_residual(self, square: Float[Array, " neuron"]) -> "PoissonEmissions":
        """Itself: the variance of a count is its mean."""
        return self
