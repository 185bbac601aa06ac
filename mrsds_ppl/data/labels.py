"""Conditions of trials, as a user names them in a table."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from mrsds_ppl.errors import DataError

_HEADER = ["trial", "label"]
_SHOWN = 5


def read_labels(path: Path, ids: Sequence[int] | np.ndarray) -> Shaped[np.ndarray, " trial"]:
    """Label of each trial from a CSV file with the header ``trial,label`` and a line for each trial.

    Args:
        path: the file; lines of other trials are not used.
        ids: numbers of the trials, as the files of a run and :class:`mrsds_ppl.data.trials.Trials` list them.

    Returns:
        the labels as text, in the order of ``ids``.

    Raises:
        DataError: the file cannot be read, has another form, or lacks a trial.
    """
    form = "need a CSV file with the header trial,label and one line for each trial, such as 12,left"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *lines = [[cell.strip() for cell in row] for row in csv.reader(file) if row] or [[]]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: cannot be read ({reason}); {form}.") from error
    if header != _HEADER:
        raise DataError(f"{path}: found the header {','.join(header)!r}; {form}.")
    found: dict[int, str] = {}
    for row in lines:
        if len(row) != 2 or not row[0].lstrip("-").isdigit():
            raise DataError(f"{path}: found the line {','.join(row)!r}; {form}.")
        number = int(row[0])
        if found.setdefault(number, row[1]) != row[1]:
            raise DataError(f"{path}: trial {number} has the labels {found[number]!r} and {row[1]!r}; give it one.")
    missing = [int(number) for number in ids if int(number) not in found]
    if missing:
        more = "" if len(missing) <= _SHOWN else f" and {len(missing) - _SHOWN} more"
        raise DataError(f"{path}: no label for the trials {', '.join(map(str, missing[:_SHOWN]))}{more}; add them.")
    return np.array([found[int(number)] for number in ids])


def labels_of(labels: Mapping[Any, Any] | Sequence[Any] | np.ndarray, ids: np.ndarray) -> Shaped[np.ndarray, " trial"]:
    """Label of each trial, as text, from a mapping by trial id or from one label for each trial in order.

    Args:
        labels: the labels.
        ids: ids of the trials.

    Raises:
        DataError: a label for a trial that does not exist, or none for one that does.
    """
    if not isinstance(labels, Mapping):
        given = np.asarray(labels)
        if given.shape != (len(ids),):
            raise DataError(f"labels: found shape {given.shape}, but there are {len(ids)} trials; need one a trial.")
        return given.astype(str)
    by_id = {str(key): value for key, value in labels.items()}
    known = [str(number) for number in ids]
    unknown, missing = [key for key in by_id if key not in set(known)], [key for key in known if key not in by_id]
    for keys, what in ((unknown, "labels of trials that do not exist"), (missing, "no label for the trials")):
        if keys:
            more = "" if len(keys) <= _SHOWN else f" and {len(keys) - _SHOWN} more"
            raise DataError(f"labels: {what}: {', '.join(keys[:_SHOWN])}{more}. The ids are {known[0]} to {known[-1]}.")
    return np.array([str(by_id[key]) for key in known])
