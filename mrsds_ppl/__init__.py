"""Multi-region switching dynamical systems (MR-SDS) as a NumPyro program.

The public names are here, imported when they are first used: ``fit``, ``join``, ``load``, ``on_devices``, ``read``,
``read_nwb``, ``simulate``, ``sweep``, ``Trials``, ``Fit``, ``Sweep``, and the errors.
"""

import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrsds_ppl.backend.sharding import on_devices as on_devices
    from mrsds_ppl.data.nwb.read import read_nwb as read_nwb
    from mrsds_ppl.data.readers import load_recording as read
    from mrsds_ppl.data.sessions.join import join as join
    from mrsds_ppl.data.simulate import simulate as simulate
    from mrsds_ppl.data.trials import Trials as Trials
    from mrsds_ppl.errors import ConfigError as ConfigError
    from mrsds_ppl.errors import DataError as DataError
    from mrsds_ppl.errors import MrsdsError as MrsdsError
    from mrsds_ppl.errors import RunError as RunError
    from mrsds_ppl.fit import fit as fit
    from mrsds_ppl.fitted import Fit as Fit
    from mrsds_ppl.fitted import load as load
    from mrsds_ppl.sweeps.results import Sweep as Sweep
    from mrsds_ppl.sweeps.sweep import sweep as sweep

from mrsds_ppl.backend.compiler_flags import ensure_right_sums

ensure_right_sums()

__version__ = version("mrsds-ppl")

_PLACES = {
    "fit": ("fit", "fit"),
    "load": ("fitted", "load"),
    "Fit": ("fitted", "Fit"),
    "read_nwb": ("data.nwb.read", "read_nwb"),
    "read": ("data.readers", "load_recording"),
    "join": ("data.sessions.join", "join"),
    "on_devices": ("backend.sharding", "on_devices"),
    "simulate": ("data.simulate", "simulate"),
    "Sweep": ("sweeps.results", "Sweep"),
    "sweep": ("sweeps.sweep", "sweep"),
    "Trials": ("data.trials", "Trials"),
    **{name: ("errors", name) for name in ("MrsdsError", "ConfigError", "DataError", "RunError")},
}
__all__ = [
    "ConfigError",
    "DataError",
    "Fit",
    "MrsdsError",
    "RunError",
    "Sweep",
    "Trials",
    "fit",
    "join",
    "load",
    "on_devices",
    "read",
    "read_nwb",
    "simulate",
    "sweep",
]

# Python started in the root of a checkout finds this folder before the installed package. There models/ and guides/
# stand beside it, not inside it.
if not (Path(__file__).parent / "models").is_dir():
    __path__.append(str(Path(__file__).parent.parent))


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    value = getattr(import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """``fit`` is the function here, although a file has its name: importing that file would set it to the module."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "fit" and isinstance(value, ModuleType):
            value = value.fit
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
