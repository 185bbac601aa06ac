"""Sweeps: cells and their names, files, what cells are compared by, the rule, the page, the command line."""

import gc
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from itertools import product

import dask
import numpy as np
import pytest
import tiny_run
import xarray as xr
from rich.console import Console

import mrsds_ppl as mrsds
from mrsds_ppl.cli import main
from mrsds_ppl.config.loading import config_of
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import ConfigError, DataError, RunError
from mrsds_ppl.sweeps.cell_fit import Outcome, run_cell
from mrsds_ppl.sweeps.cells import Cell, make_grid
from mrsds_ppl.sweeps.choice import choose, compared, counted_seeds, pooled_evidence
from mrsds_ppl.sweeps.cluster import check_scheduler, connected
from mrsds_ppl.sweeps.files import SweepPaths, begin, read_description
from mrsds_ppl.sweeps.live import Results
from mrsds_ppl.sweeps.measures import message_agreement, state_agreement, variance_explained
from mrsds_ppl.sweeps.page import sweep_page
from mrsds_ppl.sweeps.results import Sweep, gather
from mrsds_ppl.sweeps.sweep import sweep_into_files

CONFIG = config_of({}, {"training.num_steps": 7, "training.model_seed": 3, "training.train_seed": 5})


def made(seeds=2, folds=2, trials=24):
    """A sweep of K = 1, 2 and d = 2, 3 whose numbers are drawn."""
    rng = np.random.default_rng(0)
    shape = (2, 2, seeds, folds)
    base = rng.normal(-100, 5, trials)
    gain = np.array([[0.0, 3.0], [3.2, 3.25]])[:, :, None, None]
    cell, pair = ("num_states", "latent_size", "seed", "fold"), ("num_states", "latent_size")
    explained = np.array([[0.4, 0.2, np.nan], [0.4, 0.2, 0.1]])[:, None] * np.ones((2, 1))
    return xr.Dataset(
        {
            "evidence": ((*cell[:3], "trial"), base + gain + rng.normal(0, 0.3, (*shape[:3], trials))),
            "bound": (cell, rng.normal(size=shape)),
            "seconds": (cell, np.full(shape, 10.0)),
            "peak_memory": (cell, np.full(shape, 500.0)),
            "parameters": (pair, np.array([[10.0, 20.0], [40.0, 80.0]])),
            "variance_explained": (
                (*cell, "region", "component"),
                np.broadcast_to(explained[None, :, None, None], (*shape, 2, 3)).copy(),
            ),
            "state_agreement": ((*pair, "fold"), np.full((2, 2, folds), 0.6)),
            "message_agreement": ((*pair, "fold"), np.full((2, 2, folds), 0.5)),
        },
        {
            "num_states": [1, 2],
            "latent_size": [2, 3],
            "seed": np.arange(seeds),
            "fold": np.arange(folds),
            "trial": np.arange(trials),
            "trial_fold": ("trial", np.arange(trials) % folds),
            "region": ["V1", "motor <cortex>"],
            "component": np.arange(3),
        },
    )


def test_every_combination_is_one_cell_and_every_shape_comes_first():
    grid = make_grid([1, 3], [2, [3, 1]], seeds=2, folds=3)
    names = [cell.name for cell in grid.cells]
    assert len(set(names)) == len(names) == 24
    assert names[:4] == ["k1-d2-s0-f0", "k1-d3.1-s0-f0", "k3-d2-s0-f0", "k3-d3.1-s0-f0"]
    assert names[4] == "k1-d2-s0-f1"
    assert grid.size_labels == ["2", "3,1"]
    assert make_grid([2], [2, 4], 1, None).size_labels == [2, 4]


def test_a_cell_has_its_own_seeds_and_fold_and_the_test_trials_of_all():
    grid = make_grid([2], [[3, 1]], seeds=3, folds=4)
    config = Cell(2, (3, 1), seed=2, fold=1).configured(grid.configured(CONFIG), "recording.nc")
    assert (config.training.seeds.data, config.training.seeds.model, config.training.seeds.train) == (0, 5, 7)
    assert (config.training.split.folds, config.training.split.fold) == (4, 1)
    assert (config.model.num_states, config.model.latent_sizes) == (2, (3, 1))
    assert (config.data.data_source, config.data.data_path) == ("mydata", "recording.nc")
    assert config.training.optimiser.num_steps == 7


