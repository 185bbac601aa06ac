"""Emissions of one session under a program that another one has told.

1. Laplace EM of a linear program of its own, from the emissions that it has: paths in coordinates of its own.
2. Coordinates in which these paths have the moments of the other's latents; see
   :mod:`mrsds_ppl.statespace.moment_alignment`. The sign of a region is the one with the larger evidence.
3. Expectation-maximisation of the emissions: paths smoothed under the program and its likeliest states, and one step of
   Newton's method for readout and noise.

EM keeps the coordinates in which it begins, as the signals draw the path and the path draws the readout. So it is the
moments that have to find them.
"""

from collections import deque
from itertools import islice
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray, PyTree

from mrsds_ppl.backend.trials_at_once import in_parts
from mrsds_ppl.data.batch import Batch
from mrsds_ppl.models.emissions.emissions import Emissions
from mrsds_ppl.models.emissions.sessions import SessionEmissions
from mrsds_ppl.models.filtering import LikeliestStates, SmoothedPaths, find_states, smooth_and_find_states
from mrsds_ppl.models.mrsds import MRSDS
from mrsds_ppl.ppl.gaussian_chain import GaussianChain
from mrsds_ppl.start.laplace_em import one_state
from mrsds_ppl.start.linear_program import improved_emissions, in_coordinates
from mrsds_ppl.statespace.linear_gaussian import Latents
from mrsds_ppl.statespace.moment_alignment import Moments, aligned, moments_of
from mrsds_ppl.statespace.smoothing import PathMoments, chain_of

_OWN_STEPS, _ROUNDS = 30, 15
_EMISSIONS = "emissions$params"


class Reference(NamedTuple):
    """What is known of latents in the coordinates that are kept: their mean, moments about it, and their regions."""

    mean: Float[np.ndarray, " latent"]
    moments: Moments
    there: Bool[np.ndarray, " region"]


class SessionFit(NamedTuple):
    """Emissions of a session, its paths and likeliest states under them, and the evidence before the rounds and after.

    The evidence is log p(y) in nats a bin.
    """

    emissions: Emissions
    paths: SmoothedPaths
    evidence: tuple[float, float]


def reference_of(x: np.ndarray, data: Batch, model: MRSDS, there: Bool[np.ndarray, " region"]) -> Reference:
    """Of a draw of each path (trial, bin, latent) of some trials, in which some regions were recorded."""
    u, lengths = np.asarray(data.u), np.asarray(data.lengths)
    mean = x[np.arange(x.shape[1]) < lengths[:, None]].mean(0)
    return Reference(mean, moments_of(x - mean, u, lengths, model.latent_sizes, noisy=False), there)


def regions_seen(model: MRSDS, data: Batch) -> Bool[np.ndarray, " region"]:
    """Which regions have a neuron with signals in some trials."""
    owner, seen = np.asarray(model.networks.emissions.readout.owner()), np.asarray(data.observed).any((0, 1))
    return np.bincount(owner[seen], minlength=len(model.latent_sizes)) > 0


def fit_session(
    key: PRNGKeyArray,
    params: dict[str, PyTree],
    model: MRSDS,
    data: Batch,
    number: int,
    reference: Reference,
) -> SessionFit:
    """Affine emissions of a session; everything else of the program stays as it is.

    Args:
        key: random key.
        params: values of the program's sites; the emissions of the session are where to begin, in any coordinates.
        model: the program.
        data: the trials of the session.
        number: of the session.
        reference: of the latents that the program was fitted to.
    """
    parts, there = in_parts(data), regions_seen(model, data) & reference.there

    def with_own(emissions: Emissions) -> dict[str, PyTree]:
        return {**params, _EMISSIONS: params[_EMISSIONS].with_session(number, emissions)}

    steps = islice(one_state(model.networks_from(params), model, data), _OWN_STEPS)
    moments, program = deque(steps, maxlen=1).pop()
    own = reference_of(np.asarray(drawn(key, moments)), data, model, there)
    matrix = aligned(own.moments, reference.moments, model.latent_sizes, there)
    begun = cast(SessionEmissions, program.networks.emissions).parts.of(number)

    region = np.repeat(np.arange(len(there)), model.latent_sizes)

    def smoothed(signs: np.ndarray) -> tuple[Emissions, PathMoments, LikeliestStates]:
        turned = signs[:, None] * matrix
        to = [jnp.asarray(part, jnp.float32) for part in (turned, reference.mean - turned @ own.mean)]
        emissions, path = in_coordinates(begun, *to), moments.mean @ to[0].T + to[1]
        networks = model.networks_from(with_own(emissions))
        states = find_states(networks, model, parts, path).states
        return emissions, *smooth_and_find_states(networks, model, parts, path, states)

    # Moments may leave open the sign of a region.
    signs = [np.ones(len(region)), *(1.0 - 2.0 * (region == one) for one in np.flatnonzero(there))]
    emissions, paths, likeliest = max(map(smoothed, signs), key=lambda one: one[2].nats_a_bin(parts))
    first = likeliest
    for _ in range(_ROUNDS):
        emissions = _improved(with_own(emissions)[_EMISSIONS], data, paths).parts.of(number)
        networks = model.networks_from(with_own(emissions))
        paths, likeliest = smooth_and_find_states(networks, model, parts, paths.mean, likeliest.states)
    evidence = first.nats_a_bin(parts), likeliest.nats_a_bin(parts)
    return SessionFit(emissions, SmoothedPaths(paths, likeliest.states), evidence)


@jax.jit
def drawn(key: PRNGKeyArray, moments: PathMoments) -> Latents:
    """A draw of each path."""
    return GaussianChain(*chain_of(moments)).sample(key)


_improved = jax.jit(improved_emissions)
