"""MATLAB files, v5 and v7.3."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import h5py


def read_mat(path: Path) -> Mapping[str, Any]:
    import scipy.io

    try:
        values = scipy.io.loadmat(path)
    except NotImplementedError:  # a v7.3 file, which is HDF5
        return _without_matlab_axes(_read_hdf5_mat(path))
    return _without_matlab_axes({k: _cells(v) for k, v in values.items() if not k.startswith("__")})


def _cells(value: object) -> object:
    """A cell array as a list, its text as strings."""
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [v.item() if v.dtype.kind == "U" and v.size == 1 else v for v in value.ravel()]
    return value


def _without_matlab_axes(values: dict[str, Any]) -> dict[str, Any]:
    """MATLAB drops a last axis of one, so a single input or latent comes as (trial, time), and has no vectors, so
    states and stages of a trial come as a row or a column."""
    ys = values.get("ys")
    shape = ys.shape[:2] if isinstance(ys, np.ndarray) else None
    for key in ("us", "x"):
        value = values.get(key)
        if isinstance(value, np.ndarray) and value.ndim == 2 and value.shape == shape:
            values[key] = value[..., None]
    for key in ("z", "stages"):
        if isinstance(values.get(key), list):
            values[key] = [np.ravel(v) if 1 in np.shape(v) else v for v in values[key]]
    return values


def _read_hdf5_mat(path: Path) -> dict[str, Any]:
    import h5py

    with h5py.File(path) as file:
        return {key: _hdf5_value(file, item) for key, item in file.items() if isinstance(item, h5py.Dataset)}


def _hdf5_value(file: "h5py.File", item: "h5py.Dataset") -> np.ndarray | str | list[Any]:
    """One variable; MATLAB stores axes in reverse, text as code points and cells as references."""
    import h5py

    if item.dtype == h5py.ref_dtype:
        return [_hdf5_value(file, file[reference]) for reference in item[()].T.ravel()]
    if item.attrs.get("MATLAB_empty"):  # then the values are the shape
        return np.zeros(tuple(int(n) for n in item[()]))
    value = item[()].T
    if item.attrs.get("MATLAB_class") == b"char":
        return "".join(chr(c) for c in value.ravel())
    return value
