"""Series of an NWB file: by name, with the time of each sample, and fluorescence of regions of interest."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from mrsds_ppl.data.nwb.tables import flat_columns, rows_where
from mrsds_ppl.data.spikes.bins import Timed
from mrsds_ppl.errors import DataError

if TYPE_CHECKING:
    import pynwb

_UNSAID = ("", "unknown", "none", "n/a")


class Plane(NamedTuple):
    """Fluorescence of one imaging plane: the signal, and column, region and id of each neuron kept."""

    signal: Timed
    columns: Int[np.ndarray, " neuron"]
    regions: list[str]
    ids: Shaped[np.ndarray, " neuron"]
    interval: float


def series_by_path(file: "pynwb.NWBFile", kind: "type[pynwb.TimeSeries]") -> dict[str, "pynwb.TimeSeries"]:
    """Series of a kind by where they are: acquisition/NAME, MODULE/NAME or MODULE/CONTAINER/NAME."""
    found = {}
    for item in file.objects.values():
        if isinstance(item, kind):
            names, holder = [item.name], item.parent
            while holder is not None and holder.name != "root":
                names.insert(0, holder.name)
                holder = holder.parent
            found["/".join(["acquisition", *names] if len(names) == 1 else names)] = item
    return dict(sorted(found.items()))


def input_series(file: "pynwb.NWBFile", name: str) -> tuple[Float[np.ndarray, " sample"], np.ndarray]:
    """Times in seconds and values of a series, by its name or the end of its path.

    Raises:
        DataError: there is none, or more than one.
    """
    import pynwb

    series = series_by_path(file, pynwb.TimeSeries)
    found = [path for path in series if f"/{path}".endswith(f"/{name}")]
    if len(found) != 1:
        what = f"the name of {found}; give one of these." if found else f"no series. There are {list(series)}."
        raise DataError(f"inputs: {name!r} is no column of the trials and {what}")
    (path,) = found
    one = series[path]
    values = np.asarray(one.data[:], float) * one.conversion + one.offset
    return np.asarray(one.get_timestamps(), float), values


def fluorescence(
    file: "pynwb.NWBFile", signals: str | Sequence[str] | None, regions: str | None, query: str | None
) -> list[Plane]:
    """Signals of regions of interest, one entry for each imaging plane.

    Args:
        file: the file.
        signals: names, or parts of paths, of the series; by default those of DfOverF, or else of Fluorescence.
        regions: a column of the segmentation that names the region; by default the location of the imaging plane, or
            its name where that is not said.
        query: which regions of interest to take, over the columns of the segmentation.

    Raises:
        DataError: no such series or column, or several series of the same plane.
    """
    from pynwb.ophys import DfOverF, Fluorescence, RoiResponseSeries

    series = series_by_path(file, RoiResponseSeries)
    if signals is None:
        corrected, raw = ([p for p in series if isinstance(series[p].parent, kind)] for kind in (DfOverF, Fluorescence))
        chosen = corrected or raw or list(series)
    else:
        wanted = [signals] if isinstance(signals, str) else list(signals)
        chosen = [path for path in series if any(f"/{name}/" in f"/{path}/" for name in wanted)]
    if not chosen:
        raise DataError(f"signals: found {signals!r}; the series of regions of interest are {list(series) or 'none'}.")
    tables = [series[path].rois.table for path in chosen]
    if len({id(table) for table in tables}) < len(tables):
        raise DataError(f"signals: several series are of the same plane: {chosen}. Name one for each plane.")
    planes = [_plane(series[path], regions, query, alone=len(chosen) == 1) for path in chosen]
    if not sum(len(plane.ids) for plane in planes):
        raise DataError(f"units: no region of interest is left by {query!r}.")
    return [plane for plane in planes if len(plane.ids)]


def _plane(series: "pynwb.ophys.RoiResponseSeries", regions: str | None, query: str | None, *, alone: bool) -> Plane:
    table, rows = series.rois.table, np.asarray(series.rois.data[:], int)
    plane = table.imaging_plane
    columns = {name: values[rows] for name, values in flat_columns(table).items()}
    if regions is None:
        said = str(plane.location or "")
        labels = [plane.name if said.strip().lower() in _UNSAID else said] * len(rows)
    elif regions in columns:
        labels = [str(label) for label in columns[regions]]
    else:
        raise DataError(f"regions: found {regions!r}; the columns of {table.name} are {list(columns)}.")
    kept = rows_where({**columns, "region": np.array(labels)}, query, "units")
    times = np.asarray(series.get_timestamps(), float)
    names = columns["id"][kept]
    return Plane(
        signal=Timed(times, series.data),
        columns=kept,
        regions=[labels[i] for i in kept],
        ids=names if alone else np.array([f"{plane.name}:{name}" for name in names]),
        interval=float(np.median(np.diff(times))),
    )
