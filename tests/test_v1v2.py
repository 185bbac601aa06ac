"""The recordings of macaque V1 and V2, where they are there: loader and co-smoothing of the shipped configuration."""

import os
from pathlib import Path

import command
import pytest
import scipy.io

from mrsds_ppl import cli

ROOT = Path(__file__).parent.parent
RECORDING = Path(os.environ.get("MRSDS_SHARED", ROOT / "../shared")) / "data/v1v2_session143_stimulus1.mat"
CONFIG = ROOT / "configs/v1v2.yaml"

pytestmark = pytest.mark.skipif(
    not RECORDING.is_file(), reason=f"no recording at {RECORDING}; set MRSDS_SHARED to the folder that holds data/"
)


def test_recording_is_loaded(capsys):
    assert cli.main(["check", str(CONFIG), str(RECORDING)]) == 0
    said = capsys.readouterr().out
    for word in ("360 for training, 40 for test", "V1 (93 neurons), V2 (35 neurons)", "64 to 64 bins of 0.02 s"):
        assert word in said


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.nightly
def test_hidden_neurons_are_predicted(tmp_path):
    """A tenth of the trials for test, a quarter of each area's neurons hidden: bits per spike."""
    command.mrsds("fit", str(CONFIG), "--data-path", str(RECORDING), "--result-path", str(tmp_path))
    mat = scipy.io.loadmat(tmp_path / "v1v2_latents.mat")
    assert mat["dropout_ids"].size == 23 + 9
    # Ridge regression on smoothed counts of the visible neurons has 0.194, see docs/results.md.
    assert mat["cosmooth_bps"].item() >= 0.21
