"""Directions in the weights of each message: the few along which the message moves where the latents have been.

A network of W weights says one thing in many ways. What a small change d of the weights does to a message over the
steps that were visited is J d, with the Jacobian J of all steps and latents. Its right singular vectors differ in that,

    Q^-1/2 (J - mean J) / sqrt(steps) = U diag(s) V^T,      m(x; w + V c) ~ m(x; w) + (J(x) - mean J) V c,

with the mean over the steps of a state: additive messages are known up to constants, of which one may gain what another
loses, so that signals cannot tell them. Messages that are zero at zero have no such freedom, and keep their mean. The
spectrum s falls by an order of magnitude within ten of them. A prior c ~ N(0, tau^2 I) is one on functions,
that of the network's tangent kernel. The vectors come from products with J and J^T alone, all messages at once, since
each has weights of its own: networks of any form will do. Messages that share hidden layers are taken as networks that
begin alike (:meth:`mrsds_ppl.models.dynamics.Dynamics.unshared`), so that each may change by itself.

Source: Halko, Martinsson and Tropp (2011), randomised singular values with one iteration; Jacot, Gabriel and Hongler
(2018), the tangent kernel.
"""

from functools import partial
from operator import attrgetter
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from mrsds_ppl.backend.side_by_side import compiled
from mrsds_ppl.models.covariance import Covariance
from mrsds_ppl.models.dynamics import Dynamics, Messages, Rows, every_message

_MORE = 8  # random vectors beyond those sought, as in the source
_RIDGE, _TINY = 1e-6, 1e-12


class Tangents(NamedTuple):
    """Directions in the weights of each message: a tree as the unshared dynamics, leaves with an axis of them in front.

    ``means`` are those of what a unit step along each direction adds, where constants are free, and ``scales`` the s.
    With weights that states share, so are the directions, and the axis of groups has size one.
    """

    directions: Dynamics
    means: Float[Array, "direction state target source latent"]
    scales: Float[Array, "group target source direction"]


@partial(compiled, static_argnames="count")
def tangents(key: PRNGKeyArray, dynamics: Dynamics, rows: Rows, *, count: int = 16) -> Tangents:
    """The first directions of every message over some steps.

    Args:
        key: random key.
        dynamics: the networks.
        rows: steps, weighted by the probability of each state.
        count: of directions.
    """
    dynamics = dynamics.unshared()
    share, root = measure(dynamics, rows)

    def added(change: Dynamics) -> Array:
        return jax.jvp(partial(every_message, x=rows.x, u=rows.u), (dynamics,), (change,))[1]

    def mean(message: Array) -> Array:
        return jnp.where(_free(dynamics, message.shape[2]), (share * message).sum(-2, keepdims=True), 0.0)

    def said(change: Dynamics) -> Array:
        message = added(change)
        return root * (message - mean(message))

    def heard(message: Array) -> Dynamics:
        return jax.linear_transpose(said, dynamics)(message)[0]

    def apart(each: Dynamics) -> Dynamics:
        """As many orthonormal messages as there are directions, which say the same together, heard by the weights."""
        told = lax.map(said, each)
        long = jnp.moveaxis(jax.vmap(partial(by_message, dynamics))(told), 0, -1)
        made = jnp.moveaxis(jnp.linalg.qr(long)[0], -1, 0)
        return lax.map(lambda column: heard(_short(dynamics, column, told.shape[1:])), made)

    flat, restored = ravel_pytree(dynamics)
    begun = jax.vmap(restored)(random.normal(key, (count + _MORE, flat.size), flat.dtype))
    found = lax.fori_loop(0, 2, lambda _, each: apart(each), begun)
    squares, turn = jnp.linalg.eigh(_gram(dynamics, found))
    scales = jnp.sqrt(jnp.maximum(squares[..., ::-1][..., :count], 0.0))
    turn = turn[..., ::-1][..., :count] / jnp.maximum(scales, _TINY)[..., None, :]
    directions = _turned(dynamics, found, turn)
    return Tangents(directions, lax.map(lambda one: mean(added(one))[..., 0, :], directions), scales)


