"""Sections of the report that are drawn from plain arrays: means over trials, events, restarts, errors."""

from dataclasses import replace

import jax
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import mrsds_ppl as mrsds
from mrsds_ppl.output.report.averages import averages_of, averages_section, events_of
from mrsds_ppl.output.report.edges import Edges, edges_section
from mrsds_ppl.output.report.page import digits_of
from mrsds_ppl.output.report.restarts import Posterior, compare_restarts, restarts_section
from mrsds_ppl.output.results import read_restarts

mpl.use("agg")
RNG = np.random.default_rng(0)
TRIALS, BINS = 12, 10
LENGTHS = np.array([10] * 8 + [6] * 4)
ENDED = np.arange(BINS) >= LENGTHS[:, None]
STATES = np.where(ENDED[..., None], np.nan, RNG.dirichlet([1.0, 1.0], (TRIALS, BINS)))
LATENTS = np.where(ENDED[..., None], np.nan, RNG.normal(size=(TRIALS, BINS, 3)))
LABELS = np.array(["go", "stop", ""] * 4)
NAMES = ["V1 latent 1", "V1 latent 2", "LGN latent"]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def events():
    """An input that is switched on in bin 3 of all trials, and again in bin 5 of the first."""
    u = np.zeros((TRIALS, BINS, 2))
    u[:, 3:5, 1] = u[0, 6, 1] = u[:, 0, 0] = 1.0
    stage = np.eye(2)[(np.arange(BINS) >= 8).astype(int)] * ~ENDED[..., None]
    return events_of(u, stage, LENGTHS, ["light", "tone"])


def test_events_are_what_begins_within_a_trial():
    found = events()
    # Light begins with the trial. Stage 0 does too, and stage 1 in the trials that last until then.
    assert list(found) == ["stage 1", "onset of tone"]
    assert np.argwhere(found["onset of tone"]).tolist() == [[0, 3], [0, 6], *([i, 3] for i in range(1, TRIALS))]
    assert np.argwhere(found["stage 1"]).tolist() == [[i, 8] for i in range(8)]


def test_means_by_condition_leave_out_trials_without_a_label():
    found = averages_of(STATES, LATENTS, 0.02, LABELS, {})
    assert list(found.states) == ["go (4 trials)", "stop (4 trials)"]
    go = LABELS == "go"
    np.testing.assert_allclose(found.latents["go (4 trials)"].mean, np.nanmean(LATENTS[go], 0))
    spread = np.nanstd(STATES[go], 0, ddof=1) / np.sqrt((~ENDED[go]).sum(0))[:, None]
    np.testing.assert_allclose(found.states["go (4 trials)"].error, spread)
    alone = averages_of(STATES, LATENTS, 0.02, np.array(["go"] * TRIALS), {})
    assert averages_section(alone, [0, 1], [0], NAMES) is None


def test_a_trial_counts_once_around_events():
    found = averages_of(STATES, LATENTS, 0.02, None, events())
    assert list(found.around) == ["stage 1 (8 trials)", "onset of tone (12 trials)"]
    around, zero = found.around["onset of tone (12 trials)"], len(found.lags) // 2
    assert found.lags[zero] == 0.0
    first = STATES[0, [3, 6]].mean(0)
    np.testing.assert_allclose(around.mean[zero], np.vstack([first, STATES[1:, 3]]).mean(0))
    # Four bins before, only the second tone of the first trial has one, and a twelfth of the trials is too few.
    assert np.isnan(around.mean[zero - 4]).all()
    assert around.num_trials[zero - 4] == 1


def test_section_draws_states_and_latents_by_condition_and_states_around_events():
    found = averages_of(STATES, LATENTS, 0.02, LABELS, events())
    section = averages_section(found, [0, 1], [0, 2], NAMES)
    by_state, by_latent, around = (figure.axes for figure in section.parts)
    assert [ax.get_title(loc="left") for ax in by_state] == ["state 0", "state 1"]
    assert [ax.get_title(loc="left") for ax in by_latent] == ["V1 latent 1", "LGN latent"]
    assert [ax.get_title(loc="left") for ax in around] == list(found.around)
    np.testing.assert_allclose(by_latent[1].lines[1].get_ydata(), found.latents["stop (4 trials)"].mean[:, 2])
    assert all("standard error over trials" in figure.caption for figure in section.parts)
    # With one state there is nothing to say of states.
    assert len(averages_section(found, [0], [0, 2], NAMES).parts) == 1


def test_restarts_agree_up_to_names_of_states_and_a_linear_map():
    x, z = RNG.normal(size=(4, 9, 2)), RNG.dirichlet([0.3, 0.3], (4, 9))
    turned = x @ np.array([[0.6, -0.8], [0.8, 0.6]]) + 1.0
    others = [Posterior(turned, z[..., ::-1]), Posterior(x, z), None]
    found = compare_restarts(np.array([-1.0, -0.9, np.nan]), 1, others, np.full(4, 9), [2])
    np.testing.assert_allclose([found.same_state[0], found.r2[0]], 1.0)
    assert np.isnan([found.same_state[1:], found.r2[1:]]).all()
    (table,) = restarts_section(found).parts
    assert table.rows == [
        ["0", "-1.00000", "100.0%", "1.000"],
        ["1 (kept)", "-0.90000", "-", "-"],
        ["2", "nan", "-", "-"],
    ]
    unknown = restarts_section(compare_restarts(np.array([-1.0, -0.9]), 1, [], np.full(4, 9), [2]))
    assert "is not known" in unknown.text[1]
    assert len(unknown.parts[0].head) == 2


@pytest.mark.slow
@pytest.mark.compiling
@pytest.mark.nightly
def test_a_run_holds_its_restarts_and_a_fit_in_memory_does_not(tmp_path):
    trials = mrsds.simulate("lotka-volterra", seed=0, num_trials=12, num_bins=20, neurons_per_region=4)
    training = {"num_steps": 6, "restarts": 2, "lr_warmup_steps": 2}
    fit = mrsds.fit(trials, 2, 1, start="none", training=training, test=0.25, save_to=tmp_path / "run", progress=False)
    every = read_restarts(mrsds.load(tmp_path / "run"))
    assert len(every) == 2
    # The best is also the run's own checkpoint, which is another file.
    same = [jax.tree.all(jax.tree.map(np.array_equal, one, fit.params)) for one in every]
    assert same == [number == fit.trained.restart for number in range(2)]
    assert read_restarts(replace(fit, paths=None)) == []


@pytest.mark.parametrize(("width", "digits"), [(3.0, 2), (0.5, 2), (0.031, 3), (0.0004, 5)])
def test_two_digits_of_a_width_are_shown(width, digits):
    assert digits_of(width) == digits
    assert float(f"{width:.{digits}f}") > 0


def test_no_error_of_an_edge_reads_zero():
    axes, shape = ("state", "target", "source"), (2, 2, 2)
    there = np.zeros(shape, bool)
    there[0, 0, 1] = there[0, 1, 0] = True
    error = np.zeros(shape)
    error[0, 0, 1] = 0.0012
    found = xr.Dataset({"evidence": (axes, np.ones(shape)), "error": (axes, error), "q_value": (axes, 0.01 + error)})
    found["present"] = axes, there
    found = found.assign_coords(state=["0", "all"]).assign_attrs(trials=9, false_discovery_rate=0.1)
    *_, table = edges_section(Edges(found), np.ones((1, 2, 2)), ["state 0"], ["A", "B"], ["A", "B"]).parts
    assert [row[2] for row in table.rows] == ["1.0000 (0.0012)", "1.00"]
