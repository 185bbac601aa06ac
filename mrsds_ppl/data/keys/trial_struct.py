"""The struct array that many keep trials in: the signals of trial i are ``trials(i).y``."""

from collections.abc import Mapping

import numpy as np

from mrsds_ppl.data.axes import is_transposed
from mrsds_ppl.data.keys.values import Struct
from mrsds_ppl.errors import DataError


def from_trial_struct(found: Mapping[str, object], num_neurons: int) -> dict[str, object]:
    """The keys ``ys`` and ``us`` from the fields ``y`` and ``u`` of the one struct that has a matrix ``y`` a trial.

    Trials may be (time, neuron), or (neuron, time) as in GPFA, see :func:`mrsds_ppl.data.axes.is_transposed`.

    Args:
        found: values of a file by name.
        num_neurons: neurons of all regions.

    Raises:
        DataError: either axis may be the time.
    """
    arrays = {name: trials for name, value in found.items() if (trials := _trials_of(value))}
    if len(arrays) != 1:
        return {}
    [(name, trials)] = arrays.items()
    signals = [np.asarray(trial.fields["y"]) for trial in trials]
    shapes = [signal.shape for signal in signals]
    if len({n for shape in shapes for n in shape} | {num_neurons}) == 1:
        raise DataError(
            f"{name}(i).y: every trial has shape {shapes[0]}, so either axis may be the time. Save ys, a cell array of "
            "(time, neuron)."
        )
    transposed = is_transposed(shapes, num_neurons)
    keys: dict[str, object] = {"ys": [signal.T if transposed else signal for signal in signals]}
    if all("u" in trial.fields for trial in trials):
        inputs = [np.asarray(trial.fields["u"]) for trial in trials]
        keys["us"] = [value.T if transposed else value for value in inputs]
    return keys


def _trials_of(value: object) -> list[Struct]:
    """The structs of an array of them, if each has a matrix ``y``."""
    items = value if isinstance(value, list) else []
    structs = [item for item in items if isinstance(item, Struct) and _is_matrix(item.fields.get("y"))]
    return structs if len(structs) == len(items) else []


def _is_matrix(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 2
