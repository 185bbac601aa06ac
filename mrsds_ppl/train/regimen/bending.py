"""A group-sparse penalty on what is not linear in the messages: where nothing asks for it, they are linear.

    lambda N sum_k sum_{r, s} b_k[r, s]
    b_k[r, s]^2 = min_{A, c} sum_t p(z_t = k) |Q_r^{-1/2} (m_k^{rs}(x_{t-1}) - A x_{t-1} - c)|^2 / sum_t p(z_t = k)

for N bins. A group is how one message, the local ones too, bends over the latents that the state visits: what is left
of it after its regression on all latents, in units of the noise of the target's latents (its diagonal). The power one
takes the bend of most messages to zero and shortens the rest by no more than a constant. Source: Yuan and Lin (2006),
group lasso, as in :mod:`mrsds_ppl.train.regimen.sparsity`.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mrsds_ppl.models.dynamics import Dynamics, Rows
from mrsds_ppl.train.regimen.sparsity import deviations, lengths, noise_of_target, shares

_RIDGE = 1e-4  # of the variance of the latents, for those that stand still


def message_bends(dynamics: Dynamics, rows: Rows) -> Float[Array, "state target source"]:
    """b_k[r, s] of each message, the local ones on the diagonal; the noise is taken as given."""
    x, share = rows.x, shares(rows.weights)
    found = dynamics.messages(x, rows.u)
    same = np.eye(len(dynamics.latent_sizes), dtype=bool)[:, :, None, None]
    told = jnp.where(same, found.local[:, :, None], found.cross)
    told = deviations(told / noise_of_target(dynamics), share)
    away = x - (share.T @ x)[:, None]
    second = jnp.einsum("kni,knj,nk->kij", away, away, share)
    ridge = _RIDGE * jnp.trace(second, axis1=-2, axis2=-1)[:, None, None] / x.shape[1] * jnp.eye(x.shape[1])
    slopes = jnp.einsum("kij,knj,nk,krsnd->krsid", jnp.linalg.inv(second + ridge), away, share, told)
    return lengths(told - jnp.einsum("kni,krsid->krsnd", away, slopes), share)
