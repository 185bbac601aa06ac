"""The entry: from a file of any kind to Trials. A new format is a file beside this one and one line here."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, Unpack

import numpy as np

from mrsds_ppl.data.keys import trials_from
from mrsds_ppl.data.nwb.read import NwbOptions, holds_arrays, read_nwb
from mrsds_ppl.data.readers.extras import require
from mrsds_ppl.data.readers.hdf5 import kind_of_hdf5, read_hdf5
from mrsds_ppl.data.readers.kinds import kind_of
from mrsds_ppl.data.readers.mat import read_mat
from mrsds_ppl.data.readers.netcdf import read_netcdf3, read_netcdf4
from mrsds_ppl.data.readers.npz import read_npy, read_npz
from mrsds_ppl.data.readers.nwb import read_nwb_arrays
from mrsds_ppl.data.readers.zarr import read_zarr
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.data.trials_file import read_trials
from mrsds_ppl.errors import DataError

READERS: dict[str, Callable[[Path], Mapping[str, object]]] = {
    "MATLAB": read_mat,
    "HDF5": read_hdf5,
    "zip": read_npz,
    "npy": read_npy,
    "netCDF": read_netcdf4,
    "netCDF 3": read_netcdf3,
    "zarr": read_zarr,
    "NWB": read_nwb_arrays,
}
T = TypeVar("T")
_PACKAGES = {"NWB": "pynwb", "zarr": "zarr"}


def load_recording(
    path: str | Path,
    *,
    bin_width: float | None = None,
    region_names: Sequence[str] | None = None,
    piece: float | int | None = None,
    **options: Unpack[NwbOptions],
) -> Trials:
    """Trials from a file with the keys ``ys``, ``us``, ``region_sizes`` or ``regions``, or an NWB file without these.

    Optional keys: ``region_names``, ``neurons``, ``input_names``, ``bin_width`` (seconds), ``stages``, ``x``, ``z``,
    ``labels``, and ``lengths`` where trials of unequal length are padded. What the file holds decides how it is read,
    whatever its name ends in.

    Args:
        path: a file of MATLAB, numpy (``.npz``), netCDF, HDF5, zarr or NWB.
        bin_width: seconds, where the file does not say; default 1.
        region_names: names that win over those of the file.
        piece: seconds of the pieces into which a file of one trial is cut; see
            :meth:`mrsds_ppl.data.trials.Trials.from_continuous`. By default it stays one trial, which a fit cuts.
        options: of :func:`mrsds_ppl.data.nwb.read.read_nwb`: ``align``, ``window``, ``regions``, ``inputs``,
            ``labels``, ``units``, ``signals``.

    Raises:
        DataError: the file is missing, may not be read, is open elsewhere, cut short, damaged or of another kind, or
            lacks a key.
    """
    path = Path(path)
    trials = _recording(path, bin_width, region_names, options)
    if piece is None:
        return trials
    with _named(path):
        return trials.in_pieces(piece)


def needs_binning(path: str | Path) -> bool:
    """Whether a file holds spike times or series, which the options of :func:`load_recording` say how to read.

    Raises:
        DataError: as :func:`load_recording`.
    """
    return not _kind(Path(path))[1]


def _kind(path: Path) -> tuple[str, bool]:
    """Kind of the file, and whether it holds binned trials."""
    with _named(path):
        kind = kind_of(path)
        kind = _reading(path, kind, kind_of_hdf5) if kind == "HDF5" else kind
    if kind in _PACKAGES:
        require(_PACKAGES[kind], path)
    with _named(path):
        return kind, kind != "NWB" or _reading(path, kind, holds_arrays)


def _recording(path: Path, bin_width: float | None, region_names: Sequence[str] | None, options: NwbOptions) -> Trials:
    kind, binned = _kind(path)
    if not binned:
        return read_nwb(path, bin_width=bin_width, region_names=region_names, **options)
    with _named(path):
        asked = [name for name, value in options.items() if value is not None]
        if asked:
            raise DataError(f"holds binned trials, so leave out {', '.join(asked)}, which are for others.")
        if kind == "trials":
            return _reading(path, kind, read_trials)
        values = dict(_reading(path, kind, READERS[kind]))
        if region_names is not None:
            values["region_names"] = np.array(list(region_names))
        return trials_from(values, 1.0 if bin_width is None else bin_width)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors begin with the path."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _reading(path: Path, kind: str, read: Callable[[Path], T]) -> T:
    """What a reader returns; whatever a library says of a damaged file is said in one sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read(path)
    except DataError:
        raise
    except MemoryError as error:
        raise DataError("asks for more memory than there is. It is damaged, or too large to read.") from error
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(
            f"is a damaged {kind} file ({type(error).__name__}: {said}). Copy it again from where it was made."
        ) from error
