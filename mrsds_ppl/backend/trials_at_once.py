"""Functions of a whole set of trials by a few at a time, every call of one shape, results in the order of the trials.

Memory does not grow with the recording, and sets of any size share one compiled program. :func:`over_trials` and
:func:`over_rounds` are for functions of arrays, with a random key for each call. :func:`over_parts` is for loops over
bins, which keep one core of a CPU busy each: there parts are small, so that their arrays stay in the cache of a core,
and run side by side. Elsewhere all trials are one part. Where trials are spread over devices
(:mod:`mrsds_ppl.backend.sharding`), each call and each part is, of as many trials as on one device, or the next number
that the devices divide.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax import random
from jaxtyping import Int, PRNGKeyArray, PyTree

from mrsds_ppl.backend.sharding import trial_mesh
from mrsds_ppl.backend.side_by_side import first_alone, on_cores
from mrsds_ppl.data.trials import Batch

_TRIALS_OF_CALL, _TRIALS_OF_PART = 32, 16
Rows = list[Int[np.ndarray, " trial"]]


class Parts(NamedTuple):
    """Rows of the trials of each part, and their batches. The last part is filled up with trials that have no bins.

    ``num_bins`` are the valid bins of all trials.
    """

    rows: Rows
    batches: list[Batch]
    num_trials: int
    num_bins: int


def over_trials(function: Callable[..., PyTree], key: PRNGKeyArray | None, *arrays: PyTree) -> PyTree:
    """``function(key, *arrays)`` of a few trials at a time, one call after another.

    Args:
        function: of arrays, or trees of them, whose leading axis is the trial, as is that of what it returns.
        key: random key, from which every call gets one of its own; None is passed on.
        arrays: of all trials.
    """
    num_trials = _num_trials(arrays)
    rows = _rows(num_trials, _divided(min(_TRIALS_OF_CALL, num_trials)))
    return _joined([_call(function, key, arrays, rows, number) for number in range(len(rows))], num_trials)


def over_rounds(function: Callable[..., PyTree], key: PRNGKeyArray | None, *arrays: PyTree, rounds: int = 1) -> PyTree:
    """:func:`over_trials` with every trial given several times: results of all trials, then of all again.

    Calls are of the full number of trials, and may hold the end of one round and the beginning of the next; several run
    side by side.

    Args:
        function, key, arrays: as there; ``function`` runs what is ``compiled``, as calls side by side must.
        rounds: how often each trial is given.
    """
    num_trials = _num_trials(arrays)
    rows = _rows(num_trials, _divided(_TRIALS_OF_CALL), rounds)
    found = first_alone(lambda number: _call(function, key, arrays, rows, number), range(len(rows)))
    return _joined(found, rounds * num_trials)


def in_parts(data: Batch) -> Parts:
    """The trials of a batch, in order."""
    return _parts(data, _divided(_TRIALS_OF_PART if on_cores() else _num_trials(data)))


def in_even_parts(data: Batch) -> Parts:
    """The same in parts of their own size, for what is called so often that filling up costs more than compiling."""
    num_trials = _num_trials(data)
    return _parts(data, _divided(-(-num_trials // -(-num_trials // _TRIALS_OF_PART)) if on_cores() else num_trials))


def over_parts(function: Callable[..., PyTree], parts: Parts, *arrays: PyTree) -> list[PyTree]:
    """``function(batch, *arrays)`` of every part, as numpy arrays, several side by side.

    Args:
        function: of a batch and arrays, or trees of them, whose leading axis is the trial; it runs what is
            ``compiled``.
        parts: the trials.
        arrays: of all trials.
    """
    whole = jax.tree.map(np.asarray, arrays)

    def call(number: int) -> PyTree:
        some = _put(_taken(whole, parts.rows[number]))
        return jax.device_get(function(parts.batches[number], *some))

    return first_alone(call, range(len(parts.rows)))


def put_together(parts: Parts, results: Sequence[PyTree]) -> PyTree:
    """Results whose leading axis is the trial, of all trials, on the device."""
    return jax.device_put(_joined(results, parts.num_trials))


def _parts(data: Batch, size: int) -> Parts:
    """Parts of so many trials."""
    whole: Batch = jax.tree.map(np.asarray, data)
    num_trials = len(whole.lengths)
    rows, batches = _rows(num_trials, size), []
    for number, index in enumerate(rows):
        some = jax.tree.map(lambda leaf, index=index: leaf[index], whole)
        repeated = number * size + np.arange(size) >= num_trials
        batches.append(_put(some._replace(lengths=np.where(repeated, 0, some.lengths))))
    return Parts(rows, batches, num_trials, int(whole.lengths.sum()))


def _rows(num_trials: int, size: int, rounds: int = 1) -> Rows:
    """Trials of each call, which go round all of them; the last call repeats its last trial to keep the shape."""
    total = rounds * num_trials
    return [np.minimum(np.arange(first, first + size), total - 1) % num_trials for first in range(0, total, size)]


def _call(function: Callable[..., PyTree], key: PRNGKeyArray | None, arrays: PyTree, rows: Rows, number: int) -> PyTree:
    own = None if key is None else random.fold_in(key, number)
    some = _taken(arrays, rows[number])
    return jax.device_get(function(own, *(some if trial_mesh() is None else _put(some))))


def _divided(size: int) -> int:
    mesh = trial_mesh()
    return size if mesh is None else mesh.multiple(size)


def _put(arrays: PyTree) -> PyTree:
    mesh = trial_mesh()
    return jax.device_put(arrays) if mesh is None else mesh.put(arrays)


def _taken(arrays: PyTree, index: Int[np.ndarray, " trial"]) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[index], arrays)


def _joined(results: Sequence[PyTree], count: int) -> PyTree:
    """Results of all calls, without what was repeated in the last one."""
    return jax.tree.map(lambda *pieces: np.concatenate(pieces)[:count], *results)


def _num_trials(arrays: PyTree) -> int:
    return len(jax.tree.leaves(arrays)[0])
