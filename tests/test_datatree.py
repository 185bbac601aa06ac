import warnings
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot as plt
from posterior_of import posterior_of, two_region_trials

from mrsds_ppl.output.datatree import posterior_tree, write_tree

matplotlib.use("Agg")
with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # ArviZ 0.23 announces version 1 on import
    import arviz as az

FIRST = int(az.__version__.split(".")[0])
arviz_0 = pytest.mark.skipif(FIRST > 0, reason="names of ArviZ 0.23; version 1 is here")
arviz_1 = pytest.mark.skipif(FIRST < 1, reason="names of ArviZ 1, which needs Python 3.12; version 0.23 is here")


def arguments(which: str = "test", **changes):
    trials = two_region_trials()
    parts = {"train": trials.select(np.array([0, 2, 3])), "test": trials.select(np.array([1, 4, 5, 6]))}
    return {
        "sets": {name: posterior_of(part, draws=103, seed=i) for i, (name, part) in enumerate(parts.items())},
        "trials": parts,
        "which": which,
        "latent_region_sizes": [2, 1],
        "global_parameters": {"pi": np.array([0.3, 0.7]), "weights": np.ones((40, 40)), "gain": np.float32(2.0)},
        "attrs": {"version": "0.1.0", "model_seed": 3},
    } | changes


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run_posterior.nc"
    write_tree(path, posterior_tree(**arguments()))
    return path


@pytest.fixture
def tree(file: Path):
    with xr.open_datatree(file, engine="h5netcdf") as opened:
        yield opened.load()


def test_draws_are_laid_out_as_four_chains_and_padding_is_nan(tree: xr.DataTree):
    given = arguments()
    posterior, trials = given["sets"]["test"], given["trials"]["test"]
    padded = np.arange(12) >= np.asarray(trials.lengths)[:, None]
    assert padded.any()
    for name, draws in {"x": posterior.x_draws, "z_prob": posterior.z_prob_draws}.items():
        variable = tree["posterior"][name]
        last = "latent" if name == "x" else "state"
        assert variable.dims == ("chain", "draw", "trial", "time", last)
        assert variable.dtype == np.float32
        assert variable.shape[:2] == (4, 25)
        in_order = variable.values.reshape(100, *draws.shape[1:])
        np.testing.assert_array_equal(in_order[:, ~padded], draws[:100][:, ~padded])
        assert np.isnan(in_order[:, padded]).all()
    assert "4 chains of 25" in tree["posterior"].attrs["note"]


def test_coordinates_name_trials_seconds_regions_and_states(tree: xr.DataTree):
    x, y = tree["posterior"]["x"], tree["observed_data"]["y"]
    np.testing.assert_array_equal(x["trial"], [1, 4, 5, 6])
    assert list(x["split"].values) == ["test"] * 4
    np.testing.assert_allclose(x["time"], np.arange(12) * 0.02)
    assert list(x["latent"].values) == ["V1:0", "V1:1", "V2:0"]
    assert list(x["latent_region"].values) == ["V1", "V1", "V2"]
    assert list(y["neuron"].values) == [11, 12, 15, 3, 4]
    assert list(tree["constant_data"]["u"]["input"].values) == ["cue 0"]
    assert list(y["region"].values) == ["V1"] * 3 + ["V2"] * 2
    np.testing.assert_array_equal(tree["posterior"]["z_prob"]["state"], [0, 1])
    assert tree.attrs["version"] == "0.1.0"
    assert tree.attrs["model_seed"] == 3


def test_the_recording_is_there_with_what_was_not_observed_as_nan(tree: xr.DataTree):
    trials = arguments()["trials"]["test"]
    np.testing.assert_array_equal(tree["observed_data"]["y"], np.where(trials.observed, trials.y, np.nan))
    constant = tree["constant_data"]
    np.testing.assert_array_equal(constant["observed"], trials.observed)
    assert constant["observed"].dtype == bool
    np.testing.assert_array_equal(constant["lengths"], trials.lengths)
    valid = np.arange(12) < np.asarray(trials.lengths)[:, None]
    np.testing.assert_array_equal(constant["u"].values[valid], trials.u[valid])


