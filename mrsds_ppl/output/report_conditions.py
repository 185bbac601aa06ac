"""Messages between regions in each condition of a user's trials, for a report."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mrsds_ppl.output.plots import plot_communication
from mrsds_ppl.output.report_page import Figure, Section


class Conditions(NamedTuple):
    """Mean norms of messages in the trials of each condition: posterior mean and 90 % interval."""

    names: Sequence[str]
    num_trials: Int[np.ndarray, " condition"]
    mean: Float[np.ndarray, "condition target source"]
    low: Float[np.ndarray, "condition target source"]
    high: Float[np.ndarray, "condition target source"]


def conditions_section(found: Conditions, targets: Sequence[str], sources: Sequence[str]) -> Section:
    """Who speaks to whom in each condition, and what differs most.

    Args:
        found: the norms.
        targets: name of each region.
        sources: names of the regions in the same order, then of the inputs.
    """
    counts = [f"{name} ({_many(int(n))})" for name, n in zip(found.names, found.num_trials, strict=True)]
    axes = plot_communication(found.mean, targets, sources, titles=counts)
    caption = (
        "Mean message norms in the test trials of each condition, averaged over the state posterior. Arrows are as "
        "wide as messages are large, on one scale for all conditions. Grey: a region's own message."
    )
    text = ["The same messages, averaged over the test trials that share a label.", _largest(found, targets, sources)]
    figure = Figure(axes, "Graph and matrix of mean message norms between regions by condition.", caption)
    return Section("conditions", "Communication by condition", [line for line in text if line], [figure])


def _largest(found: Conditions, targets: Sequence[str], sources: Sequence[str]) -> str:
    """The message from another source that differs most between two conditions."""
    if len(found.names) < 2:
        return ""
    spread = found.mean.max(0) - found.mean.min(0)
    spread[np.eye(len(targets), len(sources), dtype=bool)] = -np.inf
    target, source = (int(place) for place in np.unravel_index(int(spread.argmax()), spread.shape))
    if not np.isfinite(spread[target, source]):
        return ""
    ends = [int(found.mean[:, target, source].argmax()), int(found.mean[:, target, source].argmin())]
    sizes = [
        f"{found.mean[c, target, source]:.3g} in {found.names[c]} (90% posterior interval "
        f"{found.low[c, target, source]:.3g} to {found.high[c, target, source]:.3g})"
        for c in ends
    ]
    apart = found.low[ends[0], target, source] > found.high[ends[1], target, source]
    verdict = "The intervals do not overlap." if apart else "The intervals overlap."
    return f"What differs most is {sources[source]} to {targets[target]}: {sizes[0]}, {sizes[1]}. {verdict}"


def _many(count: int) -> str:
    return f"{count} trial{'' if count == 1 else 's'}"
