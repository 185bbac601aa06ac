"""How time and peak memory of a training step and of a fit grow with the sizes of a recording and of the model.

    python tests/benchmarks/scaling.py results/scaling.csv [KIND ...]
    python docs/scaling_figure.py results/scaling.csv

One size is varied at a time around a base case, each case in a process of its own. Times are seconds of computing
(processor time of all threads), which other work on the machine distorts less than those of a clock. An exponent is the
slope of log time over log size, by least squares over the upper half of the range on a log scale.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Case(NamedTuple):
    """What is measured, and its sizes; ``trials`` are those of a batch, of a fit all that there are."""

    kind: str
    regions: int
    neurons: int  # of all regions
    bins: int
    trials: int
    states: int
    latents: int  # of each region


class Row(NamedTuple):
    """A case: seconds of computing of a step or of a fit without compiling, and peak megabytes beyond the imports."""

    case: Case
    seconds: float
    compile_seconds: float
    megabytes: float


BASES = {
    "step": Case("step", 4, 400, 100, 32, 2, 2),
    "step-convolution": Case("step-convolution", 4, 400, 100, 32, 2, 2),
    "fit": Case("fit", 2, 100, 50, 40, 2, 2),
}
AXES = {
    "step": {
        "bins": (50, 500, 1000, 2500, 5000),
        "neurons": (100, 1000, 2000, 5000),
        "trials": (8, 128, 256, 512),
        "regions": (2, 8, 10, 16),
        "states": (1, 4, 8),
        "latents": (1, 4, 6, 8),
    },
    "step-convolution": {
        "bins": (500, 1000, 2500),
        "neurons": (1000, 2000, 5000),
        "trials": (64, 128, 256),
        "regions": (8, 16),
    },
    "fit": {
        "bins": (150, 450),
        "trials": (120, 360),
        "neurons": (1600,),
        "regions": (5,),
        "latents": (4,),
        "states": (4,),
    },
}
STEPS_A_CALL, FEWEST_CALLS, MOST_CALLS, ENOUGH_SECONDS = 2, 3, 9, 2.0
FIT_STEPS = 20
COMPILING = ("/jax/core/compile/backend_compile_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration")


def peak_megabytes() -> float:
    """The most that this process has held."""
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def measured_step(case: Case) -> tuple[float, float]:
    """Seconds of a step inside the compiled loop, the median of several calls, and those up to the end of the first."""
    import jax
    from bench_case import Sizes, make_step

    began, encoder = time.process_time(), "convolution" if case.kind == "step-convolution" else "none"
    step = make_step("gaussian_markov", encoder, Sizes(**_sizes(case), steps=STEPS_A_CALL, counts=True))
    state, _ = jax.block_until_ready(step.run_chunk(step.state, step.data))
    first, calls = time.process_time() - began, []
    while len(calls) < FEWEST_CALLS or (len(calls) < MOST_CALLS and sum(calls) < ENOUGH_SECONDS):
        before = time.process_time()
        state, _ = jax.block_until_ready(step.run_chunk(state, step.data))
        calls.append(time.process_time() - before)
    return float(np.median(calls)) / STEPS_A_CALL, first


def measured_fit(case: Case) -> tuple[float, float]:
    """Seconds of a fit with few steps, without those that compiling took, and the latter."""
    import jax
    from many_regions_recovery import simulate

    import mrsds_ppl as mrsds

    compiling = 0.0

    def on_event(name: str, seconds: float, **_: object) -> None:
        nonlocal compiling
        compiling += seconds if name in COMPILING else 0.0

    neurons = case.neurons // case.regions
    trials = simulate(0, case.regions, case.latents, neurons, case.trials, case.bins)
    # It would hold the programs of some cases only.
    jax.config.update("jax_enable_compilation_cache", False)
    jax.monitoring.register_event_duration_secs_listener(on_event)
    # The rate is one that suits many regions too.
    training = {"num_steps": FIT_STEPS, "lr_warmup_steps": 5, "learning_rate": 2e-3, "batch_size": 32}
    began = time.process_time()
    mrsds.fit(trials, case.states, case.latents, training=training, progress=False)
    return time.process_time() - began - compiling, compiling


def measured(case: Case) -> Row:
    """One case, in this process."""
    import mrsds_ppl.guides
    import mrsds_ppl.models  # noqa: F401
    from mrsds_ppl.backend.compiler_flags import choose_optimization_level

    choose_optimization_level()
    imported = peak_megabytes()
    seconds, compiling = measured_fit(case) if case.kind == "fit" else measured_step(case)
    return Row(case, seconds, compiling, peak_megabytes() - imported)


def cases(kind: str) -> Iterator[Case]:
    """The base case and those that differ from it in one size."""
    yield BASES[kind]
    for axis, values in AXES[kind].items():
        for size in values:
            yield BASES[kind]._replace(**{axis: size})


def in_process_of_its_own(case: Case) -> Row:
    """The case, measured by a child."""
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    # Standard error is the child's own, for what goes wrong.
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Row(case, *json.loads(done.stdout.splitlines()[-1]))


def along(rows: list[Row], kind: str, axis: str) -> list[Row]:
    """Rows that differ from the base case in one size at most, in its order."""
    base = BASES[kind]
    chosen = [row for row in rows if row.case._replace(**{axis: getattr(base, axis)}) == base]
    return sorted(chosen, key=lambda row: getattr(row.case, axis))


def exponent(rows: list[Row], axis: str, column: str = "seconds") -> float:
    """Slope of log of a column over log size, over the sizes at or above the middle of the range on a log scale."""
    size = np.array([getattr(row.case, axis) for row in rows], float)
    value = np.array([getattr(row, column) for row in rows], float)
    upper = size >= np.sqrt(size.min() * size.max()) * (1 - 1e-9)
    return float(np.polyfit(np.log(size[upper]), np.log(value[upper]), 1)[0])


def read(path: Path) -> list[Row]:
    """Rows of a file; none where there is no file yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    return [
        Row(
            Case(line["kind"], *(int(line[name]) for name in Case._fields[1:])),
            *(float(line[name]) for name in Row._fields[1:]),
        )
        for line in lines
    ]


