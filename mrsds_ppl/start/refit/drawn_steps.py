"""Steps of smoothed paths, as many of each state, and the networks of each state at its own.

    sum_t sum_k p(z_t = k) E[g_k(x_{t-1}, x_t)]  =  sum_k W_k E[g_k(x_{t-1}, x_t)],      W_k = sum_t p(z_t = k),

where on the right t is drawn with p(z_t = k) / W_k. So the K networks are asked for their own state's steps alone, a
rare state is heard as well as a common one, and a step needs no path drawn around it.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from mrsds_ppl.data.batch import Batch
from mrsds_ppl.models.dynamics import Dynamics
from mrsds_ppl.models.filtering import SmoothedPaths
from mrsds_ppl.statespace.linear_gaussian import valid_bins
from mrsds_ppl.statespace.smoothing import chain_of


class DrawnSteps(NamedTuple):
    """Steps into each state, those into the first state first.

    ``trials``: of two bins each, without signals; ``x``: their latents; ``before``: probabilities of the state that is
    left; ``share``: W_k for each bin of the recording.
    """

    trials: Batch
    x: Float[Array, "step bin latent"]
    before: Float[Array, "step from"]
    share: Float[Array, " state"]

    def by_state(self, values: Float[Array, "step value"]) -> Float[Array, "state row value"]:
        """What stands for each step, by the state that it goes into."""
        count = len(self.share)
        return values.reshape(count, len(values) // count, values.shape[-1])


def step_draws(data: Batch, paths: SmoothedPaths, number: int) -> Callable[[PRNGKeyArray], DrawnSteps]:
    """Draws of so many steps in all, or a few more.

    Args:
        data: the trials.
        paths: posterior of their paths.
        number: of steps.
    """
    states, (mean, gain, factor) = paths.states, chain_of(paths.moments)
    (_, bins, latents), num_states = mean.shape, states.shape[-1]
    # A trace of noise keeps the factor real where single precision has rounded.
    spread = jnp.linalg.cholesky(paths.moments.covariance + 1e-7 * jnp.eye(latents))
    weight = jnp.where(valid_bins(data.lengths, bins)[:, 1:, None], states[:, 1:], 0.0)
    reached = jnp.cumsum(weight.reshape(-1, num_states).T, axis=1)
    total, rows = reached[:, -1:], -(-number // num_states)

    def drawn(key: PRNGKeyArray) -> DrawnSteps:
        place_key, path_key = random.split(key)
        # One draw from each of as many equal parts: steps are spread over the recording.
        place = total * (jnp.arange(rows) + random.uniform(place_key, (num_states, rows))) / rows
        found = jax.vmap(lambda ends, at: jnp.searchsorted(ends, at, side="right"))(reached, place)
        found = jnp.minimum(found, reached.shape[1] - 1).reshape(-1)
        trial, now = found // (bins - 1), found % (bins - 1) + 1
        noise = random.normal(path_key, (2, len(found), latents), mean.dtype)
        apart = jnp.einsum("nij,nj->ni", spread[trial, now - 1], noise[0])
        moved = jnp.einsum("nij,nj->ni", gain[trial, now], apart)
        then = mean[trial, now] + moved + jnp.einsum("nij,nj->ni", factor[trial, now], noise[1])
        x = jnp.stack([mean[trial, now - 1] + apart, then], axis=1)
        pair = jnp.stack([now - 1, now], axis=1)
        given = data.u[trial[:, None], pair], data.stage[trial[:, None], pair]
        return DrawnSteps(_without_signals(*given), x, states[trial, now - 1], total[:, 0] / data.lengths.sum())

    return drawn


def each_state(
    function: Callable[[Dynamics, Array, Array], PyTree],
    dynamics: Dynamics,
    x: Float[Array, "state row latents"],
    u: Float[Array, "state row input"],
) -> PyTree:
    """``function(dynamics, x, u)`` of dynamics of one state, for each state at latents and inputs of its own."""
    form = eqx.filter_eval_shape(
        Dynamics, 1, dynamics.latent_sizes, dynamics.num_inputs, dynamics.options, key=random.key(0)
    )

    def parts(some: Dynamics) -> tuple[PyTree, ...]:
        return some.sent, some.pairs, some.local, some.inputs

    def alone(own: tuple[PyTree, ...], x: Array, u: Array) -> PyTree:
        filled = (*jax.tree.map(lambda leaf: leaf[None], own), dynamics.noise)
        one = eqx.tree_at(lambda d: (*parts(d), d.noise), form, filled, is_leaf=lambda leaf: leaf is None)
        return function(one, x, u)

    # What states share stands once.
    count = dynamics.num_states
    every = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape[1:])), parts(dynamics))
    return jax.vmap(alone)(every, x, u)


def _without_signals(u: Array, stage: Array) -> Batch:
    count = len(u)
    nothing, first = jnp.zeros((count, 2, 0)), jnp.zeros(count, jnp.int32)
    return Batch(nothing, u, nothing > 0, nothing > 0, first + 2, stage, first)
