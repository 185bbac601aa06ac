"""Draws of states and latents given the signals: states with the latents summed out, then latents given these.

    z ~ p(z | y)  by backward simulation,        x ~ p(x | y, z)  by the iterated Kalman smoother,

of the program linearised around one path of each trial for the states, and around each draw's own path for the latents.
State probabilities that are read off paths smoothed for the likeliest states are too sure of these.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mrsds_ppl.backend.side_by_side import compiled
from mrsds_ppl.backend.trials_at_once import Parts, over_parts, put_together
from mrsds_ppl.data.batch import Batch
from mrsds_ppl.models.filtering import find_states, linearise_trials, shared_of, smooth_paths, smooth_trials
from mrsds_ppl.models.mrsds import MRSDS, Networks
from mrsds_ppl.statespace.backward_simulation import StateDraws, simulate_states
from mrsds_ppl.statespace.linear_gaussian import SharedTerms, TrialTerms
from mrsds_ppl.statespace.smoothing import draw_path

# So many draws that the error of a probability of a half is 0.05 at most; it is less, as probabilities are averaged.
_AT_ONCE = 100


class PathDraws(NamedTuple):
    """Draws of the latents, one for each path of states, and the mean of the laws that they are drawn from."""

    mean: Float[Array, "trial bin latent"]
    x: Float[Array, "trial draw bin latent"]


draw_chains = compiled(draw_path)


@partial(compiled, static_argnames="draws")
def states_given_signals(key: PRNGKeyArray, shared: SharedTerms, trials: TrialTerms, *, draws: int) -> StateDraws:
    """See :func:`mrsds_ppl.statespace.backward_simulation.simulate_states`."""
    return simulate_states(key, shared, trials, draws=draws)


def likeliest_paths(
    networks: Networks, model: MRSDS, parts: Parts, x: Float[Array, "trial bin latent"]
) -> Float[Array, "trial bin latent"]:
    """Paths smoothed for the likeliest states, which are found around given paths: what to linearise around."""
    return smooth_paths(networks, model, parts, x, find_states(networks, model, parts, x).states).mean


def draw_states(
    key: PRNGKeyArray, networks: Networks, model: MRSDS, parts: Parts, x: Float[Array, "trial bin latent"], draws: int
) -> StateDraws:
    """Draws of the states of every trial, and p(z_t | y), of the program linearised around paths.

    Args:
        key: random key.
        networks, model: the program.
        parts: the trials.
        x: the paths.
        draws: the fewest draws; there are a multiple of a hundred, which all serve the probabilities.
    """
    shared, rounds = shared_of(networks), -(-draws // _AT_ONCE)

    def drawn(batch: Batch, x: Array, seeds: Array) -> StateDraws:
        trials = linearise_trials(networks, model, batch, x)
        keys = random.split(random.key(seeds[0]), rounds)
        found = [states_given_signals(own_key, shared, trials, draws=_AT_ONCE) for own_key in keys]
        return StateDraws(
            states=jnp.concatenate([some.states for some in found], axis=1),
            probabilities=jnp.stack([some.probabilities for some in found]).mean(0),
            log_weight=jnp.concatenate([some.log_weight for some in found], axis=1),
        )

    return put_together(parts, over_parts(drawn, parts, x, _seeds(key, parts)))


def draw_paths(
    key: PRNGKeyArray,
    networks: Networks,
    model: MRSDS,
    parts: Parts,
    x: Float[Array, "trial bin latent"],
    states: Int[Array, "trial draw bin"],
) -> PathDraws:
    """A draw of the latents for each draw of the states, smoothed around given paths and once more around its own."""
    shared = shared_of(networks)

    def drawn(batch: Batch, x: Array, states: Array, seeds: Array) -> PathDraws:
        key, around = random.key(seeds[0]), linearise_trials(networks, model, batch, x)
        means, paths = [], []
        for number, own_key in enumerate(random.split(key, states.shape[1])):
            own = jax.nn.one_hot(states[:, number], model.num_states, dtype=x.dtype)
            again = linearise_trials(networks, model, batch, smooth_trials(shared, around, own).mean)
            moments = smooth_trials(shared, again, own)
            means.append(moments.mean)
            paths.append(draw_chains(own_key, moments))
        return PathDraws(jnp.stack(means).mean(0), jnp.stack(paths, axis=1))

    return put_together(parts, over_parts(drawn, parts, x, states, _seeds(key, parts)))


def _seeds(key: PRNGKeyArray, parts: Parts) -> Array:
    """A number for each trial; each part draws by that of its first one."""
    return random.bits(key, (parts.num_trials,))
