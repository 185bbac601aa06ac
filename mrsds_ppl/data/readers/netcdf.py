"""netCDF files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from mrsds_ppl.data.trials_file import holds_trials


def is_trials_file(path: Path) -> bool:
    return path.suffix.lower() == ".nc" and holds_trials(path)


def read_netcdf(path: Path) -> Mapping[str, Any]:
    with xr.open_dataset(path, engine="h5netcdf") as dataset:
        return {**dataset.attrs, **{k: v.values for k, v in dataset.variables.items()}}
