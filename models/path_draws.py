"""Draws of states and latents given the signals: states with the latents summed out, then latents given these.

    z ~ p(z | y),        x ~ p(x | y, z),

of the program linearised around one path of each trial; see :mod:`mrsds_ppl.statespace.backward_simulation`. State
probabilities that are read off paths smoothed for the likeliest states are too sure of these.
"""

from collections.abc import Sequence
from functools import partial

import jax
import numpy as np
from jax import random
from jaxtyping import Array, Float, PRNGKeyArray

from mrsds_ppl.backend.side_by_side import compiled
from mrsds_ppl.backend.trials_at_once import Parts, over_parts, put_together
from mrsds_ppl.data.batch import Batch
from mrsds_ppl.models.filtering import linearise_trials, shared_of
from mrsds_ppl.models.mrsds import MRSDS, Networks
from mrsds_ppl.statespace.backward_simulation import PathDraws, simulate_paths
from mrsds_ppl.statespace.linear_gaussian import SharedTerms, TrialTerms

# So many draws that the error of a probability of a half is 0.11 at most; it is less, as probabilities are averaged.
DRAWS_AT_ONCE = 20


@partial(compiled, static_argnames="draws")
def paths_given_signals(key: PRNGKeyArray, shared: SharedTerms, trials: TrialTerms, *, draws: int) -> PathDraws:
    """See :func:`mrsds_ppl.statespace.backward_simulation.simulate_paths`."""
    return simulate_paths(key, shared, trials, draws=draws)


def draw_paths(
    key: PRNGKeyArray, networks: Networks, model: MRSDS, parts: Parts, x: Float[Array, "trial bin latent"], draws: int
) -> PathDraws:
    """Draws of the states and latents of every trial.

    Args:
        key: random key.
        networks, model: the program.
        parts: the trials.
        x: paths around which the program is linearised at first; then it is around the mean of what it says there.
        draws: the fewest draws; there are a multiple of twenty.
    """
    shared, rounds = shared_of(networks), -(-draws // DRAWS_AT_ONCE)
    seeds = random.bits(key, (parts.num_trials,))

    def around(batch: Batch, x: Array, keys: Sequence[PRNGKeyArray]) -> list[PathDraws]:
        trials = linearise_trials(networks, model, batch, x)
        return [jax.device_get(paths_given_signals(own, shared, trials, draws=DRAWS_AT_ONCE)) for own in keys]

    def drawn(batch: Batch, x: Array, seeds: Array) -> PathDraws:
        first, *keys = random.split(random.key(seeds[0]), rounds + 1)
        (begun,) = around(batch, x, [first])
        found = around(batch, jax.device_put(begun.means.mean(1)), keys)
        together: PathDraws = jax.tree.map(lambda *some: np.concatenate(some, axis=1), *found)
        return together._replace(probabilities=np.mean([one.probabilities for one in found], axis=0))

    return put_together(parts, over_parts(drawn, parts, x, seeds))
