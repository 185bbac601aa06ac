"""Binned trials in files of Neurodata Without Borders; other such files: :mod:`mrsds_ppl.data.nwb`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def read_nwb_arrays(path: Path) -> Mapping[str, Any]:
    """The binned recording of a scratch or acquisition table named as the keys of the other formats."""
    from pynwb import NWBHDF5IO

    with NWBHDF5IO(str(path), "r", load_namespaces=True) as file:
        recording = file.read()
        series = {**recording.acquisition, **recording.scratch}
        return {name: np.asarray(item.data[()]) for name, item in series.items() if hasattr(item, "data")}
