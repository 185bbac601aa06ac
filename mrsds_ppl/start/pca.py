"""Data-driven start: emissions and the encoder's direct path from a principal component analysis of each region.

With signals smoothed over time, Y_r ~ b + X_r C_r^T, X_r of unit variance; the direct path starts as the posterior
mean of one bin, x = (I + C^T S^-1 C)^-1 C^T S^-1 (y - b). Switching models fail by their start, and this one puts
every latent where the activity is.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter1d

from mrsds_ppl.data.trials import Trials
from mrsds_ppl.models.protocols import Emissions

_LOADINGS = "emissions/readout.weight_auto_loc"
_SMOOTHING = 1.5  # bins, standard deviation
# A neuron that never varied in training has no spread to be measured by, and an encoder no weights that were trained on
# it: a count of one, or a value as far from its own as others of its region vary, counts as one standard deviation.
_ONE_COUNT = 1.0
# A neuron that fired a few times only: a single count is at most ten standard deviations for the encoder, as far as
# the rarest that other neurons ever show it.
_RAREST = 0.1


class Components(NamedTuple):
    """Affine model of the signals: y ~ center + x loadings^T, residual variance, and the neurons' total spread.

    A neuron that does not vary has spread 0; see :func:`encoder_spread`.
    """

    center: Float[np.ndarray, " neuron"]
    spread: Float[np.ndarray, " neuron"]
    loadings: Float[np.ndarray, "neuron latent"]
    residual: Float[np.ndarray, " neuron"]


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
    return Components(center, np.where(varies, np.sqrt(variance), 0.0), loadings, residual)


def encoder_spread(
    spread: Float[np.ndarray, " neuron"], region_of_neuron: Int[np.ndarray, " neuron"], counts: bool
) -> Float[np.ndarray, " neuron"]:
    """What an encoder divides each neuron's signal by: its spread, with a floor in the neuron's own units.

    Counts have a unit, one spike: a spread of at least a tenth of it, and of one where the neuron was silent or
    constant in training. A signal that was constant is measured by the median spread of its region.

    Args:
        spread: standard deviation of each neuron's signal in training.
        region_of_neuron: index of its region.
        counts: whether signals are counts.
    """
    varies = spread > 0
    if counts:
        return np.where(varies, np.maximum(spread, _RAREST), _ONE_COUNT)
    floor = np.ones_like(spread)
    for region in np.unique(region_of_neuron):
        own = region_of_neuron == region
        if (own & varies).any():
            floor[own] = np.median(spread[own & varies])
    return np.where(varies, spread, floor)


def initialize(params: dict[str, Any], trials: Trials, latent_sizes: tuple[int, ...]) -> dict[str, Any]:
    """Parameters with emissions and recognition set from the data.

    Args:
        params: parameters by site, as declared by program and guide.
        trials: training trials.
        latent_sizes: latents of each region.
    """
    found = principal_components(trials, latent_sizes)
    before: Emissions = params["emissions$params"]
    emissions = before.at_components(found.center, found.loadings, found.residual)
    params = {**params, "emissions$params": emissions}
    # Under a prior the loadings are a site of their own, and its posterior starts around them.
    if _LOADINGS in params and emissions.readout.hidden is None:
        params[_LOADINGS] = emissions.readout.weight
    if "recognition$params" in params:
        spread = encoder_spread(found.spread, trials.region_of_neuron, emissions.counts)
        params["recognition$params"] = _recognition(params["recognition$params"], found._replace(spread=spread))
    return params


def _recognition(recognition: Any, found: Components) -> Any:
    weighted = found.loadings / found.residual[:, None]
    posterior = np.linalg.inv(np.eye(found.loadings.shape[1]) + found.loadings.T @ weighted)
    direct = found.spread[:, None] * (weighted @ posterior)
    return eqx.tree_at(
        lambda r: (r.standardizer.center, r.standardizer.spread, r.direct),
        recognition,
        tuple(jnp.asarray(a, jnp.float32) for a in (found.center, found.spread, direct)),
    )
