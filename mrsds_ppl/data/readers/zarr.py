"""Folders and archives of zarr."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from mrsds_ppl.data.keys import Struct
from mrsds_ppl.data.readers.netcdf import labelled_values


def read_zarr(path: Path) -> Mapping[str, object]:
    """Arrays and attributes at the top; as xarray reads them where their dimensions have names."""
    import zarr

    opened = zarr.open(path, mode="r")
    if isinstance(opened, zarr.Array):
        return {"array": opened[...]}
    arrays = dict(opened.arrays())
    if arrays and all(_has_names(array) for array in arrays.values()):
        with xr.open_zarr(path, decode_times=False, consolidated=False) as dataset:
            return labelled_values(dataset.load())
    groups = {name: Struct(dict(group.members()), "group") for name, group in opened.groups()}
    return {**opened.attrs, **groups, **{name: np.asarray(array[...]) for name, array in arrays.items()}}


def _has_names(array: object) -> bool:
    names = getattr(getattr(array, "metadata", None), "dimension_names", None)
    return bool(names) or "_ARRAY_DIMENSIONS" in getattr(array, "attrs", {})
