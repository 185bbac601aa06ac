"""What the keys of a file mean: from the values that a reader found to Trials."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mrsds_ppl.data.axes import demand_order
from mrsds_ppl.data.keys.names import refuse_missing, refuse_misspelt
from mrsds_ppl.data.keys.trial_struct import from_trial_struct
from mrsds_ppl.data.keys.values import SHOWN, Struct, Unread, shown
from mrsds_ppl.data.ragged import trial_list
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import DataError, listed

_REQUIRED = ("ys", "region_sizes")
_NAMES = ("regions", "region_names", "neurons", "input_names", "labels")
_OPTIONAL = ("us", "lengths", "bin_width", "stages", "x", "z", *_NAMES)


def trials_from(found: Mapping[str, object], bin_width: float) -> Trials:
    """Trials from what a file holds.

    Args:
        found: values by name.
        bin_width: seconds, where the file does not say.

    Raises:
        DataError: a key is missing, misspelt or of another form.
    """
    owner = "region_sizes" if is_empty(found.get("regions")) else "regions"
    if "ys" not in found and owner in found:
        found = {**found, **from_trial_struct(found, _num_neurons(found, owner))}
    refuse_missing(found, ("ys", owner), (*_REQUIRED, *_OPTIONAL))
    refuse_misspelt(found, _OPTIONAL)
    for key in (*_REQUIRED, *_OPTIONAL):
        _refuse_unread(found.get(key), key)
    values = {k: v for k, v in found.items() if k in _REQUIRED or (k in _OPTIONAL and not is_empty(v))}
    per_trial: dict[str, Any] = {k: values.get(k) for k in ("ys", "us", "stages", "x", "z")}
    names = {k: _words(values[k], k) if k in values else None for k in _NAMES}
    if names["region_names"] is not None:
        names["region_names"] = [str(name).strip() for name in names["region_names"]]
    demand_order(per_trial["ys"], per_trial["us"], _num_neurons(values, owner))
    if "lengths" in values:
        lengths = _whole_numbers(values["lengths"], "lengths", "the number of bins of each trial")
        per_trial = {k: None if v is None else _cut(v, lengths, k) for k, v in per_trial.items()}
    return Trials.from_arrays(
        region_sizes=sizes_of(values["region_sizes"]) if "region_sizes" in values else None,
        bin_width=_seconds(values.get("bin_width", bin_width)),
        **names,
        **per_trial,
    )


def _num_neurons(found: Mapping[str, object], owner: str) -> int:
    """Neurons of all regions, by the key that says which neuron is whose."""
    _refuse_unread(found[owner], owner)
    return sum(sizes_of(found[owner])) if owner == "region_sizes" else len(_words(found[owner], owner))


def _refuse_unread(value: object, key: str) -> None:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, Unread):
            raise DataError(f"{key}: is {item.why}.")
        if isinstance(item, Struct):
            array = "one array, trials of unequal length padded with NaN and counted in 'lengths'"
            remedy = f"its field as '{key}'" if item.kind == "struct" else array
            raise DataError(f"{key}: is a {item.kind} with the fields {listed(item.fields, SHOWN)}; save {remedy}.")
        if isinstance(item, list):
            _refuse_unread(item, key)


def is_empty(value: object) -> bool:
    """Whether an optional value is there but holds nothing, as MATLAB's []."""
    return value is None or (len(value) == 0 if isinstance(value, list | tuple) else np.asarray(value).size == 0)


def sizes_of(values: object) -> list[int]:
    """Neurons of each region.

    Raises:
        DataError: no whole numbers.
    """
    return _whole_numbers(values, "region_sizes", "the number of neurons of each region").tolist()


def _whole_numbers(values: object, name: str, what: str) -> np.ndarray:
    try:
        numbers = np.asanyarray(values).ravel().astype(float)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: found {shown(values)}; need {what}.") from error
    if not ((np.abs(numbers) < 2**31) & (numbers == np.round(numbers))).all():
        raise DataError(f"{name}: found {shown(numbers)}; need whole numbers, {what}.")
    return numbers.astype(int)


def _cut(padded: object, lengths: np.ndarray, name: str) -> list[Any]:
    """The bins of each trial, without its padding."""
    trials = trial_list(padded, name)
    if len(trials) != len(lengths):
        raise DataError(f"lengths: found {len(lengths)}, but {name} has {len(trials)} trials; need one a trial.")
    for i, (trial, n) in enumerate(zip(trials, lengths, strict=True)):
        bins = len(trial) if np.ndim(trial) else 0
        if not 1 <= n <= bins:
            raise DataError(f"lengths: trial {i} has length {n}; need 1 to {bins}, the bins of {name}.")
    return [trial[:n] for trial, n in zip(trials, lengths, strict=True)]


def _seconds(value: object) -> float:
    try:
        [number] = np.asanyarray(value).ravel()
        return float(number)
    except (TypeError, ValueError) as error:
        raise DataError(f"bin_width: found {shown(value)}; need a positive number of seconds.") from error


def _words(values: object, name: str) -> list[Any]:
    """Text or numbers, one after the other."""
    items = values if isinstance(values, list) else np.ravel(values).tolist()  # type: ignore[call-overload]
    words = [item.item() if isinstance(item, np.ndarray) and item.size == 1 else item for item in items]
    words = [word.decode(errors="replace") if isinstance(word, bytes) else word for word in words]
    wrong = [word for word in words if not isinstance(word, str | int | float | np.generic)]
    if wrong:
        raise DataError(f"{name}: found {shown(wrong[0])}; need text or a number for each.")
    return words
