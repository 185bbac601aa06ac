"""What a refit has recovered of its recording: the truth beside the estimate, and what intervals hold."""

from typing import NamedTuple

import numpy as np
from jax import random
from jaxtyping import Float, Int, PRNGKeyArray

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.communication import path_messages
from mrsds_ppl.analysis.posterior_paths import posterior_paths
from mrsds_ppl.analysis.recovery.alignment import LatentAlignment, align_latents, match_states, valid_bins
from mrsds_ppl.analysis.weights import WeightPosterior
from mrsds_ppl.data.trials import Trials

LEVELS = (0.5, 0.9)


class Recovered(NamedTuple):
    """Mean norms of messages, true and estimated, and how often intervals of the levels hold latents and messages.

    ``low`` and ``high`` are those of the norms over draws of latents, states and weights.
    """

    true: Float[np.ndarray, "state target source"]
    estimated: Float[np.ndarray, "state target source"]
    low: Float[np.ndarray, "level state target source"]
    high: Float[np.ndarray, "level state target source"]
    latents: Float[np.ndarray, " level"]
    messages: Float[np.ndarray, " level"]


def recovered(
    key: PRNGKeyArray, fitted: FittedProgram, trials: Trials, weights: WeightPosterior, *, draws: int = 50
) -> Recovered:
    """A refit against the truth, in the space of the true latents and under the true names of the states.

    Args:
        key: random key.
        fitted: the refit.
        trials: its test trials, with true latents, states and messages.
        weights: posterior of its weights.
        draws: of latents, states and weights.
    """
    sizes = list(fitted.model.latent_sizes)
    assert trials.x is not None
    assert trials.z is not None
    assert trials.messages is not None
    paths = posterior_paths(key, fitted, trials, draws=draws)
    aligned = align_latents(trials.x, paths.x.mean(0), trials.lengths, sizes)
    state_of = match_states(trials.z, paths.z_prob.mean(0), trials.lengths).true_state_of
    # States that no true bin is in stand for each other.
    state_of[state_of < 0] = np.setdiff1d(np.arange(len(state_of)), state_of)
    probability = np.zeros_like(paths.z_prob)
    probability[..., state_of] = paths.z_prob
    bins = valid_bins(trials.lengths, trials.num_bins) & (np.arange(trials.num_bins) > 0)
    changes = weights.draws(random.fold_in(key, 1), draws)
    told, moved = (
        _aligned(path_messages(fitted, trials, paths, changes=some).values[:, bins], aligned)
        for some in (None, changes)
    )
    true, z = np.nan_to_num(trials.messages[bins].astype(float)), trials.z[bins]
    certain = np.eye(fitted.model.num_states)[z][None]
    each = zip(np.split(paths.x[:, bins], np.cumsum(sizes)[:-1], axis=-1), *aligned[2:], strict=True)
    latents = np.concatenate([x @ weights + offset for x, weights, offset in each], axis=-1)
    norms = np.stack([_mean_norms(m[None], p[None]) for m, p in zip(moved, probability[:, bins], strict=True)])
    low, high = _intervals(norms)
    return Recovered(
        true=_mean_norms(true[None], certain),
        estimated=_mean_norms(told, probability[:, bins]),
        low=low,
        high=high,
        latents=_held(trials.x[bins], latents),
        messages=_held(_centred(true[None], z)[0], _centred(moved, z)),
    )


def _aligned(
    messages: Float[np.ndarray, "draw row target source latent"], aligned: LatentAlignment
) -> Float[np.ndarray, "draw row target region latent"]:
    """Messages between regions in the space of the true latents; zero where a region lacks one."""
    regions = len(aligned.weights)
    found = np.zeros((*messages.shape[:3], regions, messages.shape[-1]))
    for target, weights in enumerate(aligned.weights):
        size = len(weights)
        found[:, :, target, :, :size] = messages[:, :, target, :regions, :size] @ weights
    return found


def _mean_norms(
    messages: Float[np.ndarray, "draw row target source latent"], probability: Float[np.ndarray, "draw row state"]
) -> Float[np.ndarray, "state target source"]:
    norms = np.linalg.norm(messages, axis=-1)
    total, count = np.einsum("jnk,jnrs->krs", probability, norms), probability.sum((0, 1))[:, None, None]
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _centred(
    messages: Float[np.ndarray, "draw row target source latent"], z: Int[np.ndarray, " row"]
) -> Float[np.ndarray, "draw row target source latent"]:
    """Without the mean in each state: constants of additive messages are not known."""
    found = messages.copy()
    for state in np.unique(z):
        found[:, z == state] -= found[:, z == state].mean(1, keepdims=True)
    return found


def _held(true: np.ndarray, draws: np.ndarray) -> Float[np.ndarray, " level"]:
    """Share of the values that lie between the quantiles of their draws; those that never vary are left out."""
    varies = draws.std(0) > 0
    low, high = _intervals(draws)
    return ((true >= low) & (true <= high))[:, varies].mean(1)


def _intervals(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends, of each of the levels."""
    low, high = (np.quantile(draws, [0.5 + way * level / 2 for level in LEVELS], axis=0) for way in (-1, 1))
    return low, high
