"""netCDF files, 3 and 4."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from mrsds_ppl.data.ragged import TIME_NAMES, in_order
from mrsds_ppl.errors import DataError

_SECONDS = {
    1.0: ("s", "sec", "secs", "second", "seconds"),
    1e-3: ("ms", "msec", "msecs", "millisecond", "milliseconds"),
    1e-6: ("us", "µs", "microsecond", "microseconds"),
    1e-9: ("ns", "nanosecond", "nanoseconds"),
    60.0: ("min", "minute", "minutes"),
}
_UNITS = {name: seconds for seconds, names in _SECONDS.items() for name in names}
_MOST_UNEVEN = 1e-3  # of a bin; clocks are saved in single precision


def read_netcdf4(path: Path) -> Mapping[str, object]:
    """Variables and attributes of a file that is HDF5."""
    return _read(path, "h5netcdf")


def read_netcdf3(path: Path) -> Mapping[str, object]:
    """Variables and attributes of a file of netCDF 3."""
    return _read(path, "scipy")


def _read(path: Path, engine: str) -> Mapping[str, object]:
    # Times stay numbers with their unit, instead of dates.
    with xr.open_dataset(path, engine=engine, decode_times=False) as dataset:
        return labelled_values(dataset.load())


def labelled_values(dataset: xr.Dataset) -> dict[str, object]:
    """Attributes and variables, with trial and time first where dimensions are so named.

    Where the file says nothing of a bin width, it is the step of the time of ``ys``, if that has a unit.
    """
    values: dict[str, object] = {str(name): value for name, value in dataset.attrs.items()}
    values |= {str(name): _text(in_order(variable)) for name, variable in dataset.variables.items()}
    times = [name for name in dataset.dims if str(name).lower() in TIME_NAMES and name in dataset.variables]
    if times and "bin_width" not in values:
        width = _bin_width(dataset.variables[times[0]])
        values |= {} if width is None else {"bin_width": width}
    return values


def _bin_width(time: xr.Variable) -> float | None:
    """Seconds, from the step of a coordinate with a unit, such as ``ms`` or ``seconds since 2026-01-01``.

    Raises:
        DataError: the steps differ.
    """
    unit = _UNITS.get(str(time.attrs.get("units", "")).strip().split(" since ")[0])
    if unit is None or time.ndim != 1 or time.size < 2:
        return None
    steps = np.diff(time.values.astype(float))
    if not np.allclose(steps, np.median(steps), rtol=_MOST_UNEVEN, atol=0):
        raise DataError(
            f"time: found steps from {steps.min():g} to {steps.max():g} {time.attrs['units']}; need bins of one width, "
            "or bin_width in the file."
        )
    return float(np.median(steps)) * unit


def _text(values: np.ndarray) -> np.ndarray:
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
