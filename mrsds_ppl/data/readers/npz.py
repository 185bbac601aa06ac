"""Arrays that numpy saved."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mrsds_ppl.errors import DataError


def read_npz(path: Path) -> Mapping[str, Any]:
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: is not a whole .npz file. It may be truncated or of another format; write it anew.")
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        try:
            return dict(file)
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise
            raise DataError(
                f"{path}: holds a list of arrays, which .npz stores as pickled code. "
                "Save ys padded with NaN to one array (trial, time, neuron), and the bins of each trial as 'lengths'."
            ) from error
