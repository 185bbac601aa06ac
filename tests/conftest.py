"""Begins with the longest tests, drops compiled programs before there are too many, compiles fast where asked to."""

import gc
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from mrsds_ppl.cli import choose_compiler_flags

# A compiled program holds memory maps, of which Linux allows a process 65,530; the next one ends it without a word.
_MOST_MAPS, _MAPS = 20_000, Path("/proc/self/maps")


def pytest_configure() -> None:
    """Tests are compiled as the command compiles."""
    choose_compiler_flags()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of minutes first, so that at the end no process works on one alone."""
    items.sort(key=lambda item: item.get_closest_marker("longest") is None)


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