def measure(
    dynamics: Dynamics, rows: Rows
) -> tuple[Float[Array, "state 1 1 row 1"], Float[Array, "state target 1 row latent"]]:
    """Share of each step in its state, and the root of it over the noise: what weighs messages of all steps."""
    share = (rows.weights / jnp.maximum(rows.weights.sum(0), _TINY)).T[:, None, None, :, None]
    # Latents that a region lacks are zero in its messages, whatever they are divided by.
    spread = jnp.maximum(dynamics.by_region(dynamics.noise.scale[None])[:, 0], _TINY)
    return share, jnp.sqrt(share) / spread[:, None, None]


def _free(dynamics: Dynamics, sources: int) -> Bool[np.ndarray, "source 1 1"]:
    """Sources whose messages may gain a constant that others lose: networks with a constant of their own."""
    regions = len(dynamics.latent_sizes)
    free = dynamics.options.communication_type == "additive" and regions > 1
    return (free & (np.arange(sources) < regions))[:, None, None]


class Change(NamedTuple):
    """A change of the weights, a tree as the unshared dynamics, and the mean that it adds where constants are free."""

    weights: Dynamics
    means: Float[Array, "state target source latent"]

    def messages(
        self, dynamics: Dynamics, x: Float[Array, "row latents"], u: Float[Array, "row input"]
    ) -> Float[Array, "state target source row latent"]:
        """m(x; w + V c)."""
        told, moved = jax.jvp(partial(every_message, x=x, u=u), (dynamics.unshared(),), (self.weights,))
        return told + moved - self.means[..., None, :]

    def split_messages(
        self, dynamics: Dynamics, x: Float[Array, "row latents"], u: Float[Array, "row input"]
    ) -> Messages:
        """The same, local dynamics and messages apart as in :meth:`Dynamics.messages`."""
        regions = len(dynamics.latent_sizes)
        told, own = self.messages(dynamics, x, u), np.eye(regions, dtype=bool)[..., None, None]
        pairs = told[:, :, :regions]
        local = jnp.where(own, pairs, 0.0).sum(2) + dynamics.by_region(x)
        return Messages(local, jnp.where(own, 0.0, pairs), told[:, :, regions:])


class Moved(eqx.Module):
    """Dynamics whose weights are changed, messages taken as linear in them.

    Args:
        fitted: the dynamics.
        change: of the weights.
    """

    fitted: Dynamics
    change: Change

    @property
    def noise(self) -> Covariance:
        """Q."""
        return self.fitted.noise

    @property
    def latent_sizes(self) -> tuple[int, ...]:
        """Latents of each region."""
        return self.fitted.latent_sizes

    @property
    def hears_source_alone(self) -> bool:
        """Whether a message between regions depends on the latents of its source and no others."""
        return self.fitted.options.communication_type != "conditional"

    def means(
        self, x: Float[Array, "*batch latents"], u: Float[Array, "*batch input"]
    ) -> Float[Array, "state *batch latents"]:
        """f_k(x, u) of every state k."""
        flat = self.fitted.summed(self.messages(x.reshape(-1, x.shape[-1]), u.reshape(x[..., 0].size, u.shape[-1])))
        return flat.reshape(flat.shape[0], *x.shape[:-1], flat.shape[-1])

    def messages(self, x: Float[Array, "row latents"], u: Float[Array, "row input"]) -> Messages:
        """Every message, as :meth:`Dynamics.messages` gives them."""
        return self.change.split_messages(self.fitted, x, u)


def changes(tangents: Tangents, coefficients: Float[Array, "group target source direction"]) -> Change:
    """The change V c of all weights."""
    found = _turned(tangents.directions, tangents.directions, coefficients[..., None])
    means = (jnp.moveaxis(coefficients, -1, 0)[..., None] * tangents.means).sum(0)
    return Change(jax.tree.map(lambda leaf: leaf[0], found), means)


_changes = jax.jit(changes)


def change_of(tangents: Tangents, coefficients: Float[np.ndarray, " coefficient"]) -> Change:
    """The change that coefficients, in the order of ``tangents.scales``, stand for; compiled."""
    return _changes(tangents, jnp.asarray(coefficients.reshape(tangents.scales.shape), tangents.scales.dtype))


