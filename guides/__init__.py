"""Guides: one inference type a file, swapped by name. All are NumPyro guides of the program ``models.MRSDS``."""

from numpyro.infer.autoguide import AutoGuide

from mrsds_ppl.guides.auto import AutoPathDelta, AutoPathLowRank, AutoPathNormal
from mrsds_ppl.guides.base import AmortizedGuide
from mrsds_ppl.guides.gaussian_markov import GaussianMarkov
from mrsds_ppl.guides.gaussian_markov_paths import GaussianMarkovPaths
from mrsds_ppl.guides.mean_field import MeanField
from mrsds_ppl.guides.path_guide import PathGuide, for_new_trials
from mrsds_ppl.guides.rollout import Rollout
from mrsds_ppl.guides.structured import Structured
from mrsds_ppl.guides.switching_structured import SwitchingStructured
from mrsds_ppl.ppl.gaussian_chain import GaussianChain

GUIDES: dict[str, type[AutoGuide]] = {
    "gaussian_markov": GaussianMarkov,
    "mean_field": MeanField,
    "structured": Structured,
    "switching_structured": SwitchingStructured,
    "auto_normal": AutoPathNormal,
    "auto_lowrank": AutoPathLowRank,
    "auto_delta": AutoPathDelta,
}

__all__ = [
    "GUIDES",
    "AmortizedGuide",
    "AutoPathDelta",
    "AutoPathLowRank",
    "AutoPathNormal",
    "GaussianChain",
    "GaussianMarkov",
    "GaussianMarkovPaths",
    "MeanField",
    "PathGuide",
    "Rollout",
    "Structured",
    "SwitchingStructured",
    "for_new_trials",
]
