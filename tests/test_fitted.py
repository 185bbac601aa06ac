"""A fitted run found, read back from its files, and asked about new trials."""

import shutil

import numpy as np
import pytest
import scipy.io
import tiny_run
import xarray as xr

from mrsds_ppl import cli
from mrsds_ppl.commands.edges import table_of
from mrsds_ppl.data.check import check_trials
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import DataError, RunError
from mrsds_ppl.fitted import load
from mrsds_ppl.storage.paths import find_run

pytestmark = [pytest.mark.slow, pytest.mark.compiling]

BINS = 0.5


def save(path, y, region_sizes=(4, 4), **more):
    np.savez(path, ys=y, **{"region_sizes": np.array(region_sizes), "bin_width": np.array(BINS), **more})


@pytest.fixture
def empty_run(tmp_path):
    """Names of files, which is all that finding a run looks at."""
    for ending in ("-config.yaml", "-log.txt", "_latents.mat", "_posterior.nc"):
        (tmp_path / f"first{ending}").touch()
    (tmp_path / "first-models").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "given",
    ["first", "first-config.yaml", "first-log.txt", "first_latents.mat", "first_posterior.nc", "first-models", ""],
)
def test_run_is_found_by_its_prefix_by_any_of_its_files_and_by_its_folder(empty_run, given):
    found = find_run(empty_run / given)
    assert (found.folder, found.name) == (empty_run, "first")


def test_run_in_the_current_folder_is_found(empty_run, monkeypatch):
    monkeypatch.chdir(empty_run)
    assert find_run(".").name == find_run("first").name == "first"


def test_runs_that_cannot_be_told_are_named(empty_run, tmp_path):
    with pytest.raises(RunError, match=r"frist: no such run; .* holds first"):
        find_run(empty_run / "frist")
    with pytest.raises(RunError, match="no folder"):
        find_run(tmp_path / "nowhere" / "first")
    (empty_run / "second-config.yaml").touch()
    with pytest.raises(RunError, match=r"holds 2 runs \(first, second\)"):
        find_run(empty_run)
    assert find_run(empty_run / "second").name == "second"
    (tmp_path / "bare").mkdir()
    with pytest.raises(RunError, match="holds none"):
        find_run(tmp_path / "bare")


@pytest.mark.slow
def test_run_read_back_gives_the_latents_that_it_wrote(finished_run):
    run = load(finished_run)
    assert (run.trained.step, run.trained.skipped) == (12, 0)
    assert len(run.history.step) == 12
    mat = scipy.io.loadmat(f"{finished_run}_latents.mat")
    np.testing.assert_array_equal(run.split.test.ids, mat["test_ids"].ravel())
    again = run.infer_set(run.split.test, draws=20)
    # States come from draws, and latents follow them: close, and not from other parameters.
    np.testing.assert_allclose(again.x_mean, mat["xs_test"], atol=0.15)
    # Of 8 and 20 draws of a path that stays in one state, probabilities differ by 0.2 at most, one deviation.
    assert np.abs(again.z_prob - mat["zs_test"]).mean() < 0.3


@pytest.mark.slow
def test_run_without_a_checkpoint_is_refused_and_the_later_stage_is_preferred(finished_run, tmp_path):
    shutil.copytree(finished_run.parent, tmp_path / "copy")
    copy = tmp_path / "copy" / "tiny"
    models = copy.with_name("tiny-models")
    models.rename(copy.with_name("tiny-models-do"))
    assert load(copy).trained.step == 12
    shutil.rmtree(copy.with_name("tiny-models-do"))
    with pytest.raises(RunError, match="holds no checkpoint"):
        load(copy)


@pytest.mark.slow
def test_every_command_says_when_the_recording_is_another_one_by_now(finished_run, tmp_path, capsys):
    shutil.copytree(finished_run.parent, tmp_path / "copy")
    copy, other = tmp_path / "copy" / "tiny", tmp_path / "other.npz"
    save(other, tiny_run.simulated().y + 1.0)
    about = copy.with_name("tiny-config.yaml")
    about.write_text(about.read_text().replace(str(finished_run.parent.parent / "data.npz"), str(other)))
    for command in (["report", str(copy)], ["infer", str(copy), str(other)], ["compare", str(copy), str(finished_run)]):
        assert cli.main(command) == 2
        assert "the recording is not the one that was fitted" in capsys.readouterr().err


@pytest.mark.slow
def test_infer_writes_the_posterior_of_new_trials(finished_run, tmp_path, capsys):
    new = tiny_run.simulated().y[9:]
    new[1, 12:] = np.nan
    # A neuron that is not recorded any more is no obstacle.
    new[..., 6] = np.nan
    save(tmp_path / "new.npz", new, lengths=np.array([20, 12, 20]))
    out = tmp_path / "later"
    command = ["infer", str(finished_run), str(tmp_path / "new.npz"), "--out", str(out), "--draws", "6"]
    assert cli.main(command) == 0
    assert "3 trials" in capsys.readouterr().out
    mat = scipy.io.loadmat(f"{out}_latents.mat")
    assert mat["xs_test"].shape == (3, 20, 2)
    assert mat["xs_test_draws"].shape == (6, 3, 20, 2)
    assert np.isnan(mat["xs_test"][1, 12:]).all()
    assert np.isfinite(mat["xs_test"][1, :12]).all()
    assert "xs_train" not in mat
    with xr.open_datatree(f"{out}_posterior.nc", engine="h5netcdf") as tree:
        assert tree.attrs["fitted_run"] == "tiny"
        assert tree["posterior"]["x"].sizes["trial"] == 3
        assert np.isnan(tree["observed_data"]["y"].values[..., 6]).all()
    # The same seed draws the same.
    assert cli.main([*command[:-4], "--out", str(tmp_path / "again"), "--draws", "6"]) == 0
    np.testing.assert_array_equal(
        scipy.io.loadmat(f"{tmp_path}/again_latents.mat")["xs_test_draws"], mat["xs_test_draws"]
    )


