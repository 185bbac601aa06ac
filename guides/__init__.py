"""Guides: one inference type a file, swapped by name. All are NumPyro guides of the program ``models.MRSDS``."""

from mrsds_ppl.guides.base import AmortizedGuide
from mrsds_ppl.guides.gaussian_markov import GaussianChain, GaussianMarkov
from mrsds_ppl.guides.mean_field import MeanField

GUIDES = {"gaussian_markov": GaussianMarkov, "mean_field": MeanField}

__all__ = ["GUIDES", "AmortizedGuide", "GaussianChain", "GaussianMarkov", "MeanField"]