def test_predictive_counts_are_small_integers_in_the_file_and_floats_when_read(tree: xr.DataTree, file: Path):
    posterior = arguments()["sets"]["test"]
    y = tree["posterior_predictive"]["y"]
    assert y.shape == (4, 5, 4, 12, 5)
    # Draw d of chain c is the same draw of the guide as in the group posterior.
    np.testing.assert_array_equal(y.values[2, 3, 3], posterior.y_draws[2 * 25 + 3, 3])
    assert np.isnan(y.values[:, :, 0, -1]).all()
    assert y.encoding["dtype"] == np.uint8
    assert "20 of 100 draws" in tree["posterior_predictive"].attrs["note"]
    raw = xr.open_dataset(file, group="posterior_predictive", engine="h5netcdf", mask_and_scale=False)
    with raw:
        assert raw["y"].dtype == np.uint8


def test_predictive_means_of_gaussian_emissions_stay_floats():
    given = arguments()
    sets = {name: posterior_of(part, counts=False) for name, part in given["trials"].items()}
    y = posterior_tree(**(given | {"sets": sets}))["posterior_predictive"]["y"]
    np.testing.assert_allclose(y.values[0, 0, 3], sets["test"].y_draws[0, 3], rtol=1e-6)
    assert "dtype" not in y.encoding


def test_log_likelihood_is_one_number_a_trial_whose_mean_weight_is_the_marginal(tree: xr.DataTree):
    posterior = arguments()["sets"]["test"]
    variable = tree["log_likelihood"]["y"]
    assert variable.dims == ("chain", "draw", "trial")
    flat = variable.values.reshape(100, -1).astype(float)
    np.testing.assert_allclose(np.log(np.exp(flat).mean(0)), posterior.log_likelihood, atol=0.05)
    for name, values in {
        "elbo": posterior.elbo,
        "log_marginal": posterior.log_likelihood,
        "pareto_k": posterior.pareto_k,
    }.items():
        np.testing.assert_array_equal(tree["sample_stats"][name], values)


def test_all_writes_both_splits_and_says_which_trial_is_which():
    given = arguments("all")
    tree = posterior_tree(**given)
    x = tree["posterior"]["x"]
    assert list(x["split"].values) == ["train"] * 3 + ["test"] * 4
    np.testing.assert_array_equal(x["trial"], [0, 2, 3, 1, 4, 5, 6])
    test_only = tree["posterior"].dataset.set_xindex("split").sel(split="test")["x"]
    np.testing.assert_array_equal(test_only, posterior_tree(**arguments())["posterior"]["x"])


def test_small_parameters_are_repeated_and_large_ones_stand_once(tree: xr.DataTree):
    assert tree["posterior"]["pi"].shape == (4, 25, 2)
    np.testing.assert_allclose(tree["posterior"]["pi"].values[3, 7], [0.3, 0.7], rtol=1e-6)
    assert tree["posterior"]["gain"].shape == (4, 25)
    assert tree["constant_data"]["weights"].shape == (40, 40)


def test_groups_without_draws_are_left_out():
    given = arguments()
    bare = replace(given["sets"]["test"], y_draws=None, log_likelihood_draws=None)
    assert set(posterior_tree(**(given | {"sets": {"test": bare}})).children) == {
        "posterior",
        "sample_stats",
        "observed_data",
        "constant_data",
    }


def test_fewer_than_four_draws_are_one_chain():
    given = arguments()
    sets = {name: posterior_of(part, draws=3) for name, part in given["trials"].items()}
    assert posterior_tree(**(given | {"sets": sets}))["posterior"]["x"].shape[:2] == (1, 3)


def test_without_inputs_there_is_no_u(tmp_path: Path):
    trials = two_region_trials(num_inputs=0)
    given = arguments() | {"sets": {"test": posterior_of(trials)}, "trials": {"test": trials}}
    write_tree(tmp_path / "run.nc", posterior_tree(**given))
    with xr.open_datatree(tmp_path / "run.nc", engine="h5netcdf") as opened:
        assert "u" not in opened["constant_data"]


def test_a_pooled_latent_has_one_region():
    latent = posterior_tree(**arguments(latent_region_sizes=[3]))["posterior"]["latent"]
    assert list(latent.values) == ["V1+V2:0", "V1+V2:1", "V1+V2:2"]


def test_a_split_that_is_asked_for_must_be_given():
    given = arguments("all")
    with pytest.raises(ValueError, match=r"which='all' needs .* not given: \['train'\]"):
        posterior_tree(**(given | {"sets": {"test": given["sets"]["test"]}}))


def test_a_parameter_cannot_take_the_name_of_another_variable():
    with pytest.raises(ValueError, match=r"cannot be named \['x'\]"):
        posterior_tree(**arguments(global_parameters={"x": np.zeros(2)}))


