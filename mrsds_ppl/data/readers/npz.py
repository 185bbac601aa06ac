"""Arrays that numpy saved."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from mrsds_ppl.data.keys import Unread
from mrsds_ppl.errors import DataError

_SPARSE = {"format", "shape", "data"}
_TOGETHER = "numpy.savez('recording.npz', ys=ys, region_sizes=region_sizes)"


def read_npz(path: Path) -> Mapping[str, object]:
    """Arrays by name.

    Raises:
        DataError: an archive that is cut short, or of other things.
    """
    if not zipfile.is_zipfile(path):
        raise DataError("is an .npz or zip file that is cut short. Copy it again, whole.")
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        if set(file.files) >= _SPARSE:
            raise DataError(
                "holds one sparse matrix of scipy; need one array a trial. "
                f"Save dense arrays (trial, time, neuron) with {_TOGETHER}."
            )
        if not any(name.endswith(".npy") for name in file.zip.namelist()):
            raise DataError("is a zip archive without arrays of numpy. Unpack it, and give the file inside.")
        return {name: _array(file, name) for name in file.files}


def _array(file: NpzFile, name: str) -> object:
    try:
        return file[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        return Unread(
            "a list of arrays or other objects, which .npz stores as pickled code; save trials padded with NaN to one "
            "array (trial, time, neuron) with the bins of each as 'lengths', and text with dtype=str"
        )


def read_npy(path: Path) -> Mapping[str, object]:
    """Refuse an array alone.

    Raises:
        DataError: always, with its shape.
    """
    try:
        shape = f"of shape {np.load(path, mmap_mode='r', allow_pickle=False).shape}"
    except ValueError as error:
        shape = "of Python objects" if "allow_pickle" in str(error) or "object" in str(error) else "that is damaged"
    raise DataError(f"holds one array alone, {shape}; need ys and region_sizes. Save both with {_TOGETHER}.")
