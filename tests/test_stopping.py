"""A fit that is stopped: Ctrl-C is answered at once and obeyed within seconds, and --resume goes on bit for bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import tiny_run
import xarray as xr
import yaml

# As in compiled code, the signal's handler has to wait: this thread hears of no signal.
COMPUTES = """
import ctypes, signal, sys
from mrsds_ppl.train.interrupts import answered
said = lambda line: print(line, flush=True)
# A shell's background jobs begin without a handler; this one leaves the main thread to what it computes.
signal.signal(signal.SIGINT, lambda number, frame: None)
with answered(said, last_words="ended"):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    said("computing")
    ctypes.CDLL(None).sleep(60)
"""
_STEPS = {"batch_size": 5, "log_steps": 4, "save_steps": 4, "num_steps": 12}
_DYNAMICS = {"dynamics_only": True, "num_steps_do": 8, "lr_warmup_steps_do": 2}
# Every stage that a fit can have, in three fits.
STAGES = {
    "smoothing": (
        {"optimiser": {**_STEPS, **_DYNAMICS}, "start": {"method": "smoothing", "evidence_steps": 2, "steps": 8}},
        {"encoder": "none"},
    ),
    "encoder": (
        {"optimiser": {**_STEPS, **_DYNAMICS}, "start": {"method": "smoothing", "transition_rounds": 2, "steps": 8}},
        {"encoder": "convolution"},
    ),
    "restarts": (
        {"optimiser": {**_STEPS, **_DYNAMICS, "restarts": 2}, "start": {"method": "staged", "steps": 4}},
        tiny_run.CONFIG["inference"],
    ),
}


@pytest.fixture
def folder(tmp_path):
    recording = tiny_run.simulated()
    np.savez(tmp_path / "data.npz", ys=recording.y, region_sizes=[4, 4])
    return tmp_path


def start(folder: Path, training: dict, inference: dict, *options: str) -> subprocess.Popen:
    config = {**tiny_run.CONFIG, "training": {**training, "split": {"test_perc": 0.25}}, "inference": inference}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "cache"))
    command = [sys.executable, "-m", "mrsds_ppl", "fit", str(folder / "tiny.yaml"), str(folder / "data.npz")]
    command += ["--result-path", str(folder / "out"), *options]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def arrays(folder: Path, name: str) -> dict[str, np.ndarray]:
    """All that the result files hold."""
    mat = scipy.io.loadmat(folder / "out" / f"{name}_latents.mat")
    found = {key: values for key, values in mat.items() if not key.startswith("__")}
    with xr.open_datatree(folder / "out" / f"{name}_posterior.nc", engine="h5netcdf") as tree:
        for node in tree.subtree:
            found |= {f"{node.path}/{key}": values.to_numpy() for key, values in node.variables.items()}
    return found


@pytest.mark.parametrize("signals", [1, 2])
def test_a_command_is_ended_whatever_is_being_computed(signals):
    process = subprocess.Popen([sys.executable, "-c", COMPUTES], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "computing\n"
    began = time.perf_counter()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline().startswith("stopping ... within 5 s")
    answered = time.perf_counter() - began
    if signals == 2:
        process.send_signal(signal.SIGINT)
    assert process.stdout.read() == "ended\n"
    process.stdout.close()
    assert process.wait() == 130
    ended = time.perf_counter() - began
    assert answered < 2
    assert (3.5 < ended < 6.5) if signals == 1 else ended < 3.5


@pytest.mark.slow
@pytest.mark.nightly
def test_a_fit_that_is_interrupted_ends_at_a_checkpoint_and_says_how_to_go_on(folder):
    training = {"optimiser": {**_STEPS, "num_steps": 1_000_000}, "start": {"method": "none"}}
    process = start(folder, training, tiny_run.CONFIG["inference"])
    models = folder / "out" / "tiny-models"
    while not any(place.name.isdecimal() and int(place.name) for place in models.glob("*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=10)
    assert process.returncode == 130
    first, last = error.splitlines()
    assert first.startswith("stopping ...")
    step = int(last.removeprefix("stopped at step ").split(";")[0])
    assert (models / str(step)).is_dir()
    assert "--resume" in last
    assert "stopping ..." in (folder / "out" / "tiny-log.txt").read_text()


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("stages", STAGES)
def test_a_fit_stopped_at_random_moments_goes_on_as_if_never_stopped(folder, stages):
    def run(*options: str) -> float:
        began = time.perf_counter()
        process = start(folder, *STAGES[stages], *options)
        _, error = process.communicate()
        assert process.returncode == 0, error
        return time.perf_counter() - began

    run("--name", "through")
    # Its programs are read back from the cache from now on, as in the runs that are stopped.
    seconds, wanted = run("--name", "again"), arrays(folder, "through")
    moments = np.random.default_rng(0).uniform(0.1, 0.95, 9)
    for index, moment in enumerate(moments):
        name, number = f"stopped{index}", signal.SIGINT if index < 2 else signal.SIGKILL
        process = start(folder, *STAGES[stages], "--name", name)
        time.sleep(moment * seconds)
        process.send_signal(number)
        sent = time.perf_counter()
        _, error = process.communicate()
        if number == signal.SIGINT and process.returncode:
            assert (process.returncode, time.perf_counter() - sent < 6) == (130, True), error
            assert "Traceback" not in error
        begun = (folder / "out" / f"{name}-config.yaml").exists()
        run("--name", name, *(["--resume"] if begun else []))
        found = arrays(folder, name)
        assert found.keys() == wanted.keys()
        for key, values in wanted.items():
            np.testing.assert_array_equal(found[key], values, err_msg=f"{name}, {key}")
        assert not list((folder / "out").glob(".*partial*"))