@pytest.mark.slow
def test_infer_reads_the_function_of_a_user(finished_run, tmp_path):
    save(tmp_path / "new.npz", tiny_run.simulated(1, trials=2).y)
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "from pathlib import Path\n"
        "def load():\n"
        "    return np.load(Path(__file__).parent / 'new.npz')['ys'], None, [4, 4], 2\n"
    )
    out = tmp_path / "mine"
    assert cli.main(["infer", str(finished_run), f"{tmp_path}/mine.py:load", "--out", str(out), "--draws", "4"]) == 0
    assert scipy.io.loadmat(f"{out}_latents.mat")["test_ids"].size == 2


@pytest.mark.slow
def test_trials_that_do_not_fit_the_run_are_refused(finished_run, tmp_path, capsys):
    run, y = load(finished_run), tiny_run.simulated(1, trials=2).y

    def trials(values=y, sizes=(4, 4), us=None, width=BINS):
        return Trials.from_arrays(values, us, list(sizes), bin_width=width)

    def check_trials_of(run, some):
        check_trials(some, run.trials, refused=run.model.networks.emissions.refused)

    check_trials_of(run, trials())
    with pytest.raises(DataError, match=r"region_sizes: found \[5, 3\], but the fit is of \[4, 4\]"):
        check_trials_of(run, trials(sizes=(5, 3)))
    with pytest.raises(DataError, match="inputs: found 1, but the fit is of 0"):
        check_trials_of(run, trials(us=np.zeros((2, 20, 1))))
    with pytest.raises(DataError, match=r"bins of 0.1 s, but the fit is of bins of 0.5 s"):
        check_trials_of(run, trials(width=0.1))
    with pytest.raises(DataError, match="no value of any trial is observed"):
        check_trials_of(run, trials(values=np.full_like(y, np.nan)))
    infinite = y.copy()
    infinite[1, 2, 3] = np.inf
    with pytest.raises(DataError, match=r"trial 1, bin 2, neuron 3 .* infinite"):
        check_trials_of(run, trials(values=infinite))
    save(tmp_path / "wrong.npz", y[..., :6], region_sizes=(4, 2))
    assert cli.main(["infer", str(finished_run), str(tmp_path / "wrong.npz"), "--out", str(tmp_path / "no")]) == 2
    assert "found [4, 2]" in capsys.readouterr().err
    assert not list(tmp_path.glob("no_*"))


@pytest.mark.slow
def test_infer_never_replaces_the_files_of_the_run(finished_run, tmp_path, capsys):
    save(tmp_path / "new.npz", tiny_run.simulated(1, trials=2).y)
    before = finished_run.with_name("tiny_latents.mat").read_bytes()
    command = ["infer", str(finished_run), str(tmp_path / "new.npz")]
    assert cli.main([*command, "--out", str(finished_run)]) == 2
    assert "replace the files of the run" in capsys.readouterr().err
    assert cli.main([*command, "--draws", "0"]) == 2
    assert "--draws: found 0" in capsys.readouterr().err
    assert finished_run.with_name("tiny_latents.mat").read_bytes() == before


def test_edges_of_a_run_are_asked_for(finished_run, capsys):
    assert cli.main(["edges", str(finished_run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 3 * 2
    assert "nan" not in "".join(lines)
    with pytest.raises(SystemExit):
        cli.main(["edges", str(finished_run), "--rate", "1"])
    assert "found '1'; allowed: a number between 0 and 1" in capsys.readouterr().err


def test_edges_are_printed_one_a_line():
    values = {"evidence": 12.345, "error": 0.5, "p_value": 0.001, "q_value": 0.002}
    axes, shape = ("state", "target", "source"), (2, 2, 3)
    coords = {"state": ["0", "all"], "target": ["V1", "hippocampus"], "source": ["V1", "hippocampus", "input 0"]}
    found = xr.Dataset({name: (axes, np.full(shape, value)) for name, value in values.items()}, coords)
    found["present"] = found["source"] == "V1"
    found["error"][0, 0, 1] = np.nan  # of one trial there is none
    found.attrs |= {"trials": 24, "false_discovery_rate": 0.1}
    heading, names, *lines = table_of(found)
    assert "(standard error over 24)" in heading
    assert len(lines) == 2 * (2 * 3 - 2)
    assert lines[2].split() == ["0", "V1", "hippocampus", "12.35", "(0.50)", "0.0010", "0.0020", "present"]
    assert lines[0].split() == ["0", "hippocampus", "V1", "12.35", "0.0010", "0.0020"]
    assert {len(line.removesuffix("  present")) for line in lines} == {len(names)}
