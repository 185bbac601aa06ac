"""Bins of trials in a recording, and signals with times of their own in them. All times are seconds on one clock."""

import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int, Shaped

from mrsds_ppl.errors import DataError, listed

# Of a bin: what rounding may do to edges that are meant to be the same.
ROUNDING = 1e-6
CLOCKS = "All times need seconds on one clock: divide milliseconds by 1000, and samples by the sampling rate"
# Seconds, and a ratio: longer than any recording of trials, so that the clock counts something else.
_LONG, _LONGER = 1e5, 10


class Samples(Protocol):
    """Values (sample, ...) that are read where they are sliced: an array, or a data set of a file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, places: slice) -> np.ndarray: ...


class Timed(NamedTuple):
    """A signal (sample,) or (sample, channel) with the time of each sample in seconds, increasing."""

    times: Float[np.ndarray, " sample"]
    values: Samples


class TrialBins(NamedTuple):
    """Bins of trials: ``edges`` (bin + 1,) of each in seconds; ``kept``, its place among those ``given``; ``ids``.

    ``notes`` says which trials were left out, and why.
    """

    given: int
    kept: Int[np.ndarray, " trial"]
    ids: Shaped[np.ndarray, " trial"]
    edges: list[np.ndarray]
    notes: tuple[str, ...] = ()

    @property
    def lengths(self) -> list[int]:
        """Bins of each trial."""
        return [len(edges) - 1 for edges in self.edges]

    def of_kept(self, values: Sequence[object] | np.ndarray, name: str) -> np.ndarray:
        """The values (trial,) of the trials kept. Raises DataError where there is not one for each trial given."""
        found = np.asarray(values)
        if found.shape != (self.given,):
            raise DataError(f"{name}: found shape {found.shape}, but there are {self.given} trials; need one for each.")
        return found[self.kept]


def windows_around(events: object, window: Sequence[float | int]) -> Float[np.ndarray, "trial 2"]:
    """Start and stop of a window around each event, NaN where the event is.

    Args:
        events: (trial,) seconds.
        window: its start and stop from the event in seconds, such as (-0.2, 1.0).

    Raises:
        DataError: it does not start before it stops.
    """
    times = np.asarray(events, float)
    if len(window) != 2 or not window[0] < window[1]:
        raise DataError(
            f"window: found {window}; need its start and stop from the event in seconds, such as (-0.2, 1)."
        )
    if times.ndim != 1:
        raise DataError(f"align: found shape {times.shape}; need one time in seconds for each trial.")
    return times[:, None] + np.asarray(window, float)


def trial_intervals(
    trials: object, align: object, window: Sequence[float | int] | None
) -> Float[np.ndarray, "trial 2"]:
    """Start and stop of each trial, as given or as a window around events.

    Raises:
        DataError: neither or both are given, or arrays of another shape.
    """
    if (trials is None) == (align is None) or (align is None) != (window is None):
        raise DataError(
            "trials: give the start and stop of each, or events (align) and a window around them, not both."
        )
    given = windows_around(align, window) if window is not None else np.asarray(trials, float)
    if given.ndim != 2 or given.shape[1] != 2 or not len(given):
        raise DataError(f"trials: found shape {given.shape}; need (trial, 2), start and stop of each in seconds.")
    return given


def trial_bins(
    given: Float[np.ndarray, "trial 2"],
    bin_width: float,
    span: tuple[float, float],
    ids: Sequence[int] | np.ndarray | None = None,
) -> TrialBins:
    """Whole bins of each trial from its start on; what is left of it after the last whole bin is left out.

    Args:
        given: start and stop in seconds. Trials with NaN, and those wholly outside of ``span``, are left
            out with a warning.
        bin_width: seconds.
        span: first and last second of the recording.
        ids: of the trials; default their places.

    Raises:
        DataError: no trial is left, a trial is shorter than a bin, or the clocks cannot be the same.
    """
    if not 0 < bin_width < np.inf:
        raise DataError(f"bin_width: found {bin_width}, need a positive number of seconds.")
    names = np.arange(len(given)) if ids is None else np.asarray(ids)
    if len(names) != len(given):
        raise DataError(f"trial_ids: found {len(names)} for {len(given)} trials; need one for each.")
    timed = np.isfinite(given).all(1)
    if not timed.any():
        raise DataError(f"trials: none of {len(given)} has a time, all are NaN.")
    first, last = given[timed].min(), given[timed].max()
    _check_clocks((first, last), span)
    inside = (given[:, 1] > span[0]) & (given[:, 0] < span[1])
    if not inside.any():
        raise DataError(
            f"trials: none lies in the recording: trials from {first:g} to {last:g} s, the recording from {span[0]:g} "
            f"to {span[1]:g} s. {CLOCKS}."
        )
    reasons = (
        (~timed, "have no time (NaN)"),
        (timed & ~inside, f"lie outside the recording ({span[0]:g} to {span[1]:g} s)"),
    )
    notes = [
        f"{some.sum()} of {len(given)} trials are left out, which {why}: {listed(names[some])}."
        for some, why in reasons
        if some.any()
    ]
    for note in notes:
        warnings.warn(note, stacklevel=3)
    kept = np.flatnonzero(inside)
    counts = np.floor((given[kept, 1] - given[kept, 0]) / bin_width + ROUNDING).astype(int)
    if counts.min() < 1:
        short = kept[counts.argmin()]
        raise DataError(
            f"bin_width: bins of {bin_width:g} s are longer than trial {names[short]} ({given[short, 0]:g} to "
            f"{given[short, 1]:g} s). Take narrower bins, longer trials, or leave it out. {CLOCKS}."
        )
    edges = [given[i, 0] + bin_width * np.arange(n + 1) for i, n in zip(kept, counts, strict=True)]
    return TrialBins(len(given), kept, names[kept], edges, tuple(notes))


def bin_means(signal: Timed, edges: Float[np.ndarray, " edge"], *, fill: bool) -> Float[np.ndarray, "bin channel"]:
    """Mean of the samples in each bin of one trial. Only samples of the trial are read.

    Args:
        signal: the samples; NaN are left out.
        edges: of the bins, in seconds.
        fill: interpolate linearly, to the middle of the bin, where it has no sample; the first and the last sample hold
            for one more step. Without, and beyond, such a bin is NaN.
    """
    first, stop = np.searchsorted(signal.times, edges[[0, -1]])
    first, stop = max(first - fill, 0), stop + fill
    times, values = signal.times[first:stop], np.asarray(signal.values[first:stop], float)
    values = values.reshape(len(values), int(np.prod(signal.values.shape[1:])))
    known = np.isfinite(values)
    # Frames at the edges of bins of their own length are each in one bin, however they were rounded.
    place = np.searchsorted(edges - ROUNDING * (edges[1] - edges[0]), times, side="right") - 1
    here = (place >= 0) & (place < len(edges) - 1)
    sums, counts = (np.zeros((len(edges) - 1, values.shape[1])) for _ in range(2))
    np.add.at(sums, place[here], np.where(known, values, 0.0)[here])
    np.add.at(counts, place[here], known[here])
    means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    middles = (edges[:-1] + edges[1:]) / 2
    for channel in range(values.shape[1] if fill else 0):
        empty, some = counts[:, channel] == 0, known[:, channel]
        if empty.any() and some.any():
            sampled, wanted = times[some], middles[empty]
            step = np.diff(sampled).max(initial=0.0)
            between = np.interp(wanted, sampled, values[some, channel])
            beyond = (wanted < sampled[0] - step) | (wanted > sampled[-1] + step)
            means[empty, channel] = np.where(beyond, np.nan, between)
    return means


def inputs_in_bins(inputs: Mapping[str, object], bins: TrialBins) -> tuple[list[np.ndarray] | None, list[str]]:
    """Inputs (bin, input) of each trial, and their names.

    Args:
        inputs: by name: a number for each trial given, which stays the same in its bins, or a signal as its times and
            values, averaged in bins and interpolated in those without a sample. Channels of a signal are named NAME:0,
            NAME:1, ...
        bins: of the trials.

    Raises:
        DataError: not such an input, or a trial (named) in which it is not known.
    """
    names: list[str] = []
    columns: list[list[np.ndarray]] = [[] for _ in bins.edges]
    for name, given in inputs.items():
        source = _checked_input(name, given, bins)
        for i, (row, trial, edges) in enumerate(zip(columns, bins.ids, bins.edges, strict=True)):
            if isinstance(source, Timed):
                row.append(bin_means(source, edges, fill=True))
            else:
                row.append(np.full((len(edges) - 1, 1), source[i]))
            if not np.isfinite(row[-1]).all():
                raise DataError(
                    f"inputs: {name!r} is not known in all of trial {trial} ({edges[0]:g} to {edges[-1]:g} s), and "
                    "inputs must be. Give another, or leave the trial out."
                )
        width = columns[0][-1].shape[1]
        names += [name] if width == 1 else [f"{name}:{i}" for i in range(width)]
    return ([np.concatenate(row, axis=1) for row in columns] if names else None), names


def _checked_input(name: str, given: object, bins: TrialBins) -> Timed | np.ndarray:
    try:
        if isinstance(given, tuple) and len(given) == 2 and np.ndim(given[0]) == 1:
            times, values = np.asarray(given[0], float), np.asarray(given[1], float)
            if len(times) != len(values) or not (np.diff(times) > 0).all():
                raise DataError(
                    f"inputs: {name!r} has {len(times)} times and {len(values)} values; need a time for "
                    "each, increasing."
                )
            return Timed(times, values)
        return bins.of_kept(np.asarray(given, float), f"inputs: {name!r}")
    except (TypeError, ValueError) as error:
        raise DataError(f"inputs: {name!r} holds no numbers ({error}); text is for labels.") from error


def _check_clocks(trials: tuple[float, float], recording: tuple[float, float]) -> None:
    long, short = trials[1] - trials[0], recording[1] - recording[0]
    if max(long, short) > _LONG and max(long, short) > _LONGER * min(long, short):
        raise DataError(
            f"trials: found them from {trials[0]:g} to {trials[1]:g} s, and the recording from {recording[0]:g} to "
            f"{recording[1]:g} s. {CLOCKS}; leave out what was recorded on other days."
        )
