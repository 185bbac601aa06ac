"""Contrasts of whole fits: shuffled labels claim nothing, and a message that is half as large is found."""

import os
from pathlib import Path

import numpy as np
import pytest
from halved_message import halved_message

import mrsds_ppl as mrsds
from mrsds_ppl.analysis.contrast import contrast_conditions, trial_norms

ROOT = Path(__file__).parent.parent
RECORDING = Path(os.environ.get("MRSDS_SHARED", ROOT / "../shared")) / "data/steinmetz_forssmann_1.npz"
AREAS, NEURONS = ("ACA", "MOs", "CA1", "VISp"), 20
SHUFFLES = 200

pytestmark = [pytest.mark.slow, pytest.mark.compiling, pytest.mark.nightly]


def claims_of_shuffles(fit, labels):
    """In how many shuffles of the labels of a fit any message is claimed to differ."""
    norms, rng = trial_norms(fit.messages("all", draws=20)), np.random.default_rng(0)
    found = (
        contrast_conditions(norms, rng.permutation(labels), permutations=4_999, seed=number)
        for number in range(SHUFFLES)
    )
    return sum(bool((one["q_value"] < 0.05).any()) for one in found)


def test_shuffled_labels_of_oscillators_claim_nothing():
    trials = mrsds.simulate("oscillators", seed=0, num_trials=60, num_bins=60, min_bins=30, neurons_per_region=10)
    fit = mrsds.fit(
        trials, num_states=2, latent_sizes=2, start="none", training={"num_steps": 100}, test=0.1, progress=False
    )
    assert claims_of_shuffles(fit, np.repeat(["x", "y"], [20, 40])) <= 0.05 * SHUFFLES


@pytest.mark.skipif(
    not RECORDING.is_file(), reason=f"no recording at {RECORDING}; set MRSDS_SHARED to the folder that holds data/"
)
def test_shuffled_labels_of_a_recording_claim_nothing():
    """Right and wrong choices of a mouse, four areas, the neurons with most spikes."""
    with np.load(RECORDING) as file:
        counts, area, feedback, width = (file[key] for key in ("counts", "area", "feedback", "bin_width"))
    busy = np.argsort(-counts.sum((0, 1), dtype=int))
    chosen = np.concatenate([busy[area[busy] == name][:NEURONS] for name in AREAS])
    trials = mrsds.Trials.from_arrays(
        counts[..., chosen].astype(float),
        region_sizes=[NEURONS] * len(AREAS),
        region_names=AREAS,
        bin_width=float(width),
        labels=np.where(feedback > 0, "right", "wrong").tolist(),
    )
    fit = mrsds.fit(trials, num_states=2, latent_sizes=1, start="none", training={"num_steps": 60}, progress=False)
    assert claims_of_shuffles(fit, trials.labels) <= 0.05 * SHUFFLES


def test_a_message_that_is_half_as_large_in_one_condition_is_found(tmp_path):
    trials = halved_message(0)
    linear = {"dynamics": {"layers": [], "activations": []}}
    fit = mrsds.fit(trials, num_states=2, latent_sizes=2, model=linear, training={"num_steps": 200}, progress=False)
    found = fit.contrast()
    message = found.sel(target="b", source="a")
    assert (found.attrs["first"], found.attrs["second"]) == ("full", "half")
    assert message["q_value"] < 0.01
    assert message["high"] < -0.05
    # In units of the latents, the largest difference between regions that is no consequence of this one.
    others = found["difference"].where(found["target"] != found["source"]).sel(source=["a", "c"])
    assert abs(message["difference"]) == np.abs(others).max()
    page = fit.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "a to b" in page
    assert claims_of_shuffles(fit, trials.labels) <= 0.05 * SHUFFLES
