"""Where a run computes, and its compilation cache."""

import gc
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import jax

from mrsds_ppl.backend.sharding import trial_mesh
from mrsds_ppl.errors import ConfigError


def demand_one_choice(gpu: int | None) -> None:
    """Refuse a GPU by its number where trials are spread over devices.

    Raises:
        ConfigError: both were asked for.
    """
    if gpu is not None and (mesh := trial_mesh()) is not None:
        raise ConfigError(
            f"--gpu {gpu} with {len(mesh.devices)} devices: found both; allowed: one GPU by its number, or --devices N "
            "for the first N (CUDA_VISIBLE_DEVICES chooses which these are)"
        )


def choose_device(gpu: int | None, log: Callable[[str], None]) -> jax.Device:
    """GPU number ``gpu`` where there is one; otherwise a warning and the CPU."""
    if gpu is None:
        return jax.devices()[0]
    try:
        found = jax.devices("gpu")
    except RuntimeError:
        found = []
    if 0 <= gpu < len(found):
        return found[gpu]
    log(
        f"warning: GPU {gpu} was asked for, but JAX finds {len(found)}; running on the CPU. "
        "On a machine with an NVIDIA GPU: pip install 'mrsds-ppl[cuda]'"
    )
    return jax.devices("cpu")[0]


def device_line(device: jax.Device) -> str:
    """Kind of the device, for the record."""
    mesh = trial_mesh()
    return f"{device.platform}: {device.device_kind}" + ("" if mesh is None else f", {len(mesh.devices)} devices")


def enable_compilation_cache() -> None:
    """Keep compiled programs across runs, in JAX_COMPILATION_CACHE_DIR or the user's cache folder.

    Where that cannot be written, or the user has no home, a warning says that there is no cache.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mrsds-ppl" / "jax"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError) as error:  # the second where there is no home
        warnings.warn(
            f"every run compiles anew, as there is no cache: {error} (JAX_COMPILATION_CACHE_DIR names another folder)",
            stacklevel=2,
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def make_room_for_programs(system: Path = Path("/proc")) -> None:
    """Forget what was compiled for earlier fits once it takes half of the memory maps that Linux allows a process.

    A fit takes some four thousand of 65,530, and beyond the last one the compiler ends the process. What a later fit
    needs again it reads from the cache on disk.

    Args:
        system: what the kernel tells of its processes; where there is no such folder nothing is done.
    """
    maps, most = system / "self" / "maps", system / "sys" / "vm" / "max_map_count"
    if maps.exists() and most.exists() and 2 * len(maps.read_bytes().splitlines()) > int(most.read_text()):
        jax.clear_caches()
        gc.collect()


def known_options(options: dict[str, str | bool]) -> dict[str, str | bool]:
    """Those of some options of the compiler that this version of it has: experimental ones come and go.

    Raises:
        jax.errors.JaxRuntimeError: a value that an option cannot have.
    """
    known = {}
    for name, value in options.items():
        try:
            jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
        except jax.errors.JaxRuntimeError as error:
            if "No such compile option" not in str(error):
                raise
            continue
        known[name] = value
    return known
