"""What a guide reads of the program that it is a guide of."""

from typing import Protocol, runtime_checkable

import numpyro
from jaxtyping import Array

from mrsds_ppl.data.batch import Batch
from mrsds_ppl.models.mrsds import ModelOptions, Networks


@runtime_checkable
class Program(Protocol):
    """A switching program of trials with the sites ``x``, ``z`` and ``y``, such as :class:`mrsds_ppl.models.MRSDS`."""

    region_sizes: tuple[int, ...]
    latent_sizes: tuple[int, ...]
    num_latents: int
    num_states: int
    num_inputs: int
    num_sessions: int | None
    options: ModelOptions

    def __call__(self, batch: Batch) -> Array:
        """Sample the sites."""
        ...

    def trials_plate(self, batch: Batch) -> numpyro.plate:
        """The plate of trials, which scales a mini-batch to the data set."""
        ...

    def declare(self) -> Networks:
        """Register the networks' parameters with the enclosing program."""
        ...

    def initial_weights(self) -> dict[str, Array]:
        """Weights at the start, by the names of their sites where they have a prior."""
        ...
