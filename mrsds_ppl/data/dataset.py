"""The dataset inside Trials: put together from the arrays of each trial, and checked for what a likelihood needs."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from mrsds_ppl.data.axes import demand_order
from mrsds_ppl.data.neurons import Neurons, check_input_names, default_input_names, unique_ids
from mrsds_ppl.data.ragged import beside, matrix, one_hot, pad, trial_list, whole
from mrsds_ppl.data.signals import Refused
from mrsds_ppl.errors import DataError


class Beside(NamedTuple):
    """What was recorded beside the signals, or is known of a simulation: one array a trial, or None."""

    us: object = None
    stages: object = None
    x: object = None
    z: object = None
    messages: object = None


class Names(NamedTuple):
    """Ids of the trials, names of the inputs, conditions of the trials; None for the default."""

    trial_ids: Iterable[object] | None = None
    input_names: Iterable[object] | None = None
    labels: Sequence[object] | np.ndarray | None = None


def signals_of(ys: object, region_sizes: Sequence[int] | None) -> list[np.ndarray]:
    """(time, neuron) of each trial.

    Raises:
        DataError: no trials, a trial without bins, transposed trials, or trials of different neurons.
    """
    signals = [matrix(y, "ys", i) for i, y in enumerate(trial_list(ys, "ys"))]
    demand_order(signals, None, None if region_sizes is None else int(np.sum(region_sizes)))
    for i, y in enumerate(signals):
        if len(y) == 0:
            raise DataError(f"ys: trial {i} has no bins. Leave empty trials out.")
        if y.shape[1] != signals[0].shape[1]:
            raise DataError(
                f"ys: trial {i} has {y.shape[1]} neurons and trial 0 has {signals[0].shape[1]}. "
                "Every trial needs the same neurons; fill those not recorded with NaN."
            )
    return signals


def trials_dataset(
    signals: list[np.ndarray],
    neurons: Neurons,
    given: Beside,
    names: Names,
    bin_width: float,
) -> xr.Dataset:
    """The dataset of :class:`mrsds_ppl.data.trials.Trials`.

    Args:
        signals: (time, neuron) of each trial, in the order of the recording.
        neurons: in which order they are kept, and their names.
        given: what is beside them.
        names: of trials and inputs.
        bin_width: seconds.

    Raises:
        DataError: shapes that do not fit, or names that are not one for each.
    """
    if not 0 < bin_width < np.inf:
        raise DataError(f"bin_width: found {bin_width}, need a positive number of seconds.")
    lengths = np.array([len(y) for y in signals])
    # In one layout of memory, however they were given: sums over it are rounded alike.
    y = np.take(pad(signals, np.nan), neurons.order, axis=2)
    u = beside(given.us, "us", lengths, 2, 0.0)
    arrays: dict[str, tuple[str | tuple[str, ...], np.ndarray]] = {
        "y": (("trial", "time", "neuron"), y),
        "observed": (("trial", "time", "neuron"), ~np.isnan(y)),
        "lengths": ("trial", lengths),
        "u": (("trial", "time", "input"), u),
        "stage": (("trial", "time", "stage_kind"), one_hot(given.stages, lengths)),
    }
    if given.x is not None:
        arrays["x"] = (("trial", "time", "latent"), beside(given.x, "x", lengths, 2, np.nan))
    if given.z is not None:
        z = whole(beside(given.z, "z", lengths, 1, -1.0), "z", lengths)
        arrays["z"] = (("trial", "time"), z.astype(int))
    if given.messages is not None:
        # The latents of the target alone: not the axis of x, which has those of every region.
        axes = ("trial", "time", "target", "source", "target_latent")
        arrays["messages"] = (axes, beside(given.messages, "messages", lengths, 4, np.nan))
    coords: dict[str, tuple[str, np.ndarray]] = {
        "trial": ("trial", _checked_trial_ids(names.trial_ids, len(signals))),
        "number": ("trial", np.arange(len(signals), dtype=np.int32)),
        "time": ("time", np.arange(y.shape[1]) * bin_width),
        "neuron": ("neuron", neurons.ids),
        "region": ("neuron", neurons.regions),
        "input": ("input", np.array(check_input_names(names.input_names, u.shape[2], neurons.region_names), str)),
    }
    if names.labels is not None:
        if len(names.labels) != len(signals):
            raise DataError(f"labels: found {len(names.labels)}, but ys has {len(signals)} trials; need one a trial.")
        coords["label"] = ("trial", np.asarray(names.labels))
    regions = {"region_sizes": neurons.region_sizes, "region_names": neurons.region_names}
    return xr.Dataset(arrays, coords, {**regions, "bin_width": float(bin_width)})


def widened(dataset: xr.Dataset, width: int) -> xr.Dataset:
    """The dataset with inputs of zeros up to ``width``. Raises DataError where it has more."""
    u, names = dataset["u"].values, [str(name) for name in dataset["input"].values]
    if width < len(names):
        raise DataError(
            f"data.inputs: found {width}, but the recording has {len(names)} inputs. "
            f"Set it to {len(names)} or more, or leave it out."
        )
    wide = np.zeros((*u.shape[:2], width), np.float32)
    wide[..., : len(names)] = u
    names = check_input_names([*names, *default_input_names(width)[len(names) :]], width, dataset.attrs["region_names"])
    plain = dataset.drop_vars(["u", "input"])
    return plain.assign(u=(("trial", "time", "input"), wide)).assign_coords(input=names)


def limited(dataset: xr.Dataset, limit: int) -> xr.Dataset:
    """The dataset without trials of more than ``limit`` bins. Raises DataError where none is left."""
    lengths = dataset["lengths"].values
    keep = np.flatnonzero(lengths <= limit)
    if len(keep) == 0:
        raise DataError(f"data.tlim: no trial has {limit} bins or fewer; the shortest has {lengths.min()}.")
    return dataset.isel(trial=keep, time=slice(0, int(lengths[keep].max())))


def digest_of(dataset: xr.Dataset) -> str:
    """Sixteen hexadecimal digits of signals, inputs, stages and lengths."""
    found = hashlib.sha256()
    for name in ("y", "u", "stage", "lengths"):
        values = np.ascontiguousarray(dataset[name].values)
        found.update(f"{name} {values.shape} {values.dtype}".encode())
        found.update(values.tobytes())
    if "session" in dataset.coords:
        found.update("\n".join(map(str, dataset["session"].values)).encode())
    return found.hexdigest()[:16]


def check_values(dataset: xr.Dataset, refused: Sequence[Sequence[Refused]], *, unseen: bool = False) -> None:
    """Refuse one bin a trial, infinite values, inputs not finite, neurons never observed, what a neuron may not have.

    With ``unseen`` neurons may be never observed.

    Raises:
        DataError: trial, bin and neuron are named.
    """
    if dataset.sizes["time"] < 2:
        raise DataError(
            "ys: every trial has one bin, and dynamics go from bin to bin. Give longer trials or narrower bins."
        )
    y, u, observed = (dataset[name].values for name in ("y", "u", "observed"))
    ids, neurons = dataset["trial"].values, dataset["neuron"].values

    def reject(bad: np.ndarray, what: str, remedy: str) -> None:
        where = np.argwhere(bad)
        if len(where):
            t, b, n = where[0]
            raise DataError(
                f"ys: trial {ids[t]}, bin {b}, neuron {n} ({neurons[n]}) has {what}: "
                f"{y[t, b, n]}" + (f" (and {len(where) - 1} more). " if len(where) > 1 else ". ") + remedy
            )

    reject(np.isinf(y), "an infinite value", "Mark missing values with NaN.")
    unknown = np.argwhere(~np.isfinite(u))
    if len(unknown):
        t, b, m = unknown[0]
        raise DataError(
            f"us: trial {ids[t]}, bin {b}, {dataset['input'].values[m]} is {u[t, b, m]}; inputs must be finite."
        )
    for name, seen, there in () if unseen else _neurons_seen(dataset, observed):
        never = np.flatnonzero(there & ~seen)
        if len(never):
            named = ", ".join(f"{n} ({neurons[n]})" for n in never[:5])
            raise DataError(f"{name}ys: neuron {named} is never observed. Remove it from ys and from its region.")
    for rule in dict.fromkeys(rule for rules in refused for rule in rules):
        with np.errstate(invalid="ignore"):
            found = rule.found(y) & np.array([rule in rules for rules in refused])
        reject(found, rule.what, rule.remedy)


def _neurons_seen(dataset: xr.Dataset, observed: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Of each session what errors call it, which of the columns are observed, and which hold a neuron of it."""
    if "own_neuron" not in dataset.coords:
        yield "", np.asarray(observed.any((0, 1))), np.ones(observed.shape[2], bool)
        return
    for name, own in zip(dataset["session_name"].values, dataset["own_neuron"].values, strict=True):
        seen = observed[dataset["session"].values == name].any((0, 1))
        yield f"session {name}: ", np.asarray(seen), np.asarray(own != "")


def _checked_trial_ids(ids: Iterable[object] | None, count: int) -> np.ndarray:
    found = np.asarray(range(count) if ids is None else unique_ids(ids, count, "trial"))
    if found.dtype.kind not in "iu":
        raise DataError(f"trial_ids: found {found[0]!r}; need whole numbers.")
    return found
