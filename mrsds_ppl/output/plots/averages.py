"""Means over trials with their standard errors, over time: by condition, or around events."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mrsds_ppl.output.plots.style import LINES, TEXT, legend_above, legible, make_axes

# A mean stops where fewer than this share of the trials have the bin: those that last longest are not like all.
_FEW = 0.2


class Average(NamedTuple):
    """Mean over trials and its standard error, NaN where few trials have the bin; ``num_trials`` that have each bin.

    The error is also NaN where a single trial has the bin.
    """

    mean: Float[np.ndarray, "bin feature"]
    error: Float[np.ndarray, "bin feature"]
    num_trials: Int[np.ndarray, " bin"]


def average_over_trials(values: Float[np.ndarray, "trial bin feature"]) -> Average:
    """Mean over the trials that have a bin, and its standard error; NaN where under a fifth of the trials have it.

    Args:
        values: NaN where a trial does not have the bin.
    """
    there = np.isfinite(values).all(-1)
    count = there.sum(0)
    known = np.where(there[..., None], values, 0.0).astype(float)
    many = count[:, None]
    mean = known.sum(0) / np.maximum(many, 1)
    squares = (np.where(there[..., None], known - mean, 0.0) ** 2).sum(0)
    error = np.sqrt(squares / np.maximum(many - 1, 1) / np.maximum(many, 1))
    kept = many >= max(_FEW * there.any(1).sum(), 1)
    return Average(np.where(kept, mean, np.nan), np.where(kept & (many > 1), error, np.nan), count)


def plot_averages(
    seconds: Float[np.ndarray, " bin"],
    mean: Float[np.ndarray, "panel line bin"],
    error: Float[np.ndarray, "panel line bin"],
    titles: Sequence[str],
    lines: Sequence[str],
    *,
    colours: Sequence[str] = (),
    xlabel: str = "time (s)",
    ylabel: str = "p(state)",
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Curves with bands of one standard error, on axes of their own for each panel, and one legend for all.

    Args:
        seconds: time of each bin.
        mean: of :func:`average_over_trials`; NaN is not drawn.
        error: the same of the standard error.
        titles: of each panel.
        lines: name of each curve.
        colours: of each curve; those of conditions, which no state and no region has, by default.
        xlabel, ylabel: with units.
        axes: one for each panel; made where not given.
    """
    from matplotlib.ticker import MaxNLocator

    if axes is None:
        columns = min(len(titles), 2)
        rows = -(-len(titles) // columns)
        grid = make_axes(rows, columns, 1.7 * rows + 0.8, sharex=True).ravel()
        for unused in grid[len(titles) :]:
            unused.set_visible(False)
        axes = grid[: len(titles)]
        for ax in axes[-columns:]:
            ax.tick_params(labelbottom=True)
    beneath = axes[-2:] if len(axes) > 1 else axes
    shades = colours or condition_colours(len(lines))
    for ax, title, means, errors in zip(axes, titles, mean, error, strict=True):
        for index, (name, middle, width) in enumerate(zip(lines, means, errors, strict=True)):
            style = LINES[index % len(LINES)]
            ax.plot(seconds, middle, color=shades[index], linestyle=style, linewidth=1.6, label=name)
            ax.fill_between(seconds, middle - width, middle + width, color=shades[index], alpha=0.2, linewidth=0)
        ax.set_title(title, loc="left", fontsize=TEXT)
        ax.set_ylabel(ylabel)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.margins(x=0)
        legible(ax)
    for ax in beneath:
        ax.set_xlabel(xlabel, fontsize=TEXT)
    legend_above(axes[0], *axes[0].get_legend_handles_labels())
    return axes


def condition_colours(count: int) -> list[str]:
    """Colour of each condition: from dark to light, and of no state and no region."""
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in mpl.colormaps["cividis"](np.linspace(0.0, 0.8, count))]
