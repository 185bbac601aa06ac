"""What the compiler is told: right sums wherever the package is imported, and fast loops in the ``mrsds`` command."""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

# On a CPU this version gets large sums of products wrong, without a word, unless it leaves the library for them out:
# https://github.com/jax-ml/jax/issues/39103. Other versions may end at an option that they do not know.
_WRONG_SUMS, _SUMS = "0.10.2", ("--xla_cpu_experimental_ynn_fusion_type", "")
# The compiler's own, 3, takes longer, and its loops over bins and small matrices then run up to half as fast.
_OPTIMIZATION = "--xla_backend_optimization_level", "2"


def ensure_right_sums() -> None:
    """Keep jaxlib 0.10.2 from wrong sums; called where the package is imported, and does nothing with other versions.

    JAX reads XLA_FLAGS when it first computes. Before that the flag is added, unless the user has set it. After that
    a sum is tested, once.

    Raises:
        ImportError: JAX has computed already, and gets the sum wrong.
    """
    if version("jaxlib") != _WRONG_SUMS:
        return
    # Not imported: most who import the package have not asked for JAX yet, and it takes half a second.
    bridge = sys.modules.get("jax._src.xla_bridge")
    if bridge is None or not bridge.backends_are_initialized():
        add_flags([_SUMS])
    elif not _sums_are_right():
        raise ImportError(
            f"jaxlib {_WRONG_SUMS} gets large sums of products wrong on this CPU, and JAX has computed already and "
            "reads no flags any more: import mrsds_ppl before JAX computes anything (in a notebook: restart the "
            f"kernel), set the environment variable XLA_FLAGS={_SUMS[0]}= before Python starts, or install another "
            "version of jaxlib"
        )


def choose_optimization_level() -> None:
    """Level 2 of the compiler's optimisations, unless XLA_FLAGS names one.

    For the process of the ``mrsds`` command only: whose process it is chooses what else is compiled in it.
    """
    add_flags([_OPTIMIZATION])


def add_flags(wanted: Sequence[tuple[str, str]]) -> None:
    """Add to XLA_FLAGS those that it does not name.

    Args:
        wanted: names, with their dashes, and values; one that this jaxlib does not know ends the process.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    added = [f"{name}={value}" for name, value in wanted if name not in flags]
    os.environ["XLA_FLAGS"] = " ".join([flags, *added]).strip()


def _sums_are_right() -> bool:
    """A sum of products over one of three axes, on the device that JAX computes on, against numpy."""
    import jax
    import numpy as np

    a = (np.arange(4 * 4 * 20_000) % 7).astype(np.float32).reshape(4, 4, -1)
    b = a[::-1]
    found = jax.jit(lambda a, b: (a[:, :, None] * b[None]).sum(1))(a, b)
    return bool(np.allclose(found, (a[:, :, None] * b[None]).sum(1)))
