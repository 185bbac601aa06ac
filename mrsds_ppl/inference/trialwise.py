"""Functions of a whole set of trials by a few at a time, so that memory does not grow with the recording."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import random
from jaxtyping import PRNGKeyArray

_TRIALS_AT_ONCE = 32


def over_trials(
    function: Callable[..., Any],
    key: PRNGKeyArray | None,
    *arrays: Any,
    whole_calls: bool = False,
    rounds: int = 1,
) -> Any:
    """``function(key, *arrays)`` of a few trials at a time, every call of one shape, results put together.

    Args:
        function: of arrays, or trees of them, whose leading axis is the trial, as is that of what it returns.
        key: random key, from which every call gets one of its own.
        arrays: of all trials.
        whole_calls: every call is of the full number of trials, so that sets of any size share one compiled program.
        rounds: how often each trial is given; results are of all trials, then of all again. A call may hold the end
            of one round and the beginning of the next.
    """
    num_trials = len(jax.tree.leaves(arrays)[0])
    total = rounds * num_trials
    size = _TRIALS_AT_ONCE if whole_calls else min(_TRIALS_AT_ONCE, num_trials)
    parts = []
    for number, first in enumerate(range(0, total, size)):
        # The last call repeats its last trial to keep the shape; what is repeated is cut off.
        index = np.minimum(np.arange(first, first + size), total - 1) % num_trials
        some = jax.tree.map(lambda leaf, i=index: leaf[i], arrays)
        result = jax.device_get(function(None if key is None else random.fold_in(key, number), *some))
        parts.append(jax.tree.map(lambda leaf, n=total - first: leaf[:n], result))
    return jax.tree.map(lambda *pieces: np.concatenate(pieces), *parts)
