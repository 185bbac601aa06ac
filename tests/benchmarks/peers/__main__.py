"""This package beside others, on the same simulation and test trials: latents, states, and how long it takes.

    python tests/benchmarks/peers [--seeds 0] [--only NAME ...] [--python ssm=/path/to/python] [--trials 220]

Simulation: `wells`, three regions of two latents, two states, spike counts, inputs. Each method runs in a process of
its own, one after another; `--python` names an interpreter that has a peer which does not install beside this package.
What is not installed is said and left out. Seconds are of computing, all threads, imports and compiling included.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from exchange import NOT_INSTALLED, Found, Part, Recording, read_findings, write_recording

import mrsds_ppl as mrsds
from mrsds_ppl.analysis.recovery.alignment import align_latents, match_states
from mrsds_ppl.data.split import split_trials
from mrsds_ppl.data.trials import Trials

HERE = Path(__file__).parent
STATES, LATENTS, TEST_SHARE, ENOUGH = 2, 2, 0.1, 0.95
# Script, its further arguments, and whether one affine map of all latents to all is fitted in place of one a region.
METHODS = {
    "dynamax": ("by_dynamax.py", (), True),
    "ssm": ("by_ssm.py", (), False),
    "linear": ("by_package.py", ("linear",), False),
    "nonlinear": ("by_package.py", ("nonlinear",), False),
}


class Score(NamedTuple):
    """R^2 of each latent and accuracy of the states in test trials, and the seconds up to there."""

    r2: np.ndarray
    states: float
    seconds: float
    clock: float


def part_of(trials: Trials) -> Part:
    """Trials without their padding."""
    return Part(*([values[i, :n] for i, n in enumerate(trials.lengths)] for values in (trials.y, trials.u)))


def padded(rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Trials end to end as an array (trial, bin, ...), zero after the end of a trial."""
    found = np.zeros((len(lengths), lengths.max(), rows.shape[1]))
    for trial, values in enumerate(np.split(rows, np.cumsum(lengths)[:-1])):
        found[trial, : len(values)] = values
    return found


def scored(found: Found, test: Trials, pooled: bool) -> Score:
    """Against the truth of the simulation."""
    bins, true_sizes = int(test.lengths.max()), [LATENTS] * len(test.region_sizes)
    sizes = [sum(true_sizes)] if pooled else true_sizes
    x, z = (padded(rows, test.lengths) for rows in (found.x, found.z))
    aligned = align_latents(test.x[:, :bins], x, test.lengths, sizes, sizes)
    return Score(aligned.r2, match_states(test.z[:, :bins], z, test.lengths).accuracy, found.seconds, found.clock)


def run(name: str, python: str, recording: Path, folder: Path, simulation: list[int]) -> bool:
    """One method on the recording; False where it is not installed."""
    script, more, _ = METHODS[name]
    arguments = [*more, *map(str, simulation)] if more else []
    folder.mkdir()
    done = subprocess.run([python, str(HERE / script), str(recording), str(folder), *arguments])
    if done.returncode == NOT_INSTALLED:
        return False
    done.check_returncode()
    return True


def line(name: str, seed: int, scores: list[Score], after: list[str]) -> str:
    """A row of the table."""
    final = scores[-1]
    first = next(number for number, score in enumerate(scores) if score.states >= ENOUGH * final.states)
    by_region = final.r2.reshape(-1, LATENTS)
    return (
        f"| {name} | {seed} | {final.seconds:.0f} ({final.clock:.0f}) | {scores[first].seconds:.0f}, {after[first]} | "
        f"{'; '.join(' '.join(f'{value:.2f}' for value in region) for region in by_region)} | {final.states:.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--python", nargs="+", default=[], metavar="NAME=PATH")
    parser.add_argument("--trials", type=int, default=220)
    parser.add_argument("--bins", type=int, default=110)
    parser.add_argument("--neurons", type=int, default=40, help="of each region")
    options = parser.parse_args()
    pythons = dict(given.split("=", 1) for given in options.python)
    print("| method | seed | s (by the clock) | s to 95% of the final states | R2 by region | states |")
    print("|---|---|---|---|---|---|", flush=True)
    for seed in options.seeds:
        simulation = [seed, options.trials, options.bins, options.neurons]
        trials = mrsds.simulate(
            "wells", seed=seed, num_trials=options.trials, num_bins=options.bins, neurons_per_region=options.neurons
        )
        train, test = split_trials(trials, TEST_SHARE, seed)[:2]
        with TemporaryDirectory() as name:
            folder, path = Path(name), Path(name) / "recording.npz"
            sizes = np.array(trials.region_sizes)
            write_recording(path, Recording(part_of(train), part_of(test), sizes, LATENTS, STATES, seed))
            for method in options.only:
                if run(method, pythons.get(method, sys.executable), path, folder / method, simulation):
                    findings = read_findings(folder / method)
                    scores = [scored(found, test, METHODS[method][2]) for found in findings]
                    for found, score in zip(findings, scores, strict=True):
                        print(
                            f"{method}, {found.after}: {found.seconds:.0f} s, mean R2 {score.r2.mean():.3f}, "
                            f"states {score.states:.3f}",
                            file=sys.stderr,
                        )
                    print(line(method, seed, scores, [found.after for found in findings]), flush=True)
                else:
                    print(f"| {method} | {seed} | not installed | | | |", flush=True)


if __name__ == "__main__":
    main()
