"""Whether states are as sure as they are right, in simulations."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mrsds_ppl.analysis.recovery.alignment import match_states, valid_bins

_CLASSES = 15


class StateCalibration(NamedTuple):
    """Expected calibration error, mean probability of the likeliest state, and how often it is the true one."""

    error: float
    confidence: float
    accuracy: float


def state_calibration(
    z_true: Int[np.ndarray, "trial time"],
    z_prob: Float[np.ndarray, "trial time state"],
    lengths: Int[np.ndarray, " trial"],
) -> StateCalibration:
    """Calibration of state probabilities, states matched one to one to the true ones.

        error = sum_c (bins in c / bins) |share of c in which the likeliest state is true - its mean probability in c|

    over 15 classes c of bins, of equal width in that probability. Chance alone leaves some error, more of it where
    states last long and bins are few.

    Args:
        z_true: states of the simulation.
        z_prob: their probabilities, given the signals.
        lengths: valid bins of each trial.

    Source: Naeini, Cooper and Hauskrecht (2015); Guo, Pleiss, Sun and Weinberger (2017), whose classes these are.
    """
    match, valid = match_states(z_true, z_prob, lengths), valid_bins(lengths, z_true.shape[1])
    right = (match.z_matched == z_true)[valid]
    largest = z_prob.max(-1)[valid].astype(float)
    number = np.minimum((largest * _CLASSES).astype(int), _CLASSES - 1)
    apart = np.bincount(number, weights=right - largest, minlength=_CLASSES)
    return StateCalibration(float(np.abs(apart).sum() / len(right)), float(largest.mean()), float(right.mean()))
