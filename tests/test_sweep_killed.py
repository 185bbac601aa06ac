"""A sweep whose command and whose workers are killed: it goes on, ends, and fits no cell twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import tiny_run
import yaml

from mrsds_ppl.sweeps.results import read_cell

# Two numbers of states, two of latents and three folds: twelve cells, from three seeds each.
GRID = ["-k", "1-2", "-d", "1,2", "--folds", "3", "--seeds", "3", "--workers", "2"]
TRAINING = {"num_steps": 12, "log_steps": 4, "save_steps": 4, "batch_size": 5, "switch_init_steps": 4}
FITS, SECONDS = 36, 900.0


@pytest.fixture
def folder(tmp_path):
    recording = tiny_run.simulated()
    np.savez(tmp_path / "data.npz", ys=recording.y, region_sizes=[4, 4])
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**tiny_run.CONFIG, "training": TRAINING}))
    return tmp_path


def start(folder: Path, *options: str) -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "cache"))
    command = [sys.executable, "-m", "mrsds_ppl", "sweep", str(folder / "tiny.yaml"), str(folder / "data.npz"), *GRID]
    command += ["--result-path", str(folder / "out"), *options]
    # A session of its own, as on a terminal: Ctrl-C there reaches all its processes.
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def done(folder: Path) -> dict[str, int]:
    """Cells that are done, and when their files were written."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "out" / "tiny-sweep").glob("k*-cell.nc")}


def wait_for(process: subprocess.Popen, folder: Path, cells: int) -> None:
    until = time.perf_counter() + SECONDS
    while len(done(folder)) < cells:
        assert process.poll() is None, process.communicate()
        assert time.perf_counter() < until
        time.sleep(0.1)


def workers(process: subprocess.Popen) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.longest
def test_a_sweep_whose_command_and_whose_worker_are_killed_ends_with_each_cell_fitted_once(folder):
    first = start(folder)
    wait_for(first, folder, 5)
    alone = workers(first)
    assert len(alone) == 2
    first.kill()
    first.communicate()
    _, alive = psutil.wait_procs(alone, timeout=10)
    assert not alive
    before = done(folder)

    second = start(folder)
    wait_for(second, folder, len(before) + 6)
    workers(second)[0].kill()
    wait_for(second, folder, len(done(folder)) + 4)
    assert len(workers(second)) == 2
    output, error = second.communicate(timeout=SECONDS)
    assert second.returncode == 0, error
    assert "Traceback" not in error
    assert f"{FITS} cells, {len(before)} done before" in output

    found = done(folder)
    assert len(found) == FITS
    assert {name: found[name] for name in before} == before
    logs = sorted((folder / "out" / "tiny-sweep").glob("*-log.txt"))
    assert len(logs) == FITS
    ended, begun = ([path.read_text().count(word) for path in logs] for word in (" done in ", " mrsds-ppl "))
    # Begun again were those that the command or its worker was at when they were killed; of these one may have ended
    # whose result was not written yet.
    assert min(ended) == 1
    assert max(sum(ended), sum(begun)) <= FITS + 3
    assert not list((folder / "out" / "tiny-sweep").glob(".*partial*"))
    assert (folder / "out" / "tiny-sweep.html").stat().st_size > 10_000
    assert "smallest within two standard errors" in output

    # Nothing is left to do, and nothing is done.
    third = start(folder)
    output, error = third.communicate(timeout=SECONDS)
    assert third.returncode == 0, error
    assert f"{FITS} cells, {FITS} done before" in output
    assert done(folder) == found


@pytest.mark.slow
@pytest.mark.nightly
def test_a_sweep_that_is_interrupted_ends_within_seconds_with_its_workers(folder):
    wait_for(process := start(folder), folder, 1)
    children = workers(process)
    os.killpg(process.pid, signal.SIGINT)
    began = time.perf_counter()
    _, error = process.communicate(timeout=10)
    assert time.perf_counter() - began < 6
    assert process.returncode == 130
    assert not psutil.wait_procs(children, timeout=2)[1]
    assert error.splitlines()[-1] == "stopped; the same command goes on with the cells that are not done"
    assert "Traceback" not in error
    assert all(np.isfinite(read_cell(folder / "out" / "tiny-sweep" / name).evidence).all() for name in done(folder))
