"""What an encoder divides signals by: a floor in each neuron's own units."""

import numpy as np
import pytest

from mrsds_ppl.data.trials import Trials
from mrsds_ppl.start.pca import encoder_spread
from mrsds_ppl.statespace.principal_components import principal_components


def spread_of(y, counts):
    trials = Trials.from_arrays(y, region_sizes=[2, 3])
    return encoder_spread(principal_components(trials, (1, 1)).spread, trials.region_of_neuron, np.full(5, counts))


def test_one_spike_of_a_silent_or_rare_neuron_is_no_outlier():
    y = np.random.default_rng(0).poisson(1.0, (6, 50, 5)).astype(float)
    y[..., 1] = 0.0
    y[..., 3] = 0.0
    y[2, 7, 3] = 1.0
    spread = spread_of(y, counts=True)
    assert spread[1] == 1.0
    assert spread[3] == pytest.approx(0.1)
    np.testing.assert_allclose(spread[[0, 2, 4]], y[..., [0, 2, 4]].std((0, 1)), rtol=1e-5)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_a_constant_signal_is_measured_by_its_region(unit):
    y = np.random.default_rng(0).normal(5.0, 1.0, (6, 50, 5))
    y[..., 3] = 5.1
    spread = spread_of(unit * y, counts=False)
    assert spread[3] == pytest.approx(np.median(spread[[2, 4]]), rel=1e-4)
    np.testing.assert_allclose(spread[[0, 1, 2, 4]] / unit, y[..., [0, 1, 2, 4]].std((0, 1)), rtol=1e-3)
