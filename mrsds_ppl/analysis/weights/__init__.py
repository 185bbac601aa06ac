"""How well the weights of the networks are known. Imports models and what is below them."""

from mrsds_ppl.analysis.weights.posterior import WeightPosterior, weight_posterior
from mrsds_ppl.analysis.weights.tangents import Change, Moved, Tangents, changes

__all__ = ["Change", "Moved", "Tangents", "WeightPosterior", "changes", "weight_posterior"]
