"""Colours and sizes that all figures share. Widths are those of a printed page, so that text stays legible there."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    import matplotlib.axes

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
TRUTH = "#D55E00"
LINES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("solid", (0, (4, 2)), (0, (1, 1.5)))

WIDTH = 7.0  # inches
SMALL = 8.5  # points: the smallest text of a figure
TEXT = 9.5


def state_colour(k: int) -> str:
    """Colour of discrete state ``k``, the same in every figure."""
    return COLOURS[k % len(COLOURS)]


def line_style(index: int) -> str | tuple[int, tuple[float, ...]]:
    """Line style of curve ``index``: another one each time the colours begin anew."""
    return LINES[index // len(COLOURS) % len(LINES)]


def make_axes(
    rows: int, columns: int, height: float, *, width: float = WIDTH, sharex: bool = False, ratios: Sequence[float] = ()
) -> np.ndarray:
    """Axes (row, column) of a new figure of ``width`` x ``height`` inches, its rows as high as ``ratios`` say."""
    import matplotlib.pyplot as plt

    return plt.subplots(
        rows,
        columns,
        sharex=sharex,
        squeeze=False,
        height_ratios=ratios or None,
        figsize=(width, height),
        layout="constrained",
    )[1]


def legible(ax: "matplotlib.axes.Axes") -> None:
    """Text in the sizes of print, and only the spines that carry ticks."""
    ax.tick_params(labelsize=SMALL)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set_fontsize(TEXT)
    ax.spines[["top", "right"]].set_visible(False)


def shade_states(
    ax: "matplotlib.axes.Axes", seconds: Float[np.ndarray, " bin"], z_prob: Float[np.ndarray, "bin state"]
) -> None:
    """Background in the colour of each bin's likeliest state."""
    state = z_prob.argmax(-1)
    edges = np.flatnonzero(np.diff(state, prepend=-1, append=-1))
    half = bin_width(seconds) / 2
    for first, last in pairwise(edges):
        start, end = seconds[first] - half, seconds[last - 1] + half
        ax.axvspan(start, end, color=state_colour(int(state[first])), alpha=0.12, linewidth=0)


def bin_width(seconds: Float[np.ndarray, " bin"]) -> float:
    """Seconds from bin to bin; 1 where there is one bin only."""
    return float(seconds[1] - seconds[0]) if len(seconds) > 1 else 1.0


def region_ticks(
    ax: "matplotlib.axes.Axes", region_sizes: list[int], names: list[str], *, axis: str = "y", line: str = "white"
) -> None:
    """Names of regions at the middles of their neurons, and lines between regions."""
    ends = np.cumsum(region_sizes)
    middles = ends - np.asarray(region_sizes) / 2 - 0.5
    draw = ax.axhline if axis == "y" else ax.axvline
    for end in ends[:-1]:
        draw(end - 0.5, color=line, linewidth=1.2)
    if axis == "y":
        ax.set_yticks(middles, names)
    else:
        ax.set_xticks(middles, names)
