"""``import mrsds_ppl as mrsds``: arrays in, states and messages out, nothing else to know."""

import shutil
import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.io
import tiny_run
import xarray as xr

import mrsds_ppl as mrsds
from mrsds_ppl import cli
from mrsds_ppl.analysis.edges import score_test

pytestmark = [pytest.mark.slow, pytest.mark.compiling]

mpl.use("agg")
QUICK = {"num_steps": 8, "log_steps": 4, "save_steps": 8, "batch_size": 5}


@pytest.fixture(scope="module")
def trials():
    simulated = tiny_run.simulated()
    lengths = np.full(12, 20)
    lengths[[2, 7]] = [12, 17]
    ys = [y[:n] for y, n in zip(simulated.y, lengths, strict=True)]
    labels = ["a" if number % 2 else "b" for number in range(12)]
    return mrsds.Trials.from_arrays(
        ys, region_sizes=[4, 4], region_names=["prey", "predator"], bin_width=0.5, labels=labels
    )


@pytest.fixture(scope="module")
def fit(trials):
    return mrsds.fit(
        trials, num_states=2, latent_sizes=1, model=tiny_run.MODEL, training=QUICK, test=0.25, progress=False
    )


def test_latents_and_states_can_be_selected_by_trial_seconds_region_and_split(fit, trials):
    assert fit.latents.dims == ("trial", "time", "latent")
    assert fit.states.dims == ("trial", "time", "state")
    assert fit.latents["trial"].values.tolist() == list(range(12))
    assert (fit.latents["split"].values == "test").sum() == 3
    one = fit.states.sel(trial=2)
    assert np.isfinite(one.sel(time=slice(0, 5.5))).all()
    assert np.isnan(one.sel(time=slice(6.0, None))).all()
    np.testing.assert_allclose(one.sel(time=slice(0, 5.5)).sum("state"), 1.0, rtol=1e-5)
    assert fit.latents.sel(latent="predator:0").sizes == {"trial": 12, "time": 20}


def test_edges_are_told_of_every_message_in_each_state_and_in_all(fit):
    found = fit.edges()
    assert found["evidence"].dims == ("state", "target", "source")
    assert found["state"].values.tolist() == ["0", "1", "all"]
    between = found.sel(target="prey", source="predator")
    assert np.isfinite(between[["evidence", "error", "p_value", "q_value"]].to_array()).all()
    own = found.sel(target="prey", source="prey")
    assert np.isnan(own["evidence"]).all()
    assert not own["present"].any()
    assert found["present"].dtype == bool


def test_messages_and_their_norms_have_names(fit):
    found = fit.messages(draws=3)
    assert found.dims == ("draw", "trial", "time", "target", "source", "latent")
    assert found.sel(target="prey", source="predator").sizes["trial"] == 3
    assert fit.messages("train", draws=2).sizes["trial"] == 9
    xr.testing.assert_identical(found, fit.messages(draws=3))
    sizes = fit.communication()
    assert set(sizes.dims) == {"state", "target", "source"}
    assert set(sizes) == {"mean", "low", "high"}
    assert (sizes["low"] < sizes["high"]).all()
    # Of messages that training trials do not ask for the interval begins at zero, or that test trials do not need.
    asked_for = score_test(fit.weights, fit.split.train.lengths)[:-1] <= 0.05
    assert ((sizes["low"] > 0).values == (asked_for | np.eye(2, dtype=bool))).all()
    edges = fit.edges()
    asked_for = (edges["p_value"].isel(state=slice(0, -1)) <= 0.05).values
    both = fit.communication(edges=edges)
    assert ((both["low"] > 0).values == (asked_for | np.eye(2, dtype=bool))).all()
    assert (both["low"] <= sizes["low"]).all()
    nothing = fit.communication(edges=edges.assign(p_value=edges["p_value"] * 0 + 1.0))
    assert ((nothing["low"] > 0).values == np.eye(2, dtype=bool)).all()
    narrow = fit.communication(level=0.5)
    assert (narrow["high"] - sizes["low"] < sizes["high"] - sizes["low"]).all()
    assert set(fit.communication(weights=False)) == {"mean"}
    with pytest.raises(mrsds.RunError, match="level: found 90"):
        fit.communication(level=90.0)
    by_label = fit.communication(labels={number: "a" if number % 2 else "b" for number in range(12)})
    assert by_label["condition"].values.tolist() == ["a", "b"]
    xr.testing.assert_identical(by_label, fit.communication(labels=["b", "a"] * 6))
    with pytest.raises(mrsds.DataError, match="labels of trials that do not exist: 12"):
        fit.communication(labels={number: "a" for number in range(1, 13)})
    with pytest.raises(mrsds.DataError, match="no label for the trials: 0"):
        fit.communication(labels={number: "a" for number in range(1, 12)})


def test_conditions_and_epochs_are_contrasted(fit):
    labels = {number: "a" if number % 2 else "b" for number in range(12)}
    found = fit.contrast(labels, draws=3)
    assert set(found.data_vars) >= {"difference", "low", "high", "p_value", "q_value"}
    assert found["difference"].dims == ("target", "source")
    assert (found.attrs["first"], found.attrs["num_second"]) == ("a", 6)
    xr.testing.assert_identical(found, fit.contrast(["b", "a"] * 6, draws=3))
    # The recording has the same labels.
    xr.testing.assert_identical(found, fit.contrast(draws=3))
    epochs = fit.contrast(epochs={"early": (0.0, 3.0), "late": (3.0, 6.0)}, draws=3)
    assert (epochs.attrs["second"], epochs.attrs["num_second"]) == ("late", 12)
    with pytest.raises(mrsds.DataError, match="labels of trials that do not exist: 12"):
        fit.contrast({number: "ab"[number % 2] for number in range(1, 13)})
    with pytest.raises(mrsds.DataError, match="found 1 different label"):
        fit.contrast(["a"] * 12)


