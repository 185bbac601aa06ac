"""The loader of the V1-V2 recordings, where they are there, against what is known of the counts."""

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from v1v2_loader import load

from mrsds_ppl.data import load_user_function

SHARED = Path(os.environ.get("MRSDS_SHARED", Path(__file__).parent.parent / "../shared"))
RECORDING = SHARED / "data/v1v2_session143_stimulus1.mat"

pytestmark = pytest.mark.skipif(
    not RECORDING.is_file(), reason=f"no recording at {RECORDING}; set MRSDS_SHARED to the folder that holds data/"
)


def test_counts_of_both_areas_stand_side_by_side():
    ys, us, region_sizes, num_regions = load(RECORDING)
    assert ys.shape == (400, 64, 93 + 35)
    assert us is None
    assert (region_sizes, num_regions) == ([93, 35], 2)
    np.testing.assert_allclose([ys[..., :93].mean(), ys[..., 93:].mean()], [0.84, 0.14], atol=0.005)
    assert ys.max() == 11
    file = scipy.io.loadmat(RECORDING)
    np.testing.assert_array_equal(ys[17, :, 5], file["v1"][5, :, 17])
    np.testing.assert_array_equal(ys[300, :, 93 + 8], file["v2"][8, :, 300])


def test_as_a_source_of_trials():
    source = f"{Path(__file__).parent / 'v1v2_loader.py'}:load"
    trials = load_user_function(source, data_path=RECORDING, bin_width=0.02, region_names=["V1", "V2"])
    trials.validate(counts=True)
    assert (trials.num_trials, trials.num_bins, trials.num_inputs) == (400, 64, 0)
    assert trials.observed.all()
