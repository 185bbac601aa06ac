"""Whether messages differ between two conditions of trials or two epochs: arrays in, no knowledge of a fit."""

from mrsds_ppl.analysis.contrast.differences import Epochs, contrast_conditions, contrast_epochs, trial_norms

__all__ = ["Epochs", "contrast_conditions", "contrast_epochs", "trial_norms"]
