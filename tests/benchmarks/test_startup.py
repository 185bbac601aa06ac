"""How long a user waits for the first training step, with a cold and with a warm compilation cache, and for `check`.

The step as a multiple of what a process needs that imports the same libraries and compiles the floor of
`bench_floor.py`; `check` in seconds.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bench_case import FULL

BEGIN = """
import sys, time
start = time.perf_counter()
sys.path.insert(0, sys.argv[1])
import bench_case
"""
END = """
print(time.perf_counter() - start)
"""
FIRST_STEP = """
step = bench_case.make_step("gaussian_markov", "convolution", bench_case.SIZES._replace(steps=1))
state, _ = step.run_chunk(step.state, step.data)
assert int(state.step) == 1
"""
FLOOR = """
import bench_floor
assert bench_floor.make_floor(bench_case.make_model(bench_case.SIZES), bench_case.SIZES)() > 0
"""
COLD, WARM = 3.5, 2.2
CHECK = 3.0  # seconds, of a quiet machine


@pytest.mark.slow
def test_first_step(benchmark, tmp_path):
    def seconds(code, cache):
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path / cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", BEGIN + code + END, str(Path(__file__).parent)],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
            cwd=tmp_path,
        )
        # The interpreter's own start and end are in the total; what is measured comes after them.
        assert 0 < float(done.stdout) < time.perf_counter() - begin
        return float(done.stdout)

    cold_floor, cold = seconds(FLOOR, "floor"), seconds(FIRST_STEP, "cache")
    assert list((tmp_path / "cache").iterdir()), "nothing was cached"
    warm_floor, warm = (
        seconds(FLOOR, "floor"),
        benchmark.pedantic(seconds, (FIRST_STEP, "cache"), rounds=1, iterations=1),
    )
    ratios = cold / cold_floor, warm / warm_floor
    benchmark.extra_info.update(
        cold_s=round(cold, 1), cold_floor_s=round(cold_floor, 1), cold_ratio=round(ratios[0], 2), budget_cold=COLD,
        warm_s=round(warm, 1), warm_floor_s=round(warm_floor, 1), warm_ratio=round(ratios[1], 2), budget_warm=WARM,
    )  # fmt: skip
    if FULL:
        assert ratios[0] <= COLD
        assert ratios[1] <= WARM


@pytest.mark.slow
def test_check(benchmark, tmp_path):
    trials, bins, neurons = (250, 100, 180) if FULL else (6, 10, 6)
    counts = np.random.default_rng(0).poisson(0.6, size=(trials, bins, neurons)).astype(float)
    np.savez(tmp_path / "recording.npz", ys=counts, region_sizes=[neurons // 3] * 3)
    command = [sys.executable, "-m", "mrsds_ppl", "check", str(tmp_path / "recording.npz"), "-k", "3", "-d", "4"]

    def check():
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert "cost: about" in done.stdout
        return time.perf_counter() - began

    # What else the machine does only adds.
    seconds = min(check() for _ in range(2 if FULL else 1))
    benchmark.pedantic(check, rounds=1, iterations=1)
    benchmark.extra_info.update(check_s=round(seconds, 2), budget_s=CHECK)
    if FULL:
        assert seconds <= CHECK
