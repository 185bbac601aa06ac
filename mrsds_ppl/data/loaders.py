"""Loaders: from a file, or a function of the user's, to Trials. A new file format is one function and one line."""

import importlib.util
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import DataError

_KEYS = "ys (trial, time, neuron), us (trial, time, input), region_sizes"


def load_recording(path: str | Path, *, bin_width: float = 1.0) -> Trials:
    """Trials from a file with the keys ``ys``, ``us``, ``region_sizes``.

    Optional keys: ``region_names``, ``bin_width`` (seconds), ``stages``, ``x``, ``z``, ``labels``, and ``lengths``
    where trials of unequal length are padded.

    Args:
        path: ``.mat`` (v5 and v7.3), ``.npz``, ``.nc``, ``.zarr`` or ``.nwb``.
        bin_width: seconds, where the file does not say.

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
        values = dict(reader(path))
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{path}: cannot be read as a {path.suffix} file ({type(error).__name__}: {error}). "
            "It may be truncated or of another format; write it anew."
        ) from error
    return _trials_from(values, path, bin_width)


def load_user_function(source: str, data_path: str | Path | None = None, **options: Any) -> Trials:
    """Trials from ``file.py:function``, which returns ``ys, us, region_sizes, num_regions``.

    The function is given ``data_path`` if it takes an argument of that name.

    Raises:
        DataError: no such file or function, or another return value.
    """
    file, _, name = source.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise DataError(f"{path}: no such file. data.data_source needs the form file.py:function.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        found = [n for n, v in vars(module).items() if inspect.isfunction(v)]
        raise DataError(f"{path}: has no function '{name}'; found {found}.")
    arguments = {"data_path": data_path} if "data_path" in inspect.signature(function).parameters else {}
    result = function(**arguments)
    if not isinstance(result, tuple | list) or len(result) != 4:
        returned = f"{len(result)} values" if isinstance(result, tuple | list) else type(result).__name__
        raise DataError(f"{source}: returned {returned}; need four: ys, us, region_sizes, num_regions.")
    ys, us, region_sizes, num_regions = result
    if not np.isscalar(num_regions) or len(np.ravel(region_sizes)) != num_regions:
        raise DataError(
            f"{source}: returned num_regions={num_regions!r} but region_sizes={region_sizes!r}; "
            "need four values ys, us, region_sizes, num_regions, with one size a region."
        )
    return Trials.from_arrays(ys, us, region_sizes, **options)


def _trials_from(values: Mapping[str, Any], path: Path, bin_width: float) -> Trials:
    for key in ("ys", "region_sizes"):
        if key not in values:
            raise DataError(f"{path}: has no key '{key}'; found {sorted(values)}. Needed are {_KEYS}.")
    ys, us = values["ys"], values.get("us")
    beside = {k: values.get(k) for k in ("stages", "x", "z")}
    if "lengths" in values:
        lengths = np.ravel(values["lengths"]).astype(int)
        ys, us = ([a[:n] for a, n in zip(v, lengths, strict=True)] if v is not None else None for v in (ys, us))
        beside = {k: None if v is None else [a[:n] for a, n in zip(v, lengths, strict=True)] for k, v in beside.items()}
    names, labels = values.get("region_names"), values.get("labels")
    try:
        return Trials.from_arrays(
            ys,
            us,
            np.ravel(values["region_sizes"]).astype(int).tolist(),
            region_names=None if names is None else [str(n).strip() for n in np.ravel(names)],
            bin_width=float(np.ravel(values.get("bin_width", bin_width))[0]),
            labels=None if labels is None else list(np.ravel(labels)),
            **beside,
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _read_mat(path: Path) -> Mapping[str, Any]:
    import scipy.io

    try:
        values = scipy.io.loadmat(path)
    except NotImplementedError:  # a v7.3 file, which is HDF5
        return _read_hdf5_mat(path)
    return {k: _cells(v) for k, v in values.items() if not k.startswith("__")}


def _cells(value: Any) -> Any:
    """A cell array as a list; states and stages saved as (1, time) rows lose their first axis."""
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [v.item() if v.dtype.kind == "U" and v.size == 1 else v for v in value.ravel()]
    return value


def _read_hdf5_mat(path: Path) -> Mapping[str, Any]:
    import h5py

    with h5py.File(path) as file:
        return {key: _hdf5_value(file, item) for key, item in file.items() if isinstance(item, h5py.Dataset)}


def _hdf5_value(file: Any, item: Any) -> Any:
    """One variable; MATLAB stores axes in reverse, text as code points and cells as references."""
    import h5py

    if item.dtype == h5py.ref_dtype:
        return [_hdf5_value(file, file[reference]) for reference in item[()].T.ravel()]
    value = item[()].T
    if item.attrs.get("MATLAB_class") == b"char":
        return "".join(chr(c) for c in value.ravel())
    return value


def _read_npz(path: Path) -> Mapping[str, Any]:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        return dict(file)


def _read_netcdf(path: Path) -> Mapping[str, Any]:
    with xr.open_dataset(path, engine="h5netcdf") as dataset:
        return {**dataset.attrs, **{k: v.values for k, v in dataset.variables.items()}}


def _read_zarr(path: Path) -> Mapping[str, Any]:
    _require("zarr", path)
    with xr.open_zarr(path) as dataset:
        return {**dataset.attrs, **{k: v.values for k, v in dataset.variables.items()}}


def _read_nwb(path: Path) -> Mapping[str, Any]:
    """The binned recording of a scratch or acquisition table named as the keys of the other formats."""
    _require("pynwb", path)
    from pynwb import NWBHDF5IO

    with NWBHDF5IO(str(path), "r", load_namespaces=True) as file:
        recording = file.read()
        series = {**recording.acquisition, **recording.scratch}
        return {name: np.asarray(item.data[()]) for name, item in series.items() if hasattr(item, "data")}


def _require(package: str, path: Path) -> None:
    if importlib.util.find_spec(package) is None:
        extra = {"pynwb": "nwb"}.get(package, package)
        raise DataError(f"{path}: reading this needs the package {package}: pip install 'mrsds-ppl[{extra}]'.")


READERS: dict[str, Callable[[Path], Mapping[str, Any]]] = {
    ".mat": _read_mat,
    ".npz": _read_npz,
    ".nc": _read_netcdf,
    ".zarr": _read_zarr,
    ".nwb": _read_nwb,
}
