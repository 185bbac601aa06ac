"""Restarts: the same fit from several seeds as one program, of which the best is kept.

What chooses are trials held out of the training set for this alone; the test trials never choose. The score is the
plain bound per observed value.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from mrsds_ppl.data.split import split_trials
from mrsds_ppl.data.trials import Batch, Trials
from mrsds_ppl.ppl.elbo import Program, log_weights
from mrsds_ppl.train.history import Keys

VALIDATION_FRACTION = 0.1
_DRAWS = 20


class Validation(NamedTuple):
    """Training trials without those that choose among restarts, and these."""

    train: Trials
    chooses: Trials


def hold_out(train: Trials, seed: int) -> Validation:
    """Hold a tenth of the training trials out, at least one.

    Args:
        train: training trials.
        seed: seed of the draw.

    Raises:
        DataError: fewer than two training trials.
    """
    split = split_trials(train, VALIDATION_FRACTION, seed)
    return Validation(split.train, split.test)


def held_out_bounds(
    key: PRNGKeyArray,
    params: PyTree,
    model: Program,
    guide: Program,
    held_out: Batch,
    *,
    constrain: Callable[[Any], Any] = lambda params: params,
) -> Float[np.ndarray, " restart"]:
    """Bound of each restart on held-out trials, in nats per observed value; every restart sees the same noise.

    Args:
        key: random key.
        params: parameters of all restarts, along a leading axis.
        model, guide: program and guide.
        held_out: trials that none was trained on.
        constrain: from the parameters that are trained to the values of their sites.
    """

    @jax.jit
    def score(key: PRNGKeyArray, params: PyTree, batch: Batch) -> Array:
        def one(params: PyTree) -> Array:
            weights = log_weights(key, constrain(params), model, guide, batch, num_samples=_DRAWS)
            return weights.mean(0).sum() / batch.observed.sum()

        return lax.map(one, params)

    return np.asarray(score(key, params, held_out))


def best_restart(bounds: Float[np.ndarray, " restart"]) -> int:
    """The restart with the highest bound; one whose bound is not finite comes last."""
    return int(np.argmax(np.where(np.isfinite(bounds), bounds, -np.inf)))


def fold_each(keys: Keys, number: int) -> Keys:
    """A key, or the keys of several restarts, folded with a number."""
    one = not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) or keys.ndim == 0
    return random.fold_in(keys, number) if one else jax.vmap(lambda key: random.fold_in(key, number))(keys)
