"""The generative program and its parts; uses nn, statespace and ppl. Names are imported when they are asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrsds_ppl.models.dynamics import Dynamics as Dynamics
    from mrsds_ppl.models.dynamics import Messages as Messages
    from mrsds_ppl.models.dynamics import every_message as every_message
    from mrsds_ppl.models.emissions import EMISSIONS as EMISSIONS
    from mrsds_ppl.models.mrsds import MRSDS as MRSDS
    from mrsds_ppl.models.mrsds import Networks as Networks
    from mrsds_ppl.models.options import DynamicsOptions as DynamicsOptions
    from mrsds_ppl.models.options import EmissionOptions as EmissionOptions
    from mrsds_ppl.models.options import InitialOptions as InitialOptions
    from mrsds_ppl.models.options import ModelOptions as ModelOptions
    from mrsds_ppl.models.options import TransitionOptions as TransitionOptions

# Options are read without JAX, which every other file here imports.
_HOMES = {
    "dynamics": ("Dynamics", "Messages", "every_message"),
    "emissions": ("EMISSIONS",),
    "mrsds": ("MRSDS", "Networks"),
    "options": ("DynamicsOptions", "EmissionOptions", "InitialOptions", "ModelOptions", "TransitionOptions"),
}
__all__ = [
    "EMISSIONS",
    "MRSDS",
    "Dynamics",
    "DynamicsOptions",
    "EmissionOptions",
    "InitialOptions",
    "Messages",
    "ModelOptions",
    "Networks",
    "TransitionOptions",
    "every_message",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
