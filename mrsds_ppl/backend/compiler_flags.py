"""What the compiler is told for right and fast programs on CPUs; imports nothing that takes time."""

import os
from collections.abc import Sequence
from importlib.metadata import version

# The compiler's own, 3, takes longer, and its loops over bins and small matrices then run up to half as fast.
_OPTIMIZATION = "--xla_backend_optimization_level", "2"
# On a CPU this version gets large sums of products wrong, without a word, unless it leaves the library for them out:
# https://github.com/jax-ml/jax/issues/39103.
_WRONG_SUMS, _SUMS = "0.10.2", ("--xla_cpu_experimental_ynn_fusion_type", "")


def choose_compiler_flags() -> None:
    """Add to XLA_FLAGS what it does not name: level 2 of optimisations, and right sums.

    JAX reads the flags when it first computes something, so a script calls this at its beginning, as the ``mrsds``
    command does. With other versions of jaxlib than the one that needs it, only the level is added.
    """
    add_flags([_OPTIMIZATION, _SUMS] if version("jaxlib") == _WRONG_SUMS else [_OPTIMIZATION])


def add_flags(wanted: Sequence[tuple[str, str]]) -> None:
    """Add to XLA_FLAGS those that it does not name.

    Args:
        wanted: names, with their dashes, and values; one that this jaxlib does not know ends the process.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    added = [f"{name}={value}" for name, value in wanted if name not in flags]
    os.environ["XLA_FLAGS"] = " ".join([flags, *added]).strip()
