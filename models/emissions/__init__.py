"""Emissions: what the neurons of region r show of its latents, y_t^r | x_t^r.

    Gaussian    y ~ N(C_r(x^r), S_r)
    Poisson     y ~ Poisson(rate(C_r(x^r))), rate = softplus or exp

C_r is affine, or a perceptron per region. A missing entry of y scores nothing. A new kind of emission is one class that
has what :class:`mrsds_ppl.models.protocols.Emissions` asks, and one line in ``_CLASSES``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mrsds_ppl.models.protocols
    from mrsds_ppl.models.emissions.gaussian import GaussianEmissions as GaussianEmissions
    from mrsds_ppl.models.emissions.poisson import PoissonEmissions as PoissonEmissions

    EMISSIONS: dict[str, type[mrsds_ppl.models.protocols.Emissions]]

# The class of each kind, in the file of its name. A configuration is read by the names, without JAX.
_CLASSES = {"gaussian": "GaussianEmissions", "poisson": "PoissonEmissions"}
EMISSION_NAMES = tuple(_CLASSES)
__all__ = ["EMISSIONS", "EMISSION_NAMES", "GaussianEmissions", "PoissonEmissions"]


def __getattr__(name: str) -> Any:
    if name == "EMISSIONS":
        found = globals()[name] = {kind: _class(kind) for kind in _CLASSES}
        return found
    for kind, class_name in _CLASSES.items():
        if name == class_name:
            return _class(kind)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _class(kind: str) -> "type[mrsds_ppl.models.protocols.Emissions]":
    return getattr(import_module(f"{__name__}.{kind}"), _CLASSES[kind])
