"""Whether trials, time and neurons stand where they belong, from what fits together."""

from collections.abc import Sequence

import numpy as np

from mrsds_ppl.errors import DataError

Shape = tuple[int, ...]
_WANTED = "(trial, time, neuron)"


def demand_order(ys: object, us: object, num_neurons: int | None) -> None:
    """Refuse signals or inputs that fit if they are transposed, and only then.

    Args:
        ys: signals (trial, time, neuron), or one (time, neuron) a trial.
        us: inputs in the same form, or None.
        num_neurons: neurons of all regions, if known.

    Raises:
        DataError: the axes as found and as needed.
    """
    signals, inputs = _shapes(ys), _shapes(us)
    if isinstance(signals, tuple) and len(signals) > 1:
        _demand_block(signals, num_neurons, inputs)
        lengths = [signals[1]] * signals[0]
    elif isinstance(signals, list) and signals:
        _demand_list(signals, num_neurons)
        lengths = [shape[0] for shape in signals]
    else:
        return
    if isinstance(inputs, tuple):
        if len(set(lengths)) == 1 and inputs[:2] != (len(lengths), lengths[0]):
            _demand_inputs(inputs, len(lengths), lengths[0])
    elif lengths == [shape[1] for shape in inputs] and lengths != [shape[0] for shape in inputs]:
        raise DataError(
            f"us: trial 0 has shape {inputs[0]}, in which the second axis is as long as the trial; need "
            "(time, input). Transpose each trial."
        )


def is_transposed(shapes: Sequence[Shape], num_neurons: int | None) -> bool | None:
    """Whether matrices, one a trial, are (neuron, time) rather than (time, neuron); None where neither or both fit.

    The axis of neurons has as many as there are neurons in all regions, or, if no axis has, one length in all trials.
    """
    first, second = ({shape[axis] for shape in shapes} for axis in (0, 1))
    fits = first == {num_neurons}, second == {num_neurons}
    if num_neurons not in first | second and len(shapes) > 1:
        fits = len(first) == 1, len(second) == 1
    return None if fits[0] == fits[1] else fits[0]


def _demand_list(shapes: list[Shape], num_neurons: int | None) -> None:
    if is_transposed(shapes, num_neurons):
        raise DataError(
            f"ys: the first axis has {shapes[0][0]} in every trial, as the neurons should, in trial 0 of shape "
            f"{shapes[0]}; need (time, neuron). Transpose each trial."
        )


def _demand_block(shape: Shape, num_neurons: int | None, inputs: Shape | list[Shape]) -> None:
    if len(shape) == 2:
        transpose = "transpose it to (time, neuron), then " if shape[0] == num_neurons != shape[1] else ""
        raise DataError(
            f"ys: found one matrix {shape}; need {_WANTED}, or a list or cell array of (time, neuron). If it is one "
            f"trial, {transpose}add an axis of length 1 before the others."
        )
    if len(shape) != 3 or shape[2] == num_neurons or num_neurons not in shape:
        return
    axis, found, how = "second", "(trial, neuron, time)", "its last two axes"
    if shape[1] != num_neurons:
        axis, found, how = "first", "neurons first", "it so that trials are first and neurons last"
        if isinstance(inputs, tuple) and inputs[:2] == shape[1:]:
            found, how = "(neuron, trial, time)", "it so that the first axis becomes the last"
    raise DataError(
        f"ys: found shape {shape}; region_sizes add up to {num_neurons}, as its {axis} axis and not its last, so the "
        f"axes seem to be {found}; need {_WANTED}. Transpose {how}, or mend region_sizes."
    )


def _demand_inputs(inputs: Shape, trials: int, bins: int) -> None:
    found = f"us: found shape {inputs}, but ys has {trials} trials of {bins} bins"
    if len(inputs) == 3 and inputs[:2] == (bins, trials):
        raise DataError(
            f"{found}, so trial and time are in another order than in ys; need (trial, time, input) and {_WANTED}. "
            "Transpose the one that is (time, trial, ...)."
        )
    if len(inputs) == 3 and (inputs[0], inputs[2]) == (trials, bins):
        raise DataError(
            f"{found}, so its axes are (trial, input, time); need (trial, time, input). Transpose its last two axes."
        )


def _shapes(values: object) -> Shape | list[Shape]:
    """The shape of an array, or those of a list of matrices; nothing of what is neither."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        return values.shape
    if not isinstance(values, list | tuple | np.ndarray):
        return []
    shapes = [getattr(item, "shape", ()) for item in values]
    return shapes if all(len(shape) == 2 for shape in shapes) else []
