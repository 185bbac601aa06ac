"""A group-sparse penalty on messages between regions: it takes away those that the signals do not ask for.

    lambda N sum_k sum_{r != s} g_k[r, s]
    g_k[r, s]^2 = sum_t p(z_t = k) |Q_r^{-1/2} (m_k^{rs}(x_{t-1}) - mean)|^2 / sum_t p(z_t = k)

for N bins. A group is what one region tells another in one state, as it varies over the latents that the state visits;
constants are free, since they may stand in any message. Sizes are in units of the noise of the target's latents (its
diagonal), so that the scale of the latents does not matter. They enter with the power one, which draws small ones to
zero, and large ones down by no more than a constant. Source: Yuan and Lin (2006), group lasso.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from mrsds_ppl.models.dynamics import Dynamics, Rows

_SMOOTH = 1e-4  # the root is not differentiable at zero


def message_sizes(dynamics: Dynamics, rows: Rows) -> Float[Array, "state target source"]:
    """g_k[r, s] of each message between regions, zero on the diagonal; the noise is taken as given."""
    return sizes_of(dynamics, dynamics.messages(rows.x, rows.u).cross, rows.weights)


def sizes_of(
    dynamics: Dynamics, cross: Float[Array, "state target source row latent"], weights: Float[Array, "row state"]
) -> Float[Array, "state target source"]:
    """:func:`message_sizes` of messages between regions that are known already."""
    share = shares(weights)
    told = deviations(cross / noise_of_target(dynamics), share)
    return jnp.where(np.eye(len(dynamics.latent_sizes), dtype=bool), 0.0, lengths(told, share))


def noise_of_target(dynamics: Dynamics) -> Float[Array, "target 1 1 latent"]:
    """Standard deviation of the state noise, one where a region is narrower than the widest; taken as given."""
    noise = dynamics.by_region(lax.stop_gradient(dynamics.noise.scale)[None])[:, 0]
    return jnp.where(noise > 0, noise, 1.0)[:, None, None]


def shares(weights: Float[Array, "row state"]) -> Float[Array, "row state"]:
    """Weights that add up to one over the rows, in each state that is used at all."""
    return weights / jnp.maximum(weights.sum(0), 1.0)


def deviations(
    told: Float[Array, "state target source row latent"], share: Float[Array, "row state"]
) -> Float[Array, "state target source row latent"]:
    """Messages less their weighted means over the rows."""
    return told - jnp.einsum("krsnd,nk->krsd", told, share)[..., None, :]


def lengths(
    told: Float[Array, "state target source row latent"], share: Float[Array, "row state"]
) -> Float[Array, "state target source"]:
    """Weighted root mean square of the messages over the rows, smooth at zero."""
    return jnp.sqrt(jnp.einsum("krsnd,nk->krs", told**2, share) + _SMOOTH**2) - _SMOOTH
