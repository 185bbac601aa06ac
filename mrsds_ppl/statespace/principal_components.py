"""Principal components of the signals of each region, smoothed over time: Y_r ~ b + X_r C_r^T, X_r of unit variance."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

from mrsds_ppl.data.trials import Trials

_SMOOTHING = 1.5  # bins, standard deviation


class Components(NamedTuple):
    """Affine model of the signals: y ~ center + x loadings^T, residual variance, and the neurons' total spread.

    A neuron that does not vary has spread 0. ``zeros``: share of its signals that are zero.
    """

    center: Float[np.ndarray, " neuron"]
    spread: Float[np.ndarray, " neuron"]
    loadings: Float[np.ndarray, "neuron latent"]
    residual: Float[np.ndarray, " neuron"]
    zeros: Float[np.ndarray, " neuron"]


def principal_components(trials: Trials, latent_sizes: tuple[int, ...]) -> Components:
    """Components of each region's smoothed signals, scaled to unit variance of the latents.

    Args:
        trials: training trials.
        latent_sizes: latents of each region, or one entry for a pooled latent.
    """
    observed = trials.observed
    filled = np.where(observed, trials.y, 0.0)
    count = np.maximum(observed.sum((0, 1)), 1)
    center = filled.sum((0, 1)) / count
    deviation = np.where(observed, trials.y - center, 0.0)
    variance = (deviation**2).sum((0, 1)) / count
    weight = gaussian_filter1d(observed.astype(np.float32), _SMOOTHING, axis=1)
    smooth = gaussian_filter1d(deviation.astype(np.float32), _SMOOTHING, axis=1) / np.maximum(weight, 1e-3)
    valid = np.arange(trials.num_bins) < trials.lengths[:, None]
    rows = smooth[valid]
    owner = trials.region_of_neuron if len(latent_sizes) > 1 else np.zeros(trials.num_neurons, int)
    loadings = np.zeros((trials.num_neurons, sum(latent_sizes)))
    first = 0
    for region, size in enumerate(latent_sizes):
        neurons = np.flatnonzero(owner == region)
        scatter = rows[:, neurons].T @ rows[:, neurons] / len(rows)
        eigenvalues, vectors = np.linalg.eigh(scatter.astype(float))
        top = np.argsort(eigenvalues)[::-1][:size]
        loadings[np.ix_(neurons, first + np.arange(len(top)))] = vectors[:, top] * np.sqrt(
            np.maximum(eigenvalues[top], 1e-8)
        )
        first += size
    residual = np.maximum(variance - (loadings**2).sum(1), 0.1 * variance + 1e-4)
    # Rounding would leave a constant signal a tiny spread.
    varies = np.where(observed, trials.y, -np.inf).max((0, 1)) > np.where(observed, trials.y, np.inf).min((0, 1))
    zeros = (observed & (trials.y == 0)).sum((0, 1)) / count
    return Components(center, np.where(varies, np.sqrt(variance), 0.0), loadings, residual, zeros)
