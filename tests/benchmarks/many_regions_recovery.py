"""What a fit of many regions recovers of a simulation of that size: latents, states, messages, and how long it takes.

    python tests/benchmarks/many_regions_recovery.py [SEED] [REGIONS LATENTS NEURONS TRIALS] [MESSAGES ...]

Regions turn at their own pace and decay; each hears two others, in each of two states other ones, by saturating maps.
Spike counts, 50 bins a trial, the default start and guide.
"""

import sys
import time

import numpy as np
from jax import random

import mrsds_ppl as mrsds
from mrsds_ppl.analysis.communication import path_messages
from mrsds_ppl.analysis.posterior_paths import posterior_paths
from mrsds_ppl.analysis.recovery.alignment import align_latents, match_states
from mrsds_ppl.analysis.recovery.message_scores import message_scores
from mrsds_ppl.data.simulate.paths import drive, follow, offsets_for_mean, rotations, sticky_states

STATES, BINS, HEARD = 2, 50, 2
KEEPS, TURNS, STRENGTH, SLOPE, NOISE, STAY = 0.85, (0.1, 0.5), 0.25, 1.0, 0.1, 0.96
MEAN_COUNT, LOADING = 0.6, 0.5


def simulate(seed, regions, latents, neurons, trials, bins=BINS):
    """Trials with the true latents, states and messages."""
    rng = np.random.default_rng(seed)
    graph = np.zeros((STATES, regions, regions), bool)
    for state, target in np.ndindex(STATES, regions):
        others = np.delete(np.arange(regions), target)
        graph[state, target, rng.choice(others, min(HEARD, len(others)), replace=False)] = True
    own = np.broadcast_to(KEEPS * np.eye(latents), (regions, latents, latents)).copy()
    if latents > 1:
        own[:, :2, :2] = KEEPS * rotations(rng.uniform(*TURNS, size=regions))
    maps = SLOPE * np.linalg.qr(rng.normal(size=(STATES, regions, regions, latents, latents)))[0]

    def told(z, x):
        sent = STRENGTH * np.tanh(np.einsum("brsij,bsj->brsi", maps[z], x)) * graph[z][..., None]
        each = np.arange(regions)
        sent[:, each, each] = np.einsum("rij,brj->bri", own, x) - x
        return sent

    z = sticky_states(rng, trials, bins, STATES, STAY)
    paths = follow(rng, 0.5 * rng.normal(size=(trials, regions, latents)), z, told, NOISE)
    driven = drive(rng.normal(scale=LOADING, size=(regions, neurons, latents)), paths.x)
    counts = rng.poisson(np.logaddexp(0.0, driven + offsets_for_mean(driven, MEAN_COUNT))).astype(float)
    return mrsds.Trials.from_arrays(counts, region_sizes=[neurons] * regions, bin_width=0.05, **paths._asdict())


def recovered(trials, latents, messages, seed):
    """A line of what a fit recovers of its test trials."""
    began = time.perf_counter()
    model = {"dynamics": {"communication_type": messages}}
    fit = mrsds.fit(trials, STATES, latents, model=model, seed=seed)
    seconds, test = time.perf_counter() - began, fit.split.test
    paths = posterior_paths(random.key(0), fit.program, test, draws=10)
    aligned = align_latents(test.x, paths.x.mean(0), test.lengths, fit.model.latent_sizes)
    match = match_states(test.z, paths.z_prob.mean(0), test.lengths)
    scores = message_scores(test.messages, path_messages(fit.program, test, paths), aligned, test.z)
    print(
        f"{messages}, seed {seed}: {seconds:.0f} s; latents R2 {np.mean(aligned.r2):.3f}, states {match.accuracy:.3f}; "
        f"messages cosine {np.round(scores.cosine, 3)}, R2 between regions {scores.r2_cross:.3f}, "
        f"local {scores.r2_local:.3f}, absent over present {scores.absent_ratio:.3f}"
    )


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:6] if word.isdigit()]
    seed, (regions, latents, neurons, trials) = (given or [0])[0], given[1:] or (12, 3, 80, 100)
    simulated = simulate(seed, regions, latents, neurons, trials)
    for kind in [word for word in sys.argv[1:] if not word.isdigit()] or ["additive-shared"]:
        recovered(simulated, latents, kind, seed)
