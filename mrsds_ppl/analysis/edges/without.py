"""Dynamics without some of their messages, to which the weights of the others have settled.

A message that is removed leaves its mean behind, and what it said may be said by others in part: phases of coupled
regions repeat each other. So the others' weights move to where log p(y) is largest without it, as far as its curvature
tells (:meth:`mrsds_ppl.analysis.weights.WeightPosterior.without`), the messages taken as linear in their weights.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mrsds_ppl.analysis.weights import Moved
from mrsds_ppl.models.dynamics import Dynamics, Messages, Rows

_TINY = 1e-30


class Removed(NamedTuple):
    """Which messages are removed, of regions and of inputs."""

    cross: Bool[Array, "state target source"]
    inputs: Bool[Array, "state target input"]


class Without(Moved):
    """Dynamics in which some messages are their means, and the others moved along a change of their weights.

    Args:
        fitted: all of it.
        change: of the weights.
        removed: which messages are.
        held: what stands in their place, of each message the mean.
    """

    removed: Removed
    held: Messages

    def messages(self, x: Float[Array, "row latents"], u: Float[Array, "row input"]) -> Messages:
        """Every message, as :meth:`Dynamics.messages` gives them."""
        kept = super().messages(x, u)
        cross = jnp.where(self.removed.cross[..., None, None], self.held.cross, kept.cross)
        inputs = jnp.where(self.removed.inputs[..., None, None], self.held.inputs, kept.inputs)
        return Messages(kept.local, cross, inputs)


def mean_messages(dynamics: Dynamics, rows: Rows) -> Messages:
    """The mean of each message in each state, which it leaves behind where it is removed.

    Args:
        dynamics: all of it.
        rows: steps of training trials.
    """
    told = dynamics.messages(rows.x, rows.u)
    share = rows.weights.T / jnp.maximum(rows.weights.sum(0), _TINY)[:, None]
    return jax.tree.map(lambda message: jnp.einsum("k...nd,kn->k...d", message, share)[..., None, :], told)
