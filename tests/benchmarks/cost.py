"""What fits cost beside what `mrsds check` says that they do: run by hand.

    python tests/benchmarks/cost.py                     the table, of the cases that were measured
    python tests/benchmarks/cost.py measure [NAME ...]  measures cases anew, each in a process of its own, on one core
    python tests/benchmarks/cost.py constants           constants that suit the measured cases best

Times are seconds of computing of all threads, which other work on the machine distorts less than those of a clock. They
are divided by how much slower than the reference core this machine's cores are. Compiling is part of them: the cache of
compiled programs is an empty one.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from mrsds_ppl.backend.compiler_flags import choose_optimization_level
from mrsds_ppl.backend.speed import slowness
from mrsds_ppl.config.arguments import config_for
from mrsds_ppl.config.choice import choose_start
from mrsds_ppl.config.cost import cost_of, held_by, work_of
from mrsds_ppl.config.fit_sizes import FitSizes, Products, sizes_of
from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.config.recording import split_of
from mrsds_ppl.data.trials import Trials

MEASURED = Path(__file__).with_name("cost_cases.json")
CHUNK, STEPS = 20, 60
# Regions, neurons and latents of each, states, trials, bins; and what is asked for beside these.
CASES = {
    "small": ((2, 20, 2, 2, 40, 50), {}),
    "five regions": ((5, 30, 2, 2, 80, 50), {}),
    "four latents": ((2, 50, 4, 2, 80, 60), {}),
    "many bins": ((2, 20, 2, 2, 200, 100), {}),
    "four states": ((3, 40, 3, 4, 60, 100), {}),
    "many neurons": ((4, 150, 3, 2, 60, 40), {}),
    "one region": ((1, 100, 6, 2, 100, 50), {}),
    "staged": ((3, 60, 2, 3, 120, 80), {"start": "staged"}),
    "one state": ((3, 100, 4, 1, 100, 60), {}),
    "continuous": ((2, 20, 2, 2, 40, 50), {"emission": "gaussian"}),
    "six regions": ((6, 40, 3, 2, 100, 60), {"emission": "gaussian"}),
    "structured": ((3, 40, 2, 2, 60, 60), {"guide": "switching_structured"}),
    "mean field": ((3, 40, 2, 2, 60, 60), {"guide": "mean_field"}),
    "encoder after smoothing": ((2, 20, 2, 2, 40, 50), {"start": "smoothing", "encoder": "convolution"}),
    "thousands of neurons": ((2, 1000, 2, 2, 50, 50), {}),
    "long recording": ((2, 200, 2, 1, 600, 150), {}),
    "default": ((3, 60, 4, 3, 250, 100), {"steps": 2000}),
    "seven regions": ((7, 75, 3, 2, 127, 40), {"steps": 300}),
}
# Beginnings of the lines that end one stage and begin another.
MARKS = {
    "smoothing ...": "linear",
    "smoothing: linear dynamics": "networks",
    "states: share of bins": "first step",
    "states ...": "states",
    "fit: elbo is": "first step",
    "scoring ...": "scoring",
    "smoothing of the training trials": "smoothing",
    "posterior and scores": "posterior",
}


def of_case(name: str) -> tuple[RunConfig, Trials]:
    """Configuration and simulated trials: latents that turn and drift, and what neurons show of them."""
    (regions, neurons, latents, states, trials, bins), asked = CASES[name]
    options = {"emission": "poisson", **asked}
    emission, steps, encoder = options["emission"], options.pop("steps", STEPS), options.pop("encoder", "auto")
    rng = np.random.default_rng(0)
    turn = np.sin(0.25 * np.arange(bins)[:, None, None] + rng.uniform(0, 6, size=(trials, 1, regions, latents)))
    x = turn + np.cumsum(0.15 * rng.normal(size=(trials, bins, regions, latents)), axis=1)
    loadings = 0.5 / np.sqrt(latents) * rng.normal(size=(regions, latents, neurons))
    eta = np.einsum("btrd,rdn->btrn", x, loadings).reshape(trials, bins, -1)
    y = eta + 0.5 * rng.normal(size=eta.shape) if emission == "gaussian" else rng.poisson(np.exp(eta - 0.8).clip(0, 8))
    # All steps, which is what estimates are of.
    training = {"num_steps": steps, "log_steps": CHUNK, "follow_bound": False}
    config = config_for(states, latents, training=training, **options)
    config = config.model_copy(update={"inference": replace(config.inference, encoder=encoder)})
    return config, Trials.from_arrays(y.astype(float), region_sizes=[neurons] * regions, bin_width=0.02)


def stages_of(lines: list[tuple[float, str]], chunk: int = CHUNK) -> dict[str, float]:
    """Seconds of each stage from the lines of a fit and the seconds at which they came, with so many steps between."""
    found, stage, before, chunks = defaultdict(float), "begin", 0.0, defaultdict(list)
    for seconds, line in lines:
        took, before = seconds - before, seconds
        name, step, _ = line.partition(": step ")
        if step:
            chunks[name].append(took)
        else:
            found[stage] += took
        stage = next((next_one for mark, next_one in MARKS.items() if line.startswith(mark)), stage)
    step_seconds = float(np.mean(chunks["fit"][1:])) / chunk
    found["training"] = step_seconds * chunk * len(chunks["fit"])
    # The first chunk of a loop compiles; the one after a warm-up goes on with its loop.
    compiled_by = "warm-up" if "warm-up" in chunks else "fit"
    found["first step"] += chunks[compiled_by][0] - chunk * step_seconds
    if "warm-up" in chunks:
        found["warm-up"] = step_seconds * chunk * len(chunks["warm-up"])
    for name in set(chunks) - {"fit", "warm-up"}:
        found["guide"] += sum(chunks[name])
    return {name: seconds for name, seconds in found.items() if seconds > 0}


def measured(name: str) -> dict[str, object]:
    """One case, in this process and on one of its cores."""
    os.sched_setaffinity(0, [max(os.sched_getaffinity(0))])
    choose_optimization_level()
    config, trials = of_case(name)

    from mrsds_ppl.fit import fit_into_files
    from mrsds_ppl.storage.paths import RunPaths

    lines: list[tuple[float, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        fit_into_files(
            trials, config, RunPaths(Path(folder), name), say=lambda line: lines.append((time.process_time(), line))
        )
    split, stages = split_of(config, trials), stages_of(lines)
    sizes = sizes_of(choose_start(config, split.train).applied_to(config), split)
    if sizes.evidence_steps:
        stages["ascent"] = stages.pop("networks")
    return {
        "name": name,
        "slowness": round(slowness(), 3),
        "stages": {stage: round(seconds, 2) for stage, seconds in stages.items()},
        "megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1.024e-3),
        "sizes": asdict(sizes),
    }


def rows() -> list[dict]:
    """The measured cases, their sizes read, and seconds those of the reference core."""
    found = json.loads(MEASURED.read_text(encoding="utf-8"))
    for row in found:
        row["stages"] = {stage: seconds / row["slowness"] for stage, seconds in row["stages"].items()}
        row["sizes"] = FitSizes(**{**row["sizes"], "products": Products(*row["sizes"]["products"])})
    return found


def show() -> None:
    """Measured and estimated, in the form of the page's table."""
    print("| case | s | estimated | ratio | MB | estimated | ratio | ms a step | estimated |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows():
        cost, seconds, steps = cost_of(row["sizes"]), sum(row["stages"].values()), row["sizes"].steps
        step, estimated = (1e3 * stages["training"] / steps for stages in (row["stages"], cost.stages))
        print(
            f"| {row['name']} | {seconds:.0f} | {cost.seconds:.0f} | {cost.seconds / seconds:.2f} | "
            f"{row['megabytes']:.0f} | {cost.megabytes:.0f} | {cost.megabytes / row['megabytes']:.2f} | "
            f"{step:.3g} | {estimated:.3g} |"
        )


def fitted_constants() -> dict[str, dict[str, float]]:
    """ONCE, SECONDS and MEGABYTES with the least squares of relative errors, none below zero."""
    equations, once = [], sorted({stage for row in rows() for stage in work_of(row["sizes"])})
    for row in rows():
        whole = sum(row["stages"].values())
        for stage, work in work_of(row["sizes"]).items():
            # Most fits have many more steps than these, so that the error of a step is as bad as that of a whole fit.
            took = row["stages"].get(stage, 0.0)
            equations.append(({**work, f"once {stage}": 1.0}, took, took if stage == "training" else whole))
    seconds = _least_squares(equations)
    held = _least_squares([(held_by(row["sizes"]), row["megabytes"], row["megabytes"]) for row in rows()])
    return {
        "ONCE": {stage: seconds.pop(f"once {stage}") for stage in once},
        "SECONDS": seconds,
        "MEGABYTES": held,
    }


def _least_squares(equations: list[tuple[dict[str, float], float, float]]) -> dict[str, float]:
    """Constants of the kinds of work, from (work, measured, what it is measured in parts of)."""
    kinds = sorted({kind for work, _, _ in equations for kind in work})
    left = np.array([[work.get(kind, 0.0) / unit for kind in kinds] for work, _, unit in equations])
    right = np.array([value / unit for _, value, unit in equations])
    size = left.max(0)
    found, _ = nnls(left / size, right)
    return dict(zip(kinds, found / size, strict=True))


def measure(names: list[str]) -> None:
    """Cases measured anew, each as soon as it is done put in the place of what was measured before."""
    for name in names:
        command = [sys.executable, __file__, "case", name]
        with tempfile.TemporaryDirectory() as cache:
            environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        row = json.loads(done.stdout.splitlines()[-1])
        print(name, f"{sum(row['stages'].values()):.0f} s, {row['megabytes']:.0f} MB", flush=True)
        others = [one for one in json.loads(MEASURED.read_text(encoding="utf-8")) if one["name"] != name]
        lines = ",\n".join(json.dumps(one) for one in (*others, row))
        MEASURED.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="table", choices=["table", "measure", "constants", "case"])
    parser.add_argument("names", nargs="*", default=list(CASES), metavar="NAME", help=", ".join(CASES))
    options = parser.parse_args()
    if options.what == "measure":
        measure(options.names)
    elif options.what == "case":
        print(json.dumps(measured(options.names[0])))
    elif options.what == "constants":
        for name, values in fitted_constants().items():
            print(f"{name} = {{")
            for kind, value in values.items():
                print(f'    "{kind}": {value:.3g},')
            print("}")
    else:
        show()


if __name__ == "__main__":
    main()
