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

Axes of the components stand before that of trials, which is the last.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from mrsds_ppl.statespace.linear_gaussian import SharedTerms, TrialTerms
from mrsds_ppl.statespace.measurement_update import update
from mrsds_ppl.statespace.small_matrices import applied, congruence

_NEVER = -1e30


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


class _Mixture(NamedTuple):
    """Log weight, mean and covariance of each component; ``total`` is what was taken off the weights.

    ``memory`` is what the reduction remembers of each component's history.
    """

    weight: Float[Array, "component trial"]
    mean: Float[Array, "latent component trial"]
    covariance: Float[Array, "latent latent component trial"]
    total: Float[Array, " trial"]
    memory: Array


class _Extended(NamedTuple):
    """Every component extended by every state: log weights and moments, the new state beside the component."""

    weight: Float[Array, "component state trial"]
    mean: Float[Array, "latent component state trial"]
    covariance: Float[Array, "latent latent component state trial"]


@runtime_checkable
class _Reduction(Protocol):
    """How the sum is kept small."""

    @property
    def num_components(self) -> int: ...

    def begin(self, weight: Array) -> Array:
        """Memory in the first bin, for log weights (component, trial); component c is in state c modulo K."""
        ...

    def leaving(self, memory: Array, log_transition: Array) -> Array:
        """log p(z_t = to | the last state of each component), (component, to, trial), of (from, to, trial)."""
        ...

    def reduce(self, before: _Mixture, extended: _Extended) -> _Mixture:
        """As many components as before."""
        ...

    def held(self, memory: Array) -> Array:
        """Memory in a bin of padding, in which the mixture stays."""
        ...

    def seen(self, mixture: _Mixture) -> Array | None:
        """What is recorded of every bin."""
        ...


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
    pruning = _Pruning(min(num_kept, num_states**bins), num_states, lag)
    end, recorded = _filter(shared, trials, pruning)
    assert recorded is not None
    # Bin t says where bin t - lag + 1 was; the last one all that are left.
    kept = recorded[lag - 2 : -1] if lag > 1 else recorded[:0]
    probabilities = jnp.concatenate([kept, _shares(end.weight, end.memory, num_states)])
    return StatePosterior(jnp.moveaxis(probabilities, -1, 0), _log_evidence(end, trials))


def expected_transitions(shared: SharedTerms, trials: TrialTerms, *, order: int = 2) -> ExpectedTransitions:
    """Evidence and expected transitions of every trial.

    Args:
        shared, trials: the program.
        order: states of a history; there are K to the power of it.
    """
    bins, num_states = trials.signals.shift.shape[1], len(shared.first_log_prob)
    merging = _Merging(num_states ** min(order, bins), num_states)
    end, _ = _filter(shared, trials, merging)
    expected = (jax.nn.softmax(end.weight, axis=0) * end.memory).sum(-2)
    return ExpectedTransitions(_log_evidence(end, trials), jnp.moveaxis(expected, -1, 0))


def _filter(shared: SharedTerms, trials: TrialTerms, reduction: _Reduction) -> tuple[_Mixture, Array | None]:
    """The mixture of the last bin of each trial, and what was recorded of bins 2 ... T."""
    noise = shared.noise_covariance[..., None, None, None]
    gains, offsets = jnp.transpose(trials.steps.gain, (1, 3, 4, 2, 0)), jnp.transpose(trials.steps.offset, (1, 3, 2, 0))
    precisions = jnp.transpose(trials.signals.precision, (1, 2, 3, 0))
    shifts, moves = jnp.transpose(trials.signals.shift, (1, 2, 0)), jnp.transpose(trials.log_transition, (1, 2, 3, 0))

    def step(before: _Mixture, now: tuple[Array, ...]) -> tuple[_Mixture, Array | None]:
        gain, offset, precision, shift, moves, bin_ = now
        gain = gain[:, :, None]
        ahead = applied(gain, before.mean[:, :, None]) + offset[:, None]
        spread = congruence(gain, before.covariance[:, :, :, None]) + noise
        mean, covariance, evidence = update(ahead, spread, precision[:, :, None, None], shift[:, None, None])
        weight = before.weight[:, None] + reduction.leaving(before.memory, moves) + evidence
        found = reduction.reduce(before, _Extended(weight, mean, covariance))
        held = before._replace(memory=reduction.held(before.memory))
        after = jax.tree.map(lambda new, old: jnp.where(bin_ < trials.lengths, new, old), found, held)
        return after, reduction.seen(after)

    begun = _first_bin(shared, precisions[0], shifts[0], reduction)
    bins = jnp.arange(1, precisions.shape[0])
    return lax.scan(step, begun, (gains, offsets, precisions[1:], shifts[1:], moves, bins))


def _first_bin(shared: SharedTerms, precision: Array, shift: Array, reduction: _Reduction) -> _Mixture:
    """K of the components have a weight, each its own state."""
    first, count = shared.first_covariance[..., None, None], reduction.num_components
    mean, covariance, evidence = update(shared.first_means.T[..., None], first, precision[:, :, None], shift[:, None])
    num_states, num_trials = evidence.shape
    states = jnp.arange(count) % num_states
    begun = (shared.first_log_prob[:, None] + evidence)[states]
    weight = jnp.where((jnp.arange(count) < num_states)[:, None], begun, _NEVER)
    return _Mixture(
        weight=weight,
        mean=mean[:, states],
        covariance=jnp.broadcast_to(covariance, (*covariance.shape[:2], count, num_trials)),
        total=jnp.zeros_like(weight[0]),
        memory=reduction.begin(weight),
    )


