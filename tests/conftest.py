"""Drops compiled programs before a process has too many of them, and compiles fast where asked to."""

import gc
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

# A compiled program holds memory maps, of which Linux allows a process 65,530; the next one ends it without a word.
_MOST_MAPS, _MAPS = 20_000, Path("/proc/self/maps")


@pytest.fixture(autouse=True)
def few_compiled_programs() -> Iterator[None]:
    yield
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def fast_compiling() -> Iterator[None]:
    """Most of the compiler's optimisations off, for tests whose time goes into compiling: a third shorter."""
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    jax.config.update(name, True)
    yield
    jax.config.update(name, before)
