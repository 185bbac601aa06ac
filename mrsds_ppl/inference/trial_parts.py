"""A set of trials in parts of one shape, for compiled loops over their bins that keep one core of a CPU busy each.

On a CPU parts are small, so that sets of any size share one compiled program whose arrays stay in the cache of a core,
and several parts run side by side. Elsewhere all trials are one part.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, wraps
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.device import known_options

_TRIALS, _MOST_THREADS = 16, 4

# A large product of matrices inside a loop can wait for ever for a thread of XLA's CPU pool that the loop itself holds,
# and sooner where several calls run side by side.
_NO_WAITING: dict[str, str | bool] = {"xla_cpu_multi_thread_eigen": False}
# For sums over short axes the compiler's library takes ten times as long as the compiler's own code, and jaxlib 0.10.2
# gets large ones wrong.
_OWN_SUMS: dict[str, str | bool] = {"xla_cpu_experimental_ynn_fusion_type": ""}


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """``jax.jit`` of loops over bins with small matrices, whose calls may run side by side.

    Args:
        function: what is compiled.
        options: of ``jax.jit``.
    """

    @cache
    def program() -> Any:
        return jax.jit(function, compiler_options=_NO_WAITING | known_options(_OWN_SUMS), **options)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return program()(*args, **kwargs)

    return call


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
    size = _TRIALS if _device().platform == "cpu" else num_trials
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


def first_alone(function: Callable[[int], Any], numbers: Sequence[int]) -> list[Any]:
    """``function`` of each number: of the first one alone, of the others side by side where a CPU computes.

    NumPyro's handlers are one stack for all threads: calls side by side must not trace anything new.
    """
    device, wide = jax.config.jax_default_device, jax.config.jax_enable_x64  # type: ignore[attr-defined]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = min(cores, _MOST_THREADS) if _device().platform == "cpu" else 1

    def there(number: int) -> Any:
        # What JAX is set to for a while, it is set to in one thread.
        with jax.default_device(device), jax.enable_x64(wide):
            return function(number)

    with ThreadPoolExecutor(threads) as pool:
        return [function(numbers[0]), *pool.map(there, numbers[1:])]


def _device() -> jax.Device:
    return jax.config.jax_default_device or jax.devices()[0]  # type: ignore[attr-defined]
