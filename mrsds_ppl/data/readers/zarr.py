"""Folders of zarr."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from mrsds_ppl.data.readers.extras import require


def read_zarr(path: Path) -> Mapping[str, Any]:
    require("zarr", path)
    with xr.open_zarr(path) as dataset:
        return {**dataset.attrs, **{k: v.values for k, v in dataset.variables.items()}}
