"""The dynamics as a sum of messages: what region s tells region r in state k, and what an input tells it.

    f_k^r(x, u) = m_k^{rr}(x^r) + sum_{s != r} m_k^{rs}(...) + sum_l g_k^{rl}(...)

Communication   ``additive``         m^{rs}(x^s), a perceptron
                ``additive-shared``  A^{rs} phi^s(x^s) + a^{rs}: hidden layers of a source, the same for all targets
                ``additive-linear``  m^{rs}(x^s) linear for s != r
                ``conditional``      m^{rs}(x^s, x^r) - m^{rs}(0, x^r): silence sends no message
Input           ``additive``         g^{rl}(u_l)
                ``conditional``      g^{rl}(x^r, u_l) - g^{rl}(x^r, 0)
``separate`` inputs have one g each, ``together`` one g of all. The local message is x^r plus a perceptron.
All K R R networks are one stacked network, whose diagonal is the local one (two stacked networks where their form
differs). Shared hidden layers are K R networks, computed once, and what is left of a message is linear; the local
message has hidden layers of its own, with which local dynamics and messages are recovered better.
Source: Karniol-Tambour et al., ICLR 2024, section 3.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float, PRNGKeyArray

from mrsds_ppl.models.covariance import Covariance
from mrsds_ppl.models.options import DynamicsOptions as DynamicsOptions
from mrsds_ppl.nn import draws
from mrsds_ppl.nn.options import with_output
from mrsds_ppl.nn.stacked import StackedMLP


@runtime_checkable
class StateDynamics(Protocol):
    """p(x_t | z_t = k, x_{t-1}, u_t) = N(f_k(x_{t-1}, u_t), Q) of any form of f."""

    @property
    def noise(self) -> Covariance:
        """Q."""
        ...

    def means(self, x: Array, u: Array) -> Array:
        """f_k(x, u) for every state k: (*batch, latent), (*batch, input) -> (state, *batch, latent)."""
        ...


AnyDynamics = TypeVar("AnyDynamics", bound=StateDynamics)


class Rows(NamedTuple):
    """Steps of some paths, one a row: latents of the bin before, inputs, and the probability of each state.

    The probabilities are 0 in rows that do not count.
    """

    x: Float[Array, "row latents"]
    u: Float[Array, "row input"]
    weights: Float[Array, "row state"]


class Messages(NamedTuple):
    """Terms of f_k(x, u): ``local`` holds m^{rr}(x^r) with x^r itself, ``cross`` is zero on its diagonal.

    Axes: state, target region, source region or input, row, latent (padded to the widest region).
    """

    local: Float[Array, "state target row latent"]
    cross: Float[Array, "state target source row latent"]
    inputs: Float[Array, "state target source row latent"]


class Dynamics(eqx.Module):
    """p(x_t | z_t = k, x_{t-1}, u_t) = N(f_k(x_{t-1}, u_t), Q).

    Args:
        num_states: K.
        latent_sizes: latent dimensions of each region.
        num_inputs: M; 0 leaves the inputs out.
        options: form of the messages.
        key: random key.
    """

    sent: StackedMLP | None
    pairs: StackedMLP
    local: StackedMLP | None
    inputs: StackedMLP | None
    noise: Covariance
    latent_sizes: tuple[int, ...] = eqx.field(static=True)
    num_states: int = eqx.field(static=True)
    num_inputs: int = eqx.field(static=True)
    options: DynamicsOptions = eqx.field(static=True)

    def __init__(
        self,
        num_states: int,
        latent_sizes: Sequence[int],
        num_inputs: int,
        options: DynamicsOptions,
        *,
        key: PRNGKeyArray,
    ) -> None:
        self.num_states, self.latent_sizes = num_states, tuple(latent_sizes)
        self.num_inputs, self.options = num_inputs, options
        regions, width = len(self.latent_sizes), max(self.latent_sizes)
        keys = draws.split(key, 3)
        share, kind = options.zcond, options.communication_type
        of_sources, linear = kind == "additive-shared", kind == "additive-linear"
        fan_in = 2 * width if kind == "conditional" else width
        hidden, activations = (() if linear else options.layers), (() if linear else options.activations or ())
        self.sent = None
        if of_sources and hidden:
            # One target stands for all.
            of_sent = draws.split(keys[1], 2)[1]
            self.sent = StackedMLP(
                (num_states, 1, regions), (fan_in, *hidden), activations, key=of_sent, shared_weights=share
            )
            fan_in, hidden, activations = hidden[-1], (), ()
        self.pairs = StackedMLP(
            (num_states, regions, regions),
            (fan_in, *hidden, width),
            with_output(activations),
            key=keys[1],
            bias=not linear,
            shared_weights=share and not linear,
            output_scale=0.1,
        )
        self.local = None
        if kind != "additive":
            self.local = StackedMLP(
                (num_states, regions),
                (width, *options.layers, width),
                with_output(options.activations),
                key=keys[0],
                shared_weights=share,
                output_scale=0.1,
            )
        self.inputs = None
        if num_inputs:
            together = options.input_func_type == "together"
            groups, channels = (1, num_inputs) if together else (num_inputs, 1)
            self.inputs = StackedMLP(
                (num_states, regions, groups),
                (channels + (width if options.input_type == "conditional" else 0), *options.input_layers, width),
                with_output(options.input_activations),
                key=keys[2],
                bias=False,
                shared_weights=share,
                output_scale=0.1,
            )
        self.noise = Covariance(
            (sum(self.latent_sizes),),
            options.noise_scale,
            triangular=options.triangular_cov,
            trainable=options.trainable_cov,
        )

    def messages(self, x: Float[Array, "row latents"], u: Float[Array, "row input"]) -> Messages:
        """Every message of every state, for each row (a bin of a trial) of latents and inputs."""
        by_region = self.by_region(x)
        pairs, inputs = self._pairs(by_region), self._inputs(by_region, u)
        same = np.eye(by_region.shape[0], dtype=bool)[:, :, None, None]
        local = by_region + jnp.where(same, pairs, 0.0).sum(2)
        return Messages(*(self._mask(m) for m in (local, jnp.where(same, 0.0, pairs), inputs)))

    def means(
        self, x: Float[Array, "*batch latents"], u: Float[Array, "*batch input"]
    ) -> Float[Array, "state *batch latents"]:
        """f_k(x, u) for every state k."""
        batch = x.shape[:-1]
        rows = math.prod(batch)
        by_region = self.by_region(x.reshape(rows, x.shape[-1]))
        inputs = self._inputs(by_region, u.reshape(rows, u.shape[-1]))
        total = by_region + self._changes(by_region) + inputs.sum(2)
        flat = self._flat(total)
        return flat.reshape(self.num_states, *batch, flat.shape[-1])

    def summed(self, messages: Messages) -> Float[Array, "state row latents"]:
        """f_k(x, u) of messages that are known already."""
        return self._flat(messages.local + messages.cross.sum(2) + messages.inputs.sum(2))

    def unshared(self) -> "Dynamics":
        """The same function with hidden layers of its own for each message; dynamics that share none as they are."""
        if self.options.communication_type != "additive-shared":
            return self
        each, own = np.arange(len(self.latent_sizes)), self.local
        sent = jax.tree.map(lambda leaf: jnp.repeat(leaf, len(each), axis=1), self.sent)
        layers = [part for part in (sent, self.pairs) if part is not None]
        weights, biases = (
            [leaf for part in layers for leaf in getattr(part, of) or ()] for of in ("weights", "biases")
        )
        if own is not None:
            weights = [w.at[:, each, each].set(local) for w, local in zip(weights, own.weights, strict=True)]
            biases = [b.at[:, each, each].set(local) for b, local in zip(biases, own.biases or (), strict=True)]
        options = replace(self.options, communication_type="additive")
        form = eqx.filter_eval_shape(
            Dynamics, self.num_states, self.latent_sizes, self.num_inputs, options, key=random.key(0)
        )
        parts = lambda d: (d.pairs.weights, d.pairs.biases, d.inputs, d.noise)  # noqa: E731 - where tree_at looks
        found = (weights, biases, self.inputs, self.noise)
        return eqx.tree_at(parts, form, found, is_leaf=lambda leaf: leaf is None)

    def _changes(self, by_region: Array) -> Array:
        """(state, target, row, latent): what all messages between regions and the local dynamics change together."""
        if self.sent is None or self.local is None:
            return self._pairs(by_region).sum(2)
        each = np.arange(by_region.shape[0])
        between = jax.tree.map(lambda leaf: leaf.at[:, each, each].set(0.0), self.pairs)
        return between.added_up(self.sent(by_region[None, None])) + self.local(by_region[None])

    def _pairs(self, by_region: Array) -> Array:
        """(state, target, source, row, latent); the diagonal holds the change that the local dynamics make."""
        if self.local is None:
            return self.pairs(by_region[None, None])
        if self.options.communication_type == "conditional":
            cross = self._conditional(by_region)
        else:
            cross = self.pairs(by_region[None, None] if self.sent is None else self.sent(by_region[None, None]))
        same = np.eye(by_region.shape[0], dtype=bool)[:, :, None, None]
        return jnp.where(same, self.local(by_region[None])[:, :, None], cross)

    def _conditional(self, by_region: Array) -> Array:
        """m^{rs}(x^s, x^r) - m^{rs}(0, x^r), zero on the diagonal: its networks, which say nothing, are not asked."""
        target, source = np.nonzero(~np.eye(by_region.shape[0], dtype=bool))
        networks = jax.tree.map(lambda leaf: leaf[:, target, source], self.pairs)
        here, there = by_region[target], by_region[source]
        told, silence = (
            networks(jnp.concatenate([sent, here], axis=-1)[None]) for sent in (there, jnp.zeros_like(there))
        )
        shape = (self.num_states, *(by_region.shape[:1] * 2), *by_region.shape[1:])
        return jnp.zeros(shape, told.dtype).at[:, target, source].set(told - silence)

    def _inputs(self, by_region: Array, u: Array) -> Array:
        if self.inputs is None:
            return jnp.zeros((self.num_states, by_region.shape[0], 0, *by_region.shape[1:]), by_region.dtype)
        grouped = u[None, None, None] if self.options.input_func_type == "together" else u.T[None, None, :, :, None]
        silent = jnp.zeros_like(grouped)
        if self.options.input_type == "conditional":
            shape = (1, by_region.shape[0], grouped.shape[2], by_region.shape[1])
            target = jnp.broadcast_to(by_region[None, :, None], (*shape, by_region.shape[2]))
            grouped, silent = (
                jnp.concatenate([target, jnp.broadcast_to(a, (*shape, a.shape[-1]))], axis=-1)
                for a in (grouped, silent)
            )
        elif not self.options.zcond:
            return self.inputs(grouped)  # without biases g(0) = 0 already
        return self.inputs(grouped) - self.inputs(silent)

    def _flat(self, by_target: Array) -> Array:
        """(state, target, row, widest) -> (state, row, latents)."""
        flat = jnp.swapaxes(by_target, 1, 2).reshape(self.num_states, by_target.shape[2], -1)
        return flat if self._equal_sizes else flat[..., self._slots()]

    @property
    def _equal_sizes(self) -> bool:
        return min(self.latent_sizes) == max(self.latent_sizes)

    def by_region(self, x: Array) -> Array:
        """(row, latents) -> (region, row, widest), zeros where a region is narrower than the widest."""
        regions, width = len(self.latent_sizes), max(self.latent_sizes)
        if not self._equal_sizes:
            x = jnp.zeros((x.shape[0], regions * width), x.dtype).at[:, self._slots()].set(x)
        return jnp.swapaxes(x.reshape(-1, regions, width), 0, 1)

    def _mask(self, messages: Array) -> Array:
        if self._equal_sizes:
            return messages
        inside = np.arange(max(self.latent_sizes)) < np.array(self.latent_sizes)[:, None]
        middle = (1,) * (messages.ndim - 3)
        return messages * inside.reshape((1, len(self.latent_sizes), *middle, inside.shape[1]))

    def _slots(self) -> np.ndarray:
        width = max(self.latent_sizes)
        return np.concatenate([r * width + np.arange(size) for r, size in enumerate(self.latent_sizes)])


def with_scaled_noise(dynamics: AnyDynamics, factor: float | Float[Array, "*latents"]) -> AnyDynamics:
    """The same dynamics with the Cholesky factor of Q, or each of its rows, times ``factor``."""
    return eqx.tree_at(lambda d: d.noise, dynamics, replace_fn=lambda noise: noise.scaled(factor))


def every_message(
    dynamics: Dynamics, x: Float[Array, "row latents"], u: Float[Array, "row input"]
) -> Float[Array, "state target source row latent"]:
    """Changes that each message makes, in every state; sources are the regions, then the inputs.

    On the diagonal stands the local change m^{rr}(x) - x.

    Args:
        dynamics: the fitted dynamics.
        x, u: latents of the bin before and inputs of the bin.
    """
    found = dynamics.messages(x, u)
    own = (found.local - dynamics.by_region(x))[:, :, None]
    same = np.eye(own.shape[1], dtype=bool)[:, :, None, None]
    return jnp.concatenate([jnp.where(same, own, found.cross), found.inputs], axis=2)
