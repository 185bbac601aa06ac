"""Messages between regions in each condition of a user's trials, for a report."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mrsds_ppl.output.plots import plot_communication
from mrsds_ppl.output.report.page import Figure, Section

_NO_CLAIM = (
    "These are means, and any two sets of trials have means that differ. This page does not test whether the "
    "conditions do."
)


class Conditions(NamedTuple):
    """Mean norms of messages in the trials of each condition."""

    names: Sequence[str]
    num_trials: Int[np.ndarray, " condition"]
    mean: Float[np.ndarray, "condition target source"]


def conditions_section(found: Conditions, targets: Sequence[str], sources: Sequence[str]) -> Section:
    """Who speaks to whom in each condition; whether conditions differ is not claimed.

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
    text = ["The same messages, averaged over the test trials that share a label.", _NO_CLAIM]
    figure = Figure(axes, "Graph and matrix of mean message norms between regions by condition.", caption)
    return Section("conditions", "Communication by condition", text, [figure])


def _many(count: int) -> str:
    return f"{count} trial{'' if count == 1 else 's'}"
