"""Functions of a whole set of trials by a few at a time, so that memory does not grow with the recording."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import random
from jaxtyping import PRNGKeyArray

from mrsds_ppl.backend.side_by_side import first_alone

_TRIALS_AT_ONCE = 32


def over_trials(function: Callable[..., Any], key: PRNGKeyArray | None, *arrays: Any) -> Any:
    """``function(key, *arrays)`` of a few trials at a time, every call of one shape, results put together.

    Args:
        function: of arrays, or trees of them, whose leading axis is the trial, as is that of what it returns.
        key: random key, from which every call gets one of its own.
        arrays: of all trials.
    """
    num_trials = _num_trials(arrays)
    call, starts = _calls(function, key, arrays, num_trials, min(_TRIALS_AT_ONCE, num_trials))
    return _put_together([call(first) for first in starts])


def over_rounds(function: Callable[..., Any], key: PRNGKeyArray | None, *arrays: Any, rounds: int = 1) -> Any:
    """:func:`over_trials` with every trial given several times: results of all trials, then of all again.

    Calls are of the full number of trials, and may hold the end of one round and the beginning of the next, so that
    sets of any size share one compiled program; several run side by side.

    Args:
        function, key, arrays: as there; ``function`` runs what is ``compiled``, as calls side by side must.
        rounds: how often each trial is given.
    """
    call, starts = _calls(function, key, arrays, rounds * _num_trials(arrays), _TRIALS_AT_ONCE)
    return _put_together(first_alone(call, starts))


def _calls(
    function: Callable[..., Any], key: PRNGKeyArray | None, arrays: Any, total: int, size: int
) -> tuple[Callable[[int], Any], range]:
    """A call by the first of its rows, of ``total`` that go round the trials, and the first row of each."""
    num_trials = _num_trials(arrays)

    def call(first: int) -> Any:
        # The last call repeats its last trial to keep the shape; what is repeated is cut off.
        index = np.minimum(np.arange(first, first + size), total - 1) % num_trials
        some = jax.tree.map(lambda leaf: leaf[index], arrays)
        result = jax.device_get(function(None if key is None else random.fold_in(key, first // size), *some))
        return jax.tree.map(lambda leaf: leaf[: total - first], result)

    return call, range(0, total, size)


def _num_trials(arrays: Any) -> int:
    return len(jax.tree.leaves(arrays)[0])


def _put_together(parts: list[Any]) -> Any:
    return jax.tree.map(lambda *pieces: np.concatenate(pieces), *parts)
