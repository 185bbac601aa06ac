"""What regions send each other: norms over time, and who speaks to whom in each state."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mrsds_ppl.output.plots.style import COLOURS, SMALL, TEXT, legible, line_style, make_axes, shade_states

if TYPE_CHECKING:
    import matplotlib.axes


def plot_message_norms(
    seconds: Float[np.ndarray, " bin"],
    mean: Float[np.ndarray, "bin target source"],
    targets: Sequence[str],
    sources: Sequence[str],
    *,
    z_prob: Float[np.ndarray, "bin state"] | None = None,
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Mean norms of the messages that each region receives.

    Args:
        seconds: time of each bin.
        mean: of the norm, in latent units a bin.
        targets: name of each region.
        sources: names of the regions in the same order, then of the inputs.
        z_prob: state probabilities, for the background.
        axes: one for each target; made where not given.
    """
    if axes is None:
        axes = make_axes(len(targets), 1, 1.6 * len(targets) + 0.9, sharex=True)[:, 0]
    for target, ax in enumerate(axes):
        if z_prob is not None:
            shade_states(ax, seconds, z_prob)
        for source, name in enumerate(sources):
            label = f"{name} (its own)" if source == target else name
            style = {"color": COLOURS[source % len(COLOURS)], "linestyle": line_style(source)}
            ax.plot(seconds, mean[:, target, source], linewidth=1.4, label=label, **style)
        ax.set_title(f"received by {targets[target]}", loc="left", fontsize=TEXT)
        ax.set_ylabel("message norm\n(a.u. per bin)")
        ax.set_ylim(bottom=0)
        ax.margins(x=0)
        legible(ax)
        ax.legend(title="from", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=SMALL)
        ax.get_legend().get_title().set_fontsize(SMALL)
    axes[-1].set_xlabel("time (s)")
    legible(axes[-1])
    return axes


def plot_communication(
    matrices: Float[np.ndarray, "state target source"],
    targets: Sequence[str],
    sources: Sequence[str],
    *,
    titles: Sequence[str] | None = None,
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Who speaks to whom: for each state a graph, with arrows as wide as messages are large, beside its matrix.

    The matrix also holds each region's own message; the graph and the shared colour scale leave it out, since what a
    region does by itself is of another kind and often larger. Sources that are inputs are squares.

    Args:
        matrices: size of the message from source to target, such as its mean norm, in latent units a bin.
        targets: name of each region.
        sources: names of the regions in the same order, then of the inputs.
        titles: of each state.
        axes: (state, 2); made where not given.
    """
    states = len(matrices)
    if axes is None:
        axes = make_axes(states, 2, 2.9 * states + 0.2)
    titles = [f"state {k}" for k in range(states)] if titles is None else titles
    own = np.eye(len(targets), len(sources), dtype=bool)
    others = matrices[:, ~own]
    top = float(others.max()) if others.size and others.max() > 0 else 1.0
    for (left, right), matrix, title in zip(axes, matrices, titles, strict=True):
        _graph(left, np.where(own, 0.0, matrix) / top, targets, sources)
        left.set_title(title, fontsize=TEXT, pad=14)  # the name of the top node stands below
        _matrix(right, matrix, own, top, targets, sources)
    return axes


def _graph(ax: "matplotlib.axes.Axes", widths: np.ndarray, targets: Sequence[str], sources: Sequence[str]) -> None:
    """Nodes on a circle from the top, clockwise; ``widths`` between 0 and 1."""
    from matplotlib.patches import FancyArrowPatch

    angles = np.pi / 2 - 2 * np.pi * np.arange(len(sources)) / len(sources)
    # Two nodes over each other would waste the width of the page.
    angles = angles + (np.pi / 2 if len(sources) == 2 else 0.0)
    places = np.column_stack([np.cos(angles), np.sin(angles)])
    size = 34.0 if len(sources) <= 4 else 20.0  # diameter of a node in points
    for target, source in np.argwhere(widths > 0.02):
        width = widths[target, source]
        arrow = FancyArrowPatch(
            places[source],
            places[target],
            connectionstyle="arc3,rad=0.18",
            arrowstyle=f"-|>,head_length={4 + 4 * width},head_width={2.5 + 2.5 * width}",
            linewidth=0.6 + 5.4 * width,
            color=COLOURS[0],
            alpha=0.35 + 0.65 * width,
            shrinkA=size / 2 + 2,
            shrinkB=size / 2 + 2,
            mutation_scale=1.0,
        )
        ax.add_patch(arrow)
    beyond = size / 2 + 5
    # Where one name does not fit its node, all stand outside.
    inside = max(len(name) for name in sources) <= (5 if size > 30 else 2)
    for index, (place, name) in enumerate(zip(places, sources, strict=True)):
        marker = "o" if index < len(targets) else "s"
        ax.plot(*place, marker, ms=size, mfc="white", mec="black", mew=1.2, zorder=3)
        away = np.array([0.0, -1.0]) if len(sources) == 2 else place
        ax.annotate(
            name,
            place,
            (0, 0) if inside else (away[0] * beyond, away[1] * beyond),
            textcoords="offset points",
            ha="center" if inside or abs(away[0]) < 0.3 else ("left" if away[0] > 0 else "right"),
            va="center" if inside or abs(away[1]) < 0.3 else ("bottom" if away[1] > 0 else "top"),
            fontsize=SMALL,
            zorder=4,
            annotation_clip=False,
        )
    wide = 1.45 if inside else 2.1
    ax.set(xlim=(-wide, wide), ylim=(-1.45, 1.45), aspect="equal")
    ax.axis("off")


def _matrix(
    ax: "matplotlib.axes.Axes",
    matrix: np.ndarray,
    own: np.ndarray,
    top: float,
    targets: Sequence[str],
    sources: Sequence[str],
) -> None:
    shown = np.where(own, np.nan, matrix)
    image = ax.imshow(np.ma.masked_invalid(shown), cmap="cividis", vmin=0.0, vmax=top, aspect="equal")
    ax.set_facecolor("0.85")
    if matrix.size <= 64:
        for (target, source), value in np.ndenumerate(matrix):
            dark = not own[target, source] and value < 0.55 * top
            ax.text(
                source,
                target,
                f"{value:.2f}" if top >= 0.1 else f"{value:.1g}",
                ha="center",
                va="center",
                fontsize=SMALL,
                color="w" if dark else "k",
            )
    turned = 45 if sum(len(name) for name in sources) > 24 else 0
    ax.set_xticks(range(len(sources)), sources, rotation=turned, ha="right" if turned else "center")
    ax.set_yticks(range(len(targets)), targets)
    ax.set(xlabel="from", ylabel="to")
    legible(ax)
    ax.tick_params(length=0)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.03, shrink=0.85)
    bar.set_label("mean message norm\n(a.u. per bin)", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
