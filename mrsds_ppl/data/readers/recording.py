"""The entry: from a file of any kind to Trials. A new format is a file beside this one and one line here."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrsds_ppl.data.readers.keys import trials_from
from mrsds_ppl.data.readers.mat import read_mat
from mrsds_ppl.data.readers.netcdf import is_trials_file, read_netcdf
from mrsds_ppl.data.readers.npz import read_npz
from mrsds_ppl.data.readers.nwb import read_nwb
from mrsds_ppl.data.readers.zarr import read_zarr
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.data.trials_file import read_trials
from mrsds_ppl.errors import DataError

READERS: dict[str, Callable[[Path], Mapping[str, Any]]] = {
    ".mat": read_mat,
    ".npz": read_npz,
    ".nc": read_netcdf,
    ".zarr": read_zarr,
    ".nwb": read_nwb,
}


def load_recording(path: str | Path, *, bin_width: float = 1.0, region_names: Sequence[str] | None = None) -> Trials:
    """Trials from a file with the keys ``ys``, ``us``, ``region_sizes``.

    Optional keys: ``region_names``, ``bin_width`` (seconds), ``stages``, ``x``, ``z``, ``labels``, and ``lengths``
    where trials of unequal length are padded.

    Args:
        path: ``.mat`` (v5 and v7.3), ``.npz``, ``.nc``, ``.zarr`` or ``.nwb``.
        bin_width: seconds, where the file does not say.
        region_names: names that win over those of the file.

    Raises:
        DataError: the file is missing, truncated, of another kind, or lacks a key.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file. Check the path given with --data-path or data.data_path.")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: cannot read '{path.suffix}' files; allowed are {', '.join(READERS)}.")
    try:
        if is_trials_file(path):
            return read_trials(path)
        values = dict(reader(path))
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{path}: cannot be read as a {path.suffix} file ({type(error).__name__}: {error}). "
            "It may be truncated or of another format; write it anew."
        ) from error
    if region_names is not None:
        values["region_names"] = np.array(list(region_names))
    return trials_from(values, path, bin_width)
