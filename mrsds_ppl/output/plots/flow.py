"""The flow of a region in one state: a curve for one latent, a field of arrows for two."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from mrsds_ppl.output.plots.style import INK, MARK, SMALL, legible, make_axes

if TYPE_CHECKING:
    import matplotlib.axes


def plot_vector_field(
    points: Float[np.ndarray, "point latent"],
    change: Float[np.ndarray, "point latent"],
    names: Sequence[str],
    *,
    trajectories: Sequence[Float[np.ndarray, "_ latent"]] = (),
    fixed_points: Float[np.ndarray, "found latent"] | None = None,
    stable: Bool[np.ndarray, " found"] | None = None,
    colour: str = INK,
    ax: "matplotlib.axes.Axes | None" = None,
) -> "matplotlib.axes.Axes":
    """Change of the latents in one bin at points of a grid, with visited ground and fixed points.

    Two latents: arrows of one length, whose colour says how fast, since lengths would hide where the flow is slow.
    One latent: the change over its value; the latent rests where the curve crosses zero, stably where it falls.

    Args:
        points: a regular grid; one or two latents.
        change: f(x) - x at each point, in latent units a bin.
        names: name of each latent.
        trajectories: paths of the latents, one a trial; NaN where padded.
        fixed_points: where the change is zero.
        stable: which of them attract; unknown where not given.
        colour: of the curve or the paths.
        ax: made where not given.

    Raises:
        ValueError: there are more than two latents.
    """
    latents = points.shape[1]
    if latents not in (1, 2):
        raise ValueError(f"points: found {latents} latents; a field can be drawn of one or two, such as a plane.")
    if ax is None:
        ax = make_axes(1, 1, 3.8 if latents == 2 else 3.0, width=4.4)[0, 0]
    found = np.zeros((0, latents)) if fixed_points is None else fixed_points
    if latents == 1:
        _curve(ax, points[:, 0], change[:, 0], names[0], trajectories, colour)
        places = np.column_stack([found[:, 0], np.zeros(len(found))])
    else:
        _arrows(ax, points, change, names, trajectories, colour)
        places = found
    _mark(ax, places, stable)
    legible(ax)
    return ax


def _curve(
    ax: "matplotlib.axes.Axes", x: np.ndarray, change: np.ndarray, name: str, trajectories: Sequence[np.ndarray], c: str
) -> None:
    ax.axhline(0.0, color="0.6", linewidth=0.8)
    order = np.argsort(x)
    ax.plot(x[order], change[order], color=c, linewidth=1.8)
    if trajectories:
        visited = np.concatenate([path[:, 0] for path in trajectories])
        visited = visited[np.isfinite(visited)]
        if len(visited):
            low, high = np.quantile(visited, [0.01, 0.99])
            ax.axvspan(low, high, color="0.92", linewidth=0, zorder=0, label="98% of bins")
    ax.set(xlabel=name, ylabel="change in a bin (a.u.)")
    ax.margins(x=0)


def _arrows(
    ax: "matplotlib.axes.Axes",
    points: np.ndarray,
    change: np.ndarray,
    names: Sequence[str],
    trajectories: Sequence[np.ndarray],
    c: str,
) -> None:
    speed = np.linalg.norm(change, axis=1)
    unit = change / np.maximum(speed, 1e-12)[:, None]
    columns = len(np.unique(points[:, 0].round(9)))
    for number, path in enumerate(trajectories):
        # Dots for visits of one bin, which make no line.
        ax.plot(
            path[:, 0],
            path[:, 1],
            ".-",
            ms=2,
            color=c,
            alpha=0.6,
            linewidth=0.9,
            label=None if number else "inferred paths",
        )
    arrows = ax.quiver(
        points[:, 0],
        points[:, 1],
        unit[:, 0],
        unit[:, 1],
        speed,
        cmap="cividis_r",
        angles="xy",
        pivot="middle",
        scale=1.15 * columns,
        scale_units="width",
        width=0.005,
        zorder=3,
    )
    bar = ax.figure.colorbar(arrows, ax=ax, pad=0.02)
    bar.set_label("speed (a.u. per bin)", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    low, high = points.min(0), points.max(0)
    edge = (high - low) / max(columns - 1, 1)
    ax.set(xlim=(low[0] - edge[0], high[0] + edge[0]), ylim=(low[1] - edge[1], high[1] + edge[1]))
    ax.set(xlabel=names[0], ylabel=names[1])


def _mark(ax: "matplotlib.axes.Axes", places: np.ndarray, stable: np.ndarray | None) -> None:
    kinds: list[tuple[str, np.ndarray, str]] = []
    if stable is None:
        kinds.append(("fixed point", np.ones(len(places), bool), MARK))
    else:
        kinds.append(("stable fixed point", stable, MARK))
        kinds.append(("unstable fixed point", ~stable, "white"))
    for label, chosen, face in kinds:
        if chosen.any():
            ax.plot(*places[chosen].T, "o", mfc=face, mec=MARK, mew=1.6, ms=8, label=label, ls="none", zorder=5)
    if ax.get_legend_handles_labels()[0]:
        # One under the other: side by side they are wider than axes of half a page.
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, borderaxespad=0.1, fontsize=SMALL)
