"""How the fit went and how well it predicts: curves of training, scores by neuron."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from mrsds_ppl.output.plots.style import INK, MARK, SMALL, TEXT, legible, make_axes

if TYPE_CHECKING:
    import matplotlib.axes

_HALF = 0.42  # of the width of a region, where regions are 1 apart


def plot_training(
    curves: Mapping[str, Float[np.ndarray, " step"]],
    *,
    unit: str = "nats per observed value",
    skipped: Bool[np.ndarray, " step"] | None = None,
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Curves of training, each on axes of its own: every step, and its running mean.

    The vertical range is that of the curve after its first tenth, whose values are of another order.

    Args:
        curves: values of each step by name.
        unit: of all curves.
        skipped: steps that were left out, marked at the foot.
        axes: one for each curve; made where not given.
    """
    if axes is None:
        rows = -(-len(curves) // 2)
        grid = make_axes(rows, 2, 2.0 * rows + 0.4, sharex=True)
        axes = grid.ravel()
        for unused in axes[len(curves) :]:
            unused.set_visible(False)
    for ax, (name, values) in zip(axes, curves.items(), strict=False):
        steps = np.arange(1, len(values) + 1)
        ax.plot(steps, values, color="0.7", linewidth=0.8)
        window = max(len(values) // 40, 1)
        smooth = np.convolve(np.nan_to_num(values), np.ones(window) / window, "valid") if len(values) else values
        ax.plot(steps[window - 1 :], smooth, color=INK, linewidth=1.6)
        late = values[len(values) // 10 :]
        late = late[np.isfinite(late)]
        if len(late):
            low, high = np.quantile(late, [0.005, 0.995])
            edge = 0.08 * (high - low) or 0.5
            ax.set_ylim(low - edge, high + edge)
        if skipped is not None and skipped.any():
            ax.plot(steps[skipped], np.full(skipped.sum(), ax.get_ylim()[0]), "|", color=MARK, ms=12, mew=1.5)
        ax.set_title(name, loc="left", fontsize=TEXT)
        ax.set_ylabel(unit.replace(" per ", "\nper ", 1))
        ax.set_xlabel("training step")
        ax.margins(x=0.01)
        legible(ax)
    return axes


def plot_neuron_scores(
    scores: Float[np.ndarray, " neuron"],
    region: Int[np.ndarray, " neuron"],
    region_names: Sequence[str],
    *,
    baseline: Float[np.ndarray, " neuron"] | None = None,
    baseline_name: str = "baseline",
    unit: str = "R²",
    ax: "matplotlib.axes.Axes | None" = None,
) -> "matplotlib.axes.Axes":
    """One dot a neuron, grouped by region and ranked within it, with a bar at each region's median.

    Args:
        scores: of each neuron; NaN where there is none.
        region: index of each neuron's region.
        region_names: name of each region.
        baseline: scores of a simpler prediction of the same neurons.
        baseline_name: what made it.
        unit: what the score is, with its unit.
        ax: made where not given.
    """
    if ax is None:
        ax = make_axes(1, 1, 3.0)[0, 0]
    names = []
    for index, name in enumerate(region_names):
        chosen = np.flatnonzero(np.isfinite(scores) & (region == index))
        chosen = chosen[np.argsort(-scores[chosen])]
        # Every region is as wide as the others, so that its name has room.
        at = index - _HALF + 2 * _HALF * (np.arange(len(chosen)) + 0.5) / max(len(chosen), 1)
        if baseline is not None:
            ax.plot(at, baseline[chosen], "x", color="0.55", ms=4, mew=1.0, label=None if index else baseline_name)
        ax.plot(at, scores[chosen], "o", color=INK, ms=4, label=None if index else "this model")
        if len(chosen):
            ax.hlines(np.median(scores[chosen]), index - _HALF, index + _HALF, color=MARK, linewidth=1.6)
        names.append(f"{name} ({len(chosen)})")
    ax.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    ax.plot([], [], color=MARK, linewidth=1.6, label="median of the region")
    ax.set_xticks(range(len(names)), names, rotation=90 if sum(map(len, names)) > 70 else 0)
    ax.tick_params(axis="x", length=0)
    ax.set(ylabel=unit, xlabel="hidden neurons of each region (number), ranked")
    legible(ax)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderaxespad=0.1, fontsize=SMALL)
    return ax
