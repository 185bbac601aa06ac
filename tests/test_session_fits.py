"""Joint fits of sessions with other neurons each: all of them in one set of axes."""

import re

import numpy as np
import pytest

import mrsds_ppl as mrsds
from mrsds_ppl.analysis.recovery.alignment import align_latents, match_states

COUNTS, BINS, NEURONS = (40, 20), 60, 40


def dealt_out(seed: int) -> list[mrsds.Trials]:
    """Trials and neurons of one simulation, for each session its own."""
    wells = mrsds.simulate(
        "wells", seed=seed, num_trials=sum(COUNTS), num_bins=BINS, neurons_per_region=NEURONS * len(COUNTS)
    )
    number, firsts = np.tile(np.repeat([0, 1], NEURONS), 3), np.cumsum([0, *COUNTS])
    return [
        wells.select(slice(firsts[s], firsts[s + 1])).without_neurons(wells.neuron_ids[number != s]) for s in (0, 1)
    ]


@pytest.mark.nightly
@pytest.mark.longest
def test_one_map_serves_all_sessions_and_states_mean_the_same(tmp_path):
    fit = mrsds.fit(mrsds.join(dealt_out(1)), 2, 2, training={"num_steps": 300}, progress=False)
    trials, latents = fit.trials, fit.latents.values
    shared = align_latents(trials.x, latents, trials.lengths, [2, 2, 2]).aligned
    states = match_states(trials.z, fit.states.values, trials.lengths).z_matched
    for number in (0, 1):
        own = trials.session_numbers == number
        x = trials.x[own]
        left = np.nansum((x - shared[own]) ** 2, (0, 1)) / np.nansum((x - np.nanmean(x, (0, 1))) ** 2, (0, 1))
        alone = align_latents(x, latents[own], trials.lengths[own], [2, 2, 2]).r2.mean()
        # With the axes of another session R2 is below 0.5, and states are at chance.
        assert 1 - left.mean() > alone - 0.03
        assert (states[own] == trials.z[own])[trials.z[own] >= 0].mean() > 0.9
    page = fit.report(tmp_path / "page.html", quick=True).read_text(encoding="utf-8")
    row = re.search(r"test trials, given all their data</t.>(.*?)</tr>", page, re.DOTALL)
    assert row is not None
    ours, ceiling, average = map(float, re.findall(r"-?\d\.\d+", row[1])[:3])
    assert ceiling > ours > average > -0.1
