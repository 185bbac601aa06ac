"""Trials as a netCDF file of their own, which gives back the same trials: for recordings that came from memory."""

from pathlib import Path

import numpy as np
import xarray as xr

from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import DataError

FORMAT = "mrsds_ppl trials 1"


def write_trials(path: Path, trials: Trials) -> None:
    """Write everything that the container holds; an earlier file is replaced."""
    dataset = trials.dataset
    numbers = {name for name, variable in dataset.variables.items() if variable.dtype.kind in "fiub"}
    encoding = {name: {"zlib": True, "complevel": 1, "shuffle": True} for name in numbers if dataset[name].ndim > 1}
    for name, variable in dataset.variables.items():
        # Text of any other kind has no place in the format.
        if variable.dtype.kind == "O":
            dataset = dataset.assign_coords({name: (variable.dims, variable.values.astype(str))})
    dataset.assign_attrs(format=FORMAT).to_netcdf(path, engine="h5netcdf", encoding=encoding)


def read_trials(path: Path) -> Trials:
    """The trials of a file whose attribute ``format`` is :data:`FORMAT`.

    Raises:
        DataError: something that the container holds is not there.
    """
    with xr.open_dataset(path, engine="h5netcdf") as opened:
        dataset = opened.load()
    lost = {"y", "observed", "lengths", "u", "stage", "number"} - {str(name) for name in dataset.variables}
    if lost:
        raise DataError(f"is a damaged file of trials, without {', '.join(sorted(lost))}. Copy it again.")
    attrs = dataset.attrs
    del attrs["format"]
    for name in {"left_out", "notes"} & attrs.keys():
        attrs[name] = [str(text) for text in np.ravel(attrs[name])]
    return Trials(
        dataset.assign_attrs(
            region_sizes=[int(size) for size in np.ravel(attrs["region_sizes"])],
            region_names=[str(name) for name in np.ravel(attrs["region_names"])],
            bin_width=float(attrs["bin_width"]),
        )
    )
