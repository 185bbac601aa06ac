"""Conditions of trials, as a user names them in a table."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from mrsds_ppl.errors import DataError, listed

Labels = Mapping[Any, object] | Sequence[object] | np.ndarray
_HEADER = ["trial", "label"]


def read_labels(path: Path, ids: Sequence[int] | np.ndarray) -> Shaped[np.ndarray, " trial"]:
    """Label of each trial from a CSV file with the header ``trial,label`` and a line for each trial.

    Args:
        path: the file. A trial without a label is left out of what compares conditions.
        ids: numbers of the trials, as the files of a run and :class:`mrsds_ppl.data.trials.Trials` list them.

    Returns:
        the labels as text, in the order of ``ids``.

    Raises:
        DataError: the file cannot be read, has another form, lacks a trial, or has one that does not exist.
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
    found: dict[int | str, str] = {}
    # Trials of joined sessions have text for ids.
    text = np.asarray(ids).dtype.kind == "U"
    for row in lines:
        if len(row) != 2 or not (text or row[0].lstrip("-").isdigit()):
            raise DataError(f"{path}: found the line {','.join(row)!r}; {form}.")
        number = row[0] if text else int(row[0])
        if found.setdefault(number, row[1]) != row[1]:
            raise DataError(f"{path}: trial {number} has the labels {found[number]!r} and {row[1]!r}; give it one.")
    known = np.asarray(ids).tolist()
    missing, unknown = [number for number in known if number not in found], sorted(set(found) - set(known), key=str)
    for numbers, what, remedy in (
        (missing, "no label for the trials", "add them"),
        (
            unknown,
            "labels of trials that do not exist",
            f"the ids are {known[0]} to {known[-1]}" if text else f"the ids are {min(known)} to {max(known)}",
        ),
    ):
        if numbers:
            raise DataError(f"{path}: {what} {listed(numbers)}; {remedy}.")
    return np.array([found[number] for number in known])


def labels_of(labels: Labels | None, ids: np.ndarray) -> Shaped[np.ndarray, " trial"]:
    """Label of each trial, as text, from a mapping by trial id or from one label for each trial in order.

    Args:
        labels: the labels; None for a trial leaves it out of what compares conditions.
        ids: ids of the trials.

    Returns:
        the labels, empty where a trial is left out.

    Raises:
        DataError: a label for a trial that does not exist, or none for one that does, or no labels at all.
    """
    if labels is None:
        raise DataError("labels: found none, and the recording has none; need one for each trial.")
    if not isinstance(labels, Mapping):
        given = np.asarray(labels)
        if given.shape != (len(ids),):
            raise DataError(f"labels: found shape {given.shape}, but there are {len(ids)} trials; need one a trial.")
        return _as_text(given)
    by_id = {str(key): value for key, value in labels.items()}
    known = [str(number) for number in ids]
    unknown, missing = [key for key in by_id if key not in set(known)], [key for key in known if key not in by_id]
    for keys, what in ((unknown, "labels of trials that do not exist"), (missing, "no label for the trials")):
        if keys:
            raise DataError(f"labels: {what}: {listed(keys)}. The ids are {known[0]} to {known[-1]}.")
    return _as_text([by_id[key] for key in known])


def _as_text(labels: Iterable[object]) -> Shaped[np.ndarray, " trial"]:
    return np.array(["" if label is None else str(label) for label in labels])
