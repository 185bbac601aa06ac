"""Figures, one function each: every function takes axes, or makes them, and returns them."""

from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Int

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")


def plot_trial(
    seconds: Float[np.ndarray, " bin"],
    draws: Float[np.ndarray, "draw bin latent"],
    z_prob: Float[np.ndarray, "bin state"],
    names: list[str],
    *,
    x_true: Float[np.ndarray, "bin latent"] | None = None,
    z_true: Int[np.ndarray, " bin"] | None = None,
    axes: Any = None,
) -> Any:
    """Latents of one trial with 90% intervals over a background of the likeliest state, and the state posterior.

    Args:
        seconds: time of each bin.
        draws: posterior draws of the latents.
        z_prob: state probabilities.
        names: name of each latent.
        x_true, z_true: the truth of a simulation, in the units and labels of the posterior.
        axes: one for each latent and one for the states; made where not given.
    """
    import matplotlib.pyplot as plt

    latents = draws.shape[-1]
    if axes is None:
        ratios = [2] * latents + [1]
        _, axes = plt.subplots(
            latents + 1, 1, sharex=True, figsize=(7, 1.6 * latents + 1.4), height_ratios=ratios, layout="constrained"
        )
    low, middle, high = np.quantile(draws, [0.05, 0.5, 0.95], axis=0)
    state = z_prob.argmax(-1)
    edges = np.flatnonzero(np.diff(state, prepend=-1, append=-1))
    width = seconds[1] - seconds[0]
    for index in range(latents):
        ax = axes[index]
        for first, last in pairwise(edges):
            start, end = seconds[first] - width / 2, seconds[last - 1] + width / 2
            ax.axvspan(start, end, color=COLOURS[state[first] % 8], alpha=0.12, linewidth=0)
        ax.fill_between(seconds, low[:, index], high[:, index], color="0.45", linewidth=0, label="90% interval")
        ax.plot(seconds, middle[:, index], color="black", linewidth=1, label="inferred")
        if x_true is not None:
            ax.plot(seconds, x_true[:, index], color=COLOURS[5], linestyle=(0, (4, 2)), linewidth=1.2, label="true")
        ax.set_ylabel(names[index])
        ax.margins(x=0)
    axes[0].legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=3, frameon=False, borderaxespad=0.1)
    ax = axes[-1]
    for k in range(z_prob.shape[1]):
        ax.plot(seconds, z_prob[:, k], color=COLOURS[k % 8], linewidth=1.4, label=f"state {k}")
    if z_true is not None:
        switches = seconds[1:][np.diff(z_true) != 0] - width / 2
        for number, switch in enumerate(switches):
            ax.axvline(switch, color="black", linestyle=":", linewidth=1.2, label=None if number else "true switch")
    ax.set(xlabel="time (s)", ylabel="p(state)", ylim=(-0.05, 1.05))
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return axes
