"""Which messages are there, for a report: the evidence of the test trials, and the graph of what it carries."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from mrsds_ppl.output.plots import plot_communication
from mrsds_ppl.output.report.page import Figure, Section, Table, digits_of


class Edges(NamedTuple):
    """What each message is worth (see :meth:`mrsds_ppl.fitted.Fit.edges`), or the ``reason`` why that is not known."""

    found: xr.Dataset | None = None
    reason: str = ""


def edges_section(
    edges: Edges,
    norms: Float[np.ndarray, "state target source"],
    titles: Sequence[str],
    targets: Sequence[str],
    sources: Sequence[str],
) -> Section:
    """The graph of the messages that are present in each state, and a table of them.

    Args:
        edges: what is known.
        norms: mean norm of each message in each state, for the width of its arrow.
        titles: of each state.
        targets: name of each region.
        sources: names of the regions in the same order, then of the inputs.
    """
    title = "Which messages are there"
    if edges.found is None:
        return Section("edges", title, [f"This page cannot say: {edges.reason}"], [])
    single, number = edges.found.isel(state=slice(0, -1)), edges.found.attrs["trials"]
    rate, tested = edges.found.attrs["false_discovery_rate"], int(edges.found["q_value"].isel(state=-1).notnull().sum())
    how = (
        f"A message is replaced by its mean, the other messages settle anew, and log p(y) of the {number} test trials "
        "falls if something was lost: in nats a trial, with its standard error over trials. A message is there if test "
        "trials lose without it, and if training trials pull towards it where it is left out, more than signs drawn "
        f"for each trial would: p is the larger of both p-values, and the false discovery rate {rate:.0%}."
    )
    limits = (
        "A message that is missing here may be there: more trials would show smaller ones. One that is there is a "
        "term of the model, and two regions that a third one drives can look as if they talked."
    )
    everywhere = edges.found["present"].isel(state=-1).values
    if not edges.found["present"].any():
        nothing = f"None of the {tested} messages between regions and from inputs could be shown by these trials."
        return Section("edges", title, [nothing, how, limits], [])
    said = (
        f"{int(everywhere.sum())} of {tested} messages are present, in all states together; in single states "
        f"{int(single['present'].sum())} of {int(single['q_value'].notnull().sum())}."
    )
    there = single["present"].any(("target", "source")).values
    own = np.eye(len(targets), len(sources), dtype=bool)
    shown = np.where(single["present"].values | own, norms, np.nan)[there]
    content: list[Figure | Table] = []
    if there.any():
        names = [name for name, some in zip(titles, there, strict=True) if some]
        caption = (
            "Messages that are present, and no others, in the states that have any, on one scale for all states: of "
            "colours, and of arrows where there are any. Grey: a region's own message."
        )
        axes = plot_communication(shown, targets, sources, titles=names)
        content.append(Figure(axes, "Graph and matrix of the messages that are present in each state.", caption))
    rows = [_row(edges.found, place, targets, sources) for place in np.argwhere(edges.found["present"].values)]
    return Section("edges", title, [said, how, limits], [*content, Table(["State", "Message", "Evidence", "q"], rows)])


def _row(found: xr.Dataset, place: np.ndarray, targets: Sequence[str], sources: Sequence[str]) -> list[str]:
    state, target, source = map(int, place)
    evidence, error, q = (float(found[name].values[state, target, source]) for name in ("evidence", "error", "q_value"))
    name = str(found["state"].values[state])
    worth = f"{evidence:.2f}"
    if np.isfinite(error) and error > 0:
        digits = digits_of(error)
        worth = f"{evidence:.{digits}f} ({error:.{digits}f})"
    return [name, f"{sources[source]} to {targets[target]}", worth, f"{q:.2g}" if q >= 0.001 else "below 0.001"]
