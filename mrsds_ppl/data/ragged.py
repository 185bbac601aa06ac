"""Arrays of trials that differ in length: checked one by one, then padded to the longest."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr

from mrsds_ppl.errors import DataError

# What padded bins hold, by name; of what is not listed, zero.
PADDING = {"y": np.nan, "x": np.nan, "messages": np.nan, "z": -1}

TRIAL_NAMES = {"trial", "trials"}
TIME_NAMES = {"time", "times", "t", "bin", "bins", "time_bin"}


@runtime_checkable
class _Sparse(Protocol):
    """A sparse matrix of scipy, or of a library like it."""

    def toarray(self) -> np.ndarray: ...


@runtime_checkable
class _Table(Protocol):
    """A data frame of pandas, or of a library like it."""

    @property
    def columns(self) -> object: ...

    def to_numpy(self, dtype: type, *, na_value: float) -> np.ndarray: ...


def in_order(array: xr.DataArray | xr.Variable) -> np.ndarray:
    """The values with the axes of trial and time first, if they are so named; otherwise as they stand."""
    names = {str(name).lower(): name for name in array.dims}
    trial = [name for folded, name in names.items() if folded in TRIAL_NAMES]
    time = [name for folded, name in names.items() if folded in TIME_NAMES]
    # Of three axes, which one is the trial is not to be guessed from the time alone.
    known = len(time) == 1 and (len(trial) == 1 or array.ndim == 2)
    return array.transpose(*trial, *time, ...).values if known else array.values


def trial_list(values: object, name: str) -> list[Any]:
    """One array a trial, from a list, an array with a leading trial axis, or a cell array of MATLAB.

    Args:
        values: what the user gave.
        name: of the argument, for messages.

    Raises:
        DataError: no trials, or one table or mapping in place of one array a trial.
    """
    if isinstance(values, xr.DataArray):
        values = in_order(values)
    if isinstance(values, _Sparse) and getattr(values, "ndim", 2) == 3:
        values = values.toarray()
    remedies = {
        xr.Dataset: f"{name}=dataset['{name}']",
        Mapping: f"{name}=list({name}.values())",
        _Sparse: f"{name}=[{name}] for one trial",
        _Table: f"{name}=[{name}] for one trial",
    }
    for kind, remedy in remedies.items():
        if isinstance(values, kind):
            raise DataError(f"{name}: found one {type(values).__name__}; need one array a trial: {remedy}.")
    if isinstance(values, np.ndarray) and values.dtype == object:
        values = list(values.ravel())
    try:
        if not isinstance(values, Iterable):
            raise TypeError("no trials to go through")
        trials = list(values)
    except TypeError as error:
        raise DataError(f"{name}: found {values!r}; need one array a trial.") from error
    if not trials:
        raise DataError(f"{name}: found no trials.")
    return trials


def matrix(values: Any, name: str, trial: int, ndim: int = 2) -> np.ndarray:
    """The values of one trial as single-precision numbers; what those cannot hold becomes infinite, masked ones NaN.

    Args:
        values: what the user gave for the trial.
        name, trial: for messages.
        ndim: number of axes, time first.

    Raises:
        DataError: not numbers, or another number of axes.
    """
    if isinstance(values, xr.DataArray):
        values = in_order(values)
    try:
        if isinstance(values, _Sparse):
            values = values.toarray()
        elif isinstance(values, _Table):
            values = values.to_numpy(float, na_value=np.nan)
        if np.iscomplexobj(values):
            raise TypeError("complex numbers")
        with np.errstate(over="ignore"):  # Trials.validate names what became infinite
            array = np.ma.filled(np.ma.asarray(values).astype(np.float32), np.nan)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: trial {trial} is not an array of numbers ({error}).") from error
    if array.ndim != ndim:
        raise DataError(f"{name}: trial {trial} has shape {array.shape}; need {ndim} axes, time first.")
    return array


def beside(values: object, name: str, lengths: np.ndarray, ndim: int, fill: float) -> np.ndarray:
    """What was recorded beside the signals, (trial, time, ...), padded with ``fill``; of width 0 where it is None.

    Args:
        values: one array a trial, time first.
        name: for messages.
        lengths: (trial,), bins of the signals.
        ndim: axes of each array.
        fill: value in padding.

    Raises:
        DataError: another number of trials, or a trial (named) of another length or shape.
    """
    if values is None:
        return np.zeros((len(lengths), lengths.max(), 0), np.float32)
    arrays = [matrix(v, name, i, ndim) for i, v in enumerate(trial_list(values, name))]
    if len(arrays) != len(lengths):
        raise DataError(f"{name}: found {len(arrays)} trials, but ys has {len(lengths)}.")
    for i, (array, length) in enumerate(zip(arrays, lengths, strict=True)):
        if len(array) != length:
            raise DataError(f"{name}: trial {i} has {len(array)} bins, but trial {i} of ys has {length}.")
        if array.shape[1:] != arrays[0].shape[1:]:
            raise DataError(f"{name}: trial {i} has shape {array.shape}, trial 0 has {arrays[0].shape}.")
    return pad(arrays, fill)


def one_hot(stages: object, lengths: np.ndarray) -> np.ndarray:
    """Trial stages (trial, time, stage), one-hot, from integers (time,) or one-hot (time, stage) of each trial.

    Args:
        stages: what the user gave; None has width 0.
        lengths: (trial,), bins of the signals.

    Raises:
        DataError: as :func:`beside` and :func:`whole`.
    """
    if stages is None or np.ndim(trial_list(stages, "stages")[0]) == 2:
        return beside(stages, "stages", lengths, 2, 0.0)
    index = whole(beside(stages, "stages", lengths, 1, -1.0), "stages", lengths)
    found = np.unique(index[index >= 0])
    return (index[..., None] == found).astype(np.float32)


def whole(values: np.ndarray, name: str, lengths: np.ndarray) -> np.ndarray:
    """The values (trial, time), if those of valid bins are whole numbers from 0.

    Args:
        values: padded.
        name: for messages.
        lengths: (trial,), valid bins.

    Raises:
        DataError: a valid bin (named) is not.
    """
    valid = np.arange(values.shape[1]) < lengths[:, None]
    wrong = np.argwhere(valid & ~((values >= 0) & (values == np.floor(values)) & (values < np.inf)))
    if len(wrong):
        t, b = wrong[0]
        raise DataError(f"{name}: trial {t}, bin {b} is {values[t, b]}; need whole numbers from 0.")
    return values


def pad(arrays: list[np.ndarray], fill: float) -> np.ndarray:
    """Arrays (time, ...) as one (trial, time, ...) of single precision, as long as the longest.

    Args:
        arrays: of one shape but for the length.
        fill: value in padding.
    """
    longest = max(len(a) for a in arrays)
    padded = np.full((len(arrays), longest, *arrays[0].shape[1:]), fill, np.float32)
    for i, array in enumerate(arrays):
        padded[i, : len(array)] = array
    return padded
