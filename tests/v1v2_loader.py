"""Loader of the V1-V2 recordings of configs/v1v2.yaml: counts (neuron, bin, trial) of each area, no inputs."""

from pathlib import Path

import numpy as np
import scipy.io


def load(data_path: str | Path) -> tuple[np.ndarray, None, list[int], int]:
    """Spike counts of V1 and V2 side by side, (trial, bin, neuron), and the neurons of each."""
    areas = scipy.io.loadmat(data_path)
    counts = [np.transpose(areas[name], (2, 1, 0)).astype(np.float32) for name in ("v1", "v2")]
    return np.concatenate(counts, axis=2), None, [count.shape[2] for count in counts], len(counts)
