"""Messages and flow of a fitted run, for its report."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jax import random

from mrsds_ppl.analysis.communication import (
    communication_matrix,
    input_labels,
    message_norms,
    path_messages,
    region_labels,
    state_communication,
)
from mrsds_ppl.analysis.flow import FixedPoint, Held, Plane, VectorField, fixed_points, vector_field, visited_grid
from mrsds_ppl.analysis.posterior_paths import PosteriorPaths
from mrsds_ppl.errors import DataError
from mrsds_ppl.output.plots import plot_vector_field, state_colour
from mrsds_ppl.output.plots.style import TEXT, make_axes
from mrsds_ppl.output.report.conditions import Conditions
from mrsds_ppl.output.report.edges import Edges
from mrsds_ppl.output.report.findings import Field
from mrsds_ppl.output.report.page import Figure, Section

if TYPE_CHECKING:
    import mrsds_ppl.fitted

_DRAWS = 20
_GRID = {1: 161, 2: 17}
_STARTS = 36
_PATHS = 12
_CONDITIONS = 6
_MOST_FIELDS = 6
_FIXED = (
    "Nothing moves at a fixed point: latents near a stable one (filled) end there, near an unstable one (open) they "
    "leave."
)


def norms_of_trial(fit: "mrsds_ppl.fitted.Fit", trial: int, draws: np.ndarray, z_prob: np.ndarray) -> xr.DataArray:
    """Mean norms of the messages of one test trial, averaged over the state posterior.

    Args:
        trial: place among the test trials.
        draws: (draw, bin, latent), padded.
        z_prob: (bin, state), padded.

    Returns:
        (time, target, source) of the trial's own bins; NaN in the first, which no message goes to.
    """
    test = fit.split.test
    paths = PosteriorPaths(draws[:, None], np.broadcast_to(z_prob, (len(draws), 1, *z_prob.shape)))
    norms = message_norms(path_messages(fit.program, test.select([trial]), paths)).mean("draw")
    own = norms.isel(trial=0, time=slice(0, int(test.lengths[trial]))).transpose("time", "target", "source")
    return own.where(np.arange(own.sizes["time"])[:, None, None] > 0)


def communication_of(fit: "mrsds_ppl.fitted.Fit") -> np.ndarray:
    """(state, target, source + input): mean norm of the messages of each state in test trials; 0 where it never is."""
    found = state_communication(random.key(0), fit.program, fit.split.test, draws=_DRAWS)
    return np.nan_to_num(found.mean("draw").values)


def conditions_of(fit: "mrsds_ppl.fitted.Fit", labels: np.ndarray, *, quick: bool = False) -> Conditions | None:
    """Where there are two labels, their contrast; where there are more, means, of the six labels with most trials.

    Args:
        labels: one for each trial, empty where it has none.
        quick: means of two conditions as well, and of the weights as fitted.
    """
    names, counts = np.unique(labels[labels != ""], return_counts=True)
    if not len(names):
        return None
    kept = np.sort(names[np.argsort(-counts, kind="stable")[:_CONDITIONS]])
    number = np.array([(labels == name).sum() for name in kept])
    reason = "a quick report has none; fit.contrast does." if quick and len(names) == 2 else ""
    if len(names) == 2 and not quick:
        try:
            return Conditions(kept.tolist(), number, contrast=fit.contrast(labels, draws=_DRAWS))
        except DataError as error:
            reason = str(error).removeprefix("labels: ")
    shown = np.where(np.isin(labels, kept), labels, "")
    mean = communication_matrix(fit.messages("all", draws=_DRAWS, weights=not quick), labels=shown).mean("draw").values
    return Conditions(kept.tolist(), number, mean, reason=reason)


def edges_of(fit: "mrsds_ppl.fitted.Fit", *, quick: bool = False) -> Edges | None:
    """Which messages are there, or why that is not known; None where there are no messages between regions.

    Args:
        quick: do not ask.
    """
    if len(region_labels(fit.model, fit.trials) + input_labels(fit.model, fit.trials)) == 1:
        return None
    if quick:
        return Edges(reason="a quick report does not ask. mrsds edges does, or fit.edges().")
    try:
        return Edges(fit.edges())
    except DataError as error:
        return Edges(reason=str(error).removeprefix("edges: "))


def flow_fields(fit: "mrsds_ppl.fitted.Fit", x: np.ndarray, z_prob: np.ndarray, regions: list[str]) -> list[Field]:
    """Flow of each region, or of the whole plane where all regions together have two latents.

    Of more than six regions, those with most neurons.
    A region of more than two latents is drawn in the plane of its two principal components.

    Args:
        x: (trial, bin, latent), NaN in padding.
        z_prob: (trial, bin, state).
        regions: name of each region that has latents.
    """
    filled = x.reshape(-1, x.shape[-1])
    filled = filled[np.isfinite(filled).all(1)].astype(np.float64)
    sizes = fit.model.latent_sizes
    state = z_prob.argmax(-1)[..., None]
    paths = [np.where(state == k, x, np.nan)[:_PATHS] for k in range(fit.model.num_states)]
    if sum(sizes) == 2 and len(sizes) == 2:
        names = [f"{name} latent (a.u.)" for name in regions]
        return [_field(fit, None, paths, filled, " and ".join(regions), names, {})]
    ends = np.cumsum(sizes)[:-1]
    blocks = np.split(filled, ends, axis=1)
    paths_of = zip(*(np.split(some, ends, axis=-1) for some in paths), strict=True)
    fields = []
    largest = np.argsort(-np.asarray(fit.trials.region_sizes), kind="stable")[:_MOST_FIELDS]
    for region, (name, size, own) in enumerate(zip(regions, sizes, paths_of, strict=True)):
        if len(regions) > 1 and region not in largest:
            continue
        held: Held = {other: block.mean(0) for other, block in enumerate(blocks) if other != region}
        kind = "latent" if size <= 2 else "component"
        names = [f"{name} {kind}{f' {i + 1}' if size > 1 else ''} (a.u.)" for i in range(min(size, 2))]
        fields.append(_field(fit, region, own, blocks[region], name, names, held))
    return fields


def _field(
    fit: "mrsds_ppl.fitted.Fit",
    region: int | None,
    paths: Sequence[np.ndarray],
    visited: np.ndarray,
    name: str,
    coordinates: list[str],
    held: Held,
) -> Field:
    """Flow of one region, or of all, over what was visited, with the others held.

    A place that stands still in a plane through more latents moves across it, and no fixed points are sought there.
    """
    plane = _plane(visited)
    # Coordinates keep the origin of the latents, so that ticks can be compared with other figures.
    axes = plane.directions.T
    grid = visited_grid(visited @ axes, _GRID[axes.shape[1]])
    states = range(fit.model.num_states)
    flows = [vector_field(fit.program, region, state=k, grid=grid, at=held, plane=plane) for k in states]
    whole = axes.shape[0] == axes.shape[1]
    found = [_fixed_points(fit, region, k, flows[k], held) if whole else [] for k in states]
    return Field(
        region=name,
        coordinates=coordinates,
        points=flows[0].coordinates,
        changes=np.stack([flow.flow for flow in flows]),
        trajectories=[[path @ axes for path in some] for some in paths],
        fixed_points=[np.array([point.x for point in some]).reshape(-1, axes.shape[1]) for some in found],
        stable=[np.array([point.stable for point in some], bool) for some in found],
    )


def _plane(visited: np.ndarray) -> Plane:
    """Along the latents; along two principal components through the mean where there are more than two latents."""
    size = visited.shape[1]
    if size <= 2:
        return Plane(np.zeros(size), np.eye(size))
    centre = visited.mean(0)
    directions = np.linalg.svd(visited - centre, full_matrices=False)[2][:2]
    return Plane(centre - (centre @ directions.T) @ directions, directions)


def _fixed_points(
    fit: "mrsds_ppl.fitted.Fit", region: int | None, state: int, flow: VectorField, held: Held
) -> list[FixedPoint]:
    """Fixed points within the grid, sought from its slowest points and from some all over it."""
    low, high = flow.points.min(0), flow.points.max(0)
    every = np.argsort(np.linalg.norm(flow.change, axis=1))
    starts = np.concatenate([every[: _STARTS // 2], every[:: max(len(every) // (_STARTS // 2), 1)]])
    found = fixed_points(
        fit.program,
        state=state,
        starts=flow.points[starts],
        region=region,
        at=held,
        apart=0.02 * float(np.linalg.norm(high - low)),
    )
    return [point for point in found if np.all((point.x >= low) & (point.x <= high))]


def flow_section(fields: Sequence[Field], states: Sequence[int], regions: Sequence[str]) -> Section | None:
    """A figure of the flow of each region, with axes for each state; None where there are no fields.

    Args:
        fields: of :func:`flow_fields`.
        states: those that are shown.
        regions: name of each region that has latents.
    """
    if not fields:
        return None
    figures = []
    for field in fields:
        columns = min(len(states), 2)
        rows = -(-len(states) // columns)
        flat = len(field.coordinates) == 1
        grid = make_axes(rows, columns, (2.9 if flat else 3.5) * rows, width=7.0 if columns > 1 else 4.4)
        axes = grid.ravel()
        for unused in axes[len(states) :]:
            unused.set_visible(False)
        for ax, k in zip(axes[: len(states)], states, strict=True):
            plot_vector_field(
                field.points,
                field.changes[k],
                field.coordinates,
                trajectories=field.trajectories[k],
                fixed_points=field.fixed_points[k],
                stable=field.stable[k],
                colour=state_colour(k),
                ax=ax,
            )
            ax.set_title(f"state {k}", loc="right", fontsize=TEXT)
            # The caption says it once for all axes.
            if (legend := ax.get_legend()) is not None:
                legend.remove()
        caption = (
            f"{field.region}: where the latents go in the next bin. "
            + (
                "Grey: where the latent was in 98% of the state's bins. "
                if flat
                else "Lines: inferred paths of test trials while in the state. "
            )
            + (_FIXED if any(len(points) for points in field.fixed_points) else "")
        )
        figures.append(Figure(axes, f"Flow of the latents of {field.region} in each state.", caption))
    text = [
        "The rules of each state, drawn: from any place, the model says where the latents move next. Other regions are "
        "held at their mean and inputs at zero, and the flow is to be believed where the latents have been."
    ]
    if len(fields) == _MOST_FIELDS < len(regions):
        text.append(
            f"Shown are the {len(fields)} of {len(regions)} regions with most neurons; fit.plot.flow(NAME) draws any."
        )
    return Section("flow", "Flow in each state", text, figures)
