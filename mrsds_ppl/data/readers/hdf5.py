"""HDF5 files: MATLAB v7.3, and plain ones."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from scipy import sparse

from mrsds_ppl.data.keys import Struct, Unread
from mrsds_ppl.data.readers.mat import opaque, without_matlab_axes
from mrsds_ppl.data.trials_file import FORMAT
from mrsds_ppl.errors import DataError

_NUMBERS = {"double", "single", "logical", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
_DEEPEST = 8  # cells and structs inside each other; one that holds itself has no end
# A damaged shape asks for more than any compression of the file's bytes would give.
_LARGEST, _MOST_A_BYTE = 2**30, 20_000


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """The file, open for reading.

    Raises:
        DataError: another program writes it or left it open, or it is cut short or damaged.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(_why_closed(error)) from error
    with file:
        yield file


def _why_closed(error: OSError) -> str:
    said = str(error)
    if isinstance(error, BlockingIOError) or "unable to lock" in said:
        return "another program has it open for writing. Close it there, or wait until it is written, and try again."
    if "already open for write" in said or "consistency flags" in said:
        return "was not closed by what wrote it. Close it there; if that program died, run h5clear -s on the file."
    cut = re.search(r"truncated file: eof = (\d+).*stored_eof = (\d+)", said)
    if cut:
        return f"is cut short: {int(cut[1]):,} of {int(cut[2]):,} bytes are there. Copy it again, whole."
    return f"is a damaged HDF5 file ({said}). Copy it again from where it was made."


def kind_of_hdf5(path: Path) -> str:
    """``trials``, ``NWB``, ``netCDF`` or ``HDF5``.

    Raises:
        DataError: see :func:`open_hdf5`.
    """
    with open_hdf5(path) as file:
        attributes = set(file.attrs)
        if "format" in attributes and _text(file.attrs["format"]) == FORMAT:
            return "trials"
        if "nwb_version" in attributes:
            return "NWB"
        # A file of h5py can have scales and be no netCDF, but is read in the same way.
        scaled = any({"DIMENSION_LIST", "_Netcdf4Dimid"} & set(file[name].attrs) for name in file if name in file)
        return "netCDF" if "_NCProperties" in attributes or scaled else "HDF5"


def read_hdf5(path: Path) -> Mapping[str, object]:
    """Variables, or datasets and attributes, at the top of the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        is_matlab = file.read(6) == b"MATLAB"
    with open_hdf5(path) as opened:
        reader = _Reader(opened, size)
        values = reader.members(opened, is_matlab, 0)
        is_matlab = is_matlab or any("MATLAB_class" in opened[name].attrs for name in values if name in opened)
        attributes = {} if is_matlab else {name: _decoded(value) for name, value in opened.attrs.items()}
    return without_matlab_axes({**attributes, **values}) if is_matlab else {**attributes, **values}


class _Reader:
    """Values of one open file of ``size`` bytes."""

    def __init__(self, file: h5py.File, size: int) -> None:
        self.file, self.size = file, size

    def members(self, group: h5py.Group, is_matlab: bool, depth: int) -> dict[str, object]:
        # MATLAB keeps what its cells refer to in "#refs#".
        return {name: self._value(group.get(name), is_matlab, depth) for name in group if not name.startswith("#")}

    def _value(self, item: object, is_matlab: bool, depth: int) -> object:
        if depth > _DEEPEST:
            return Unread(f"more than {_DEEPEST} cells or groups inside each other; save it by itself")
        if isinstance(item, h5py.Group):
            return self._group(item, is_matlab or "MATLAB_class" in item.attrs, depth)
        if isinstance(item, h5py.Dataset):
            return self._dataset(item, is_matlab or "MATLAB_class" in item.attrs, depth)
        return Unread("a link to what is not there; copy it into the file")

    def _group(self, group: h5py.Group, is_matlab: bool, depth: int) -> object:
        if "MATLAB_sparse" in group.attrs:
            return self._sparse(group)
        if is_matlab and len(group) and all(_is_field_of_array(group.get(name)) for name in group):
            columns = {name: self._cell(group[name], is_matlab, depth) for name in group}
            rows = zip(*columns.values(), strict=True)
            return [Struct(dict(zip(columns, row, strict=True))) for row in rows]
        return Struct(self.members(group, is_matlab, depth + 1), "struct" if is_matlab else "group")

    def _sparse(self, group: h5py.Group) -> object:
        """Columns one after another: values, their rows, and where each column begins."""
        begins = group["jc"][()].astype(np.int64).ravel()
        rows = group["ir"][()].astype(np.int64).ravel() if "ir" in group else np.zeros(0, np.int64)
        values = group["data"][()].ravel() if "data" in group else np.zeros(0)
        shape = (int(group.attrs["MATLAB_sparse"]), len(begins) - 1)
        self._demand_plausible(8 * shape[0] * shape[1])
        matrix = sparse.csc_array((values, rows, begins), shape=shape)
        matrix.check_format(full_check=True)
        return matrix.toarray()

    def _cell(self, item: h5py.Dataset, is_matlab: bool, depth: int) -> list[object]:
        # Axes are reversed, so that this is MATLAB's own order, columns first.
        references = item[()].ravel()
        return [self._value(self.file[r] if r else None, is_matlab, depth + 1) for r in references]

    def _dataset(self, item: h5py.Dataset, is_matlab: bool, depth: int) -> object:
        kind = _text(item.attrs.get("MATLAB_class", "double"))
        if item.shape is None:
            return np.zeros(0)
        self._demand_plausible(item.nbytes)
        if item.attrs.get("MATLAB_empty"):  # then the values are the shape
            return [] if kind in ("cell", "struct") else np.zeros(tuple(int(n) for n in item[()]))
        if _holds_references(item):
            return self._cell(item, is_matlab, depth)
        if "MATLAB_object_decode" in item.attrs or (is_matlab and kind not in {*_NUMBERS, "char"}):
            return opaque(kind)
        if h5py.check_string_dtype(item.dtype):
            return _decoded(item.asstr()[()])
        value = np.asarray(item[()])
        if value.dtype.names == ("real", "imag"):
            value = value["real"] + 1j * value["imag"]
        value = value.T if is_matlab else value
        return _rows_of_text(value) if kind == "char" else _decoded(value)

    def _demand_plausible(self, claimed: int) -> None:
        if claimed > max(_LARGEST, _MOST_A_BYTE * self.size):
            raise ValueError(f"an array of {claimed:,} bytes in a file of {self.size:,}")


def _is_field_of_array(item: object) -> bool:
    return isinstance(item, h5py.Dataset) and _holds_references(item) and "MATLAB_class" not in item.attrs


def _holds_references(item: h5py.Dataset) -> bool:
    return h5py.check_ref_dtype(item.dtype) is h5py.Reference


def _rows_of_text(codes: np.ndarray) -> str | list[str]:
    """A char matrix has one text a row."""
    rows = ["".join(chr(code) for code in row) for row in codes.reshape(-1, codes.shape[-1])]
    return rows[0] if len(rows) == 1 else rows


def _decoded(value: object) -> object:
    """Text from bytes, arrays from what is none."""
    if isinstance(value, bytes | np.bytes_):
        return value.decode()
    array = np.asarray(value)
    return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else value


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
