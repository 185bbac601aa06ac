"""Loaders: from a file, or a function of the user's, to Trials. A new file format is one function and one line."""

import importlib.util
import inspect
import traceback
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mrsds_ppl.data.trials import Trials
from mrsds_ppl.data.trials_file import holds_trials, read_trials
from mrsds_ppl.data.user_file import load_module
from mrsds_ppl.errors import DataError, MrsdsError

if TYPE_CHECKING:
    import h5py

_KEYS = "ys (trial, time, neuron), us (trial, time, input), region_sizes"


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
        if _is_trials_file(path):
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
    return _trials_from(values, path, bin_width)


def load_user_function(
    source: str,
    data_path: str | Path | None = None,
    *,
    bin_width: float = 1.0,
    region_names: Sequence[str] | None = None,
) -> Trials:
    """Trials from ``file.py:function``, which returns ``ys, us, region_sizes, num_regions``.

    The function is given ``data_path`` if it has an argument of that name, or else as its first required argument.

    Raises:
        DataError: no such file or function, the function fails, or another return value.
    """
    file, _, name = source.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise DataError(f"{file or source}: no such file. data.data_source needs the form file.py:function.")
    try:
        module = load_module(path, "loader")
    except Exception as error:
        raise _failed(path, "cannot be imported", error) from error
    function = getattr(module, name, None)
    if not callable(function):
        found = [n for n, v in vars(module).items() if inspect.isfunction(v)]
        raise DataError(f"{path}: has no function '{name}'; found {found}.")
    given = _path_argument(function, source, data_path)
    try:
        result = function(**given)
    except MrsdsError:
        raise
    except Exception as error:
        raise _failed(path, f"{name} failed", error) from error
    if not isinstance(result, tuple | list) or len(result) != 4:
        returned = f"{len(result)} values" if isinstance(result, tuple | list) else type(result).__name__
        raise DataError(f"{source}: returned {returned}; need four: ys, us, region_sizes, num_regions.")
    ys, us, region_sizes, num_regions = result
    if region_sizes is None or np.ndim(num_regions) or np.size(region_sizes) != num_regions:
        raise DataError(
            f"{source}: returned num_regions={num_regions!r} but region_sizes={region_sizes!r}; "
            "need four values ys, us, region_sizes, num_regions, with one size a region."
        )
    try:
        us, sizes = None if _is_empty(us) else us, _sizes(region_sizes)
        return Trials.from_arrays(ys, us, sizes, bin_width=bin_width, region_names=region_names)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error


def _path_argument(function: Callable[..., Any], source: str, data_path: str | Path | None) -> dict[str, Any]:
    """What to call the user's function with: the path, where it has a place for it."""
    parameters = inspect.signature(function).parameters
    required = [
        name
        for name, p in parameters.items()
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    if len(required) > 1:
        raise DataError(f"{source}: needs the arguments {required}; a loader is given one, the path of the data.")
    name = required[0] if required else "data_path"
    if required and data_path is None:
        raise DataError(f"{source}: needs the argument '{name}'. Set --data-path or data.data_path.")
    return {name: data_path} if name in parameters and data_path is not None else {}


def _failed(path: Path, what: str, error: Exception) -> DataError:
    """The user's own exception, with the last line of their file that it passed through."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).name == path.name]
    where = f", line {lines[-1]}" if lines else ""
    return DataError(f"{path}{where}: {what} ({type(error).__name__}: {error}). Mend the function and try again.")


def _is_empty(value: Any) -> bool:
    """Whether an optional value is there but holds nothing, as MATLAB's []."""
    return value is None or (len(value) == 0 if isinstance(value, list | tuple) else np.size(value) == 0)


def _sizes(values: object) -> list[int]:
    return _whole_numbers(values, "region_sizes", "the number of neurons of each region").tolist()


def _whole_numbers(values: object, name: str, what: str) -> np.ndarray:
    try:
        numbers = np.asanyarray(values).ravel().astype(float)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: found {values!r}; need {what}.") from error
    if not (np.isfinite(numbers) & (numbers == np.round(numbers))).all():
        raise DataError(f"{name}: found {numbers.tolist()}; need whole numbers, {what}.")
    return numbers.astype(int)


def _trials_from(values: Mapping[str, Any], path: Path, bin_width: float) -> Trials:
    for key in ("ys", "region_sizes"):
        if key not in values:
            raise DataError(f"{path}: has no key '{key}'; found {sorted(values)}. Needed are {_KEYS}.")
    values = {k: v for k, v in values.items() if k in ("ys", "region_sizes") or not _is_empty(v)}
    per_trial: dict[str, Any] = {k: values.get(k) for k in ("ys", "us", "stages", "x", "z")}
    names, labels = values.get("region_names"), values.get("labels")
    try:
        if "lengths" in values:
            lengths = _whole_numbers(values["lengths"], "lengths", "the number of bins of each trial")
            per_trial = {k: None if v is None else _cut(v, lengths, k) for k, v in per_trial.items()}
        return Trials.from_arrays(
            region_sizes=_sizes(values["region_sizes"]),
            region_names=None if names is None else [str(n).strip() for n in np.ravel(names)],
            bin_width=_seconds(values.get("bin_width", bin_width)),
            labels=None if labels is None else list(np.ravel(labels)),
            **per_trial,
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _cut(padded: Sequence[np.ndarray] | np.ndarray, lengths: np.ndarray, name: str) -> list[np.ndarray]:
    """The bins of each trial, without its padding."""
    if np.ndim(padded) == 0 or len(padded) != len(lengths):
        raise DataError(f"lengths: found {len(lengths)}, but {name} has shape {np.shape(padded)}; need one a trial.")
    for i, (trial, n) in enumerate(zip(padded, lengths, strict=True)):
        if not 1 <= n <= len(trial):
            raise DataError(f"lengths: trial {i} has length {n}; need 1 to {len(trial)}, the bins of {name}.")
    return [trial[:n] for trial, n in zip(padded, lengths, strict=True)]


def _seconds(value: object) -> float:
    try:
        return float(np.asanyarray(value).ravel()[0])
    except (TypeError, ValueError) as error:
        raise DataError(f"bin_width: found {value!r}; need a positive number of seconds.") from error


def _read_mat(path: Path) -> Mapping[str, Any]:
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


def _read_npz(path: Path) -> Mapping[str, Any]:
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


def _is_trials_file(path: Path) -> bool:
    return path.suffix.lower() == ".nc" and holds_trials(path)


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
