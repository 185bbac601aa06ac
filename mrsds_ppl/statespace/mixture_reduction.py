"""How the mixture of a Gaussian-sum filter is kept small: by pruning or by merging its components.

Axes of the components stand before that of trials, which is the last. See :mod:`mrsds_ppl.statespace.gaussian_sum`.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int


class Mixture(NamedTuple):
    """Log weight, mean and covariance of each component; ``total`` is what was taken off the weights.

    ``memory`` is what the reduction remembers of each component's history.
    """

    weight: Float[Array, "component trial"]
    mean: Float[Array, "latent component trial"]
    covariance: Float[Array, "latent latent component trial"]
    total: Float[Array, " trial"]
    memory: Array


class Extended(NamedTuple):
    """Every component extended by every state: log weights and moments, the new state beside the component."""

    weight: Float[Array, "component state trial"]
    mean: Float[Array, "latent component state trial"]
    covariance: Float[Array, "latent latent component state trial"]


@runtime_checkable
class Reduction(Protocol):
    """How the sum is kept small."""

    @property
    def num_components(self) -> int: ...

    def begin(self, weight: Array) -> Array:
        """Memory in the first bin, for log weights (component, trial); component c is in state c modulo K."""
        ...

    def leaving(self, memory: Array, log_transition: Array) -> Array:
        """log p(z_t = to | the last state of each component), (component, to, trial), of (from, to, trial)."""
        ...

    def reduce(self, before: Mixture, extended: Extended) -> Mixture:
        """As many components as before."""
        ...

    def held(self, memory: Array) -> Array:
        """Memory in a bin of padding, in which the mixture stays."""
        ...


class Pruning(NamedTuple):
    """The likeliest components stay, each with its states of the last ``lag`` bins, (bin, component, trial)."""

    num_components: int
    num_states: int
    lag: int

    def begin(self, weight: Array) -> Int[Array, "bin component trial"]:
        states = jnp.arange(self.num_components) % self.num_states
        return jnp.zeros((self.lag, *weight.shape), int).at[-1].set(states[:, None])

    def leaving(self, memory: Array, log_transition: Array) -> Array:
        return jnp.take_along_axis(log_transition, memory[-1][:, None], axis=0)

    def reduce(self, before: Mixture, extended: Extended) -> Mixture:
        scores = extended.weight.reshape(-1, extended.weight.shape[-1])
        best, index = lax.top_k(scores.T, self.num_components)
        best, index = best.T, index.T
        parent, state = index // self.num_states, index % self.num_states
        return Mixture(
            weight=best - best[0],
            mean=_chosen(extended.mean, index),
            covariance=_chosen(extended.covariance, index),
            total=before.total + best[0],
            memory=jnp.concatenate([_chosen(before.memory[:, :, None], parent)[1:], state[None]]),
        )

    def held(self, memory: Array) -> Array:
        return jnp.concatenate([memory[1:], memory[-1:]])

    def seen(self, mixture: Mixture) -> Array:
        """p(z) of the oldest bin that is remembered, (state, trial)."""
        return shares(mixture.weight, mixture.memory[:1], self.num_states)[0]


class Merging(NamedTuple):
    """Histories that differ in their oldest state alone become one, which remembers the transitions to be expected.

    Components are numbered with the last state running fastest; transitions are (from, to, component, trial).
    """

    num_components: int
    num_states: int

    def begin(self, weight: Array) -> Float[Array, "from to component trial"]:
        return jnp.zeros((self.num_states, self.num_states, *weight.shape), weight.dtype)

    def leaving(self, memory: Array, log_transition: Array) -> Array:
        return log_transition[self._last()]

    def reduce(self, before: Mixture, extended: Extended) -> Mixture:
        scores = self._apart(extended.weight)
        weight = jax.nn.logsumexp(scores, axis=0)
        share, means = jnp.exp(scores - weight), self._apart(extended.mean)
        mean = (share * means).sum(-4)
        off = means - mean[..., None, :, :, :]
        largest = weight.max((0, 1))
        eye = jnp.eye(self.num_states)
        is_last = jax.nn.one_hot(self._last(), self.num_states, dtype=share.dtype, axis=0)
        made = is_last[:, None, :, None, None] * eye[None, :, None, :, None]
        return Mixture(
            weight=self._numbered(weight - largest),
            mean=self._numbered(mean),
            covariance=self._numbered((share * (self._apart(extended.covariance) + off[:, None] * off[None])).sum(-4)),
            total=before.total + largest,
            memory=self._numbered((share * self._apart(before.memory[:, :, :, None] + made)).sum(-4)),
        )

    def held(self, memory: Array) -> Array:
        return memory

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


def shares(weight: Array, past: Array, num_states: int) -> Array:
    """p(z) in bins of the past, (bin, state, trial), from log weights and states of the components."""
    share = jax.nn.softmax(weight, axis=0)
    return jnp.stack([jnp.where(past == state, share, 0.0).sum(1) for state in range(num_states)], axis=1)
