"""Multi-region switching dynamical systems (MR-SDS) as a NumPyro program."""

from importlib.metadata import version
from pathlib import Path

from mrsds_ppl.backend.compiler_flags import ensure_right_sums

ensure_right_sums()

__version__ = version("mrsds-ppl")

# Python started in the root of a checkout finds this folder before the installed package. There models/ and guides/
# stand beside it, not inside it.
if not (Path(__file__).parent / "models").is_dir():
    __path__.append(str(Path(__file__).parent.parent))
