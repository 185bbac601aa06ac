"""How well the weights of the networks are known, and rounds of scoring. Imports models, train and start."""

from mrsds_ppl.analysis.weights.ascent import Scoring
from mrsds_ppl.analysis.weights.posterior import WeightPosterior, weight_posterior
from mrsds_ppl.analysis.weights.tangents import Change, Moved, Tangents, changes

__all__ = ["Change", "Moved", "Scoring", "Tangents", "WeightPosterior", "changes", "weight_posterior"]
