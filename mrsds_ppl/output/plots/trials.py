"""Latents and states of one trial, and states of all."""

import numpy as np
from jaxtyping import Float, Int

from mrsds_ppl.output.plots.averages import average_over_trials
from mrsds_ppl.output.plots.style import (
    MARK,
    WIDTH,
    bin_width,
    legend_above,
    legible,
    line_style,
    make_axes,
    shade_states,
    state_colour,
)


def plot_trial(
    seconds: Float[np.ndarray, " bin"],
    x: Float[np.ndarray, "bin latent"],
    z_prob: Float[np.ndarray, "bin state"],
    names: list[str],
    *,
    x_true: Float[np.ndarray, "bin latent"] | None = None,
    z_true: Int[np.ndarray, " bin"] | None = None,
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Latents of one trial over a background of the likeliest state, and the state posterior.

    Args:
        seconds: time of each bin.
        x: posterior means of the latents.
        z_prob: state probabilities.
        names: name of each latent.
        x_true, z_true: the truth of a simulation, in the units and labels of the posterior.
        axes: one for each latent and one for the states; made where not given.
    """
    latents = x.shape[-1]
    if axes is None:
        ratios = [2.0] * latents + [1.0]
        height = min(1.6 * latents, 0.9 * latents + 4) + 1.4
        axes = make_axes(latents + 1, 1, height, width=WIDTH, sharex=True, ratios=ratios)[:, 0]
    for index in range(latents):
        ax = axes[index]
        shade_states(ax, seconds, z_prob)
        ax.plot(seconds, x[:, index], color="black", linewidth=1.2, label="inferred")
        if x_true is not None:
            ax.plot(seconds, x_true[:, index], color=MARK, linestyle=(0, (4, 2)), linewidth=1.2, label="true")
        ax.set_ylabel(names[index])
        ax.margins(x=0)
        legible(ax)
    ax = axes[-1]
    for k in range(z_prob.shape[1]):
        style = {"color": state_colour(k), "linestyle": line_style(k)}
        ax.plot(seconds, z_prob[:, k], linewidth=1.4, label=f"state {k}", **style)
    if z_true is not None:
        switches = seconds[1:][np.diff(z_true) != 0] - bin_width(seconds) / 2
        for number, switch in enumerate(switches):
            ax.axvline(switch, color="black", linestyle=":", linewidth=1.2, label=None if number else "true switch")
    ax.set(xlabel="time (s)", ylabel="p(state)", ylim=(-0.05, 1.05))
    ax.margins(x=0)
    legible(ax)
    (lines, names), (more, states) = (some.get_legend_handles_labels() for some in (axes[0], ax))
    legend_above(ax, [*lines, *more], [*names, *states])
    return axes


def plot_states(
    seconds: Float[np.ndarray, " bin"],
    z_prob: Float[np.ndarray, "trial bin state"],
    lengths: Int[np.ndarray, " trial"],
    *,
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Raster of the likeliest state of every bin of every trial, and below it the mean posterior over trials.

    A paler bin is a less certain one; what is white is after the end of a trial. The mean is over the trials that have
    a bin, and stops where under a fifth of them have it.

    Args:
        seconds: time of each bin.
        z_prob: state probabilities; any value in padded bins.
        lengths: valid bins of each trial.
        axes: two, one over the other; made where not given.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    trials, bins, states = z_prob.shape
    if axes is None:
        height = float(np.clip(0.06 * trials, 1.4, 4.0)) + 2.0
        axes = make_axes(2, 1, height, sharex=True, ratios=[height - 2.0, 1.2])[:, 0]
    valid = np.arange(bins) < lengths[:, None]
    prob = np.where(valid[..., None], z_prob, 0.0)
    colours = np.array([to_rgb(state_colour(k)) for k in range(states)])
    # From 1/K, where nothing is known, to 1.
    certainty = np.clip((prob.max(-1) - 1 / states) / (1 - 1 / states), 0.15, 1.0) if states > 1 else prob.max(-1)
    image = 1 - certainty[..., None] * (1 - colours[prob.argmax(-1)])
    image = np.where(valid[..., None], image, 1.0)
    half = bin_width(seconds) / 2
    extent = (seconds[0] - half, seconds[-1] + half, trials - 0.5, -0.5)
    ax = axes[0]
    ax.imshow(image, aspect="auto", interpolation="nearest", extent=extent)
    ax.set_ylabel("trial")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    handles = [Patch(color=state_colour(k)) for k in range(states)]
    legend_above(ax, handles, [f"state {k}" for k in range(states)])
    legible(ax)
    ax = axes[1]
    mean = average_over_trials(np.where(valid[..., None], z_prob, np.nan)).mean
    for k in range(states):
        ax.plot(seconds, mean[:, k], color=state_colour(k), linestyle=line_style(k), linewidth=1.6)
    ax.set(xlabel="time (s)", ylabel="mean p(state)\nover trials", ylim=(-0.05, 1.05))
    ax.set_xlim(*extent[:2])
    legible(ax)
    return axes
