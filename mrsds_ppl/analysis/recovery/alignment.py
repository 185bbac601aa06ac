"""Comparing a posterior with the truth of a simulation, up to what the data cannot tell.

The likelihood does not change when the latents of a region are mapped by an invertible affine map, or when the discrete
states are renumbered. So latents are compared after one least-squares affine map per region, and states after the
one-to-one matching that makes them agree most often.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

from mrsds_ppl.errors import RunError


class LatentAlignment(NamedTuple):
    """True latents as affine functions of estimated ones, region by region.

    ``aligned``: the estimate mapped into the space of the true latents, NaN in bins that were not compared.
    ``r2``: one value for each true latent, over all compared bins of all trials; NaN if that latent does not vary.
    ``weights`` and ``offsets``: for each region, aligned = estimate @ weights + offset.
    """

    aligned: Float[np.ndarray, "trial time true_latent"]
    r2: Float[np.ndarray, "true_latent"]
    weights: list[Float[np.ndarray, "_ _"]]
    offsets: list[Float[np.ndarray, "_"]]


class StateMatch(NamedTuple):
    """Estimated discrete states matched to true ones.

    ``accuracy``: fraction of compared bins whose matched state is the true one. ``true_state_of[k]``: the true state
    matched to estimated state k, -1 if there are more estimated states than true ones and k was left over.
    ``confusion[k, j]``: number of compared bins with estimated state k and true state j. ``z_matched``: the estimated
    states under their true numbers, -1 where left over or not compared.
    """

    accuracy: float
    true_state_of: Int[np.ndarray, "state"]
    confusion: Int[np.ndarray, "state true_state"]
    z_matched: Int[np.ndarray, "trial time"]


def valid_bins(lengths: Int[np.ndarray, "trial"], num_bins: int) -> Bool[np.ndarray, "trial {num_bins}"]:
    """True for the bins t < lengths[trial].

    Args:
        lengths: number of valid bins of each trial.
        num_bins: length of the padded time axis.
    """
    return np.arange(num_bins) < lengths[:, None]


def align_latents(
    x_true: Float[np.ndarray, "trial time true_latent"],
    x_mean: Float[np.ndarray, "trial time latent"],
    lengths: Int[np.ndarray, "trial"],
    latent_region_sizes: Sequence[int],
    true_region_sizes: Sequence[int] | None = None,
) -> LatentAlignment:
    """Latent R^2 after one affine map per region, fitted by least squares on the bins that are scored.

        R^2_i = 1 - sum_bt (x_bti - (xhat_bt^r A_r + c_r)_i)^2 / sum_bt (x_bti - xbar_i)^2        i a latent of region r

    Args:
        x_true: latents of the simulation; bins with a NaN are not compared.
        x_mean: posterior means.
        lengths: number of valid bins of each trial; later bins are not compared.
        latent_region_sizes: number of estimated latents of each region. To compare a model with one pooled latent,
            give one size here and one size, their total, in ``true_region_sizes``.
        true_region_sizes: number of true latents of each region; None if the same as ``latent_region_sizes``.

    Raises:
        RunError: if the sizes do not add up to the latents there are.
    """
    true_sizes = list(latent_region_sizes if true_region_sizes is None else true_region_sizes)
    sizes = list(latent_region_sizes)
    if len(sizes) != len(true_sizes) or sum(sizes) != x_mean.shape[2] or sum(true_sizes) != x_true.shape[2]:
        raise RunError(
            f"Latents cannot be aligned: {x_mean.shape[2]} estimated latents in regions of sizes {sizes}, "
            f"{x_true.shape[2]} true latents in regions of sizes {true_sizes}. Each list must add up, and both must "
            "have one entry a region."
        )
    compared = valid_bins(lengths, x_true.shape[1]) & ~np.isnan(x_true).any(axis=2)
    target, estimate = x_true[compared].astype(np.float64), x_mean[compared].astype(np.float64)
    weights, offsets, fitted = [], [], []
    for columns, true_columns in zip(_blocks(sizes), _blocks(true_sizes), strict=True):
        design = np.column_stack([estimate[:, columns], np.ones(len(estimate))])
        solution = np.linalg.lstsq(design, target[:, true_columns], rcond=None)[0]
        fitted.append(design @ solution)
        weights.append(solution[:-1])
        offsets.append(solution[-1])
    prediction = np.concatenate(fitted, axis=1)
    residual = ((target - prediction) ** 2).sum(axis=0)
    spread = ((target - target.mean(axis=0)) ** 2).sum(axis=0) if len(target) else np.zeros(target.shape[1])
    r2 = 1.0 - np.divide(residual, spread, out=np.full_like(spread, np.nan), where=spread > 0)
    aligned = np.full(x_true.shape, np.nan)
    aligned[compared] = prediction
    return LatentAlignment(aligned, r2, weights, offsets)


def match_states(
    z_true: Int[np.ndarray, "trial time"],
    z_prob: Float[np.ndarray, "trial time state"],
    lengths: Int[np.ndarray, "trial"],
) -> StateMatch:
    """z accuracy: the most probable state of each bin against the true one, after Hungarian matching.

        accuracy = max over one-to-one matchings s of   mean_bt [ s(argmax_k z_prob_btk) = z_bt ]

    Args:
        z_true: states of the simulation, 0 ... ; bins with a negative state are not compared.
        z_prob: posterior probabilities of the states.
        lengths: number of valid bins of each trial; later bins are not compared.

    Returns:
        the match; its accuracy is NaN if no bin can be compared.
    """
    compared = valid_bins(lengths, z_true.shape[1]) & (z_true >= 0)
    target, estimate = z_true[compared], z_prob[compared].argmax(axis=-1)
    num_states = z_prob.shape[2]
    confusion = np.zeros((num_states, int(target.max(initial=0)) + 1), dtype=np.int64)
    np.add.at(confusion, (estimate, target), 1)
    rows, columns = linear_sum_assignment(confusion, maximize=True)
    true_state_of = np.full(num_states, -1)
    true_state_of[rows] = columns
    accuracy = float(confusion[rows, columns].sum() / len(target)) if len(target) else float("nan")
    z_matched = np.full(z_true.shape, -1)
    z_matched[compared] = true_state_of[estimate]
    return StateMatch(accuracy, true_state_of, confusion, z_matched)


def _blocks(sizes: Sequence[int]) -> list[slice]:
    """The columns of each region, regions side by side."""
    ends = np.cumsum(sizes)
    return [slice(int(end - size), int(end)) for size, end in zip(sizes, ends, strict=True)]