def show(rows: list[Row]) -> None:
    """The table of the page: smallest and largest size, times, peak memory and exponents."""
    print("| | sizes | s | exponent | MB | exponent |\n|---|---|---|---|---|---|")
    for kind, axes in AXES.items():
        for axis in axes:
            found = along(rows, kind, axis)
            if len(found) > 1:
                first, last = found[0], found[-1]
                print(
                    f"| {kind}, {axis} | {getattr(first.case, axis)} to {getattr(last.case, axis)} | "
                    f"{first.seconds:.3g} to {last.seconds:.3g} | {exponent(found, axis):.2f} | "
                    f"{first.megabytes:.0f} to {last.megabytes:.0f} | {exponent(found, axis, 'megabytes'):.2f} |"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, help="the file of the rows; cases that it holds are not repeated")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(AXES)}; all by default")
    parser.add_argument("--case", type=lambda given: Case(*json.loads(given)), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(measured(options.case)[1:]))
        return
    kinds = options.kinds or list(AXES)
    if options.out is None or not set(kinds) <= set(AXES):
        parser.error(f"give the file of the rows, and kinds among {', '.join(AXES)}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    known = {row.case for row in read(options.out)}
    with options.out.open("a", newline="") as file:
        writer = csv.writer(file)
        if not known:
            writer.writerow((*Case._fields, *Row._fields[1:]))
        for case in (case for kind in kinds for case in cases(kind) if case not in known):
            row = in_process_of_its_own(case)
            writer.writerow((*case, *row[1:]))
            file.flush()
            print(*case, *(f"{value:.4g}" for value in row[1:]), flush=True)
    show(read(options.out))


def _sizes(case: Case) -> dict[str, int]:
    return {name: value for name, value in case._asdict().items() if name != "kind"}


if __name__ == "__main__":
    main()
