"""What the cells of a sweep are compared by: variance that each latent explains, and how far seeds agree."""

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

from mrsds_ppl.analysis.recovery.alignment import match_states, valid_bins
from mrsds_ppl.data.trials import Trials


def variance_explained(
    x: Float[np.ndarray, "trial time latent"], trials: Trials, latent_sizes: Sequence[int]
) -> Float[np.ndarray, "region component"]:
    """Share of the variance of a region's signals that each latent of it explains, largest first.

    Latents are known up to a linear map of each region, so they are turned to the axes that explain most, one after
    another. With S the covariance of the latents of a region and b_n the regression of neuron n on them,

        share_i = eigenvalue_i( S^1/2 (sum_n b_n b_n^T) S^1/2 ) / sum_n var(y_n)

    which add up to the R^2 of all of them. Where sessions were joined, neurons are those of each session.

    Args:
        x: posterior means.
        trials: their trials; values that were not observed are left out.
        latent_sizes: latents of each region; of one pooled latent the signals are those of all regions.

    Returns:
        shares, NaN where a region has fewer latents than the widest or signals that do not vary, and where latents are
        not finite.
    """
    pooled = len(latent_sizes) != len(trials.region_sizes)
    region_of = np.zeros(trials.num_neurons, int) if pooled else trials.region_of_neuron
    valid = valid_bins(trials.lengths, trials.num_bins)
    shares = np.full((len(latent_sizes), max(latent_sizes)), np.nan)
    if not np.isfinite(x[valid]).all():
        return shares
    ends = np.cumsum(latent_sizes)
    for region, size in enumerate(latent_sizes):
        latents = x[..., ends[region] - size : ends[region]].astype(float)
        root = _root(np.atleast_2d(np.cov(latents[valid].T, bias=True)))
        told, total = np.zeros((size, size)), 0.0
        for session in np.unique(trials.session_numbers) if trials.session_numbers is not None else [None]:
            own = valid if session is None else valid & (trials.session_numbers == session)[:, None]
            for neuron in np.flatnonzero(region_of == region):
                seen = own & trials.observed[..., neuron]
                if seen.sum() <= size + 1:
                    continue
                design = np.column_stack([latents[seen], np.ones(seen.sum())])
                signal = trials.y[..., neuron][seen].astype(float)
                slope = np.linalg.lstsq(design, signal, rcond=None)[0][:-1]
                told += np.outer(slope, slope)
                total += signal.var()
        if total > 0:
            shares[region, :size] = np.linalg.eigvalsh(root @ told @ root)[::-1] / total
    return shares


def state_agreement(
    states: Sequence[Int[np.ndarray, "trial time"]], num_states: int, lengths: Int[np.ndarray, " trial"]
) -> float:
    """Share of bins in which two seeds have the same likeliest state, once states are matched; mean over pairs.

    Args:
        states: likeliest state of each bin by each seed.
        num_states: K.
        lengths: bins of each trial.

    Returns:
        NaN where there are fewer than two seeds, or one state, which agrees with itself.
    """
    if num_states == 1:
        return float("nan")
    one_hot = np.eye(num_states)
    pairs = (match_states(one, one_hot[other], lengths).accuracy for one, other in combinations(states, 2))
    return _mean(pairs)


def message_agreement(
    norms: Sequence[Float[np.ndarray, "trial time message"]], lengths: Int[np.ndarray, " trial"]
) -> float:
    """Correlation over bins of the norm of a message in two seeds; mean over messages and pairs.

    A norm does not depend on the axes of the latents, nor a correlation on their scale.

    Args:
        norms: of the messages between regions, and of inputs, by each seed.
        lengths: bins of each trial; the first bin has no messages.

    Returns:
        NaN where there are fewer than two seeds, or no messages that vary.
    """
    bins = valid_bins(lengths, norms[0].shape[1]) if norms else np.zeros((0, 0), bool)
    bins[:, :1] = False
    found = []
    for one, other in combinations(norms, 2):
        first, second = (_standardised(some[bins].astype(float)) for some in (one, other))
        found.append(_mean((first * second).mean(0)) if len(first) else np.nan)
    return _mean(found)


def _root(covariance: Float[np.ndarray, "latent latent"]) -> Float[np.ndarray, "latent latent"]:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def _standardised(values: Float[np.ndarray, "bin message"]) -> Float[np.ndarray, "bin message"]:
    """Mean 0 and variance 1 over bins; NaN where a message does not vary."""
    centred = values - values.mean(0) if len(values) else values
    spread = centred.std(0) if len(values) else np.ones(values.shape[1])
    return np.divide(centred, spread, out=np.full_like(centred, np.nan), where=spread > 0)


def _mean(values: Iterable[float]) -> float:
    """The mean of those that are finite, NaN where none is."""
    found = np.array([value for value in values if np.isfinite(value)])
    return float(found.mean()) if len(found) else float("nan")
