"""Calibration of state probabilities, by counts made by hand."""

import numpy as np
import pytest

from mrsds_ppl.analysis.recovery.state_calibration import state_calibration


def test_error_is_the_difference_between_how_sure_and_how_often_right() -> None:
    # Two trials, the second a bin shorter; states are numbered the other way round.
    truth = np.array([[0, 0, 1, 1], [1, 0, 0, -1]])
    first = np.array([[0.1, 0.1, 0.9, 0.1], [0.7, 0.3, 0.3, 1.0]])
    found = state_calibration(truth, np.stack([first, 1 - first], axis=-1), np.array([4, 3]))
    # Of four bins with 0.9 three are right, of three with 0.7 all.
    assert found.accuracy == pytest.approx(6 / 7)
    assert found.confidence == pytest.approx((4 * 0.9 + 3 * 0.7) / 7)
    assert found.error == pytest.approx((4 * 0.15 + 3 * 0.3) / 7)


def test_probabilities_that_states_are_drawn_from_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    first = rng.uniform(size=(200, 500))
    truth = (rng.uniform(size=first.shape) > first).astype(int)
    found = state_calibration(truth, np.stack([first, 1 - first], axis=-1), np.full(200, 500))
    assert found.error < 0.01
    assert found.confidence == pytest.approx(found.accuracy, abs=0.01)
    sure = np.clip(np.round(first), 0.001, 0.999)
    assert state_calibration(truth, np.stack([sure, 1 - sure], axis=-1), np.full(200, 500)).error > 0.2
