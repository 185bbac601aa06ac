"""Messages between regions by condition of a user's trials, for a report: what a test of two conditions carries."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from mrsds_ppl.output.plots import plot_communication
from mrsds_ppl.output.report.page import Figure, Section, Table, digits_of

# The share of false claims. Where conditions do not differ, it is the share of pages with any claim.
_CLAIMED = 0.05
_MEANS = (
    "These are means, and any two sets of trials have means that differ. This page does not test whether the "
    "conditions do."
)
_OF_TWO = "A contrast is between two conditions: give two labels, and leave out the label of the other trials."


class Conditions(NamedTuple):
    """The contrast of two conditions; of more, or of too few trials (``reason``), mean norms of messages in each."""

    names: Sequence[str]
    num_trials: Int[np.ndarray, " condition"]
    mean: Float[np.ndarray, "condition target source"] | None = None
    contrast: xr.Dataset | None = None
    reason: str = ""


def conditions_section(found: Conditions, targets: Sequence[str], sources: Sequence[str]) -> Section:
    """Who speaks to whom in each condition, and which messages differ between two.

    Args:
        found: what is known of the conditions.
        targets: name of each region.
        sources: names of the regions in the same order, then of the inputs.
    """
    title = "Communication by condition"
    if found.contrast is not None:
        text, table = _differences(found.contrast, targets, sources)
        return Section("conditions", title, text, [] if table is None else [table])
    counts = [f"{name} ({_many(int(n))})" for name, n in zip(found.names, found.num_trials, strict=True)]
    assert found.mean is not None
    axes = plot_communication(found.mean, targets, sources, titles=counts)
    caption = (
        "Mean message norms in the trials of each condition, averaged over the state posterior, on one scale for all "
        "conditions: of colours, and of arrows where there are any. Grey: a region's own message."
    )
    why = f"No contrast was computed: {found.reason}" if found.reason else _OF_TWO
    text = ["The same messages, averaged over the trials that share a label.", f"{_MEANS} {why}"]
    figure = Figure(axes, "Graph and matrix of mean message norms between regions by condition.", caption)
    return Section("conditions", title, text, [figure])


def _differences(found: xr.Dataset, targets: Sequence[str], sources: Sequence[str]) -> tuple[list[str], Table | None]:
    about = found.attrs
    first, second, number = about["first"], about["second"], about["num_first"] + about["num_second"]
    tested = int(found["q_value"].notnull().sum())
    # The interval has the spread of the draws, which is the same for any labels.
    apart = (found["low"] > 0) | (found["high"] < 0)
    claims = np.argwhere((apart & (found["q_value"] < _CLAIMED)).values)
    how = (
        f"Tested is the mean norm of {_many(tested, 'message')} in {_many(about['num_first'])} of {first} and "
        f"{about['num_second']} of {second}, against {about['orders']} other orders of the labels. A trial counts "
        "once. The false discovery rate is controlled over the messages."
    )
    if not len(claims):
        nothing = f"No difference between {first} and {second} that these {number} trials could show."
        return [nothing, how, "That is no proof that the conditions are alike."], None
    # The surest first, and of those the largest.
    q, size = (
        np.array([values.values[tuple(place)] for place in claims])
        for values in (found["q_value"], found["difference"])
    )
    rows = [_row(found, claims[index], targets, sources) for index in np.lexsort((-np.abs(size), q))]
    said = f"{_many(len(rows), 'message')} of {tested} {'differs' if len(rows) == 1 else 'differ'} between {first} and "
    head = ["Message", first, second, f"difference ({about['level']:.0%} interval)", "q"]
    text = [
        f"{said}{second}, at a false discovery rate of {_CLAIMED:.0%}.",
        how,
        "A difference is one of size, in latent units a bin. It may come from anything that goes with the labels: if "
        "one condition came earlier in the session, also from what changes over a session. The messages are those that "
        "were fitted: a difference much smaller than the others may be an error of the weights.",
    ]
    return text, Table(head, rows)


def _row(found: xr.Dataset, place: np.ndarray, targets: Sequence[str], sources: Sequence[str]) -> list[str]:
    at = {name: float(found[name].values[tuple(place)]) for name in map(str, found.data_vars)}
    width = at["high"] - at["low"]
    digits = digits_of(width if width > 0 else abs(at["difference"]))
    difference, low, high = (f"{at[name]:+.{digits}f}" for name in ("difference", "low", "high"))
    interval = f" ({low} to {high})" if width > 0 else ""
    means = [f"{at[name]:.{digits}f}" for name in ("mean_first", "mean_second")]
    q = f"{at['q_value']:.2g}" if at["q_value"] >= 0.001 else "below 0.001"
    return [f"{sources[place[1]]} to {targets[place[0]]}", *means, f"{difference}{interval}", q]


def _many(count: int, what: str = "trial") -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
