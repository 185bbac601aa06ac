"""Networks of the dynamics fitted to a polynomial, message by message.

    minimise  sum_{n,k} w_n(k) ( sum_{s != r} |m_k^{rs}(x_n) - W_k[r, s] phi_s(x_n)|^2 + |f_k(x_n) - W_k phi(x_n)|^2 )

in units of the state noise, with constants put into the local message. Only the sum of messages has a likelihood, and
two networks may share a message between them in many ways; fitted one by one they keep it where it was found.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, PRNGKeyArray

from mrsds_ppl.models.dynamics import Dynamics, Rows
from mrsds_ppl.nn.adam import descend
from mrsds_ppl.start.ascent.cubic_dynamics import CubicDynamics

_STEPS, _ROWS, _RATE = 2000, 256, 1e-2


@jax.jit
def fit_networks(key: PRNGKeyArray, dynamics: Dynamics, cubic: CubicDynamics, rows: Rows) -> Dynamics:
    """Networks whose messages are those of a polynomial, each by itself, by Adam on some of the rows a step.

    Constants, which may stand in any message, are put into the local one.

    Args:
        key: random key.
        dynamics: networks to start from; their noise becomes that of ``cubic``.
        cubic: the polynomial.
        rows: where the two have to agree.
    """
    x, u, weights = rows
    share = weights / jnp.maximum(weights.sum(0), 1.0)
    sent, scale = cubic.messages(x, u), cubic.noise.scale
    constant = jnp.einsum("ksni,nk->ksi", sent, share)
    own = np.zeros((len(cubic.latent_sizes), x.shape[-1]), bool)
    for region, latents in enumerate(cubic.rows()):
        own[region, latents] = True
    # (source, latent): what stands elsewhere is the whole of f, less the centred messages from others.
    messages = jnp.where(own[:, None], 0.0, sent - constant[:, :, None])
    whole = cubic.means(x, u)
    free, noise = eqx.partition(dynamics, eqx.tree_at(lambda d: d.noise, jax.tree.map(lambda _: True, dynamics), False))
    size = min(_ROWS, len(x))

    def loss(free: Dynamics, key: Array) -> Array:
        index = random.choice(key, len(x), (size,))
        now = eqx.combine(free, noise)
        found = now.messages(x[index], u[index])
        cross = _flat(now, found.cross)
        total = _flat(now, found.local[:, :, None]).sum(1) + cross.sum(1) + _flat(now, found.inputs).sum(1)
        apart = (cross - messages[:, :, index]) / scale
        left = (total - whole[:, index]) / scale
        weight = weights[index].T
        return jnp.einsum("kn,ksni->", weight, apart**2) / size + jnp.einsum("kn,kni->", weight, left**2) / size

    free = descend(key, loss, free, num_steps=_STEPS, rate=_RATE, last=0.01).params
    return eqx.tree_at(lambda d: d.noise, eqx.combine(free, noise), cubic.noise)


def _flat(dynamics: Dynamics, messages: Array) -> Array:
    """(state, target, source, row, widest) to (state, source, row, latent)."""
    parts = [messages[:, target, ..., :size] for target, size in enumerate(dynamics.latent_sizes)]
    return jnp.concatenate(parts, axis=-1)