def test_everything_read_off_a_fit_is_labelled(fit, trials):
    assert np.isfinite(fit.evidence()).all()
    transitions = fit.transitions(draws=20)
    assert transitions["mean"].dims == ("from", "to")
    assert (transitions["low"] < transitions["high"]).all()
    assert fit.score()["prediction"].values.tolist() == ["given all data", "one bin ahead", "hidden neurons"]
    assert fit.forecast(2, draws=3)["y_mean"].dims == ("cut", "trial", "horizon", "neuron")
    assert fit.silence("prey", draws=2)["x_silenced"].dims == ("draw", "trial", "time", "latent")
    assert fit.flow("prey")["change"].dims == ("state", "point", "latent")
    assert fit.infer(trials.select([0, 1]), draws=4)["posterior"]["x"].sizes["trial"] == 2
    with pytest.raises(mrsds.DataError, match="allowed: test, train, all, or Trials"):
        fit.messages("tests")
    assert fit.posterior["posterior"]["x"].dims == ("chain", "draw", "trial", "time", "latent")


def test_figures_and_page(fit, tmp_path):
    for name in ("latents", "states", "communication", "messages", "activity", "flow", "scores", "training"):
        assert np.ravel(getattr(fit.plot, name)())[0].figure is not None
        plt.close("all")
    fit.plot.neurons([0, 5])
    plt.close("all")
    page = fit.report(tmp_path / "page.html")
    assert "Communication by condition" in page.read_text(encoding="utf-8")
    assert plt.get_fignums() == []


def test_a_fit_shows_itself_in_a_few_lines(fit):
    shown = repr(fit)
    assert len(shown.splitlines()) < 10
    for word in ("prey 4, predator 4", "2 states", "gaussian", "9 for training, 3 for test", "fit.save(path)"):
        assert word in shown
    assert "<table>" in fit._repr_html_()


def test_saved_and_loaded_is_the_same(fit, tmp_path):
    paths = fit.save(tmp_path / "mouse")
    again = mrsds.load(tmp_path / "mouse")
    for name in ("latents", "states"):
        xr.testing.assert_identical(getattr(again, name), getattr(fit, name))
    # Not to the bit: the fit's programs are compiled as the command does, those of this test faster.
    xr.testing.assert_allclose(again.messages(draws=2), fit.messages(draws=2), atol=1e-4)
    assert again.posterior.identical(fit.posterior)
    assert again.scores == fit.scores
    assert paths.mat.exists()
    with pytest.raises(mrsds.RunError, match="a finished run has this name"):
        fit.save(tmp_path / "mouse")
    # A copy stands alone, and can be moved.
    again.save(tmp_path / "there" / "copy")
    shutil.rmtree(tmp_path / "mouse-models")
    (tmp_path / "mouse-data.nc").unlink()
    (tmp_path / "there").rename(tmp_path / "elsewhere")
    xr.testing.assert_identical(mrsds.load(tmp_path / "elsewhere" / "copy").latents, fit.latents)


def test_the_command_finds_the_same_on_the_same_arrays(fit, tmp_path):
    fit.save(tmp_path / "kept")
    command = ["fit", str(tmp_path / "kept-config.yaml"), "--name", "told", "--result-path", str(tmp_path)]
    assert cli.main(command) == 0
    mat = scipy.io.loadmat(tmp_path / "told_latents.mat")
    test = fit.latents.isel(trial=fit.latents["split"].values == "test")
    np.testing.assert_array_equal(mat["xs_test"], test.values)


def test_counts_get_poisson_emissions_unless_told(trials, capsys):
    counts = mrsds.Trials.from_arrays(np.random.default_rng(0).poisson(1.0, (4, 12, 4)), region_sizes=[2, 2])
    quick = {**QUICK, "num_steps": 4, "log_steps": 2}
    found = mrsds.fit(counts, num_states=1, latent_sizes=1, model=tiny_run.MODEL, training=quick)
    assert found.config.model.emissions.dist == "poisson"
    assert "poisson emissions (all signals are counts)" in capsys.readouterr().out


def test_what_is_wrong_is_said_before_anything_is_computed(trials):
    with pytest.raises(mrsds.ConfigError, match="num_states"):
        mrsds.fit(trials, num_states=0, latent_sizes=1)
    with pytest.raises(mrsds.ConfigError, match="gausian"):
        mrsds.fit(trials, num_states=2, latent_sizes=1, guide="gausian_markov")
    with pytest.raises(mrsds.ConfigError, match=r"num_step.*num_steps"):
        mrsds.fit(trials, num_states=2, latent_sizes=1, training={"num_step": 3})
    with pytest.raises(mrsds.ConfigError, match="latent"):
        mrsds.fit(trials, num_states=2, latent_sizes=[1, 1, 1])
    with pytest.raises(mrsds.ConfigError, match="allowed: lotka-volterra"):
        mrsds.simulate("lotka")


def test_the_front_door_opens_fast_and_without_jax():
    code = (
        "import sys, mrsds_ppl as mrsds\n"
        "assert not {'jax', 'numpyro', 'matplotlib', 'pydantic'} & set(sys.modules)\n"
        "import mrsds_ppl.fit\n"
        "assert callable(mrsds.fit) and mrsds.fit.__name__ == 'fit', mrsds.fit\n"
        "assert set(mrsds.__all__) <= set(dir(mrsds))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
