"""Damaged and nonsensical files of every format end in Trials that validate, or in a DataError of one sentence."""

import shutil
import warnings

import h5py
import numpy as np
import pytest
import scipy.io
import xarray as xr
from matlab_files import write_mat
from scipy import sparse

from mrsds_ppl.data import Trials, load_recording
from mrsds_ppl.data.trials_file import write_trials
from mrsds_ppl.errors import DataError

LENGTHS = (3, 5, 4)
MATLAB = ("v5", "v5 packed", "v5 structs", "v7.3", "v7.3 structs")
KINDS = (*MATLAB, "npz", "netCDF 4", "netCDF 3", "HDF5", "zarr", "trials")
EVERY_DAY, EVERY_NIGHT = 11, 46  # files of each kind


def recording(rng):
    """Keys and values of a recording of three trials with padding."""
    y = rng.poisson(1.0, (3, 5, 4)).astype(float)
    u = rng.normal(size=(3, 5, 2))
    for array in (y, u):
        for trial, length in zip(array, LENGTHS, strict=True):
            trial[length:] = np.nan
    return {
        "ys": y,
        "us": u,
        "lengths": np.array(LENGTHS),
        "region_sizes": np.array([1, 3]),
        "bin_width": np.float64(0.02),
        "stages": np.tile(np.arange(5) // 3, (3, 1)).astype(float),
        "labels": np.array([0, 1, 0]),
    }


def structs(rng):
    """A struct array of trials, cells and sparse matrices."""
    rows = [{"y": rng.poisson(1.0, (n, 4)).astype(float), "u": rng.normal(size=(n, 1))} for n in LENGTHS]
    inputs = [sparse.csc_array(rng.poisson(0.5, (n, 2)).astype(float)) for n in LENGTHS]
    return {"trials": rows, "us": inputs, "region_sizes": np.array([[1.0, 3.0]]), "region_names": ["V1", "MT"]}


def write(path, kind, values):
    """A file of the kind; it may not be able to hold the values, and says so as its library does."""
    if kind in MATLAB:
        if kind == "v5 packed":
            scipy.io.savemat(path, values, do_compression=True, appendmat=False)
        else:
            write_mat(path, "7.3" if "7.3" in kind else "5", **values)
        return
    if kind == "npz":
        with path.open("wb") as file:
            np.savez(file, **values)
    elif kind == "HDF5":
        with h5py.File(path, "w") as file:
            for name, value in values.items():
                file.create_dataset(name, data=value, compression="gzip" if np.ndim(value) == 3 else None)
    elif kind == "trials":
        write_trials(path, Trials.from_arrays(values["ys"], region_sizes=[1, 3]))
    else:
        axes = {name: [f"{name}{i}" for i in range(np.ndim(value))] for name, value in values.items()}
        axes |= {name: ["trial", "time", f"{name}2"] for name in ("ys", "us") if np.ndim(values.get(name)) == 3}
        dataset = xr.Dataset({name: (axes[name], value) for name, value in values.items()})
        if kind == "zarr":
            dataset.to_zarr(path, zarr_format=2, consolidated=False)
        else:
            dataset.to_netcdf(path, engine="h5netcdf" if kind == "netCDF 4" else "scipy")


def other_values(values, rng):
    """The recording with one value of another shape, type, size or name."""
    values = dict(values)
    name = str(rng.choice([key for key in values if key != "trials"]))
    value = values.pop(name)
    value = np.zeros((2, 3)) if isinstance(value, list) else np.asarray(value)
    changes = [
        lambda: {},
        lambda: {name + "_old": value},
        lambda: {name.upper(): value},
        lambda: {name: value.T},
        lambda: {name: value[..., None]},
        lambda: {name: value.ravel()},
        lambda: {name: value[:1] if value.ndim else value},
        lambda: {name: value[:0] if value.ndim else np.zeros(0)},
        lambda: {name: np.full_like(value, rng.choice([-1, 0, 2**31 - 1, -(2**31)]), dtype=np.int32)},
        lambda: {name: np.full(value.shape, rng.choice([np.nan, np.inf, -0.5, 1e39, 1e300]))},
        lambda: {name: value.astype(str)},
        lambda: {name: np.float64(rng.normal())},
        lambda: {name: np.nan_to_num(value).astype(np.int8)},
        lambda: {name: value > 0},
    ]
    return {**values, **changes[rng.integers(len(changes))]()}


def damage(path, rng):
    """Flip bytes, write over a piece, cut the end or turn a piece round; in a folder, of one of its files."""
    if path.is_dir():
        files = sorted(inner for inner in path.rglob("*") if inner.is_file())
        path = files[rng.integers(len(files))]
    content = bytearray(path.read_bytes())
    if not content:
        return
    begin, size = int(rng.integers(len(content))), int(rng.integers(1, 65))
    match rng.integers(4):
        case 0:
            for place in rng.integers(len(content), size=rng.integers(1, 6)):
                content[place] = rng.integers(256)
        case 1:
            piece = content[begin : begin + size]
            content[begin : begin + size] = rng.bytes(len(piece))
        case 2:
            del content[begin:]
        case 3:
            content[begin : begin + size] = content[begin : begin + size][::-1]
    path.write_bytes(content)


def read(path):
    """Whether a file gives Trials that validate; otherwise it is refused in a sentence or two that name it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            trials = load_recording(path)
            trials.validate(counts=bool(trials.holds_counts))
    except DataError as error:
        message = str(error)
        assert "\n" not in message
        assert len(message) < 600 + len(str(path))
        assert not any(word in message for word in ("TypeCheckError", "NameError", "Traceback"))
        return False
    assert np.isfinite(trials.batch().y).all()
    assert np.isfinite(trials.batch().u).all()
    return True


def check(kind, number, good, values):
    """The file of one number: of even ones the good file, damaged, of odd ones other values."""
    rng = np.random.default_rng([KINDS.index(kind), number])
    folder = good.parent / str(number)
    folder.mkdir()
    path = folder / "recording"
    if number % 2 and kind != "trials":
        try:
            write(path, kind, other_values(values, rng))
        except (ValueError, TypeError, KeyError):  # this format has no such values
            return
    else:
        shutil.copytree(good, path) if good.is_dir() else shutil.copy(good, path)
        damage(path, rng)
    before = sorted(folder.rglob("*"))
    read(path)
    assert sorted(folder.rglob("*")) == before, "something was left behind"


def check_all(tmp_path, kind, numbers):
    if kind == "zarr":
        pytest.importorskip("zarr")
    rng = np.random.default_rng(0)
    values = structs(rng) if "structs" in kind else recording(rng)
    write(tmp_path / "good", kind, values)
    assert read(tmp_path / "good")
    for number in numbers:
        check(kind, number, tmp_path / "good", values)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused(tmp_path, kind):
    check_all(tmp_path, kind, range(EVERY_DAY))


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_more_damaged_files_are_read_or_refused(tmp_path, kind):
    check_all(tmp_path, kind, range(EVERY_DAY, EVERY_NIGHT))
