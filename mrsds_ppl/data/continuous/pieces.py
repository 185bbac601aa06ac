"""One continuous recording cut into pieces: trials that know their place in it."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

import numpy as np
import xarray as xr

from mrsds_ppl.data.ragged import PADDING
from mrsds_ppl.errors import DataError, listed

# As long as trials of the simulators: ten times what an encoder sees to each side, so few bins lack their past, and
# short enough that a step of training takes a batch from all over the recording.
_BINS, _FEWEST_BINS = 150, 20
_PIECES = 20  # of a recording that has fewer bins, so that a tenth of them is more than one


class OneRecording(TypedDict, total=False):
    """What is known beside the signals of one recording; see :meth:`mrsds_ppl.data.trials.Trials.from_continuous`."""

    region_sizes: Sequence[int] | None
    regions: Iterable[object] | None
    region_names: Sequence[str] | None
    neurons: Iterable[object] | None
    input_names: Iterable[object] | None
    bin_width: float
    stages: object
    x: object
    z: object
    messages: object


def one_trial(options: OneRecording) -> dict[str, Any]:
    """The same for ``Trials.from_arrays``: what has a value for each bin is that of the only trial."""
    by_bin = ("stages", "x", "z", "messages")
    return {name: [value] if name in by_bin and value is not None else value for name, value in options.items()}


def in_pieces(dataset: xr.Dataset, piece: float | int | None) -> xr.Dataset:
    """The only trial of a dataset cut into pieces, with their place; of several trials, the dataset as it is.

    Args:
        dataset: of :class:`mrsds_ppl.data.trials.Trials`.
        piece: seconds; None for the default.

    Raises:
        DataError: a piece for several trials, shorter than two bins, or longer than the recording.
    """
    if dataset.sizes["trial"] > 1 or "start" in dataset.coords:
        if piece is not None:
            raise DataError(
                f"piece: found {piece:g} s, but there are {dataset.sizes['trial']} trials, and pieces are of one "
                "continuous recording. Leave it out."
            )
        return dataset
    bins, width = int(dataset["lengths"].values[0]), dataset.attrs["bin_width"]
    size = _bins_of_a_piece(piece, bins, width)
    # A rest of a single bin has no step from bin to bin.
    count = bins // size + (bins % size > 1)
    used = min(bins, count * size)
    arrays = {
        name: (variable.dims, _cut(variable.values[0, :used], count, size, PADDING.get(str(name), 0)))
        for name, variable in dataset.data_vars.items()
        if name != "lengths"
    }
    seen = arrays["observed"][1].any((1, 2))
    places = np.flatnonzero(seen)
    if not len(places):
        raise DataError("y: no value of the recording is observed.")
    attrs, unseen = dict(dataset.attrs), np.flatnonzero(~seen)
    if len(unseen):
        note = f"{len(unseen)} of {count} pieces are left out, in which nothing was observed: {listed(unseen)}."
        warnings.warn(note, stacklevel=3)
        attrs["notes"] = [*attrs.get("notes", []), note]
    coords = {name: coord for name, coord in dataset.coords.items() if not {"trial", "time"} & set(coord.dims)}
    return xr.Dataset(
        {
            **{name: (dims, values if seen.all() else values[places]) for name, (dims, values) in arrays.items()},
            "lengths": ("trial", np.minimum(size, used - places * size)),
        },
        {
            **coords,
            "trial": ("trial", places),
            "number": ("trial", np.arange(len(places), dtype=np.int32)),
            "start": ("trial", places * size * width),
            "follows": ("trial", np.diff(places, prepend=-2) == 1),
            "time": ("time", np.arange(size) * width),
        },
        attrs,
    )


def _bins_of_a_piece(piece: float | int | None, bins: int, width: float) -> int:
    if piece is None:
        return min(_BINS, max(bins // _PIECES, _FEWEST_BINS), bins)
    if not 0 < piece < np.inf or round(piece / width) < 2:
        raise DataError(f"piece: found {piece:g} s; need at least 2 bins of {width:g} s, and better {_BINS}.")
    if round(piece / width) > bins:
        raise DataError(f"piece: found {piece:g} s, but the recording has {bins * width:g} s. Take shorter pieces.")
    return round(piece / width)


def _cut(values: np.ndarray, count: int, size: int, fill: float | int) -> np.ndarray:
    """(time, ...) as (piece, time, ...), padded at the end of the last piece."""
    padded = np.full((count * size, *values.shape[1:]), fill, values.dtype)
    padded[: len(values)] = values
    return padded.reshape(count, size, *values.shape[1:])
