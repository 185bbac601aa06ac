"""What regions send each other: norms over time, and who speaks to whom in each state."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mrsds_ppl.output.plots.style import (
    INK,
    LINE_HEIGHT,
    REGION_COLOURS,
    SMALL,
    TEXT,
    WIDTH,
    bin_width,
    legend_above,
    legible,
    line_style,
    make_axes,
    region_colour,
    shade_states,
    state_colour,
)

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.image

# More curves than these cannot be told apart, and more nodes than these make no graph that one can read.
_MOST_CURVES, _MOST_NODES = 8, 6


def plot_message_norms(
    seconds: Float[np.ndarray, " bin"],
    mean: Float[np.ndarray, "bin target source"],
    targets: Sequence[str],
    sources: Sequence[str],
    *,
    z_prob: Float[np.ndarray, "bin state"] | None = None,
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Mean norms of the messages that each region receives: curves of up to eight sources, images of more.

    An image has a row for each source and a colour scale of its own, whose upper end is in its title: the latents of
    different regions have no common unit. It leaves out the region's own message.

    Args:
        seconds: time of each bin.
        mean: of the norm, in latent units a bin.
        targets: name of each region that receives.
        sources: names of all regions, then of the inputs.
        z_prob: state probabilities, for the background of curves, or the first row of images.
        axes: one for each target; made where not given.
    """
    if len(sources) > _MOST_CURVES:
        return _norm_images(seconds, mean, targets, sources, z_prob, axes)
    if axes is None:
        axes = make_axes(len(targets), 1, 1.6 * len(targets) + 0.9, sharex=True)[:, 0]
    for target, ax in enumerate(axes):
        if z_prob is not None:
            shade_states(ax, seconds, z_prob)
        for source, name in enumerate(sources):
            style = {"color": region_colour(source), "linestyle": line_style(source, REGION_COLOURS)}
            ax.plot(seconds, mean[:, target, source], linewidth=1.4, label=f"from {name}", **style)
        ax.set_title(f"received by {targets[target]}", loc="left", fontsize=TEXT)
        ax.set_ylabel("message norm\n(a.u. per bin)")
        ax.set_ylim(bottom=0)
        ax.margins(x=0)
        legible(ax)
    axes[-1].set_xlabel("time (s)")
    legible(axes[-1])
    legend_above(axes[0], *axes[0].get_legend_handles_labels())
    return axes


