"""Colours and sizes that all figures share. Widths are those of a printed page, so that text stays legible there."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    import matplotlib.axes
    from matplotlib.artist import Artist

# Of discrete states: Okabe and Ito's colours, which colour-blind readers can tell apart.
STATE_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
# Of regions and inputs, as senders of messages: darker, so that none is taken for a state.
REGION_COLOURS = ("#4527A0", "#7A4A1E", "#880E4F", "#827717", "#9C8CFF", "#1B4D1B")
INK = "#37474F"  # of what belongs to no state and no region
MARK = "#B71C1C"  # the same, where it has to stand out: the truth of a simulation, medians, fixed points
LINES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("solid", (0, (4, 2)), (0, (1, 1.5)))

WIDTH = 7.0  # inches
SMALL = 8.5  # points: the smallest text of a figure
TEXT = 9.5
LINE_HEIGHT = 0.155  # inches from one line of the smallest text to the next


def state_colour(k: int) -> str:
    """Colour of discrete state ``k``, the same in every figure."""
    return STATE_COLOURS[k % len(STATE_COLOURS)]


def region_colour(r: int) -> str:
    """Colour of region or input ``r``, the same in every figure; never that of a state."""
    return REGION_COLOURS[r % len(REGION_COLOURS)]


def line_style(index: int, colours: Sequence[str] = STATE_COLOURS) -> str | tuple[int, tuple[float, ...]]:
    """Line style of curve ``index``: another one each time the colours begin anew."""
    return LINES[index // len(colours) % len(LINES)]


def make_axes(
    rows: int,
    columns: int,
    height: float,
    *,
    width: float = WIDTH,
    sharex: bool = False,
    sharey: bool = False,
    ratios: Sequence[float] = (),
) -> np.ndarray:
    """Axes (row, column) of a new figure of ``width`` x ``height`` inches, its rows as high as ``ratios`` say."""
    import matplotlib.pyplot as plt

    return plt.subplots(
        rows,
        columns,
        sharex=sharex,
        sharey=sharey,
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


def region_ticks(ax: "matplotlib.axes.Axes", region_sizes: Sequence[int], names: Sequence[str]) -> None:
    """Names of regions beside the middles of their neurons, which are rows of an image, and lines between regions.

    Names that would overprint stand apart, and a line leads from each to its region.
    """
    ends = np.cumsum(region_sizes)
    middles = ends - np.asarray(region_sizes) / 2 - 0.5
    for end in ends[:-1]:
        ax.axhline(end - 0.5, color="white", linewidth=1.0)
    inches = ax.get_window_extent().height / ax.figure.dpi
    gap = min(LINE_HEIGHT / inches, 1 / len(ends)) * ends[-1]
    places = apart(middles, gap, gap / 2 - 0.5, ends[-1] - gap / 2 - 0.5)
    for place, middle in zip(places, middles, strict=True):
        ax.plot(
            [-0.025, -0.005],
            [place, middle],
            color="0.5",
            linewidth=0.8,
            transform=ax.get_yaxis_transform(),
            clip_on=False,
        )
    ax.set_ylim(ends[-1] - 0.5, -0.5)
    ax.set_yticks(places, names)
    ax.tick_params(axis="y", length=0, pad=0.025 * ax.get_window_extent().width * 72 / ax.figure.dpi + 2)


def apart(places: Float[np.ndarray, " name"], gap: float, low: float, high: float) -> Float[np.ndarray, " name"]:
    """Places from ``low`` to ``high`` and ``gap`` or more from each other, nearest to those given, which rise."""
    from scipy.optimize import isotonic_regression

    steps = gap * np.arange(len(places))
    return np.clip(isotonic_regression(places - steps).x, low, max(high - steps[-1], low)) + steps


def legend_above(ax: "matplotlib.axes.Axes", handles: Sequence["Artist"], names: Sequence[str]) -> None:
    """One legend for all axes of a figure, above them at the left, in as many columns as there is room for.

    At the left, since of a figure that is wider than a phone that is seen first.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    columns = int(figure.get_figwidth() / (0.6 + 0.062 * max(map(len, names))))
    figure.legend(
        handles, names, loc="outside upper left", ncols=max(1, min(columns, len(names))), frameon=False, fontsize=SMALL
    )
