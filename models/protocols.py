"""What the parts of the program are asked by those who use them: the borders at which they can be swapped."""

from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from mrsds_ppl.data.signals import Refused
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
class Law(Protocol):
    """p(y | eta) of some neurons around the readout's number eta, and all that depends on its kind.

    That is which data it takes, how it starts and how it is scored. ``counts``: whether y are counts; one count is then
    the unit of a neuron that never fired, and predictions are scored in bits per spike beside R^2. ``refused``: values
    that y may not have, with what to do about them.
    """

    counts: ClassVar[bool]
    refused: ClassVar[tuple[Refused, ...]]

    def __init__(self, num_neurons: int, *, final_activation: str | None, triangular: bool, trainable: bool) -> None:
        """Before training.

        Args:
            num_neurons: how many have this law.
            final_activation: name of the function from eta to the expected y; None for the kind's own.
            triangular, trainable: form of the noise, where there is one.
        """
        ...

    def parameters(self) -> dict[str, Array]:
        """What it has learned beside the readout, by name, (neuron,), as users read it; empty where there is none."""
        ...

    def mean(self, eta: Array) -> Array:
        """Expected y, both (*batch, neuron)."""
        ...

    def information(self, mean: Array) -> Array:
        """Fisher information of each y about its mean, both (*batch, neuron); 1 / variance in exponential families."""
        ...

    def distribution(self, eta: Array, observed: Array) -> dist.Distribution:
        """p(y | eta) of whole trials: batch (trial,), event (bin, neuron). What is not observed scores nothing."""
        ...

    def draw(self, rng: np.random.Generator, mean: np.ndarray) -> np.ndarray:
        """Signals with this mean, both (*batch, neuron), drawn on the host."""
        ...

    def at_components(self, found: Components) -> "LawStart":
        """The start from principal components of its neurons, y ~ center + loadings x with x of unit variance."""
        ...

    def with_residual(self, square: Array) -> "Law":
        """The noise updated to mean squared residuals, (neuron,); itself where it has none of its own."""
        ...


class LawStart(NamedTuple):
    """A law before training, and the readout bias (neuron,) + loadings (neuron, latent) x that starts with it."""

    law: Law
    bias: np.ndarray
    loadings: np.ndarray
