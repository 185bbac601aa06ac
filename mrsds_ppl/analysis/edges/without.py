"""Dynamics without some of their messages, to which the weights of the others have settled.

A message that is removed leaves its mean behind, and what it said may be said by others in part: phases of coupled
regions repeat each other. So the others' weights move to where log p(y) is largest without it, as far as its curvature
tells (:meth:`mrsds_ppl.analysis.weights.WeightPosterior.without`), the messages taken as linear in their weights.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mrsds_ppl.analysis.weights import Change
from mrsds_ppl.models.covariance import Covariance
from mrsds_ppl.models.dynamics import Dynamics, Messages, Rows

_TINY = 1e-30


class Removed(NamedTuple):
    """Which messages are removed, of regions and of inputs."""

    cross: Bool[Array, "state target source"]
    inputs: Bool[Array, "state target input"]


class Without(eqx.Module):
    """Dynamics in which some messages are their means, and the others moved along a change of their weights.

    Args:
        dynamics: all of it.
        removed: which messages are.
        held: what stands in their place, of each message the mean.
        change: of the weights.
    """

    dynamics: Dynamics
    removed: Removed
    held: Messages
    change: Change

    @property
    def noise(self) -> Covariance:
        """Q."""
        return self.dynamics.noise

    def means(
        self, x: Float[Array, "*batch latents"], u: Float[Array, "*batch input"]
    ) -> Float[Array, "state *batch latents"]:
        """f_k(x, u) of every state k."""
        rows = x.reshape(-1, x.shape[-1]), u.reshape(x[..., 0].size, u.shape[-1])
        kept = self.change.split_messages(self.dynamics, *rows)
        cross = jnp.where(self.removed.cross[..., None, None], self.held.cross, kept.cross)
        inputs = jnp.where(self.removed.inputs[..., None, None], self.held.inputs, kept.inputs)
        flat = self.dynamics.summed(Messages(kept.local, cross, inputs))
        return flat.reshape(flat.shape[0], *x.shape[:-1], flat.shape[-1])


def without(dynamics: Dynamics, removed: Removed, change: Change, rows: Rows) -> Without:
    """Dynamics without some messages, the others settled.

    Args:
        dynamics: all of it.
        removed: which messages are.
        change: of the weights, by which the others settle.
        rows: steps of training trials, of which removed messages keep their mean.
    """
    told = dynamics.messages(rows.x, rows.u)
    share = rows.weights.T / jnp.maximum(rows.weights.sum(0), _TINY)[:, None]
    held = jax.tree.map(lambda message: jnp.einsum("k...nd,kn->k...d", message, share)[..., None, :], told)
    return Without(dynamics, removed, held, change)
