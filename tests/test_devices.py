"""Trials spread over four host devices: the numbers of one device to rounding, a quarter of the trials on each."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import scipy.io
import tiny_run
import yaml

from mrsds_ppl.backend.sharding import on_devices, trial_mesh
from mrsds_ppl.errors import ConfigError

HERE = Path(__file__).parent
FOUR = "--xla_force_host_platform_device_count=4"
# Values that a bound of the script's trials sums: trials, bins, and neurons with latents, states and their density.
SUMMED = 26 * 20 * (8 + 2 * 2)


def environment(folder: Path) -> dict[str, str]:
    """Of a process with four host devices."""
    found = {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {FOUR}".strip()}
    found |= {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    found.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "cache"))
    return found


def on_four(folder: Path, *options: str) -> dict[str, Any]:
    """What the script found."""
    command = [sys.executable, str(HERE / "four_devices.py"), str(folder), *options]
    done = subprocess.run(command, env=environment(folder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return on_four(tmp_path_factory.mktemp("four"))


def check_same_training(found: dict[str, Any]) -> None:
    """The same losses and parameters, to the rounding of sums that are added up in another order.

    A sum of M numbers differs by about sqrt(M) times the precision of one, times the size of the numbers.
    """
    precision = np.sqrt(SUMMED) * np.finfo(np.float32).eps
    one, four, magnitude = (np.array(found[name]) for name in ("one", "four", "magnitude"))
    assert len(one) >= 6
    assert np.ptp(one, axis=0).min() > 0.01
    np.testing.assert_array_less(np.abs(four - one), precision * magnitude)
    # Entries of the gradient that nearly cancel are further off than the bound, and Adam moves all at one rate.
    assert found["gap"] < 1e-3 * found["way"]
    assert found["devices_after"] == 1


@pytest.mark.slow
@pytest.mark.compiling
def test_training_is_the_same_as_on_one_device(found):
    check_same_training(found["trained"])


@pytest.mark.slow
@pytest.mark.compiling
def test_each_device_holds_a_quarter_of_the_trials(found):
    placed = found["placed"]
    # 26 trials and two empty ones.
    assert placed["trials"] == [7, 7, 7, 7]
    assert placed["bytes"] == [placed["whole"][0] * 7 // 26] * 4


@pytest.mark.slow
@pytest.mark.compiling
def test_calls_for_trials_are_spread_and_give_the_same(found):
    one, four = found["through"]
    assert (one["devices"], four["devices"]) == ([1], [4])
    for name, count in (("rounds", 52), ("sums", 26)):
        assert len(one[name]) == count
        np.testing.assert_allclose(four[name], one[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.compiling
def test_the_command_spreads_trials_and_refuses_what_is_not_there(found):
    assert found["by_command"] == [1, 1, 3]
    assert found["gpu"]["status"] == found["many"]["status"] == 2
    assert "--gpu 0 with 4 devices: found both" in found["gpu"]["said"]
    assert "devices: found 5, but JAX finds 4 on this machine (cpu); allowed: 1 to 4" in found["many"]["said"]


def test_one_device_changes_nothing():
    for count in (None, 1):
        with on_devices(count):
            assert trial_mesh() is None


@pytest.mark.parametrize("count", [0, -1, 99])
def test_a_number_of_devices_that_is_not_there_is_refused(count):
    said = f"devices: found {count}, but JAX finds {jax.local_device_count()} "
    with pytest.raises(ConfigError, match=said) as told, on_devices(count):
        pytest.fail("entered")
    assert (f"XLA_FLAGS=--xla_force_host_platform_device_count={count}" in str(told.value)) == (count == 99)
    assert trial_mesh() is None


@pytest.mark.nightly
@pytest.mark.slow
def test_restarts_are_the_same_training_resumes_bit_for_bit_and_each_device_computes_its_share(tmp_path):
    found = on_four(tmp_path, "nightly")
    check_same_training(found["restarts"])
    assert found["resumed"]
    # Rows of bins and trials that are put together in the wrong order would all be computed on every device.
    assert found["gathered"] == []


@pytest.mark.nightly
@pytest.mark.slow
def test_a_run_of_the_command_is_the_same_as_on_one_device(tmp_path):
    trials = tiny_run.simulated(trials=24)
    np.savez(tmp_path / "data.npz", ys=trials.y, region_sizes=[4, 4])
    config = {**tiny_run.CONFIG, "training": {**tiny_run.TRAINING, "test_perc": 0.25, "start": {"method": "none"}}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))

    def run(name: str, *options: str) -> None:
        command = [sys.executable, "-m", "mrsds_ppl", "fit", str(tmp_path / "tiny.yaml"), str(tmp_path / "data.npz")]
        command += ["--result-path", str(tmp_path), "--name", name, *options]
        done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def results(name: str) -> dict[str, np.ndarray]:
        mat = scipy.io.loadmat(tmp_path / f"{name}_latents.mat")
        return {key: mat[key] for key in ("elbos", "xs_test", "zs_test", "ys_recon_test", "zs_logprob_test")}

    run("one")
    run("four", "--devices", "4")
    for key, values in results("one").items():
        np.testing.assert_allclose(results("four")[key], values, rtol=1e-3, atol=1e-4, err_msg=key)
    assert "trials spread over 4 of cpu" in (tmp_path / "four-log.txt").read_text()
