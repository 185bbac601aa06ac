"""The door: an NWB file to Trials."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np

from mrsds_ppl.data.nwb.regions import unit_regions
from mrsds_ppl.data.nwb.series import Plane, fluorescence, input_series, series_by_path
from mrsds_ppl.data.nwb.tables import (
    SESSION,
    find_alignment,
    flat_columns,
    interval_tables,
    invalid_times,
    numbers,
    ragged,
    rows_where,
    without,
)
from mrsds_ppl.data.readers.extras import require
from mrsds_ppl.data.readers.hdf5 import kind_of_hdf5, open_hdf5
from mrsds_ppl.data.readers.kinds import kind_of
from mrsds_ppl.data.spikes.bins import bin_means, inputs_in_bins, trial_bins, trial_intervals
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import BinWidthError, DataError

if TYPE_CHECKING:
    import pynwb

_ARRAYS = ("acquisition/ys", "scratch/ys")
# Of an interval between frames: bins meant to be as long may be shorter by this.
_ROUNDING = 1e-3


class NwbOptions(TypedDict, total=False):
    """What :func:`read_nwb` takes beside the width of bins."""

    align: str | None
    window: Sequence[float | int] | None
    regions: str | Sequence[str] | None
    inputs: Sequence[str] | None
    labels: str | None
    units: str | None
    signals: str | Sequence[str] | None


class _Asked(NamedTuple):
    """What :func:`read_nwb` was called with."""

    bin_width: float | None
    align: str | None
    window: Sequence[float | int] | None
    regions: str | Sequence[str] | None
    inputs: Sequence[str]
    labels: str | None
    units: str | None
    signals: str | Sequence[str] | None
    region_names: Sequence[str] | None


class _When(TypedDict):
    """The trials, as ``Trials.from_spikes`` takes them."""

    trials: np.ndarray | None
    align: np.ndarray | None
    window: Sequence[float | int] | None
    trial_ids: np.ndarray | None
    labels: np.ndarray | None
    inputs: dict[str, object]


def read_nwb(
    path: str | Path,
    *,
    bin_width: float | None = None,
    align: str | None = None,
    window: Sequence[float | int] | None = None,
    regions: str | Sequence[str] | None = None,
    inputs: Sequence[str] | None = None,
    labels: str | None = None,
    units: str | None = None,
    signals: str | Sequence[str] | None = None,
    region_names: Sequence[str] | None = None,
) -> Trials:
    """Trials from an NWB file: spike counts of its units, or fluorescence of its regions of interest.

    Ids of neurons and trials are those of the tables. Bins not wholly inside a unit's ``obs_intervals``, and
    those in ``invalid_times``, are missing.
    Trials without a time (NaN), and those outside the recording, are left out with a warning. Fluorescence is averaged
    over the frames in each bin; a bin without a frame is missing, since a value interpolated from others is no
    observation.

    Args:
        path: of the file.
        bin_width: seconds; for fluorescence the interval between frames by default.
        align: a column of event times of the table of trials, or another table of intervals, or ``TABLE:COLUMN``, or
            ``session`` for one trial over all. Default: the trials from their start to their stop.
        window: start and stop of a trial in seconds from the event (without a column, from the start).
        regions: the column of units, electrodes, or segmentation that names regions, or a label for each unit. Default:
            the ``location`` of the unit's electrodes, of its electrode group, or of the imaging plane.
        inputs: names of columns of the table, which stay the same in a trial, and of series, averaged in bins.
        labels: the column of the table with the condition of each trial.
        units: which units, or regions of interest, to take: a query of pandas over the columns of their table and
            ``region``, such as ``quality == 'good' and firing_rate > 0.5``.
        signals: ``units``, or names of fluorescence series; default the units where there are any.
        region_names: the order of the regions; default that of their first neurons.

    Raises:
        DataError: the file cannot be read, or lacks what is asked for; the message names what it has.

    Source: the NWB format, https://nwb-schema.readthedocs.io
    """
    path = Path(path)
    asked = _Asked(bin_width, align, window, regions, tuple(inputs or ()), labels, units, signals, region_names)
    require("pynwb", path)
    try:
        with _opened(path) as file:
            has_units = file.units is not None and "spike_times" in file.units.colnames
            if signals == "units" or (has_units and signals is None):
                if not has_units:
                    raise DataError(f"there are no units with spike times. {_contents(file)}")
                return _of_spikes(file, asked)
            return _of_fluorescence(file, asked)
    except DataError as error:
        raise type(error)(f"{path}: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: is damaged ({error}). Copy it again from where it was made.") from error


def holds_arrays(path: Path) -> bool:
    """Whether a file holds binned trials as arrays named ``ys``, as other formats do."""
    with open_hdf5(path) as file:
        return any(name in file for name in _ARRAYS)


@contextmanager
def _opened(path: Path) -> "Iterator[pynwb.NWBFile]":
    if kind_of(path) != "HDF5" or kind_of_hdf5(path) != "NWB":
        raise DataError("is no NWB file; read it with mrsds.read.")
    from pynwb import NWBHDF5IO

    with warnings.catch_warnings():
        # Files bring the schema that they were written with.
        warnings.filterwarnings("ignore", message="Ignoring .*cached namespace")
        try:
            io = NWBHDF5IO(str(path), "r", load_namespaces=True)
            file = io.read()
        except Exception as error:
            raise DataError(
                f"is a damaged NWB file ({type(error).__name__}: {error}). Copy it again from where it was made."
            ) from error
    with io:
        yield file


def _of_spikes(file: "pynwb.NWBFile", asked: _Asked) -> Trials:
    if asked.bin_width is None:
        raise BinWidthError("bin_width: found none; spike counts need the width of a bin in seconds, such as 0.02.")
    table = file.units
    labels = np.array(unit_regions(file, asked.regions))
    rows = rows_where({"region": labels, **flat_columns(table)}, asked.units, "units")
    if not len(rows):
        raise DataError(f"units: none of {len(table)} is left by {asked.units!r}.")
    rows = _in_order(rows, labels, np.asarray(table.id[:]), asked.region_names)
    spikes = ragged(table, "spike_times")
    seen = ragged(table, "obs_intervals") if "obs_intervals" in table.colnames else [np.zeros((0, 2))] * len(table)
    span, gaps = _span([spikes[i] for i in rows]), invalid_times(file)

    def observed(intervals: np.ndarray) -> np.ndarray | None:
        # A unit without intervals is one of which the file does not say.
        known = np.asarray(intervals if len(intervals) else [span], float)
        return without(known, gaps) if len(intervals) or len(gaps) else None

    return Trials.from_spikes(
        [np.asarray(spikes[i], float) for i in rows],
        labels[rows].tolist(),
        bin_width=asked.bin_width,
        observed=[observed(seen[i]) for i in rows],
        neurons=table.id[:][rows].tolist(),
        **_when(file, asked, span),
    )


def _of_fluorescence(file: "pynwb.NWBFile", asked: _Asked) -> Trials:
    import pynwb

    if not series_by_path(file, pynwb.ophys.RoiResponseSeries):
        raise DataError(f"there are neither units with spike times nor regions of interest. {_contents(file)}")
    if asked.regions is not None and not isinstance(asked.regions, str):
        raise DataError("regions: found labels; of regions of interest give the column of the segmentation.")
    planes = fluorescence(file, asked.signals, asked.regions, asked.units)
    interval = max(plane.interval for plane in planes)
    width = interval if asked.bin_width is None else asked.bin_width
    if width < interval * (1 - _ROUNDING):
        raise DataError(
            f"bin_width: bins of {width:g} s are shorter than the {interval:g} s between frames, and those without a "
            f"frame would be missing. Give at least {interval:g}, or leave bin_width out."
        )
    span = _span([plane.signal.times for plane in planes])
    when = _when(file, asked, span)
    given = trial_intervals(when["trials"], when["align"], when["window"])
    bins = trial_bins(given, width, span, when["trial_ids"])
    us, names = inputs_in_bins(when["inputs"], bins)
    gaps = invalid_times(file)
    return Trials.from_arrays(
        [np.concatenate([_frames(plane, edges, gaps) for plane in planes], axis=1) for edges in bins.edges],
        us,
        regions=[label for plane in planes for label in plane.regions],
        region_names=asked.region_names,
        neurons=[name for plane in planes for name in plane.ids.tolist()],
        input_names=names,
        bin_width=width,
        labels=None if when["labels"] is None else bins.of_kept(when["labels"], "labels"),
        trial_ids=bins.ids,
    ).noting(bins.notes)


def _frames(plane: Plane, edges: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    means = bin_means(plane.signal, edges, fill=False)[:, plane.columns]
    means[((edges[:-1, None] < gaps[:, 1]) & (edges[1:, None] > gaps[:, 0])).any(1)] = np.nan
    return means


def _when(file: "pynwb.NWBFile", asked: _Asked, span: tuple[float, float]) -> _When:
    """Times, ids, labels and inputs of the trials."""
    align, window, label, names = asked.align, asked.window, asked.labels, asked.inputs
    if align == SESSION:
        if label is not None:
            raise DataError(f"labels: found {label!r}, but one trial over the session has no table.")
        around = None if window is None else np.array([span[0]])
        whole = np.array([span]) if window is None else None
        inputs: dict[str, object] = {name: input_series(file, name) for name in names}
        return _When(trials=whole, align=around, window=window, trial_ids=None, labels=None, inputs=inputs)
    table, column = find_alignment(file, align)
    if column is not None and window is None:
        raise DataError(
            f"window: found none; around {align!r} give the start and stop of a trial, such as (-0.2, 1.0)."
        )
    columns = flat_columns(table)
    if label is not None and label not in columns:
        raise DataError(f"labels: found {label!r}; the columns of {table.name} are {list(columns)}.")
    starts = numbers(table, column or "start_time", "align")
    whole = None if window is not None else np.stack([starts, numbers(table, "stop_time", "align")], axis=1)
    return _When(
        trials=whole,
        align=None if window is None else starts,
        window=window,
        trial_ids=np.asarray(table.id[:]),
        labels=None if label is None else columns[label].astype(str),
        inputs={name: columns[name] if name in columns else input_series(file, name) for name in names},
    )


def _in_order(rows: np.ndarray, labels: np.ndarray, ids: np.ndarray, region_names: Sequence[str] | None) -> np.ndarray:
    """The rows by the order of the regions, where it is given. Raises DataError where a unit has no region."""
    unnamed = [str(ids[i]) for i in rows if labels[i].strip() in ("", "nan", "None")]
    if unnamed:
        raise DataError(
            f"regions: {len(unnamed)} units have no region: {', '.join(unnamed[:5])}. Leave them out with "
            "units=\"region != ''\", or name another column as regions."
        )
    if region_names is None:
        return rows
    found = list(dict.fromkeys(labels[rows].tolist()))
    if sorted(found) != sorted(region_names):
        raise DataError(
            f"region_names: found {list(region_names)}, but the regions of the units are {found}. Name each once, or "
            f'take some with units="region in {found[:2]}".'
        )
    return rows[np.argsort([list(region_names).index(label) for label in labels[rows]], kind="stable")]


def _span(times: list[np.ndarray]) -> tuple[float, float]:
    some = [one for one in times if len(one)]
    if not some:
        raise DataError("units: none of those taken has a spike.")
    return min(float(one.min()) for one in some), max(float(one.max()) for one in some)


def _contents(file: "pynwb.NWBFile") -> str:
    import pynwb

    units = "none" if file.units is None else f"with the columns {list(file.units.colnames)}"
    tables = {name: list(table.colnames) for name, table in interval_tables(file).items()}
    series = list(series_by_path(file, pynwb.TimeSeries))
    return f"The file has units: {units}; tables of intervals: {tables or 'none'}; series: {series or 'none'}."