def _norm_images(
    seconds: np.ndarray,
    mean: np.ndarray,
    targets: Sequence[str],
    sources: Sequence[str],
    z_prob: np.ndarray | None,
    axes: np.ndarray | None,
) -> np.ndarray:
    from matplotlib.colors import to_rgb

    if axes is None:
        columns = min(len(targets), 3)
        rows = -(-len(targets) // columns)
        height = rows * (LINE_HEIGHT * (len(sources) + 1) + 0.45) + 0.5
        grid = make_axes(rows, columns, height, sharex=True, sharey=True).ravel()
        for unused in grid[len(targets) :]:
            unused.set_visible(False)
        axes = grid[: len(targets)]
        beneath = axes[-columns:]
        for ax in beneath:
            ax.tick_params(labelbottom=True)
        first = axes[::columns]
    else:
        beneath = first = axes
    half, image = bin_width(seconds) / 2, None
    across = (seconds[0] - half, seconds[-1] + half)
    for name, ax, norms in zip(targets, axes, np.moveaxis(mean, 1, 0), strict=True):
        shown = np.where([source == name for source in sources], np.nan, norms).T
        top = float(np.nanmax(shown)) if np.isfinite(shown).any() and np.nanmax(shown) > 0 else 1.0
        image = ax.imshow(
            shown / top,
            aspect="auto",
            interpolation="nearest",
            cmap="cividis",
            vmin=0.0,
            vmax=1.0,
            extent=(*across, len(sources) - 0.5, -0.5),
        )
        ax.set_facecolor("0.85")
        if z_prob is not None:
            colours = np.array([[to_rgb(state_colour(k)) for k in z_prob.argmax(-1).tolist()]])
            ax.imshow(colours, aspect="auto", interpolation="nearest", extent=(*across, -0.6, -1.5))
        rows_shown = [*([] if z_prob is None else [-1]), *range(len(sources))]
        ax.set_yticks(rows_shown, [*([] if z_prob is None else ["state"]), *sources])
        ax.set_ylim(len(sources) - 0.5, rows_shown[0] - 0.5)
        ax.set_title(f"to {name} (up to {top:.2g})", loc="left", fontsize=TEXT)
        legible(ax)
        ax.tick_params(axis="y", length=0)
    for ax in beneath:
        ax.set_xlabel("time (s)", fontsize=TEXT)
    for ax in first:
        ax.set_ylabel("from", fontsize=TEXT)
    assert image is not None
    _norm_bar(image, axes, "message norm, as a share of the panel's largest (a.u. per bin)")
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
    region does by itself is of another kind and often larger. Sources that are inputs are squares. Of more than six
    sources there is no graph, whose arrows could not be told apart.

    Args:
        matrices: size of the message from source to target, such as its mean norm, in latent units a bin; NaN where
            there is none, which is drawn white.
        targets: name of each region.
        sources: names of the regions in the same order, then of the inputs.
        titles: of each state.
        axes: (state, 2), or (state, 1) for matrices alone; made where not given.
    """
    states, graphs = len(matrices), len(sources) <= _MOST_NODES
    if axes is None:
        axes = make_axes(states, 2, 2.9 * states + 0.2) if graphs else _matrix_axes(states, len(targets), len(sources))
    titles = [f"state {k}" for k in range(states)] if titles is None else titles
    own = np.eye(len(targets), len(sources), dtype=bool)
    others = np.nan_to_num(matrices[:, ~own])
    top = float(others.max()) if others.size and others.max() > 0 else 1.0
    image = None
    for row, matrix, title in zip(axes, matrices, titles, strict=True):
        image = _matrix(row[-1], matrix, own, top, targets, sources)
        row[0].set_title(title, fontsize=TEXT, pad=14 if len(row) > 1 else 6)  # the name of the top node stands below
        if len(row) > 1:
            _graph(row[0], np.where(own, 0.0, np.nan_to_num(matrix)) / top, targets, sources)
    assert image is not None
    _norm_bar(image, axes[:, -1], "mean message norm (a.u. per bin)")
    return axes


def _matrix_axes(states: int, targets: int, sources: int) -> np.ndarray:
    """(state, 1): two beside each other where a name fits its row."""
    columns = 2 if states > 1 and sources <= 18 else 1
    rows = -(-states // columns)
    cell = min((WIDTH / columns - 1.1) / sources, 0.35)
    grid = make_axes(rows, columns, rows * (cell * targets + 1.5)).ravel()
    for unused in grid[states:]:
        unused.set_visible(False)
    return grid[:states, None]


def _norm_bar(image: "matplotlib.image.AxesImage", axes: np.ndarray, label: str) -> None:
    bar = axes[0].figure.colorbar(image, ax=list(axes), pad=0.02, aspect=30, shrink=0.9)
    bar.set_label(label, fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)


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
            color=INK,
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
) -> "matplotlib.image.AxesImage":
    from matplotlib.colors import ListedColormap

    image = ax.imshow(np.where(own, np.nan, matrix), cmap="cividis", vmin=0.0, vmax=top, aspect="equal")
    ax.imshow(np.where(own, 0.0, np.nan), cmap=ListedColormap(["0.85"]), aspect="equal")
    if len(sources) <= _MOST_NODES:
        for (target, source), value in np.ndenumerate(matrix):
            if not np.isfinite(value):
                continue
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
    turned = 0 if sum(len(name) for name in sources) <= 20 else 45 if len(sources) <= _MOST_NODES else 90
    ax.set_xticks(range(len(sources)), sources, rotation=turned, ha="right" if turned == 45 else "center")
    ax.set_yticks(range(len(targets)), targets)
    ax.set(xlabel="from", ylabel="to")
    legible(ax)
    ax.tick_params(length=0)
    return image
