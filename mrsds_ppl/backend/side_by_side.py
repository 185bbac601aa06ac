"""Calls of compiled programs side by side, each of which keeps one core of a CPU busy."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, wraps
from typing import ParamSpec, TypeVar

import jax
from jaxtyping import PyTree

from mrsds_ppl.backend.device import known_options
from mrsds_ppl.backend.sharding import trial_mesh

MOST_THREADS = 4
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# A large product of matrices inside a loop can wait for ever for a thread of XLA's CPU pool that the loop itself holds,
# and sooner where several calls run side by side.
_NO_WAITING: dict[str, str | bool] = {"xla_cpu_multi_thread_eigen": False}
# For sums over short axes the compiler's library takes ten times as long as the compiler's own code, and jaxlib 0.10.2
# gets large ones wrong.
_OWN_SUMS: dict[str, str | bool] = {"xla_cpu_experimental_ynn_fusion_type": ""}


def compiled(
    function: Callable[Arguments, Result], static_argnames: str | Sequence[str] = ()
) -> Callable[Arguments, Result]:
    """``jax.jit`` of loops over bins with small matrices, whose calls may run side by side.

    Args:
        function: what is compiled.
        static_argnames: as of ``jax.jit``.
    """

    @cache
    def program() -> Callable[Arguments, Result]:
        return jax.jit(function, compiler_options=_compiler_options(), static_argnames=static_argnames)

    @wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return program()(*args, **kwargs)

    return call


def at_once(function: Callable[Arguments, Result], donate_argnums: int | Sequence[int] = ()) -> Callable[..., Result]:
    """``jax.jit`` of a program that has the device, or all devices over which trials are spread, for itself.

    Args:
        function: what is compiled.
        donate_argnums: as of ``jax.jit``.
    """
    # Devices of one CPU share its threads, and wait for each other in sums over all of them.
    options = _NO_WAITING if trial_mesh() is not None and on_cores() else None
    return jax.jit(function, donate_argnums=donate_argnums, compiler_options=options)


def first_alone(function: Callable[[int], Result], numbers: Sequence[int]) -> list[Result]:
    """``function`` of each number: of the first one alone, of the others side by side where a CPU computes.

    NumPyro's handlers are one stack for all threads: calls side by side must not trace anything new.
    """
    return [function(numbers[0]), *_side_by_side(function, numbers[1:])]


def each_on_a_core(
    function: Callable[..., Result], donate_argnums: int | Sequence[int] = ()
) -> Callable[[Sequence[tuple[PyTree, ...]]], list[Result]]:
    """What ``function`` returns for each of several tuples of arguments of the same shapes, side by side on a CPU.

    Args:
        function: traced and compiled once, at the first call.
        donate_argnums: as of ``jax.jit``.
    """
    programs: list[jax.stages.Compiled] = []

    def call(arguments: Sequence[tuple[PyTree, ...]]) -> list[Result]:
        if not programs:
            lowered = jax.jit(function, donate_argnums=donate_argnums).lower(*arguments[0])
            programs.append(lowered.compile(compiler_options=_compiler_options()))
        (program,) = programs
        return _side_by_side(lambda number: jax.block_until_ready(program(*arguments[number])), range(len(arguments)))

    return call


def _side_by_side(function: Callable[[int], Result], numbers: Sequence[int]) -> list[Result]:
    device, wide = jax.config.jax_default_device, jax.config.jax_enable_x64  # type: ignore[attr-defined]
    threads = min(len(cores()), MOST_THREADS) if on_cores() and trial_mesh() is None else 1
    if threads == 1:  # a call that is spread over devices keeps all of them, and two at a time wait for each other
        return [function(number) for number in numbers]

    def there(number: int) -> Result:
        # What JAX is set to for a while, it is set to in one thread.
        with jax.default_device(device), jax.enable_x64(wide):
            return function(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(there, numbers))


def cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(os.cpu_count() or 1)]


def on_cores() -> bool:
    """Whether calls that say nothing else compute on the cores of a CPU."""
    device = jax.config.jax_default_device or jax.devices()[0]  # type: ignore[attr-defined]
    return device.platform == "cpu"


@cache
def _compiler_options() -> dict[str, str | bool]:
    return _NO_WAITING | known_options(_OWN_SUMS)
