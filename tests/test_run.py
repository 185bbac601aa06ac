"""A run from its command line to its files, and what users get wrong."""

import json
from pathlib import Path

import command
import numpy as np
import pytest
import scipy.io
import tiny_run
import xarray as xr
import yaml

from mrsds_ppl import cli

ROOT = Path(__file__).parent.parent
TINY = {**tiny_run.CONFIG, "training": {**tiny_run.CONFIG["training"], "switch_init_steps": 4}}


@pytest.fixture(scope="module")
def recording():
    return tiny_run.simulated()


@pytest.fixture
def workplace(tmp_path, recording, monkeypatch):
    """A folder with a tiny configuration and a recording of twelve trials, two of them shorter, one value missing."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    lengths = np.full(12, 20)
    lengths[[1, 5]] = [15, 9]
    y = recording.y.copy()
    y[2, 3, 1] = np.nan
    save(tmp_path / "data.npz", y, lengths=lengths)
    write(tmp_path, TINY)
    return tmp_path


def save(path, y, region_sizes=(4, 4), **more):
    np.savez(path, ys=y, region_sizes=np.array(region_sizes), **more)


def write(folder, config):
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))


def mrsds(folder, *options, data="data.npz"):
    source = ["--data-path", str(folder / data)] if data else []
    return cli.main(["fit", str(folder / "tiny.yaml"), *source, "--result-path", str(folder / "out"), *options])


@pytest.mark.slow
@pytest.mark.compiling
def test_a_run_leaves_its_files(workplace, capsys):
    assert mrsds(workplace, "-name", "first", "-k", "2", "-d", "1") == 0
    assert "co-smoothing" in capsys.readouterr().out
    out = workplace / "out"
    found = {p.name for p in out.iterdir()}
    named = {"-log.txt", "-config.yaml", "-logs", "-models", "_latents.mat", "_posterior.nc"}
    assert found == {f"first{ending}" for ending in named}
    mat = scipy.io.loadmat(out / "first_latents.mat")
    assert mat["xs_train"].shape == (9, 20, 2)
    assert mat["zs_test"].shape == (3, 20, 2)
    assert mat["msgs_train"].shape == (9, 20, 2, 2, 1)
    assert mat["elbos"].size == 12
    lengths = mat["train_lengths"].ravel()
    short = int(np.argmin(lengths))
    assert np.isnan(mat["xs_train"][short, lengths[short] :]).all()
    assert np.isfinite(mat["xs_train"][short, : lengths[short]]).all()
    np.testing.assert_allclose(np.nansum(mat["zs_train"], -1)[short, : lengths[short]], 1.0, rtol=1e-5)
    assert np.abs(np.nan_to_num(mat["msgs_train"])).max() > 0
    with xr.open_datatree(out / "first_posterior.nc", engine="h5netcdf") as tree:
        assert dict(tree["posterior"]["x"].sizes) == {"chain": 4, "draw": 2, "trial": 3, "time": 20, "latent": 2}
        assert set(tree.children) >= {"posterior", "posterior_predictive", "observed_data", "log_likelihood"}


@pytest.mark.slow
@pytest.mark.compiling
def test_a_finished_run_is_replaced_only_where_that_is_asked_for_and_resumed_only_as_itself(
    workplace, recording, capsys
):
    quick = ("--name", "one", "--set", "training.switch_init_steps=0")
    assert mrsds(workplace, *quick) == 0

    def everything():
        files = (path for path in sorted((workplace / "out").rglob("*")) if path.is_file())
        return {path: path.read_bytes() for path in files}

    before = everything()

    def expect(code, *words):
        said = capsys.readouterr().err
        assert code == 2
        assert all(word in said for word in words), said
        assert everything() == before, "a file was touched"

    capsys.readouterr()
    expect(mrsds(workplace, *quick), "a finished run has this name", "--overwrite", "--name")
    expect(mrsds(workplace, *quick, "--resume", "-k", "3"), "model.num_states was 2 and is 3")
    expect(mrsds(workplace, *quick, "--resume", "--data-seed", "1"), "training.seeds.data was 0 and is 1")
    save(workplace / "other.npz", recording.y + 1)
    expect(mrsds(workplace, *quick, "--resume", data="other.npz"), "another recording")
    (workplace / "out" / "one_posterior.nc").unlink()
    (workplace / "out" / "one_latents.mat").unlink()
    before = everything()
    expect(mrsds(workplace, *quick), "checkpoint of step 12", "--resume", "--overwrite")
    assert mrsds(workplace, *quick, "--overwrite") == 0
    assert (workplace / "out" / "one_posterior.nc").exists()


def expect_refusal(capsys, folder, code, *words):
    """Exit status 2, one message with these words and no traceback, and no result."""
    assert code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "Traceback" not in said
    for word in words:
        assert word in said, said
    assert not list((folder / "out").glob("*_*")), "a result was written"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--set", "training.num_step=5"], ["training.num_step", "num_steps"]),
        (["--set", "model.emissions.dist=gamma"], ["model.emissions.dist", "gamma", "poisson"]),
        (["--set", "training.num_steps=-3"], ["training.num_steps", "-3"]),
        (["-k", "0"], ["model.num_states", "0"]),
        (["--guide", "gausian_markov"], ["gausian_markov", "gaussian_markov"]),
        (["--set", "model.latent_dims=[1,1,1]"], ["model.latent_sizes", "3", "2 regions"]),
        (["--resume"], ["no run to resume"]),
    ],
)
def test_wrong_settings_are_refused(workplace, capsys, changes, words):
    expect_refusal(capsys, workplace, mrsds(workplace, *changes), *words)


def spoil(recording, **entries):
    y = recording.y.copy()
    for (trial, time_bin, neuron), value in entries.get("values", {}).items():
        y[trial, time_bin, neuron] = value
    return y


def test_infinite_value_is_named(workplace, recording, capsys):
    save(workplace / "bad.npz", spoil(recording, values={(3, 4, 5): np.inf}))
    expect_refusal(capsys, workplace, mrsds(workplace, data="bad.npz"), "trial 3", "bin 4", "neuron 5", "infinite")


def test_neuron_never_observed_is_named(workplace, recording, capsys):
    y = recording.y.copy()
    y[..., 6] = np.nan
    save(workplace / "bad.npz", y)
    expect_refusal(capsys, workplace, mrsds(workplace, data="bad.npz"), "neuron 6", "never observed")


@pytest.mark.parametrize(("value", "word"), [(-1.0, "negative"), (0.5, "fractional")])
def test_counts_must_be_counts(workplace, recording, capsys, value, word):
    y = np.round(np.abs(recording.y))
    y[1, 2, 3] = value
    save(workplace / "bad.npz", y)
    code = mrsds(workplace, "--set", "model.emissions.dist=poisson", data="bad.npz")
    expect_refusal(capsys, workplace, code, "trial 1", "bin 2", "neuron 3", word)


def test_region_sizes_must_add_up(workplace, recording, capsys):
    save(workplace / "bad.npz", recording.y, region_sizes=(4, 5))
    expect_refusal(capsys, workplace, mrsds(workplace, data="bad.npz"), "region_sizes", "9", "8")


def test_inputs_of_another_length_name_the_trial(workplace, capsys):
    (workplace / "loader.py").write_text(
        "import numpy as np\n"
        "def load():\n"
        "    ys = [np.zeros((20, 4)) for _ in range(4)]\n"
        "    us = [np.zeros((20, 1)), np.zeros((20, 1)), np.zeros((19, 1)), np.zeros((20, 1))]\n"
        "    return ys, us, [2, 2], 2\n"
        "def short():\n"
        "    return [np.zeros((20, 4))], [2, 2]\n"
    )
    write(workplace, {**TINY, "data": {"data_source": "loader.py:load"}})
    expect_refusal(capsys, workplace, mrsds(workplace, data=None), "trial 2", "19", "20")
    write(workplace, {**TINY, "data": {"data_source": "loader.py:short"}})
    expect_refusal(capsys, workplace, mrsds(workplace, data=None), "2 values", "ys, us, region_sizes, num_regions")


def test_files_that_cannot_be_read_are_named(workplace, capsys):
    expect_refusal(capsys, workplace, mrsds(workplace, data="nowhere.npz"), "nowhere.npz", "no such file")
    whole = (workplace / "data.npz").read_bytes()
    (workplace / "cut.npz").write_bytes(whole[: len(whole) // 2])
    expect_refusal(capsys, workplace, mrsds(workplace, data="cut.npz"), "cut.npz", "cut short")
    np.savez(workplace / "other.npz", counts=np.zeros(3), region_sizes=np.array([4, 4]))
    expect_refusal(capsys, workplace, mrsds(workplace, data="other.npz"), "ys", "counts")
    np.savez(workplace / "turned.npz", ys=np.zeros((10, 8, 20)), region_sizes=np.array([4, 4]))
    expect_refusal(capsys, workplace, mrsds(workplace, data="turned.npz"), "(trial, neuron, time)", "Transpose")
    (workplace / "table.csv").write_text("neuron,count\n")
    assert cli.main(["check", str(workplace / "tiny.yaml"), str(workplace / "table.csv")]) == 2
    assert "table.csv: is a text file" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.compiling
def test_a_recording_alone_is_fitted_and_a_gpu_that_is_not_there_is_a_warning(workplace, capsys):
    quick = {f"inference.{key}": value for key, value in TINY["inference"].items()}
    quick |= {f"training.{key}": 1 for key in ("num_steps", "log_steps", "save_steps")}
    quick |= {"training.switch_init_steps": 0, "training.test_perc": 0.25, "model.dynamics.layers": [4]}
    settings = [word for key, value in quick.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    out = ["--result-path", str(workplace / "out"), "-gpu", "7"]
    assert cli.main(["fit", str(workplace / "data.npz"), "-k", "2", "-d", "1", *out, *settings]) == 0
    assert "warning: GPU 7" in capsys.readouterr().out
    assert scipy.io.loadmat(workplace / "out" / "data_latents.mat")["zs_test"].shape == (3, 20, 2)


def test_regions_of_a_recording_take_the_names_of_the_configuration(workplace, capsys):
    write(workplace, {**TINY, "data": {"data_source": "mydata", "region_names": ["M1", "PMd"]}})
    assert cli.main(["check", str(workplace / "tiny.yaml"), str(workplace / "data.npz")]) == 0
    assert "M1 (4 neurons), PMd (4 neurons)" in capsys.readouterr().out


def test_check_says_what_would_be_fitted(workplace, capsys):
    assert cli.main(["check", str(workplace / "tiny.yaml"), str(workplace / "data.npz")]) == 0
    said = capsys.readouterr().out
    for word in ("9 for training", "region0 (4 neurons)", "9 to 20 bins", "2 states", "gaussian_markov"):
        assert word in said


@pytest.mark.parametrize("flag", [[], ["--data-path"]])
def test_a_recording_on_the_command_line_takes_the_place_of_a_simulation(workplace, capsys, flag):
    simulation = {"num_trials": 6, "num_bins": 20, "neurons_per_region": 3}
    write(workplace, {**TINY, "data": {"data_source": "lotka-volterra", "simulation": simulation}})
    recording = str(workplace / "data.npz")
    assert cli.main(["check", str(workplace / "tiny.yaml"), *flag, recording]) == 0
    said = capsys.readouterr().out
    assert "9 for training, 3 for test" in said
    assert "region0 (4 neurons)" in said
    assert [line for line in said.splitlines() if "note:" in line] == [
        f"note: the trials are those of {recording}, in place of the simulation lotka-volterra"
    ]


def test_check_notes_a_recording_that_is_not_read_and_trials_without_values(workplace, capsys):
    simulation = {"num_trials": 6, "num_bins": 20, "neurons_per_region": 3}
    data = {"data_source": "lotka-volterra", "data_path": "data.npz", "simulation": simulation}
    write(workplace, {**TINY, "data": data})
    assert cli.main(["check", str(workplace / "tiny.yaml")]) == 0
    said = capsys.readouterr().out
    assert "note: the trials are simulated, as data.data_source is lotka-volterra; --set" in said
    assert said.count("note:") == 1
    ys = np.random.default_rng(0).normal(size=(6, 20, 8))
    ys[4] = np.nan
    np.savez(workplace / "silent.npz", ys=ys, region_sizes=[4, 4])
    write(workplace, TINY)
    assert cli.main(["check", str(workplace / "tiny.yaml"), str(workplace / "silent.npz")]) == 0
    said = capsys.readouterr().out
    assert "16.7% missing, trials without any value: 4" in said
    assert "note:" not in said
    save(workplace / "slow.npz", np.ones((6, 20, 8)), bin_width=20)
    assert cli.main(["check", str(workplace / "tiny.yaml"), str(workplace / "slow.npz")]) == 0
    assert "note: bin_width is in seconds; 20 looks like milliseconds, which would be 0.02\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("dist", "noted"), [(None, True), ("gaussian", True), ("[poisson, gaussian]", True), ("poisson", False)]
)
def test_counts_under_emissions_that_are_not_of_counts_are_noted(workplace, capsys, dist, noted):
    save(workplace / "counts.npz", np.random.default_rng(0).poisson(2.0, (6, 20, 8)).astype(float))
    named = [] if dist is None else ["--set", f"model.emissions.dist={dist}"]
    assert cli.main(["check", str(workplace / "tiny.yaml"), str(workplace / "counts.npz"), *named]) == 0
    said = capsys.readouterr().out
    assert ("note: all signals are counts, but emissions are " in said) == noted
    assert said.count("note:") == noted


@pytest.mark.parametrize("ending", [".npz", ".mat"])
def test_simulated_file_is_a_recording(tmp_path, capsys, ending):
    out = tmp_path / f"sim{ending}"
    options = ["--trials", "4", "--set", "num_bins=20", "--set", "neurons_per_region=3"]
    assert cli.main(["simulate", "lotka-volterra", str(out), *options]) == 0
    write(tmp_path, TINY)
    assert cli.main(["check", str(tmp_path / "tiny.yaml"), str(out)]) == 0
    assert "prey (3 neurons)" in capsys.readouterr().out


def test_a_simulation_in_a_file_of_another_kind_is_refused_before_it_is_made(tmp_path, capsys):
    assert cli.main(["simulate", "lotka-volterra", str(tmp_path / "sim.csv"), "--trials", "1000000000"]) == 2
    assert "allowed endings are .npz and .mat" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_toy_simulation_is_recovered(tmp_path, seed):
    """The toy configuration as it is shipped, without a cue: latents and states of the test trials."""
    seeds = [f"--{kind}-seed={seed}" for kind in ("data", "model", "train")]
    toy = [str(ROOT / "configs/toy-config.yaml")]
    said = command.mrsds("fit", *toy, "--result-path", str(tmp_path), *seeds)
    r2 = [float(word) for word in said.split("true latents: R2 ")[1].split(" (")[0].split()]
    accuracy = float(said.split("true states: accuracy ")[1].split(" ")[0])
    assert min(r2) >= 0.98
    assert accuracy >= 0.985
