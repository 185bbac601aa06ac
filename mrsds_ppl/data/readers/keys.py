"""What the keys of a file mean: from the values that a reader found to Trials."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import DataError

_KEYS = "ys (trial, time, neuron), us (trial, time, input), region_sizes"


def trials_from(values: Mapping[str, Any], path: Path, bin_width: float) -> Trials:
    for key in ("ys", "region_sizes"):
        if key not in values:
            raise DataError(f"{path}: has no key '{key}'; found {sorted(values)}. Needed are {_KEYS}.")
    values = {k: v for k, v in values.items() if k in ("ys", "region_sizes") or not is_empty(v)}
    per_trial: dict[str, Any] = {k: values.get(k) for k in ("ys", "us", "stages", "x", "z")}
    names, labels = values.get("region_names"), values.get("labels")
    try:
        if "lengths" in values:
            lengths = _whole_numbers(values["lengths"], "lengths", "the number of bins of each trial")
            per_trial = {k: None if v is None else _cut(v, lengths, k) for k, v in per_trial.items()}
        return Trials.from_arrays(
            region_sizes=sizes_of(values["region_sizes"]),
            region_names=None if names is None else [str(n).strip() for n in np.ravel(names)],
            bin_width=_seconds(values.get("bin_width", bin_width)),
            labels=None if labels is None else list(np.ravel(labels)),
            **per_trial,
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def is_empty(value: Any) -> bool:
    """Whether an optional value is there but holds nothing, as MATLAB's []."""
    return value is None or (len(value) == 0 if isinstance(value, list | tuple) else np.size(value) == 0)


def sizes_of(values: object) -> list[int]:
    return _whole_numbers(values, "region_sizes", "the number of neurons of each region").tolist()


def _whole_numbers(values: object, name: str, what: str) -> np.ndarray:
    try:
        numbers = np.asanyarray(values).ravel().astype(float)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: found {values!r}; need {what}.") from error
    if not (np.isfinite(numbers) & (numbers == np.round(numbers))).all():
        raise DataError(f"{name}: found {numbers.tolist()}; need whole numbers, {what}.")
    return numbers.astype(int)


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
