"""What training and analysis ask of a guide, ours or a user's own."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array

from mrsds_ppl.data.batch import Batch


@runtime_checkable
class Guide(Protocol):
    """q(x) of a batch of trials, as a NumPyro guide that samples the site ``x`` for whole paths."""

    def __call__(self, batch: Batch) -> dict[str, Array]:
        """Sample every latent site of the program but z."""
        ...

    def sample_posterior(
        self, rng_key: Array, params: dict[str, Any], batch: Batch, *, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Array]:
        """Draws of every latent site under fitted parameters, (*sample_shape, trial, bin, latent) for x."""
        ...

    def median(self, params: dict[str, Any], batch: Batch) -> dict[str, Array]:
        """Posterior median of every latent site, (trial, bin, latent) for x."""
        ...
