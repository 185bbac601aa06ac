"""Spike times in the bins of trials. All times are seconds on one clock."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mrsds_ppl.data.spikes.bins import CLOCKS, ROUNDING, TrialBins
from mrsds_ppl.errors import DataError


class Units(NamedTuple):
    """Spike times of each unit in seconds, its region and id, and the intervals (n, 2) in which it was observed."""

    spike_times: list[Float[np.ndarray, " _"]]
    regions: list[object]
    ids: list[object] | None
    observed: list[Float[np.ndarray, "_ 2"] | None]

    @property
    def span(self) -> tuple[float, float]:
        """First and last second of the recording: of what was observed, or of the spikes where that is not known."""
        spikes, known = _span_of(self.spike_times), [some for some in self.observed if some is None or some.size]
        ends = [spikes if some is None else (float(some.min()), float(some.max())) for some in known] or [spikes]
        return min(first for first, _ in ends), max(last for _, last in ends)


def units_of(spike_times: object, regions: object, ids: Iterable[object] | None, observed: object) -> Units:
    """Units as a user gives them.

    Args:
        spike_times: one array for each unit, or a mapping from its id to it.
        regions: a label for each unit, or a mapping from its id to it.
        ids: of the units; those of the mapping by default.
        observed: None; (interval, 2) for all units together; or one for each unit, None for all the time.

    Raises:
        DataError: not one of each for every unit, or arrays of other shapes.
    """
    keys = list(spike_times) if isinstance(spike_times, Mapping) else None

    def each(given: object, name: str) -> list[object]:
        if isinstance(given, Mapping):
            missing = [key for key in keys or () if key not in given]
            if keys is None or missing:
                raise DataError(f"{name}: found a mapping without the units {missing[:5] or 'of spike_times, a list'}.")
            return [given[key] for key in keys]
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise DataError(f"{name}: found {given!r}; need one for each unit, a list or a mapping by id.")
        return list(given)

    times = [_array(some, (-1,), f"spike_times: unit {i}") for i, some in enumerate(each(spike_times, "spike_times"))]
    together = observed is None or (isinstance(observed, np.ndarray) and observed.ndim == 2)
    found = [observed] * len(times) if together else each(observed, "observed")
    labels = each(regions, "regions")
    for name, values in (("regions", labels), ("observed", found)):
        if len(values) != len(times):
            raise DataError(f"{name}: found {len(values)}, but spike_times has {len(times)} units; need one for each.")
    intervals = [None if some is None else _array(some, (-1, 2), f"observed: unit {i}") for i, some in enumerate(found)]
    for unit, some in enumerate(intervals):
        if some is not None and not (np.isfinite(some).all() and (some[:, 0] <= some[:, 1]).all()):
            raise DataError(
                f"observed: unit {unit} has an interval that is not from a start to a later stop in seconds."
            )
    return Units(times, labels, list(ids) if ids is not None else keys, intervals)


def spike_counts(units: Units, bins: TrialBins) -> list[np.ndarray]:
    """Spikes in each bin of each trial, (bin, unit); a bin holds the time at its start and not that at its stop.

    Bins not wholly inside of what was observed of a unit are NaN.

    Raises:
        DataError: no spike of any unit is in any trial.
    """
    edges, ends = np.concatenate(bins.edges), np.cumsum([len(edges) for edges in bins.edges])[:-1]
    inside = np.ones(len(edges) - 1, bool)
    inside[ends - 1] = False  # from the end of a trial to the start of the next
    counts = np.empty((inside.sum(), len(units.spike_times)), np.float32)
    for unit, times in enumerate(units.spike_times):
        counts[:, unit] = np.diff(np.searchsorted(np.sort(times), edges))[inside]
    if not counts.any():
        first, last = _span_of(units.spike_times)
        raise DataError(
            f"spike_times: none of the spikes ({first:g} to {last:g} s) is in a trial ({edges.min():g} to "
            f"{edges.max():g} s). {CLOCKS}."
        )
    for unit, intervals in enumerate(units.observed):
        if intervals is not None:
            counts[~_wholly_inside(intervals, edges[:-1][inside], edges[1:][inside]), unit] = np.nan
    return np.split(counts, np.cumsum(bins.lengths)[:-1])


def _array(values: object, shape: tuple[int, ...], name: str) -> np.ndarray:
    try:
        return np.asarray(values, float).reshape(shape)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} is not an array of times in seconds ({error}).") from error


def _span_of(times: Sequence[Float[np.ndarray, " _"]]) -> tuple[float, float]:
    for unit, some in enumerate(times):
        if not np.isfinite(some).all():
            raise DataError(f"spike_times: unit {unit} has a spike at {some[~np.isfinite(some)][0]}; leave it out.")
    spiking = [some for some in times if len(some)]
    if not spiking:
        raise DataError(f"spike_times: found {len(times)} units without a spike.")
    return min(float(some.min()) for some in spiking), max(float(some.max()) for some in spiking)


def _wholly_inside(
    intervals: Float[np.ndarray, "interval 2"], starts: Float[np.ndarray, " bin"], stops: Float[np.ndarray, " bin"]
) -> Bool[np.ndarray, " bin"]:
    """Which bins lie in one of the intervals, or in several that touch."""
    if not len(intervals):
        return np.zeros(len(starts), bool)
    tolerance = ROUNDING * float(stops[0] - starts[0])
    ordered = intervals[np.argsort(intervals[:, 0], kind="stable")]
    reach = np.maximum.accumulate(ordered[:, 1])
    begins = np.concatenate([[True], ordered[1:, 0] > reach[:-1] + tolerance])
    firsts, lasts = ordered[begins, 0], reach[np.concatenate([np.flatnonzero(begins)[1:] - 1, [len(ordered) - 1]])]
    place = np.searchsorted(firsts, starts + tolerance, side="right") - 1
    return (place >= 0) & (stops <= lasts[place] + tolerance)
