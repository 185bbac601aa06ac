"""Positive functions of the readout's number: what counts, and events, are expected in a bin."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Float, Int

from mrsds_ppl.nn.activations import ACTIVATIONS

_FLOOR = 1e-6  # what cannot happen would have a log probability of minus infinity
_SMALLEST_START = 1e-3
_LARGEST_COUNT = 1e9  # that 32 bits hold with room for chance


@dataclass(frozen=True)
class Rate:
    """rate(eta) = softplus(eta) or exp(eta), and 1e-6."""

    name: str = "softplus"

    def __call__(self, eta: Float[Array, "*batch neuron"]) -> Float[Array, "*batch neuron"]:
        return ACTIVATIONS[self.name](eta) + _FLOOR

    def inverse(
        self, center: Float[np.ndarray, " neuron"], loadings: Float[np.ndarray, "neuron latent"]
    ) -> tuple[Float[np.ndarray, " neuron"], Float[np.ndarray, "neuron latent"]]:
        """Bias and loadings of the readout whose rate is center + loadings x to first order."""
        rate = np.maximum(center, _SMALLEST_START)
        if self.name == "exp":
            bias, slope = np.log(rate), rate
        else:
            slope = -np.expm1(-rate)
            bias = rate + np.log(slope)
        return bias, (1.0 / slope)[:, None] * loadings


def drawn_counts(
    rng: np.random.Generator, mean: Float[np.ndarray, "*batch neuron"]
) -> Int[np.ndarray, "*batch neuron"]:
    """Poisson counts; -1 where nothing is expected because the expected count is not a number."""
    known = ~np.isnan(mean)
    counts = rng.poisson(np.where(known, np.minimum(mean, _LARGEST_COUNT), 0.0))
    return np.where(known, counts, -1).astype(np.int32)
