"""Two sessions of one mouse, the regions that both have: one joint fit beside a fit of each alone.

    python tests/calibration/steinmetz.py [SEED ...]

Reads `steinmetz_forssmann_1.npz` and `_2.npz` in the folder `data` of MRSDS_SHARED (default `../shared`): counts of
10 ms from the onset of the stimulus, here in bins of 20 ms, and the contrasts on both sides as inputs. A row for each
session and seed: bits per spike of a quarter of the neurons, hidden in held-out trials, joint and alone.
"""

import os
import sys
from pathlib import Path

import numpy as np
from jax import random

import mrsds_ppl as mrsds
from mrsds_ppl.analysis.labelled import scores
from mrsds_ppl.analysis.posterior import PosteriorSampler

REGIONS = ["ACA", "CA1", "MOs", "SUB", "VISa"]
DATA = Path(os.environ.get("MRSDS_SHARED", "../shared")) / "data"


def session(number: int) -> mrsds.Trials:
    """Trials of one of the two sessions."""
    found = np.load(DATA / f"steinmetz_forssmann_{number}.npz")
    inside = np.isin(found["area"], REGIONS)
    counts = found["counts"][:, :, inside].astype(float)
    trials, bins, neurons = counts.shape
    contrasts = np.stack([found["contrast_left"], found["contrast_right"]], -1)
    return mrsds.Trials.from_arrays(
        counts.reshape(trials, bins // 2, 2, neurons).sum(2),
        np.repeat(contrasts[:, None], bins // 2, 1),
        regions=found["area"][inside].tolist(),
        bin_width=0.02,
        input_names=["contrast left", "contrast right"],
    )


def bits(fit: mrsds.Fit, number: int | None) -> float:
    """Bits per spike of every fourth neuron, hidden in the held-out trials of one session."""
    if number is None:
        test, ids = fit.split.test, fit.trials.neuron_ids
    else:
        test, ids = list(fit.split.test.by_session().values())[number], fit.trials.own_neurons[number]
    hidden = np.flatnonzero(np.isin(ids, np.sort(ids[ids != ""])[::4]))
    found = scores(random.key(0), PosteriorSampler(fit.program), test, hidden)
    return found["bits_per_spike"].sel(prediction="hidden neurons").values.item()


def rows(seed: int) -> None:
    """Fits, and prints what each says of held-out trials."""
    sessions, options = [session(1), session(2)], {"training": {"num_steps": 300}, "progress": False}
    joint = mrsds.fit(mrsds.join(sessions), 2, 2, seed=seed, **options)
    for number, one in enumerate(sessions):
        # A joint fit splits each session by a seed of its own.
        alone = mrsds.fit(one, 2, 2, seed=seed + number, **options)
        print(
            f"seed {seed}, session {number} ({one.num_trials} trials, {one.y.shape[2]} neurons): bits per spike joint "
            f"{bits(joint, number):.3f}, alone {bits(alone, None):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    for chosen in map(int, sys.argv[1:] or ["0"]):
        rows(chosen)