@pytest.mark.nightly
@arviz_0
@pytest.mark.filterwarnings("ignore:Passing a dict or None as alias_mapping")  # ArviZ 0.23 under matplotlib 3.11
def test_arviz_opens_it_and_its_summaries_and_plots_run(file: Path):
    data = az.from_netcdf(str(file))
    assert {"posterior", "posterior_predictive", "log_likelihood", "observed_data"} <= set(data.groups())
    summary = az.summary(data, var_names=["pi"], kind="stats")
    np.testing.assert_allclose(summary["mean"], [0.3, 0.7])
    loo = az.loo(data, reff=1.0)
    assert loo.warning is False
    assert az.loo(data).elpd_loo == loo.elpd_loo
    posterior = arguments()["sets"]["test"]
    assert loo.elpd_loo == pytest.approx(posterior.log_likelihood.sum(), abs=1.0)
    az.plot_trace(data, var_names=["x"], coords={"trial": 5, "time": 0.0, "latent": "V1:0"})
    az.plot_ppc(data, num_pp_samples=5)
    (forest,) = az.plot_forest(data, var_names=["x"], coords={"trial": 5, "time": [0.0, 0.02], "latent": "V1:0"})
    assert len(forest.get_yticklabels()) == 2
    rows = az.summary(data, var_names=["x"], coords={"trial": 5, "time": [0.0, 0.02]}, kind="stats")
    draws = data.posterior["x"].sel(trial=5, time=[0.0, 0.02])
    np.testing.assert_allclose(rows["mean"], draws.mean(("chain", "draw")).values.ravel(), atol=1e-3)
    assert np.isfinite(rows.values).all()
    plt.close("all")


@arviz_0
@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")  # ArviZ 0.23 under pandas 3
def test_arviz_compares_two_runs_by_what_they_say_of_the_same_trials(file: Path, tmp_path: Path):
    given = arguments()["sets"]
    better = replace(given["test"], log_likelihood_draws=given["test"].log_likelihood_draws + np.float32(2.0))
    write_tree(tmp_path / "more_posterior.nc", posterior_tree(**arguments(sets=given | {"test": better})))
    runs = {"K=2": az.from_netcdf(str(file)), "K=3": az.from_netcdf(str(tmp_path / "more_posterior.nc"))}
    table = az.compare({name: az.loo(run, reff=1.0) for name, run in runs.items()})
    assert list(table.index) == ["K=3", "K=2"]
    # Four test trials, each two nats better.
    assert table.elpd_loo["K=3"] - table.elpd_loo["K=2"] == pytest.approx(8.0, abs=1e-2)
    assert table.elpd_diff["K=2"] == pytest.approx(8.0, abs=1e-2)


@arviz_1
@pytest.mark.filterwarnings("ignore")  # of libraries that are newer than those pinned here
def test_arviz_1_opens_summarises_plots_and_compares(file: Path, tmp_path: Path):
    given = arguments()["sets"]
    better = replace(given["test"], log_likelihood_draws=given["test"].log_likelihood_draws + np.float32(2.0))
    write_tree(tmp_path / "more_posterior.nc", posterior_tree(**arguments(sets=given | {"test": better})))
    runs = {"K=2": az.from_netcdf(str(file)), "K=3": az.from_netcdf(str(tmp_path / "more_posterior.nc"))}
    data = runs["K=2"]
    summary = az.summary(data, var_names=["pi"], kind="stats")
    np.testing.assert_allclose(summary["mean"].astype(float), [0.3, 0.7], rtol=1e-5)
    loo = {name: az.loo(run, reff=1.0) for name, run in runs.items()}
    assert loo["K=2"].elpd == pytest.approx(given["test"].log_likelihood.sum(), abs=1.0)
    table = az.compare(loo)
    assert list(table.index) == ["K=3", "K=2"]
    assert abs(float(table["elpd_diff"]["K=2"])) == pytest.approx(8.0, abs=0.1)
    few = {"var_names": ["x"], "coords": {"trial": 5, "time": [0.0, 0.02], "latent": "V1:0"}, "backend": "matplotlib"}
    for draw in (az.plot_trace, az.plot_forest):
        assert draw(data, **few).viz is not None
    assert az.plot_ppc_dist(data, num_samples=5, backend="matplotlib").viz is not None
    plt.close("all")
