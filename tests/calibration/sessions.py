"""Sessions of one simulation with other neurons each: one joint fit beside a fit of each alone.

    python tests/calibration/sessions.py FIRST COUNT

A row for each session and seed: R^2 of the latents (mean over latents; of the joint fit after one affine map for all
sessions) and accuracy of the states, joint and alone. The last session has a quarter of the trials of the others.
"""

import sys

import numpy as np

import mrsds_ppl as mrsds
from mrsds_ppl.analysis.recovery.alignment import align_latents, match_states

COUNTS, NEURONS, BINS, LATENTS = (100, 100, 25), 40, 80, [2, 2, 2]


def dealt_out(seed: int) -> list[mrsds.Trials]:
    """Trials and neurons of their own, the law of the latents in common."""
    many = len(COUNTS)
    whole = mrsds.simulate("wells", seed=seed, num_trials=sum(COUNTS), num_bins=BINS, neurons_per_region=NEURONS * many)
    number, firsts = np.tile(np.repeat(np.arange(many), NEURONS), 3), np.cumsum([0, *COUNTS])
    return [
        whole.select(slice(firsts[s], firsts[s + 1])).without_neurons(whole.neuron_ids[number != s])
        for s in range(many)
    ]


def rows(seed: int) -> None:
    """Fits, and prints what is found of each session."""
    sessions = dealt_out(seed)
    options = {"num_states": 2, "latent_sizes": 2, "training": {"num_steps": 300}, "progress": False}
    joint = mrsds.fit(mrsds.join(sessions), **options)
    trials = joint.trials
    whole = align_latents(trials.x, joint.latents.values, trials.lengths, LATENTS).aligned
    states = match_states(trials.z, joint.states.values, trials.lengths).z_matched
    for number, session in enumerate(sessions):
        own = trials.session_numbers == number
        fit = mrsds.fit(session, **options)
        alone = align_latents(session.x, fit.latents.values, session.lengths, LATENTS).r2.mean()
        x = trials.x[own]
        unexplained = np.nansum((x - whole[own]) ** 2, (0, 1)) / np.nansum((x - np.nanmean(x, (0, 1))) ** 2, (0, 1))
        right = (states[own] == trials.z[own])[trials.z[own] >= 0].mean()
        alone_right = match_states(session.z, fit.states.values, session.lengths).accuracy
        print(
            f"seed {seed}, session {number} ({session.num_trials} trials): latents joint {1 - unexplained.mean():.3f}, "
            f"alone {alone:.3f}; states joint {right:.3f}, alone {alone_right:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    first, count = map(int, sys.argv[1:])
    for seed in range(first, first + count):
        rows(seed)
