"""Dynamics without some of their messages, to which the weights of the others have settled.

A message that is removed leaves its mean behind, and what it said may be said by others in part: phases of coupled
regions repeat each other. So the others' weights W move by the change d that explains most of what is missing,

    sum_{s kept} dm_k^{rs}/dW d   ~   sum_{s removed} ( m_k^{rs} - mean m_k^{rs} )

in least squares with the metric Q^-1, along steps of training trials, weighted by the probability of the state, the
messages taken as linear in d. This serves networks of any form: by conjugate gradients with products of Jacobians,
begun at d = 0, from where they tend to the smallest change of all that explain as much.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Bool, Float

from mrsds_ppl.models.covariance import Covariance
from mrsds_ppl.models.dynamics import Dynamics, Messages, Rows

# Directions of the weights that others can settle in; beyond some tens what they say hardly changes.
_ITERATIONS = 40
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
        change: of the weights, a tree as the dynamics are.
    """

    dynamics: Dynamics
    removed: Removed
    held: Messages
    change: Dynamics

    @property
    def noise(self) -> Covariance:
        """Q."""
        return self.dynamics.noise

    def means(
        self, x: Float[Array, "*batch latents"], u: Float[Array, "*batch input"]
    ) -> Float[Array, "state *batch latents"]:
        """f_k(x, u) of every state k."""
        rows = x.reshape(-1, x.shape[-1]), u.reshape(x[..., 0].size, u.shape[-1])
        told, moved = jax.jvp(lambda dynamics: dynamics.messages(*rows), (self.dynamics,), (self.change,))
        kept = jax.tree.map(jnp.add, told, moved)
        cross = jnp.where(self.removed.cross[..., None, None], self.held.cross, kept.cross)
        inputs = jnp.where(self.removed.inputs[..., None, None], self.held.inputs, kept.inputs)
        flat = self.dynamics.summed(Messages(kept.local, cross, inputs))
        return flat.reshape(flat.shape[0], *x.shape[:-1], flat.shape[-1])


def without(dynamics: Dynamics, removed: Removed, rows: Rows) -> Without:
    """Dynamics without some messages, the others settled.

    Args:
        dynamics: all of it.
        removed: which messages are.
        rows: steps of training trials.
    """
    told = dynamics.messages(rows.x, rows.u)
    share = rows.weights.T / jnp.maximum(rows.weights.sum(0), _TINY)[:, None]
    held = jax.tree.map(lambda message: jnp.einsum("k...nd,kn->k...d", message, share)[..., None, :], told)
    root = jnp.sqrt(rows.weights.T)[..., None]
    whiten = jnp.linalg.inv(dynamics.noise.cholesky).T

    def scaled(local: Array, cross: Array, inputs: Array) -> Array:
        """What messages add to the next bin, in standard deviations, (state, row, latent)."""
        return root * dynamics.summed(Messages(local, cross, inputs)) @ whiten

    gone = [
        jnp.where(which[..., None, None], message - mean, 0.0)
        for which, message, mean in zip(removed, told[1:], held[1:], strict=True)
    ]
    missing = scaled(jnp.zeros_like(told.local), *gone)

    def explained(change: Dynamics) -> Array:
        moved = jax.jvp(lambda dynamics: dynamics.messages(rows.x, rows.u), (dynamics,), (change,))[1]
        kept = [jnp.where(which[..., None, None], 0.0, m) for which, m in zip(removed, moved[1:], strict=True)]
        return scaled(moved.local, *kept)

    nothing = jax.tree.map(jnp.zeros_like, dynamics)
    back = jax.linear_transpose(explained, nothing)
    change, _ = cg(lambda d: back(explained(d))[0], back(missing)[0], nothing, maxiter=_ITERATIONS)
    return Without(dynamics, removed, held, change)
