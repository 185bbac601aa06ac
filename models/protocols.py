"""What the parts of the program are asked by those who use them: the borders at which they can be swapped."""

from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from mrsds_ppl.models.readout import Readout
from mrsds_ppl.statespace.principal_components import Components


@runtime_checkable
class StateNoise(Protocol):
    """A covariance by its Cholesky factor."""

    trainable: bool

    @property
    def scale(self) -> Array:
        """Diagonal of the factor, (latent,)."""
        ...

    @property
    def cholesky(self) -> Array:
        """The factor, (latent, latent)."""
        ...

    def around(self, mean: Array) -> dist.Distribution:
        """N(mean, L L^T), (*batch, latent)."""
        ...


@runtime_checkable
class StateDynamics(Protocol):
    """p(x_t | z_t = k, x_{t-1}, u_t) = N(f_k(x_{t-1}, u_t), Q)."""

    @property
    def noise(self) -> StateNoise:
        """Q."""
        ...

    def means(self, x: Array, u: Array) -> Array:
        """f_k(x, u) of every state: (*batch, latent), (*batch, input) -> (state, *batch, latent)."""
        ...


@runtime_checkable
class Emissions(Protocol):
    """p(y_t | x_t), and all that depends on its kind: which data it takes, how it starts and how it is scored.

    ``counts`` says whether y are counts: the data are then checked to be whole numbers that are not negative, one count
    is the unit of a neuron that never fired, and predictions are scored in bits per spike beside R^2.
    """

    counts: ClassVar[bool]
    readout: Readout

    def __init__(self, readout: Readout, *, final_activation: str | None, triangular: bool, trainable: bool) -> None:
        """Before training.

        Args:
            readout: from latents to one number for each neuron.
            final_activation: name of the function from that number to the expected y; None for the kind's own.
            triangular, trainable: form of the noise, where there is one.
        """
        ...

    def inverse_link(self, eta: Array) -> Array:
        """Expected y for the readout's number, both (*batch, neuron)."""
        ...

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

    def at_components(self, found: Components) -> "Emissions":
        """The start from principal components, y ~ center + loadings x with x of unit variance."""
        ...

    def with_residual(self, square: Array) -> "Emissions":
        """The noise updated to mean squared residuals, (neuron,); itself where it has none of its own."""
        ...
