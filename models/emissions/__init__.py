"""Emissions: what the neurons of region r show of its latents, y_t^r | x_t^r.

    Gaussian    y ~ N(C_r(x^r), S_r)
    Poisson     y ~ Poisson(rate(C_r(x^r))), rate = softplus or exp

C_r is affine, or a perceptron per region. A missing entry of y scores nothing. A new kind of emission is one class that
has what :class:`mrsds_ppl.models.protocols.Emissions` asks, and one line in :data:`EMISSIONS`.
"""

from mrsds_ppl.models.emissions.gaussian import GaussianEmissions, PartlyObservedNormal
from mrsds_ppl.models.emissions.poisson import PoissonEmissions
from mrsds_ppl.models.protocols import Emissions

EMISSIONS: dict[str, type[Emissions]] = {"gaussian": GaussianEmissions, "poisson": PoissonEmissions}

__all__ = ["EMISSIONS", "Emissions", "GaussianEmissions", "PartlyObservedNormal", "PoissonEmissions"]
