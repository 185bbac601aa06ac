"""Principal components of several sessions in the coordinates of the one with the most trials."""

import numpy as np
from jaxtyping import Bool, Float

from mrsds_ppl.data.trials import Trials
from mrsds_ppl.statespace.moment_alignment import Moments, aligned, moments_of
from mrsds_ppl.statespace.principal_components import Components, principal_components

_RIDGE = 1e-6


def aligned_components(trials: Trials, latent_sizes: tuple[int, ...]) -> list[Components]:
    """Components of each session; their loadings are of latents that all sessions share.

    Args:
        trials: training trials of all sessions.
        latent_sizes: latents of each region, or one entry for a pooled latent.
    """
    sessions = list(trials.by_session().values())
    found = [principal_components(session, latent_sizes) for session in sessions]
    moments = [component_moments(*both, latent_sizes) for both in zip(sessions, found, strict=True)]
    first = int(np.argmax([session.num_trials for session in sessions]))
    regions = np.stack([region_there(trials, number, latent_sizes) for number in range(len(sessions))])
    for number, (own, one) in enumerate(zip(moments, found, strict=True)):
        if number != first:
            matrix = aligned(own, moments[first], latent_sizes, regions[number] & regions[first])
            found[number] = one._replace(loadings=one.loadings @ np.linalg.inv(matrix))
    return found


def component_moments(trials: Trials, found: Components, latent_sizes: tuple[int, ...]) -> Moments:
    """Moments of the latents that the signals of each bin stand for, by weighted least squares."""
    return moments_of(unbiased_latents(trials, found), trials.u, trials.lengths, latent_sizes)


def unbiased_latents(trials: Trials, found: Components) -> Float[np.ndarray, "trial bin latent"]:
    """(C^T S^-1 C)^-1 C^T S^-1 (y - b) of each bin, from what is observed."""
    weighted = found.loadings / found.residual[:, None]
    precision = found.loadings.T @ weighted
    inverse = np.linalg.inv(precision + _RIDGE * np.eye(len(precision)))
    return np.where(trials.observed, trials.y - found.center, 0.0) @ (weighted @ inverse)


def region_there(trials: Trials, session: int, latent_sizes: tuple[int, ...]) -> Bool[np.ndarray, " region"]:
    """Which regions a session has; a pooled latent is of all."""
    if len(latent_sizes) == 1 or trials.own_neurons is None:
        return np.ones(len(latent_sizes), bool)
    own = trials.own_neurons[session] != ""
    return np.bincount(trials.region_of_neuron[own], minlength=len(latent_sizes)) > 0
