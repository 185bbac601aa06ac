"""Messages and generated paths of a run on the oscillators against the true ones, as numbers and a picture:

python docs/oscillators_figure.py results/oscillators [docs/oscillators-generated.png]
"""

import itertools
import sys

import matplotlib
import numpy as np
from jax import random
from scipy.stats import ks_2samp

from mrsds_ppl import load
from mrsds_ppl.analysis.communication import posterior_messages
from mrsds_ppl.analysis.posterior_paths import posterior_paths
from mrsds_ppl.analysis.recovery.alignment import align_latents, match_states
from mrsds_ppl.analysis.recovery.message_scores import message_scores
from mrsds_ppl.analysis.rollouts import generate

matplotlib.use("agg")
from matplotlib import pyplot as plt

NUM_PATHS = 2000


def dwell_times(z: np.ndarray) -> np.ndarray:
    """Bins that a path stays in a state, without the first and last stay of each, whose ends are not seen."""
    found = []
    for path in z:
        path = path[path >= 0]
        changes = np.flatnonzero(np.diff(path)) + 1
        found.extend(np.diff(changes))
    return np.asarray(found)


def main(run_name: str, out: str) -> None:
    """Prints the scores and draws distributions of radius and dwell time."""
    run = load(run_name)
    test, sizes = run.split.test, list(run.model.latent_sizes)
    paths = posterior_paths(random.key(0), run.program, test)
    aligned = align_latents(test.x, paths.x.mean(0), test.lengths, sizes, sizes)
    order = match_states(test.z, paths.z_prob.mean(0), test.lengths).true_state_of
    messages = posterior_messages(random.key(0), run.program, test)
    scores = message_scores(test.messages, messages, aligned, test.z)
    print("communication, cosine of each state:", np.round(scores.cosine, 3))
    print(f"messages between regions, R2 {scores.r2_cross:.3f}, local ones {scores.r2_local:.3f}")
    print(f"norm of absent messages over that of present ones {scores.absent_ratio:.3f}")

    # Paths as long as the trials: longer ones have longer stays whose ends are seen.
    lengths = np.resize(run.trials.lengths, NUM_PATHS)
    made = generate(random.key(1), run.program, np.zeros((NUM_PATHS, lengths.max(), 0), np.float32), lengths)
    spans = [slice(a, b) for a, b in itertools.pairwise(np.concatenate([[0], np.cumsum(sizes)]))]
    found = [made.x[..., span] @ w + c for span, w, c in zip(spans, aligned.weights, aligned.offsets, strict=True)]
    true = [run.trials.x[..., span] for span in spans]
    states = np.where(made.z >= 0, np.asarray(order)[made.z], -1)
    _, axes = plt.subplots(1, len(true) + 1, figsize=(3.2 * (len(true) + 1), 3), constrained_layout=True)
    for region, (mine, theirs) in enumerate(zip(found, true, strict=True)):
        for state in range(run.model.num_states):
            ours = np.linalg.norm(mine[states == state], axis=-1)
            wanted = np.linalg.norm(theirs[run.trials.z == state], axis=-1)
            print(
                f"region {region}, state {state}: radius {ours.mean():.3f} where {wanted.mean():.3f} is true, "
                f"largest difference of the distributions {ks_2samp(ours, wanted).statistic:.3f}"
            )
            bins = np.linspace(0.0, 2.2, 45)
            axes[region].hist(wanted, bins, density=True, histtype="step", color=f"C{state}", label=f"state {state}")
            axes[region].hist(ours, bins, density=True, alpha=0.35, color=f"C{state}")
        axes[region].set(xlabel="radius (a.u.)", ylabel="density", title=f"region {region}")
    ours, wanted = dwell_times(made.z), dwell_times(run.trials.z)
    print(
        f"stay in a state: {ours.mean():.1f} bins where {wanted.mean():.1f} is true, largest difference of the "
        f"distributions {ks_2samp(ours, wanted).statistic:.3f}"
    )
    bins = np.arange(0, 90, 4)
    axes[-1].hist(wanted, bins, density=True, histtype="step", color="k", label="simulated")
    axes[-1].hist(ours, bins, density=True, alpha=0.35, color="k", label="generated")
    axes[-1].set(xlabel="stay in a state (bins)", ylabel="density", title="all states")
    axes[0].set_ylim(0.0, 1.5 * axes[0].get_ylim()[1])  # room for the legend
    axes[0].legend(frameon=False, title="line: simulated\nfilled: generated", fontsize=8, title_fontsize=8)
    axes[-1].legend(frameon=False, fontsize=8)
    axes[0].figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "docs/oscillators-generated.png")
