"""MATLAB files for tests, v7.3 as MATLAB lays them out."""

import h5py
import numpy as np
from scipy import sparse


def cell(values):
    """A MATLAB cell array of one row, for scipy's writer."""
    out = np.empty((1, len(values)), object)
    for i, value in enumerate(values):
        out[0, i] = value
    return out


def struct_array(rows):
    """A MATLAB struct array from dictionaries, for scipy's writer."""
    out = np.empty((1, len(rows)), [(name, object) for name in rows[0]])
    for i, row in enumerate(rows):
        out[0, i] = tuple(row.values())
    return out


def write_hdf5_mat(path, **values):
    """A v7.3 file as MATLAB writes it: a header of 512 bytes, axes reversed, cells as references, text as codes.

    A dictionary becomes a struct, a list of dictionaries a struct array, a sparse matrix its three parts.
    """
    with h5py.File(path, "w", userblock_size=512) as file:
        kept = file.create_group("#refs#")

        def references(name, items):
            return np.array([[put(kept, f"{name}{i}", v).ref] for i, v in enumerate(items)], h5py.ref_dtype)

        def put(group, name, value):
            if isinstance(value, list) and value and isinstance(value[0], dict):
                made, kind = group.create_group(name), "struct"
                for field in value[0]:  # datasets of references without a class
                    made[field] = references(f"{name}{field}", [row[field] for row in value])
            elif isinstance(value, list):
                made, kind = group.create_dataset(name, data=references(name, value)), "cell"
            elif isinstance(value, dict):
                made, kind = group.create_group(name), "struct"
                for field, item in value.items():
                    put(made, field, item)
            elif sparse.issparse(value):
                made, kind, columns = group.create_group(name), "double", sparse.csc_array(value)
                made.attrs["MATLAB_sparse"] = np.uint64(columns.shape[0])
                made["jc"] = columns.indptr.astype(np.uint64)
                if columns.nnz:
                    made["ir"], made["data"] = columns.indices.astype(np.uint64), columns.data
            elif isinstance(value, str):
                codes = np.array([[ord(c)] for c in value], np.uint16)
                made, kind = group.create_dataset(name, data=codes), "char"
            elif np.ndim(value) == 1 and np.asarray(value).dtype.kind == "U":  # a char matrix, padded with blanks
                width = max(len(text) for text in value)
                codes = np.array([[ord(c) for c in text.ljust(width)] for text in value], np.uint16)
                made, kind = group.create_dataset(name, data=codes.T), "char"
            elif np.size(value) == 0:
                made, kind = group.create_dataset(name, data=np.array(np.shape(value), np.uint64)), "double"
                made.attrs["MATLAB_empty"] = np.uint8(1)
            else:
                made, kind = group.create_dataset(name, data=np.atleast_2d(value).T), "double"
            made.attrs["MATLAB_class"] = np.bytes_(kind)
            return made

        for name, value in values.items():
            put(file, name, value)
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + bytes([0, 2]) + b"IM"
    with path.open("r+b") as file:
        file.write(header)


def write_mat(path, version, **values):
    """The same variables as v5, by scipy, or as v7.3."""
    import scipy.io

    if version == "7.3":
        write_hdf5_mat(path, **values)
        return

    def for_scipy(value):
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return struct_array([{name: for_scipy(item) for name, item in row.items()} for row in value])
        if isinstance(value, list):
            return cell([for_scipy(item) for item in value])
        return value

    scipy.io.savemat(path, {name: for_scipy(value) for name, value in values.items()})