def _log_evidence(end: _Mixture, trials: TrialTerms) -> Array:
    return end.total + jax.nn.logsumexp(end.weight, axis=0) + trials.signals.constant


class _Pruning(NamedTuple):
    """The likeliest components stay, each with its states of the last ``lag`` bins, (bin, component, trial)."""

    num_components: int
    num_states: int
    lag: int

    def begin(self, weight: Array) -> Int[Array, "bin component trial"]:
        states = jnp.arange(self.num_components) % self.num_states
        return jnp.zeros((self.lag, *weight.shape), int).at[-1].set(states[:, None])

    def leaving(self, memory: Array, log_transition: Array) -> Array:
        return jnp.take_along_axis(log_transition, memory[-1][:, None], axis=0)

    def reduce(self, before: _Mixture, extended: _Extended) -> _Mixture:
        scores = extended.weight.reshape(-1, extended.weight.shape[-1])
        best, index = lax.top_k(scores.T, self.num_components)
        best, index = best.T, index.T
        parent, state = index // self.num_states, index % self.num_states
        return _Mixture(
            weight=best - best[0],
            mean=_chosen(extended.mean, index),
            covariance=_chosen(extended.covariance, index),
            total=before.total + best[0],
            memory=jnp.concatenate([_chosen(before.memory[:, :, None], parent)[1:], state[None]]),
        )

    def held(self, memory: Array) -> Array:
        return jnp.concatenate([memory[1:], memory[-1:]])

    def seen(self, mixture: _Mixture) -> Array:
        """p(z) of the oldest bin that is remembered, (state, trial)."""
        return _shares(mixture.weight, mixture.memory[:1], self.num_states)[0]


class _Merging(NamedTuple):
    """Histories that differ in their oldest state alone become one, which remembers the transitions to be expected.

    Components are numbered with the last state running fastest; transitions are (from, to, component, trial).
    """

    num_components: int
    num_states: int

    def begin(self, weight: Array) -> Float[Array, "from to component trial"]:
        return jnp.zeros((self.num_states, self.num_states, *weight.shape), weight.dtype)

    def leaving(self, memory: Array, log_transition: Array) -> Array:
        return log_transition[self._last()]

    def reduce(self, before: _Mixture, extended: _Extended) -> _Mixture:
        scores = self._apart(extended.weight)
        weight = jax.nn.logsumexp(scores, axis=0)
        share, means = jnp.exp(scores - weight), self._apart(extended.mean)
        mean = (share * means).sum(-4)
        off = means - mean[..., None, :, :, :]
        largest = weight.max((0, 1))
        eye = jnp.eye(self.num_states)
        is_last = jax.nn.one_hot(self._last(), self.num_states, dtype=share.dtype, axis=0)
        made = is_last[:, None, :, None, None] * eye[None, :, None, :, None]
        return _Mixture(
            weight=self._numbered(weight - largest),
            mean=self._numbered(mean),
            covariance=self._numbered((share * (self._apart(extended.covariance) + off[:, None] * off[None])).sum(-4)),
            total=before.total + largest,
            memory=self._numbered((share * self._apart(before.memory[:, :, :, None] + made)).sum(-4)),
        )

    def held(self, memory: Array) -> Array:
        return memory

    def seen(self, mixture: _Mixture) -> None:
        return None

    def _last(self) -> Array:
        """Last state of each component."""
        return jnp.arange(self.num_components) % self.num_states

    def _apart(self, values: Array) -> Array:
        """(..., component, state, trial) to (..., oldest state, others, state, trial)."""
        rest = self.num_components // self.num_states
        return values.reshape(*values.shape[:-3], self.num_states, rest, *values.shape[-2:])

    def _numbered(self, values: Array) -> Array:
        """(..., states but the oldest, state, trial) to (..., component, trial)."""
        return values.reshape(*values.shape[:-3], self.num_components, values.shape[-1])


def _chosen(values: Array, index: Array) -> Array:
    """Of values (..., component, state, trial) those at chosen pairs: (..., component, trial)."""
    flat = values.reshape(*values.shape[:-3], -1, values.shape[-1])
    return jnp.take_along_axis(flat, index.reshape((1,) * (flat.ndim - 2) + index.shape), axis=-2)


def _shares(weight: Array, past: Array, num_states: int) -> Array:
    """p(z) in bins of the past, (bin, state, trial), from log weights and states of the components."""
    share = jax.nn.softmax(weight, axis=0)
    return jnp.stack([jnp.where(past == state, share, 0.0).sum(1) for state in range(num_states)], axis=1)


def likeliest(probabilities: Float[Array, "trial bin state"]) -> Float[Array, "trial bin state"]:
    """One-hot states. Paths are smoothed for these: a blend of two states' dynamics is neither of them."""
    return jax.nn.one_hot(probabilities.argmax(-1), probabilities.shape[-1], dtype=probabilities.dtype)
