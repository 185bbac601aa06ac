"""Emissions: what the neurons of region r show of its latents, y_t^r | x_t^r, with eta = C_r(x^r).

    gaussian               y ~ N(eta, S)
    poisson                y ~ Poisson(rate(eta)), rate = softplus or exp
    negative_binomial      y ~ NB with mean m = rate(eta) and variance m + a m^2
    bernoulli              y ~ Bernoulli(sigmoid(eta))
    zero_inflated_gamma    y = 0 with probability exp(-rate(eta)), otherwise gamma

C_r is affine, or a perceptron per region. Regions may have different laws. A missing entry of y scores nothing. A new
law is one class that has what :class:`mrsds_ppl.models.protocols.Law` asks, and one line in ``_CLASSES``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mrsds_ppl.models.protocols

    EMISSIONS: dict[str, type[mrsds_ppl.models.protocols.Law]]

# The class of each law, in the file of its name. A configuration is read by the names, without JAX.
_CLASSES = {
    "gaussian": "Gaussian",
    "poisson": "Poisson",
    "negative_binomial": "NegativeBinomial",
    "bernoulli": "Bernoulli",
    "zero_inflated_gamma": "ZeroInflatedGamma",
}
EMISSION_NAMES = tuple(_CLASSES)
__all__ = ["EMISSIONS", "EMISSION_NAMES"]


def __getattr__(name: str) -> Any:
    if name == "EMISSIONS":
        found = globals()[name] = {
            law: getattr(import_module(f"{__name__}.{law}"), class_name) for law, class_name in _CLASSES.items()
        }
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
