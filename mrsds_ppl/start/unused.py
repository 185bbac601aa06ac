"""States that a fit does not use: how they are found, named, and revived at the start.

A state is unused where its share of the bins, by the smoothed posterior, is below a tenth of an even one, 1 / (10 K).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float, Num, PRNGKeyArray, PyTree

_NOISE = 0.1  # of a revived state's parameters, as a fraction of their own spread
_LOG_LEAVE = float(np.log(0.05 / 0.95))


def least_share(num_states: int) -> float:
    """1 / (10 K), the share of bins below which a state is unused."""
    return 0.1 / num_states


@jax.jit
def share_of_bins(
    states: Float[Array, "trial bin state"] | Float[np.ndarray, "trial bin state"],
    lengths: Num[Array, " trial"] | Num[np.ndarray, " trial"],
) -> Float[Array, " state"]:
    """sum_t p(z_t = k) / T over the valid bins of all trials.

    Args:
        states: smoothed probabilities.
        lengths: valid bins.
    """
    valid = (jnp.arange(states.shape[1]) < jnp.asarray(lengths)[:, None])[..., None]
    return jnp.where(valid, states, 0.0).sum((0, 1)) / jnp.sum(jnp.asarray(lengths)).astype(states.dtype)


def unused_states(shares: Float[np.ndarray, " state"]) -> list[int]:
    """Numbers of the states that are hardly used."""
    return [k for k, share in enumerate(shares) if share < least_share(len(shares))]


def unused_sentence(shares: Float[np.ndarray, " state"], *, revived: bool) -> str | None:
    """What the log says of unused states, None where all are used.

    Args:
        shares: share of bins of each state.
        revived: whether they were given a new start.
    """
    found = unused_states(shares)
    if not found:
        return None
    named = " and ".join(f"state {k} holds {100 * shares[k]:.2g}% of the bins" for k in found)
    limit = f"less than a tenth of an even share ({100 * least_share(len(shares)):.2g}%)"
    if revived:
        again = "it starts" if len(found) == 1 else "they start"
        end = f"{again} again beside state {int(np.argmax(shares))}, which holds most"
    else:
        end = f"the recording may have fewer than {len(shares)} states, or another start (--restarts) may find them"
    return f"warning: {named}, {limit}; {end}"


@jax.jit
def revived(key: PRNGKeyArray, params: dict[str, PyTree], shares: Float[Array, " state"]) -> dict[str, PyTree]:
    """Parameters in which unused states have those of the most used one, disturbed by a tenth of their spread.

    A revived state is entered from elsewhere as easily as the most used one, and the two change into each other in one
    bin of twenty. Where every state is used, nothing changes.

    Args:
        key: random key.
        params: parameters by site.
        shares: share of bins of each state.
    """
    num_states = shares.shape[0]
    dead = shares < least_share(num_states)
    top = jnp.argmax(shares)
    keys = iter(random.split(key, 1 + len(jax.tree.leaves(params))))

    def disturbed(leaf: Array) -> Array:
        if leaf.shape[0] != num_states:  # weights that all states share
            return leaf
        noise = _NOISE * jnp.std(leaf) * random.normal(next(keys), leaf.shape, leaf.dtype)
        return jnp.where(_along(dead, leaf), leaf[top] + noise, leaf)

    found = dict(params)
    if "dynamics$params" in params:
        parts = lambda d: (d.sent, d.pairs, d.local, d.inputs)  # noqa: E731 - where tree_at looks
        old = params["dynamics$params"]
        found["dynamics$params"] = eqx.tree_at(
            parts, old, jax.tree.map(disturbed, parts(old)), is_leaf=lambda leaf: leaf is None
        )
    if "initial$params" in params:
        found["initial$params"] = eqx.tree_at(
            lambda i: (i.state_logits, i.means), params["initial$params"], replace_fn=disturbed
        )
    if "transitions$params" in params:
        found["transitions$params"] = eqx.tree_at(
            lambda t: (t.weight, t.bias),
            params["transitions$params"],
            (
                _rewired(params["transitions$params"].weight, dead, top, 0.0),
                _rewired(params["transitions$params"].bias, dead, top, _LOG_LEAVE),
            ),
        )
    return found


def _rewired(table: Array, dead: Array, top: Array, leave: float) -> Array:
    """(from, to, ...) with the row and the column of a dead state like those of ``top``; between them ``leave``."""
    states = jnp.arange(table.shape[0])
    source = jnp.where(dead, top, states)
    copied = table[source][:, source]
    alike = (source[:, None] == source) & (states[:, None] != states)
    return jnp.where(alike.reshape(alike.shape + (1,) * (table.ndim - 2)), copied + leave, copied)


def _along(mask: Array, leaf: Array) -> Array:
    return mask.reshape(mask.shape + (1,) * (leaf.ndim - 1))