@pytest.mark.parametrize(
    ("states", "sizes", "seeds", "folds", "told"),
    [
        ([0], [1], 1, None, "num_states: found 0; allowed: whole numbers of at least 1"),
        ([], [1], 1, None, "num_states: found an empty list"),
        (2, [1], 1, None, r"num_states: found 2; allowed: a list, such as \[1, 2, 3\]"),
        ([1, 1], [1], 1, None, "give each value once"),
        ([1], [2, [1, -1]], 1, None, "latent_sizes: found -1"),
        ([1], [[]], 1, None, "latent_sizes: found an empty list"),
        ([1], [1.5], 1, None, "latent_sizes: found 1.5"),
        ([1], [1], 0, None, "seeds: found 0"),
        ([1], [1], 1, 1, "folds: found 1; allowed: a whole number of at least 2"),
        ([True], [1], 1, None, "num_states: found True"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(states, sizes, seeds, folds, told):
    with pytest.raises(ConfigError, match=told):
        make_grid(states, sizes, seeds, folds)


def test_a_sweep_goes_on_as_what_it_was_begun_as(tmp_path):
    trials, paths, grid = tiny_run.simulated(), SweepPaths(tmp_path, "mouse"), make_grid([1, 2], [1], 2, 3)
    config = grid.configured(CONFIG)
    begin(paths, config, grid, trials, overwrite=False)
    written = paths.recording.stat().st_mtime_ns
    wider = make_grid([1, 2, 3], [2], 4, 3)
    begin(paths, wider.configured(CONFIG), wider, trials, overwrite=False)
    assert paths.recording.stat().st_mtime_ns == written
    found, described, _ = read_description(paths)
    assert described == {"num_states": [1, 2, 3], "latent_sizes": [2], "seeds": 4, "folds": 3}
    assert found.training == config.training

    (paths.cells / "k1-d1-s0-f0-cell.nc").touch()
    with pytest.raises(RunError, match=r"training.split.folds was 3 and is 2\. Go on with it as it was begun"):
        begin(paths, make_grid([1], [1], 2, 2).configured(CONFIG), grid, trials, overwrite=False)
    with pytest.raises(RunError, match="begun with another recording"):
        begin(paths, config, grid, tiny_run.simulated(seed=1), overwrite=False)
    assert (paths.cells / "k1-d1-s0-f0-cell.nc").exists()
    begin(paths, config, grid, tiny_run.simulated(seed=1), overwrite=True)
    assert not (paths.cells / "k1-d1-s0-f0-cell.nc").exists()


def test_a_folder_that_is_no_sweeps_is_left_alone(tmp_path):
    (tmp_path / "mouse-sweep").mkdir()
    (tmp_path / "mouse-sweep" / "notes.txt").touch()
    grid = make_grid([1], [1], 1, None)
    with pytest.raises(RunError, match="it is no sweep's"):
        begin(SweepPaths(tmp_path, "mouse"), CONFIG, grid, tiny_run.simulated(), overwrite=True)
    assert (tmp_path / "mouse-sweep" / "notes.txt").exists()


def test_what_every_worker_would_stumble_over_is_refused_before_a_file_is_touched(tmp_path):
    trials, paths = tiny_run.simulated(), SweepPaths(tmp_path / "out", "mouse")
    with pytest.raises(DataError, match="found 12 trials for 13 folds"):
        sweep_into_files(trials, CONFIG, make_grid([1], [1], 1, 13), paths)
    with pytest.raises(ConfigError, match=r"latent_sizes: found \[1, 1, 1\], but the recording has 2 regions"):
        sweep_into_files(trials, CONFIG, make_grid([1], [[1, 1, 1]], 1, None), paths)
    assert not paths.folder.exists()


def regression(missing):
    """Two regions whose neurons are linear in latents, with noise; latents turned by any map."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6, 50, 3)) * [3.0, 1.0, 2.0]
    y = np.concatenate([x[..., :2] @ rng.normal(size=(2, 5)), x[..., 2:] @ rng.normal(size=(1, 4))], -1)
    y += rng.normal(size=y.shape)
    if missing:
        y[1, :, 2] = np.nan
    return x, Trials.from_arrays(list(y), region_sizes=[5, 4])


@pytest.mark.parametrize("missing", [False, True])
def test_shares_of_variance_add_up_to_r2_whatever_the_axes(missing):
    x, trials = regression(missing)
    shares = variance_explained(x, trials, [2, 1])
    assert np.isnan(shares[1, 1])
    assert shares[0, 0] > shares[0, 1] > 0
    turned = x.copy()
    turned[..., :2] = x[..., :2] @ np.array([[0.3, 2.0], [-1.0, 0.5]]) + 4.0
    np.testing.assert_allclose(variance_explained(turned, trials, [2, 1]), shares, rtol=1e-9)
    if missing:
        return
    y, design = trials.y.reshape(300, 9)[:, :5], np.column_stack([x.reshape(300, 3)[:, :2], np.ones(300)])
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    np.testing.assert_allclose(shares[0].sum(), 1 - residual.var(0).sum() / y.var(0).sum(), rtol=1e-6)


def test_seeds_agree_up_to_the_numbers_of_states_and_the_scale_of_messages():
    rng, lengths = np.random.default_rng(2), np.array([30, 20])
    states = rng.integers(0, 3, (2, 30))
    renamed = np.array([2, 0, 1])[states]
    assert state_agreement([states, renamed], 3, lengths) == 1.0
    renamed[1, 20:] = 0  # after the end of the trial
    assert state_agreement([states, renamed], 3, lengths) == 1.0
    renamed[0, :10] = (renamed[0, :10] + 1) % 3
    assert state_agreement([states, renamed], 3, lengths) == pytest.approx(0.8)
    assert np.isnan(state_agreement([states], 3, lengths))
    assert np.isnan(state_agreement([states, states], 1, lengths))

    norms = rng.gamma(2.0, size=(2, 30, 3))
    assert message_agreement([norms, 5.0 * norms], lengths) == pytest.approx(1.0)
    valid = np.arange(30) < lengths[:, None]
    valid[:, 0] = False
    other = rng.gamma(2.0, size=norms.shape)
    wanted = np.mean([np.corrcoef(norms[valid][:, i], other[valid][:, i])[0, 1] for i in range(3)])
    assert message_agreement([norms, other], lengths) == pytest.approx(wanted)
    assert np.isnan(message_agreement([np.zeros((2, 30, 1))] * 2, lengths))


def test_the_seed_of_the_highest_bound_counts_in_each_fold_and_trials_are_pooled():
    cells = made()
    cells.bound[0, 1, 0, 0] = np.nan
    counted, pooled = counted_seeds(cells), pooled_evidence(cells)
    for k, d, trial in product(range(2), range(2), range(24)):
        fold = trial % 2
        seed = int(np.nanargmax(cells.bound.values[k, d, :, fold]))
        assert counted[k, d, fold] == seed
        assert float(pooled[k, d, trial]) == float(cells.evidence[k, d, seed, trial])


def test_the_smallest_program_within_two_standard_errors_is_chosen():
    cells = made()
    choice = choose(cells)
    assert choice.chosen in ("K=2, d=2", "K=2, d=3")
    pooled = {
        name: pooled_evidence(cells).sel(num_states=int(name[2]), latent_size=int(name[-1])) for name in choice.error
    }
    best = max(pooled, key=lambda name: float(pooled[name].mean()))
    for name in ("K=1, d=2", "K=1, d=3", "K=2, d=2", "K=2, d=3"):
        apart = (pooled[name] - pooled[best]).values
        if name == best or apart.mean() >= -2 * apart.std(ddof=1) / np.sqrt(24):
            assert choice.chosen == name
            break
    table = compared(cells)
    row = table.sel(num_states=2, latent_size=2)
    assert float(row.evidence) == pytest.approx(float(pooled["K=2, d=2"].mean()))
    assert float(row.error) == pytest.approx(float(pooled["K=2, d=2"].std(ddof=1)) / np.sqrt(24))
    over_seeds = cells.evidence.sel(num_states=2, latent_size=2).mean("trial").values.std(ddof=1)
    assert float(row.over_seeds) == pytest.approx(over_seeds)
    folds = [float(pooled["K=2, d=2"][fold::2].mean()) for fold in range(2)]
    assert float(row.over_folds) == pytest.approx(np.std(folds, ddof=1))


def test_a_shape_without_all_of_its_folds_takes_no_part():
    cells = made()
    taken = choose(cells).chosen
    k, d = int(taken[2]) - 1, int(taken[-1]) - 2
    cells.bound[k, d, :, 1] = np.nan
    cells.evidence[k, d, :, 1::2] = np.nan
    assert taken not in choose(cells).difference
    cells.evidence[:] = np.nan
    assert choose(cells) is None


def test_one_held_out_trial_has_no_error_and_its_best_shape_is_chosen():
    cells = made(folds=1, trials=1)
    found, choice = compared(cells), choose(cells)
    assert found.error.isnull().all()
    assert np.isfinite(found.evidence).all()
    assert choice.chosen == choice.best
    page = sweep_page(cells, "mouse", {})
    assert "1 trial, one split" in page
    assert f"Chosen is {choice.chosen}, the best: of one held-out trial no error is known. Hold out more." in page


@pytest.mark.parametrize("broken", ["nothing", "a cell", "every cell"])
def test_the_page_shows_what_there_is(broken):
    cells, failed = made(), {}
    if broken != "nothing":
        which = (0, 0, 1, 1) if broken == "a cell" else ...
        failed = {"k1-d2-s1-f1": "training.num_steps: <wrong>"}
        for name in ("bound", "seconds", "peak_memory"):
            cells[name].values[which] = np.nan
        cells.evidence.values[(0, 0, 1, slice(1, None, 2)) if broken == "a cell" else ...] = np.nan
    page = sweep_page(cells, "mouse <12>", failed)
    assert "mouse &lt;12&gt;" in page
    assert "motor &lt;cortex&gt;" in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    for anchor in ("fit", "evidence", "trust", "latents", "seeds", "cost", *(["failed"] if failed else [])):
        assert f'<section id="{anchor}">' in page
    assert ("num_steps: &lt;wrong&gt;" in page) == bool(failed)
    assert ("(chosen)" in page) == (broken != "every cell") == ("data:image/png" in page)
    assert "nan" not in re.sub(r"<style>.*?</style>|<pre>.*?</pre>|base64,[^\"]*", "", page, flags=re.DOTALL)


def written(paths, cell, seconds=12.0):
    """The file of a cell that was fitted."""
    trials = np.flatnonzero(np.arange(12) % 2 == cell.fold)
    found = xr.Dataset(
        {
            "evidence": ("trial", np.full(len(trials), -10.0 * cell.num_states)),
            "states": (("trial", "time"), np.zeros((len(trials), 5), np.int16)),
            "norms": (("trial", "time", "message"), np.ones((len(trials), 5, 1), np.float32)),
            "lengths": ("trial", np.full(len(trials), 5)),
            "variance_explained": (("region", "component"), np.full((2, 1), 0.5)),
        },
        {"trial": trials, "region": ["a", "b"]},
        {"bound": -1.0, "parameters": 10 * cell.num_states, "seconds": seconds, "peak_memory": 400.0},
    )
    paths.cells.mkdir(exist_ok=True, parents=True)
    found.to_netcdf(paths.result(cell), engine="h5netcdf")


def test_results_come_as_lines_or_as_a_table(tmp_path):
    paths, grid, said = SweepPaths(tmp_path, "mouse"), make_grid([1, 2], [1], 1, 2), []
    with Results(paths, grid, said.append) as results:
        for cell in grid.cells[:2]:
            written(paths, cell)
        results.done_before(grid.cells[0])
        results.add(Outcome(grid.cells[1]))
        results.add(Outcome(grid.cells[2], "a site is missing"))
    assert said == [
        "2 of 4  k2-d1-s0-f0: evidence -20.00 nats a trial, 12 s, 400 MB",
        "3 of 4  k1-d1-s0-f1: failed: a site is missing",
    ]
    assert results.failed == {"k1-d1-s0-f1": "a site is missing"}
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(results.table())
    console.file.close()
    text = console.export_text()
    assert "2 of 4 cells done" in text
    assert re.search(r"1 │ +1 │ 1 of 2 │ +1 │ +-10.00 │ +12", text)


def test_the_file_of_a_cell_that_is_damaged_is_named(tmp_path):
    paths, grid = SweepPaths(tmp_path, "mouse"), make_grid([1], [1], 1, 2)
    for cell in grid.cells:
        written(paths, cell)
    paths.result(grid.cells[0]).write_bytes(b"half")
    with pytest.raises(RunError, match=r"k1-d1-s0-f0-cell.nc: is damaged .* fits this cell again"):
        gather(paths, grid.configured(CONFIG), grid, tiny_run.simulated(), {})


@pytest.mark.parametrize(
    ("scheduler", "workers", "told"),
    [
        ("cloud", None, "--scheduler: found 'cloud'; allowed: local, slurm"),
        ("local", 0, "--workers: found 0"),
        ("tcp://10.0.0.1:8786", 3, "has workers of its own"),
        ("slurm", None, "say how many jobs"),
    ],
)
def test_a_place_that_cannot_be_is_refused(scheduler, workers, told):
    with pytest.raises(ConfigError, match=told):
        check_scheduler(scheduler, workers)


def test_the_extra_is_named_where_dask_is_missing(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    np.savez(tmp_path / "data.npz", ys=tiny_run.simulated().y, region_sizes=[4, 4])
    assert (
        main(["sweep", str(tmp_path / "data.npz"), "-k", "1", "-d", "1", "--result-path", str(tmp_path / "out")]) == 2
    )
    assert "error: a sweep needs the package distributed: pip install 'mrsds-ppl[cluster]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("given", "told"), [("x", "found 'x'"), ("3-1", "found '3-1'"), ("1,", "found '1,'")])
def test_numbers_that_are_none_are_refused(given, told, capsys):
    with pytest.raises(SystemExit):
        main(["sweep", "x.yaml", "-k", given, "-d", "2"])
    assert f"{told}; allowed: whole numbers, such as 1,2,4, or a range: 1-4" in capsys.readouterr().err


def test_the_command_takes_ranges_and_its_options(monkeypatch, tmp_path):
    taken = {}

    def sweep(config, trials, states, sizes, paths, **options):
        taken.update(states=states, sizes=sizes, config=config, name=paths.name, **options)

    import mrsds_ppl.commands.sweep

    monkeypatch.setattr(mrsds_ppl.commands.sweep, "sweep", sweep)
    np.savez(tmp_path / "mouse.npz", ys=tiny_run.simulated().y, region_sizes=[4, 4])
    command = ["sweep", str(tmp_path / "mouse.npz"), "-k1-3", "-d", "2,4-5", "--seeds", "3", "--folds", "5"]
    assert main([*command, "--scheduler", "tcp://h:1", "--set", "training.num_steps=9"]) == 0
    assert (taken["states"], taken["sizes"]) == ([1, 2, 3], [2, 4, 5])
    assert (taken["seeds"], taken["folds"], taken["scheduler"], taken["workers"]) == (3, 5, "tcp://h:1", None)
    assert (taken["name"], taken["config"].training.optimiser.num_steps) == ("mouse", 9)


def test_the_command_fails_where_a_cell_did_and_says_which(monkeypatch, tmp_path, capsys):
    import mrsds_ppl.commands.sweep

    found = Sweep(made(), SweepPaths(tmp_path, "mouse"), {"k1-d2-s0-f0": "a site is missing"})
    monkeypatch.setattr(mrsds_ppl.commands.sweep, "sweep_into_files", lambda *_, **__: found)
    np.savez(tmp_path / "mouse.npz", ys=tiny_run.simulated().y, region_sizes=[4, 4])
    assert main(["sweep", str(tmp_path / "mouse.npz"), "-k", "1,2", "-d", "2,3"]) == 1
    assert "1 of 4 cells failed (k1-d2-s0-f0)" in capsys.readouterr().err


def test_files_that_nobody_asked_for_go_with_the_result(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    found = Sweep(made(), SweepPaths(folder, "sweep")).deleted_with_it()
    assert "2 num_states x 2 latent_size x 2 seed x 2 fold; 16 cells done, 0 failed" in repr(found)
    assert str(found.chosen) in ("K=2, d=2", "K=2, d=3")
    assert folder.exists()
    del found
    gc.collect()
    assert not folder.exists()


def where():
    return sorted(os.sched_getaffinity(0)), os.environ["XLA_FLAGS"], os.environ["OMP_NUM_THREADS"], os.getpid()


def test_a_worker_is_one_process_on_one_core_and_leaves_nothing_behind():
    environment, said = dict(os.environ), []
    with connected("local", 1, 3, said.append) as client:
        cores, flags, threads, process = client.submit(where).result()
    assert len(cores) == 1
    assert "--xla_cpu_multi_thread_eigen=false" in flags
    assert threads == "1"
    assert process != os.getpid()
    assert not os.path.exists(f"/proc/{process}")
    assert dict(os.environ) == environment
    assert said == [f"1 worker on {len(os.sched_getaffinity(0))} cores of this machine"]


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr("mrsds_ppl.sweeps.cluster._PATIENCE", 0.2)
    with (
        pytest.raises(RunError, match=r"--scheduler tcp://127\.0\.0\.1:9: no scheduler answers there"),
        connected("tcp://127.0.0.1:9", None, 1, print),
    ):
        pass


@pytest.fixture(scope="module")
def one_cell(tmp_path_factory):
    """A sweep of one cell and one that cannot be fitted, done in this process."""
    paths, grid = SweepPaths(tmp_path_factory.mktemp("sweep"), "tiny"), make_grid([2], [1], 1, 4)
    config = grid.configured(config_of({**tiny_run.CONFIG, "training": {**tiny_run.TRAINING, "test_perc": 0.25}}))
    trials = tiny_run.simulated()
    begin(paths, config, grid, trials, overwrite=False)
    return paths, grid, config, trials, run_cell(paths, config, grid.cells[1])


def test_a_cell_is_a_run_of_its_own_and_done_once(one_cell):
    paths, grid, config, trials, outcome = one_cell
    cell = grid.cells[1]
    assert outcome == Outcome(cell)
    fit = mrsds.load(paths.cells / cell.name)
    found = gather(paths, config, grid, trials, {})
    assert int(found.cells.bound.notnull().sum()) == 1
    one = found.cells.sel(num_states=2, latent_size=1, seed=0)
    held_out = one.evidence.dropna("trial")
    assert held_out.trial.values.tolist() == fit.split.test.ids.tolist()
    assert set(held_out.trial_fold.values) == {1}
    np.testing.assert_allclose(held_out.values, fit.evidence().values, rtol=1e-4)
    assert float(one.seconds.sel(fold=1)) > 0
    assert 50 < float(one.peak_memory.sel(fold=1)) < 1e5
    assert (one.variance_explained.sel(fold=1) <= 1).all()
    assert found.fit(2, 1, fold=1).paths == fit.paths
    with pytest.raises(RunError, match="K=2, d=1, seed None, fold 0: was not fitted"):
        found.fit(2, 1)
    assert found.chosen is None

    when = paths.result(cell).stat().st_mtime_ns
    assert run_cell(paths, config, cell) == Outcome(cell)
    assert paths.result(cell).stat().st_mtime_ns == when


def test_what_goes_wrong_in_a_cell_is_told_and_not_raised(one_cell):
    paths, _, config, _, _ = one_cell
    outcome = run_cell(paths, config, Cell(2, (1, 1, 1), 0, 0))
    assert "model.latent_sizes: found 3 sizes, but the recording has 2 regions" in outcome.error
    assert not paths.result(outcome.cell).exists()


@pytest.mark.nightly
@pytest.mark.slow
def test_a_cell_that_was_half_done_goes_on_bit_for_bit(one_cell):
    paths, grid, config, _, _ = one_cell
    cell = grid.cells[1]
    with xr.open_dataset(paths.result(cell), engine="h5netcdf") as opened:
        before = opened.load()
    paths.result(cell).unlink()
    for path in (paths.run(cell).mat, paths.run(cell).posterior):
        path.unlink()
    assert run_cell(paths, config, cell) == Outcome(cell)
    with xr.open_dataset(paths.result(cell), engine="h5netcdf") as opened:
        xr.testing.assert_identical(opened.load().drop_attrs(), before.drop_attrs())


@pytest.mark.nightly
@pytest.mark.slow
def test_cells_are_fitted_by_workers_of_a_scheduler_of_ones_own(tmp_path):
    """Both begun by the commands that the page on sweeps names; they stay when the sweep is done."""
    file, begun = tmp_path / "scheduler.json", []

    def begin_dask(*command: str) -> None:
        whole = [sys.executable, "-m", "dask", *command, "--scheduler-file", str(file), "--no-dashboard"]
        begun.append(subprocess.Popen(whole, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    try:
        begin_dask("scheduler", "--host", "127.0.0.1", "--port", "0")
        begin_dask("worker", "--nthreads", "1")
        until = time.perf_counter() + 60
        while not file.exists():
            assert time.perf_counter() < until
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        assert address.startswith("tcp://127.0.0.1:")
        training = {"num_steps": 12, "log_steps": 4, "batch_size": 5}
        found = mrsds.sweep(
            tiny_run.simulated(), [1, 2], [1], save_to=tmp_path / "far", scheduler=address, progress=False,
            start="none", training=training, model={"dynamics": {"layers": [4]}},
        )  # fmt: skip
        assert not found.failed
        assert np.isfinite(found.cells.bound).all()
        assert all(process.poll() is None for process in begun)
    finally:
        for process in begun[::-1]:
            process.terminate()
            process.wait(timeout=30)


SBATCH = """#!/bin/bash
echo "$1" >> "{folder}/submitted"; cp "$1" "{folder}/job.sh"
setsid bash "{folder}/job.sh" > "{folder}/job.log" 2>&1 < /dev/null &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/bash
for job in "$@"; do kill -- "-$job"; done
"""


@pytest.mark.nightly
@pytest.mark.slow
def test_jobs_of_slurm_are_workers_of_one_core(tmp_path, monkeypatch):
    """With a batch system that begins at once what it is given."""
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(text.format(folder=tmp_path))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with (
        pytest.raises(ConfigError, match=r"--scheduler slurm: found no memory of a job.* ~/.config/dask/jobqueue.yaml"),
        connected("slurm", 2, 5, print),
    ):
        pass
    with dask.config.set({"jobqueue.slurm.memory": "2GB"}), connected("slurm", 1, 5, print) as client:
        # A function of this test, and not of its module, which a job does not find.
        told = client.submit(lambda: (os.environ["XLA_FLAGS"], os.environ["OMP_NUM_THREADS"], os.getpid()))
        flags, threads, process = told.result(timeout=60)
        assert "--xla_cpu_multi_thread_eigen=false" in flags
        assert threads == "1"
        assert process != os.getpid()
    assert len((tmp_path / "submitted").read_text().splitlines()) == 1
    assert "#SBATCH -n 1\n#SBATCH --cpus-per-task=1\n" in (tmp_path / "job.sh").read_text()
    deadline = time.perf_counter() + 20
    while os.path.exists(f"/proc/{process}"):
        assert time.perf_counter() < deadline
        time.sleep(0.1)
