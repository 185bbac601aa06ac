"""How much faster two workers of a sweep are than one: run by hand, ``python tests/benchmarks/sweep.py``.

Each turn fits the same cells anew, from a compilation cache that a first turn has filled, with one worker and with two.
"""

import argparse
import tempfile
import time
from pathlib import Path

import mrsds_ppl as mrsds


def seconds(trials: mrsds.Trials, folder: Path, workers: int, steps: int, seeds: int) -> float:
    """Of a sweep of 12 cells, K = 1, 2 and d = 1, 2 in three folds, from some seeds."""
    began = time.perf_counter()
    found = mrsds.sweep(
        trials,
        [1, 2],
        [1, 2],
        seeds=seeds,
        folds=3,
        training={"num_steps": steps, "lr_warmup_steps": 20, "batch_size": 16, "log_steps": steps, "save_steps": steps},
        save_to=folder / f"workers-{workers}-{time.monotonic_ns()}",
        workers=workers,
        progress=False,
    )
    assert not found.failed, found.failed
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=1)
    options = parser.parse_args()
    trials = mrsds.simulate("lotka-volterra", seed=0, num_trials=48, num_bins=60, neurons_per_region=12)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"with compiling, two workers: {seconds(trials, folder, 2, options.steps, 1):.0f} s", flush=True)
        for _ in range(options.turns):
            one, two = (seconds(trials, folder, workers, options.steps, options.seeds) for workers in (1, 2))
            print(f"one worker {one:.0f} s, two workers {two:.0f} s: {one / two:.2f} times as fast", flush=True)


if __name__ == "__main__":
    main()
