"""A set of trials in parts of one shape, for compiled loops over their bins that keep one core of a CPU busy each.

On a CPU parts are small, so that sets of any size share one compiled program whose arrays stay in the cache of a core,
and several parts run side by side. Elsewhere all trials are one part.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from mrsds_ppl.backend.side_by_side import first_alone, on_cores
from mrsds_ppl.data.trials import Batch

_TRIALS = 16


class Parts(NamedTuple):
    """Rows of the trials of each part, and their batches. The last part is filled up with trials that have no bins.

    ``num_bins`` are the valid bins of all trials.
    """

    rows: list[Int[np.ndarray, " trial"]]
    batches: list[Batch]
    num_trials: int
    num_bins: int


def in_parts(data: Batch) -> Parts:
    """The trials of a batch, in order."""
    whole: Batch = jax.tree.map(np.asarray, data)
    num_trials = len(whole.lengths)
    size = _TRIALS if on_cores() else num_trials
    rows, batches = [], []
    for first in range(0, num_trials, size):
        numbers = np.arange(first, first + size)
        rows.append(np.minimum(numbers, num_trials - 1))
        some = jax.tree.map(lambda leaf, index=rows[-1]: leaf[index], whole)
        batches.append(jax.device_put(some._replace(lengths=np.where(numbers < num_trials, some.lengths, 0))))
    return Parts(rows, batches, num_trials, int(whole.lengths.sum()))


def over_parts(function: Callable[..., Any], parts: Parts, *arrays: Any) -> list[Any]:
    """``function(batch, *arrays)`` of every part, as numpy arrays, several side by side.

    Args:
        function: of a batch and arrays, or trees of them, whose leading axis is the trial; it runs what is
            ``compiled``.
        parts: the trials.
        arrays: of all trials.
    """
    whole = jax.tree.map(np.asarray, arrays)

    def call(number: int) -> Any:
        index = parts.rows[number]
        some = jax.device_put(jax.tree.map(lambda leaf: leaf[index], whole))
        return jax.device_get(function(parts.batches[number], *some))

    return first_alone(call, range(len(parts.rows)))


def put_together(parts: Parts, results: Sequence[Any]) -> Any:
    """Results whose leading axis is the trial, of all trials, on the device."""
    return jax.device_put(jax.tree.map(lambda *pieces: np.concatenate(pieces)[: parts.num_trials], *results))