def features(
    dynamics: Dynamics, tangents: Tangents, x: Float[Array, "row latents"], u: Float[Array, "row input"]
) -> Float[Array, "direction state target source row latent"]:
    """(J(x) - mean J) V: what a unit step along each direction adds to each message."""

    def along(change: Dynamics) -> Array:
        return jax.jvp(partial(every_message, x=x, u=u), (dynamics.unshared(),), (change,))[1]

    return lax.map(along, tangents.directions) - tangents.means[..., None, :]


@compiled
def own_coefficients(dynamics: Dynamics, given: Tangents, rows: Rows) -> Float[Array, "group target source direction"]:
    """Coefficients of each message itself, up to its mean, by least squares over some steps.

    Args:
        dynamics: the networks.
        given: their directions.
        rows: steps, weighted by the probability of each state.
    """
    share, root = measure(dynamics, rows)

    def centred(message: Array) -> Array:
        return by_message(dynamics, root * (message - (share * message).sum(-2, keepdims=True)))

    said = jnp.stack([centred(one) for one in features(dynamics, given, rows.x, rows.u)], axis=-2)
    whole = centred(every_message(dynamics, rows.x, rows.u))
    square = said @ jnp.swapaxes(said, -1, -2)
    ridge = _RIDGE * jnp.trace(square, axis1=-2, axis2=-1)[..., None, None] * jnp.eye(square.shape[-1])
    return jnp.linalg.solve(square + ridge + _TINY * jnp.eye(square.shape[-1]), said @ whole[..., None])[..., 0]


def by_message(dynamics: Dynamics, message: Array) -> Array:
    """(state, target, source, row, latent) to (group, target, source, all that the group's weights say)."""
    if dynamics.options.zcond:
        message = jnp.moveaxis(message, 0, 2)[None]
    return message.reshape(*message.shape[:3], -1)


def _short(dynamics: Dynamics, long: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of :func:`by_message`."""
    if dynamics.options.zcond:
        return jnp.moveaxis(long.reshape(*shape[1:3], shape[0], *shape[3:]), 2, 0)
    return long.reshape(shape)


def _networks(dynamics: Dynamics) -> list[tuple[str, int]]:
    """Name of each network, and how many axes of its leaves tell messages apart."""
    return [
        (name, axes)
        for name, axes in (("pairs", 3), ("local", 2), ("inputs", 3))
        if getattr(dynamics, name) is not None
    ]


def _gram(dynamics: Dynamics, each: Dynamics) -> Float[Array, "group target source direction direction"]:
    """Products of the directions of each message."""
    shared, grams = dynamics.options.zcond, {}
    for name, axes in _networks(dynamics):
        total = jnp.zeros(())
        for leaf in jax.tree.leaves(getattr(each, name)):
            flat = jnp.moveaxis(leaf.reshape(*leaf.shape[: axes + 1], -1), 0, -2)
            products = flat @ jnp.swapaxes(flat, -1, -2)
            total = total + (products.sum(0, keepdims=True) if shared else products)
        grams[name] = total
    pairs = grams["pairs"]
    if "local" in grams:
        same = jnp.eye(len(dynamics.latent_sizes))[:, :, None, None]
        pairs = jnp.where(same > 0, grams["local"][:, :, None], pairs)
    return jnp.concatenate([pairs, grams["inputs"]], axis=2) if "inputs" in grams else pairs


def _turned(dynamics: Dynamics, each: Dynamics, turn: Float[Array, "group target source direction made"]) -> Dynamics:
    """New directions of each message as sums of given ones."""
    regions = len(dynamics.latent_sizes)
    own = {
        "pairs": turn[:, :, :regions],
        "local": jnp.einsum("grr...->gr...", turn[:, :, :regions]),
        "inputs": turn[:, :, regions:],
    }
    found = jax.tree.map(lambda leaf: jnp.zeros((turn.shape[-1], *leaf.shape[1:]), leaf.dtype), each)
    for name, axes in _networks(dynamics):

        def sums(leaf: Array, axes: int = axes, some: Array = own[name]) -> Array:
            flat = jnp.moveaxis(leaf.reshape(*leaf.shape[: axes + 1], -1), 0, -1)
            made = flat @ some
            return jnp.moveaxis(made, -1, 0).reshape(turn.shape[-1], *leaf.shape[1:])

        network = jax.tree.map(sums, getattr(each, name))
        found = eqx.tree_at(attrgetter(name), found, network)
    return found
