"""This package: the default fit, with networks as messages or with linear ones.

    python by_package.py RECORDING FOLDER nonlinear|linear SEED NUM_TRIALS NUM_BINS NEURONS_PER_REGION

It simulates the recording anew and splits it itself, which gives the trials of the file. States and latents on the way
are those of its checkpoints.
"""

import shutil
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from exchange import given
from jax import random

import mrsds_ppl as mrsds
from mrsds_ppl.analysis.posterior import PosteriorSampler
from mrsds_ppl.build import fitted_values
from mrsds_ppl.storage.checkpoints import Checkpoints
from mrsds_ppl.storage.paths import RunPaths

MODELS = {"nonlinear": None, "linear": {"dynamics": {"layers": [], "activations": []}}}
SAVE_STEPS, DRAWS = 50, 20
SHOWN = (0, 50, 100, 200, 400, 700, 1000, 1500)  # steps


class Keeper:
    """Standard output of a fit: it notes when a checkpoint was first seen, and keeps those to show.

    A fit keeps its latest two alone, and says a line for each.
    """

    def __init__(self, checkpoints: Checkpoints, kept: Path, findings) -> None:
        self._checkpoints, self._findings = checkpoints, findings
        self.kept, self.seen = Checkpoints(kept), {}

    def write(self, text: str) -> int:
        for step in self._checkpoints.steps():
            if step not in self.seen:
                self.seen[step] = self._findings.now()
                if step in SHOWN:
                    with self._findings.evaluation():
                        shutil.copytree(self._checkpoints.path(step), self.kept.path(step))
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def parts(posterior, lengths):
    """Latents and states of each trial, without padding."""
    x, z = (np.asarray(array, float) for array in (posterior.x_mean, posterior.z_prob))
    return [x[i, :n] for i, n in enumerate(lengths)], [z[i, :n] for i, n in enumerate(lengths)]


def main():
    recording, findings = given()
    kind, seed, *sizes = sys.argv[3], *map(int, sys.argv[4:])
    trials = mrsds.simulate(
        "wells", seed=seed, **dict(zip(("num_trials", "num_bins", "neurons_per_region"), sizes, strict=True))
    )
    with TemporaryDirectory() as folder:
        paths = RunPaths(Path(folder), "run")
        keeper = Keeper(Checkpoints(paths.checkpoints), Path(folder) / "kept", findings)
        with redirect_stdout(keeper):
            fit = mrsds.fit(
                trials,
                recording.states,
                recording.latents,
                model=MODELS[kind],
                training={"save_steps": SAVE_STEPS},
                seed=seed,
                save_to=paths.folder / paths.name,
            )
        findings.write("the end", *parts(fit.test, fit.test.lengths), findings.now())
        test = fit.split.test
        np.testing.assert_array_equal(
            np.concatenate([y[:n] for y, n in zip(test.y, test.lengths, strict=True)]), np.concatenate(recording.test.y)
        )
        for step in keeper.kept.steps():
            state, _ = keeper.kept.restore(step, fit.trained.state)
            values = fitted_values(random.key(seed), fit.guide, dict(state.params), fit.split)
            posterior = PosteriorSampler(replace(fit.program, params=values)).infer(random.key(seed), test, draws=DRAWS)
            findings.write(f"step {step}", *parts(posterior, test.lengths), keeper.seen[step])


if __name__ == "__main__":
    main()
