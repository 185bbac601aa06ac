"""MATLAB files up to v7; those of v7.3 are HDF5."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy import sparse

from mrsds_ppl.data.keys import Struct, Unread
from mrsds_ppl.data.readers.mat_elements import read_elements


def read_mat(path: Path) -> Mapping[str, object]:
    """Variables of the file."""
    import scipy.io

    elements, objects = read_elements(path)
    found = scipy.io.loadmat(path if elements is None else elements, spmatrix=False)
    values = {name: _plain(value) for name, value in found.items() if not name.startswith("__") and name != "None"}
    return without_matlab_axes({**values, **{name: opaque("object, such as a string or table") for name in objects}})


def opaque(kind: str) -> Unread:
    """A value of a class that only MATLAB can read."""
    return Unread(f"a MATLAB {kind}, which only MATLAB reads; save text as char or cellstr, numbers as double")


def _plain(value: object) -> object:
    """A cell array as a list, a struct by its fields, a sparse matrix in full, text as strings."""
    from scipy.io.matlab import MatlabFunction, MatlabObject, MatlabOpaque

    if isinstance(value, MatlabFunction | MatlabObject | MatlabOpaque):
        return opaque("object or function")
    if isinstance(value, sparse.sparray):
        matrix = sparse.csc_array(value)
        matrix.check_format(full_check=True)  # rows outside the matrix would be written to all the same
        return matrix.toarray()
    if isinstance(value, str):  # what could not be read, in words
        return Unread(f"damaged ({value}); save it again")
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.names:
        structs = [Struct({name: _plain(item[name]) for name in value.dtype.names}) for item in value.ravel(order="F")]
        return structs[0] if len(structs) == 1 else structs
    if value.dtype == object:
        return [_plain(item) for item in value.ravel(order="F")]
    return value.item() if value.dtype.kind == "U" and value.size == 1 else value


def without_matlab_axes(values: dict[str, object]) -> dict[str, object]:
    """MATLAB drops a last axis of one, so a single input or latent comes as (trial, time), and has no vectors, so
    states and stages of a trial come as a row or a column."""
    ys = values.get("ys")
    shape = ys.shape[:2] if isinstance(ys, np.ndarray) else None
    for key in ("us", "x"):
        value = values.get(key)
        if isinstance(value, np.ndarray) and value.ndim == 2 and value.shape == shape:
            values[key] = value[..., None]
    for key in ("z", "stages"):
        value = values.get(key)
        if isinstance(value, list):
            values[key] = [np.ravel(v) if isinstance(v, np.ndarray) and 1 in v.shape else v for v in value]
    return values
