"""Evidence that trials lose without messages, their paths smoothed and filtered anew for each removal."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.edges.score_test import Edge, coefficients_of
from mrsds_ppl.analysis.edges.without import Removed, Without, mean_messages
from mrsds_ppl.analysis.weights import WeightPosterior
from mrsds_ppl.backend.side_by_side import compiled, first_alone
from mrsds_ppl.backend.trials_at_once import Parts, in_even_parts
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.models.dynamics import Messages, Rows
from mrsds_ppl.models.filtering import SmoothedPaths, count_transitions, smooth_new_trials, smooth_paths
from mrsds_ppl.models.linearised import with_dynamics

_means_of = compiled(mean_messages)


class Removals(NamedTuple):
    """Messages that are removed together, one row for each removal, and where the coefficients of all go."""

    gone: Bool[np.ndarray, "removal state target source"]
    settled: Float[np.ndarray, "removal group target source direction"]


class HeldOut(NamedTuple):
    """A program, what its training trials tell of the weights, and other trials with their smoothed paths.

    ``means`` are what removed messages leave behind.
    """

    fitted: FittedProgram
    known: WeightPosterior
    means: Messages
    parts: Parts
    begun: SmoothedPaths


def held_out(fitted: FittedProgram, known: WeightPosterior, trials: Trials, steps: Rows) -> HeldOut:
    """Trials under a program.

    Args:
        fitted, known: the program, and what training trials tell.
        trials: other trials.
        steps: of training trials, of which messages have their means.
    """
    batch = trials.batch()
    begun = smooth_new_trials(fitted.params, fitted.model, batch)
    means = _means_of(fitted.networks.dynamics, steps)
    return HeldOut(fitted, known, means, in_even_parts(batch), begun)


def removals(known: WeightPosterior, places: Sequence[Edge]) -> Removals:
    """Each edge by itself; the others' coefficients settle.

    Args:
        known: what training trials tell.
        places: edges; a state beyond the last is all of them.
    """
    num_groups, (num_states, *between) = len(known.fitted), known.tangents.means.shape[1:4]
    gone = np.zeros((len(places), num_states, *between), bool)
    settled = np.zeros((len(places), *known.fitted.shape))
    for row, (state, target, source) in enumerate(places):
        gone[row, slice(None) if state == num_states else state, target, source] = True
        # Weights that states share still say in the others what is removed in one, and stay.
        if num_groups == num_states or state == num_states:
            some = coefficients_of(known, (state, target, source))
            settled[row] = known.without(some).reshape(known.fitted.shape)
    return Removals(gone, settled)


def losses(held: HeldOut, removed: Removals) -> Float[np.ndarray, "removal trial"]:
    """log p(y) that each trial loses, its path smoothed and filtered anew."""
    model, networks, regions = held.fitted.model, held.fitted.networks, len(held.fitted.model.latent_sizes)

    def remaining(
        gone: Bool[np.ndarray, "state target source"], settled: Float[np.ndarray, " coefficient"]
    ) -> Float[np.ndarray, " trial"]:
        these = Removed(jnp.asarray(gone[..., :regions]), jnp.asarray(gone[..., regions:]))
        dynamics = Without(networks.dynamics, held.known.change(settled), these, held.means)
        left = with_dynamics(networks, dynamics)
        paths = smooth_paths(left, model, held.parts, held.begun.moments.mean, held.begun.states)
        return np.asarray(count_transitions(left, model, held.parts, paths.mean).log_evidence, float)

    # Trials are too few to keep all cores busy, so edges run side by side; the first, of nothing, compiles for all.
    none = np.zeros_like(removed.gone[:1]), np.zeros_like(removed.settled[:1])
    gone, settled = (np.concatenate(pair) for pair in zip(none, removed, strict=True))
    whole, *left = first_alone(lambda row: remaining(gone[row], settled[row].reshape(-1)), range(len(gone)))
    return whole - np.array(left).reshape(-1, len(whole))
