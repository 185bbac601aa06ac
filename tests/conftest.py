"""Begins with the longest tests, keeps compiled programs on disk and not too many in memory, compiles fast if asked."""

import fcntl
import gc
import os
import sys
import time
from collections.abc import Generator, Iterator
from importlib.metadata import version
from pathlib import Path

import jax
import pytest

from mrsds_ppl.backend.compiler_flags import add_flags, choose_optimization_level

# A compiled program holds memory maps, of which Linux allows a process 65,530; the next one ends it without a word.
# To count them takes tens of milliseconds, and tests that end sooner than one program is compiled add none to speak of.
_MOST_MAPS, _MAPS = 40_000, Path("/proc/self/maps")
_SOONER = 0.1  # seconds
# This version still has the emitters of loops that its new ones replace: they compile a third faster, and what they
# compile is a tenth slower, which is why the command does without. Other versions end at an option they do not know.
_HAS_BOTH_EMITTERS, _OLD_EMITTERS = "0.10.2", ("--xla_cpu_use_fusion_emitters", "false")
# Python looks for cycles of objects at each 700 that are new; tracing makes many, and hardly any cycles.
_OBJECTS_BETWEEN_COLLECTIONS = 50_000


def pytest_configure(config: pytest.Config) -> None:
    """Tests are compiled fast, and once: what another process or run has compiled is read back."""
    choose_optimization_level()
    if version("jaxlib") == _HAS_BOTH_EMITTERS and not _measures(config):
        add_flags([_OLD_EMITTERS])
    if config.pluginmanager.hasplugin("cacheprovider"):
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("compiled")))
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR"))
    # To read one back takes a tenth of the time also of the smallest, of which there are thousands.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first, so that at the end no process works on one alone."""
    items.sort(key=lambda item: item.get_closest_marker("longest") is None)


def _measures(config: pytest.Config) -> bool:
    """Benchmarks are compiled as the command compiles."""
    return bool(config.getoption("benchmark_enable", False))


@pytest.fixture(autouse=True)
def few_compiled_programs() -> Iterator[None]:
    began = time.perf_counter()
    yield
    if time.perf_counter() - began < _SOONER or not _MAPS.exists():
        return
    if _MAPS.read_bytes().count(b"\n") > _MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Most of the compiler's optimisations off in the quick subset and where a test says so: a third shorter.

    In what the test shares with others of its module as well, which is made before any fixture of the test alone.
    """
    marked = item.get_closest_marker
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    fast = marked("slow") is None or marked("compiling") is not None
    jax.config.update(name, before or (fast and not _measures(item.config)))
    try:
        return (yield)
    finally:
        jax.config.update(name, before)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run in DIR/out/tiny, of the process that asks first; tests leave its files as they are."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made = shared / "finished" / "made"
    with (shared / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            import tiny_run  # here, since the process that only hands out tests would wait for it as well

            made.parent.mkdir()
            made.write_text(str(tiny_run.fitted(made.parent)))
    return Path(made.read_text())


@pytest.fixture(autouse=True)
def no_figures_left() -> Iterator[None]:
    """What a test draws and leaves open is not taken for another test's."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
