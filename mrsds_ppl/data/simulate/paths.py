"""What is known of simulated trials: their paths, and the signals of neurons that see them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Paths(NamedTuple):
    """Latents, states, and messages of bin t, which go from t-1 to t in state z_t."""

    x: Float[np.ndarray, "trial bin latents"]
    z: Int[np.ndarray, "trial bin"]
    messages: Float[np.ndarray, "trial bin target source latent"]


def drive(
    loadings: Float[np.ndarray, "region neuron latent"], x: Float[np.ndarray, "*batch latents"]
) -> Float[np.ndarray, "*batch all_neurons"]:
    """What latents add to each neuron, which sees those of its region; the regions have equally many."""
    by_region = x.reshape(*x.shape[:-1], len(loadings), -1)
    return np.einsum("...rd,rnd->...rn", by_region, loadings).reshape(*x.shape[:-1], -1)


def noisy(rng: np.random.Generator, signals: Float[np.ndarray, "*batch"], noise: float) -> Float[np.ndarray, "*batch"]:
    """Signals with independent normal noise of this standard deviation."""
    return signals + rng.normal(scale=noise, size=signals.shape)
