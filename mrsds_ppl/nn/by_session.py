"""A module of which some arrays are those of one session: what neurons have to do with."""

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, PyTree

Part = TypeVar("Part", bound=eqx.Module)


class BySession(eqx.Module, Generic[Part]):
    """A module with some arrays for each session, which have a leading axis of sessions, and the rest shared.

    Args:
        module: with which every session begins.
        own: the parts of it that each session has for itself, as ``where`` of ``equinox.tree_at``.
        num_sessions: how many there are.
    """

    shared: Part
    own: Part

    def __init__(self, module: Part, own: Callable[[Part], PyTree], num_sessions: int) -> None:
        none = jax.tree.map(lambda _: False, module)
        which = eqx.tree_at(own, none, replace_fn=lambda part: jax.tree.map(lambda _: True, part))
        first, self.shared = eqx.partition(module, which)
        self.own = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_sessions, *leaf.shape)), first)

    @property
    def num_sessions(self) -> int:
        """How many there are."""
        return int(jax.tree.leaves(self.own)[0].shape[0])

    @property
    def whole(self) -> Part:
        """The module with the arrays of all sessions in place of those of one."""
        return eqx.combine(self.shared, self.own)

    def of(self, number: int | Int[Array, ""]) -> Part:
        """The module of one session."""
        return eqx.combine(self.shared, jax.tree.map(lambda leaf: leaf[number], self.own))

    def over_trials(self, function: Callable[..., PyTree], session: Int[Array, " trial"], *arrays: PyTree) -> PyTree:
        """``function(module, *arrays)`` of every trial, under the module of its session.

        Args:
            function: of the module and of what ``arrays`` hold of one trial.
            session: number of each trial's session.
            arrays: with a leading axis of trials.
        """
        own = jax.tree.map(lambda leaf: leaf[session], self.own)
        return jax.vmap(lambda own, *some: function(eqx.combine(self.shared, own), *some))(own, *arrays)

    def each(self, function: Callable[[Part, Int[Array, ""]], Part]) -> "BySession[Part]":
        """``function(module, number)`` of every session, one after another; what is shared stays as it is."""

        def one(number: Int[Array, ""]) -> Part:
            return self._own(function(self.of(number), number))

        found = lax.map(one, jnp.arange(self.num_sessions))
        return eqx.tree_at(lambda parts: parts.own, self, found)

    def of_each(self, found: Sequence[Part]) -> "BySession[Part]":
        """With what is given for each session; what is shared stays as it is."""
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(self._own, found))
        return eqx.tree_at(lambda parts: parts.own, self, stacked)

    def with_part(self, number: int, module: Part) -> "BySession[Part]":
        """With what is given for one session."""
        own = jax.tree.map(lambda leaf, one: leaf.at[number].set(one), self.own, self._own(module))
        return eqx.tree_at(lambda parts: parts.own, self, own)

    def _own(self, module: Part) -> Part:
        """What a session has for itself of a module."""
        none = partial(operator.is_, None)
        return jax.tree.map(lambda own, leaf: None if own is None else leaf, self.own, module, is_leaf=none)
