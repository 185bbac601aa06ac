"""The Gaussian-sum filter of a switching linear program: states and latents summed out, bin after bin.

Given the states, the program is linear and Gaussian, so p(x_t, z_1 ... z_t | y) is a sum of Gaussians, one for each
history of states. Each bin extends every history by every state,

    log w(z_1 ... z_t) = log w(z_1 ... z_{t-1}) + log p(z_t | z_{t-1}) + log int N(x; m, P) exp(h^T x - x^T J x / 2) dx,

and the sum is reduced to as many components as before, in one of two ways:

* :func:`state_posterior` prunes: the likeliest histories stay, and p(z_{t-lag}) is read off them. They tell best where
  a switch was, as they remember what it did to x, and the time of a switch is weighed with x free. But they leave out
  many unlikely paths, above all those with short stays. Source: Akashi and Kumamoto (1977).
* :func:`expected_transitions` merges: histories that agree in the last ``order`` states become one Gaussian of the same
  mean and covariance. No path of states is dropped, so evidence and transition counts are not too small. Source:
  Ackerson and Fu (1970); order 2 is GPB2 (Bar-Shalom and Li, 1993), order 1 the filter of Kim (1994).
  :func:`filtered_mixtures` keeps its mixtures, from which :mod:`mrsds_ppl.statespace.backward_simulation` goes back.

Axes of the components stand before that of trials, which is the last.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mrsds_ppl.statespace.linear_gaussian import SharedTerms, TrialTerms
from mrsds_ppl.statespace.measurement_update import update
from mrsds_ppl.statespace.mixture_reduction import Extended, Merging, Mixture, Pruning, Reduction, shares
from mrsds_ppl.statespace.small_matrices import applied, congruence

_NEVER = -1e30
Recorded = TypeVar("Recorded")


class StatePosterior(NamedTuple):
    """p(z_t | y), and log p(y) of each trial: exact where emissions and dynamics are linear and nothing was pruned."""

    probabilities: Float[Array, "trial bin state"]
    log_evidence: Float[Array, " trial"]


class ExpectedTransitions(NamedTuple):
    """log p(y) of each trial, and the number of each transition to be expected in it given all of y.

    Exact where emissions and dynamics are linear and nothing was merged: one state, or at most ``order`` bins.
    """

    log_evidence: Float[Array, " trial"]
    transitions: Float[Array, "trial from to"]


class FilteredMixtures(NamedTuple):
    """Log weight (up to a constant of the bin), mean and covariance of each component; component c is in state c mod K.

    In padding stands the mixture of the trial's last bin.
    """

    weight: Float[Array, "bin component trial"]
    mean: Float[Array, "bin latent component trial"]
    covariance: Float[Array, "bin latent latent component trial"]


def state_posterior(shared: SharedTerms, trials: TrialTerms, *, num_kept: int = 16, lag: int = 20) -> StatePosterior:
    """p(z_t | y) of every trial and its evidence, each bin read ``lag`` bins later or at the end of its trial.

    Args:
        shared, trials: the program.
        num_kept: histories kept.
        lag: bins.
    """
    bins, num_states = trials.signals.shift.shape[1], len(shared.first_log_prob)
    lag = min(lag, bins)
    # There are no more histories; with one state there is one.
    pruning = Pruning(min(num_kept, num_states**bins), num_states, lag)
    end, recorded = _filter(shared, trials, pruning, pruning.seen)
    # Bin t says where bin t - lag + 1 was; the last one all that are left.
    kept = recorded[lag - 1 : -1]
    probabilities = jnp.concatenate([kept, shares(end.weight, end.memory, num_states)])
    return StatePosterior(jnp.moveaxis(probabilities, -1, 0), _log_evidence(end, trials))


def expected_transitions(shared: SharedTerms, trials: TrialTerms, *, order: int = 2) -> ExpectedTransitions:
    """Evidence and expected transitions of every trial.

    Args:
        shared, trials: the program.
        order: states of a history; there are K to the power of it.
    """
    end, _ = _filter(shared, trials, _merging(shared, trials, order), lambda _: None)
    expected = (jax.nn.softmax(end.weight, axis=0) * end.memory).sum(-2)
    return ExpectedTransitions(_log_evidence(end, trials), jnp.moveaxis(expected, -1, 0))


def filtered_mixtures(shared: SharedTerms, trials: TrialTerms, *, order: int = 2) -> FilteredMixtures:
    """p(x_t, z_{t-order+1} ... z_t | y_1 ... y_t) of every bin, by merging.

    Args:
        shared, trials: the program.
        order: states of a history; there are K to the power of it.
    """
    merging = _merging(shared, trials, order)
    return _filter(shared, trials, merging, lambda m: FilteredMixtures(m.weight, m.mean, m.covariance))[1]


def _merging(shared: SharedTerms, trials: TrialTerms, order: int) -> Merging:
    """Histories of so many states, or of as many as there are bins."""
    bins, num_states = trials.signals.shift.shape[1], len(shared.first_log_prob)
    return Merging(num_states ** min(order, bins), num_states)


def _filter(
    shared: SharedTerms, trials: TrialTerms, reduction: Reduction, record: Callable[[Mixture], Recorded]
) -> tuple[Mixture, Recorded]:
    """The mixture of the last bin of each trial, and what is recorded of each bin."""
    noise = shared.noise_covariance[..., None, None, None]
    gains, offsets = jnp.transpose(trials.steps.gain, (1, 3, 4, 2, 0)), jnp.transpose(trials.steps.offset, (1, 3, 2, 0))
    precisions = jnp.transpose(trials.signals.precision, (1, 2, 3, 0))
    shifts, moves = jnp.transpose(trials.signals.shift, (1, 2, 0)), jnp.transpose(trials.log_transition, (1, 2, 3, 0))

    def step(before: Mixture, now: tuple[Array, ...]) -> tuple[Mixture, Recorded]:
        gain, offset, precision, shift, moves, bin_ = now
        gain = gain[:, :, None]
        ahead = applied(gain, before.mean[:, :, None]) + offset[:, None]
        spread = congruence(gain, before.covariance[:, :, :, None]) + noise
        mean, covariance, evidence = update(ahead, spread, precision[:, :, None, None], shift[:, None, None])
        weight = before.weight[:, None] + reduction.leaving(before.memory, moves) + evidence
        found = reduction.reduce(before, Extended(weight, mean, covariance))
        held = before._replace(memory=reduction.held(before.memory))
        after = jax.tree.map(lambda new, old: jnp.where(bin_ < trials.lengths, new, old), found, held)
        return after, record(after)

    begun = _first_bin(shared, precisions[0], shifts[0], reduction)
    bins = jnp.arange(1, precisions.shape[0])
    end, later = lax.scan(step, begun, (gains, offsets, precisions[1:], shifts[1:], moves, bins))
    return end, jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), record(begun), later)


def _first_bin(shared: SharedTerms, precision: Array, shift: Array, reduction: Reduction) -> Mixture:
    """K of the components have a weight, each its own state."""
    first, count = shared.first_covariance[..., None, None], reduction.num_components
    mean, covariance, evidence = update(shared.first_means.T[..., None], first, precision[:, :, None], shift[:, None])
    num_states, num_trials = evidence.shape
    states = jnp.arange(count) % num_states
    begun = (shared.first_log_prob[:, None] + evidence)[states]
    weight = jnp.where((jnp.arange(count) < num_states)[:, None], begun, _NEVER)
    return Mixture(
        weight=weight,
        mean=mean[:, states],
        covariance=jnp.broadcast_to(covariance, (*covariance.shape[:2], count, num_trials)),
        total=jnp.zeros_like(weight[0]),
        memory=reduction.begin(weight),
    )


def _log_evidence(end: Mixture, trials: TrialTerms) -> Array:
    return end.total + jax.nn.logsumexp(end.weight, axis=0) + trials.signals.constant


def likeliest(probabilities: Float[Array, "trial bin state"]) -> Float[Array, "trial bin state"]:
    """One-hot states. Paths are smoothed for these: a blend of two states' dynamics is neither of them."""
    return jax.nn.one_hot(probabilities.argmax(-1), probabilities.shape[-1], dtype=probabilities.dtype)
