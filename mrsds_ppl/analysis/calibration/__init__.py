"""What refits of simulated recordings say of a fit. Imports models, weights, recovery and rollouts."""

from mrsds_ppl.analysis.calibration.calibration import Calibration, calibration
from mrsds_ppl.analysis.calibration.recovered import Recovered, recovered
from mrsds_ppl.analysis.calibration.replicates import replicate

__all__ = ["Calibration", "Recovered", "calibration", "recovered", "replicate"]
