"""Neurons and inputs by name: the region of each neuron, the order in which they are kept, what inputs are called."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Int, Shaped

from mrsds_ppl.errors import DataError


@dataclass(frozen=True)
class Neurons:
    """Neurons sorted by region, in the order of the recording within each.

    ``order`` has the column in the recording of each neuron, ``ids`` its name there; ``region_names`` and
    ``region_sizes`` have an entry for each region.
    """

    order: Int[np.ndarray, " neuron"]
    ids: Shaped[np.ndarray, " neuron"]
    region_names: list[str]
    region_sizes: list[int]

    @property
    def regions(self) -> Shaped[np.ndarray, " neuron"]:
        """Name of the region of each neuron."""
        return np.repeat(self.region_names, self.region_sizes)


def arrange_neurons(
    count: int,
    region_sizes: Sequence[int] | None = None,
    regions: Iterable[object] | None = None,
    region_names: Sequence[str] | None = None,
    ids: Iterable[object] | None = None,
) -> Neurons:
    """Neurons by region, from the size of each region or from a label for each neuron.

    Args:
        count: neurons of the recording.
        region_sizes: neurons of each region, in the order of the recording; default one region.
        regions: (neuron,) name of the region of each neuron, in any order. Regions come in the order in which they
            first appear.
        region_names: names of ``region_sizes``; beside ``regions``, their order.
        ids: (neuron,) names of the neurons; default REGION:0, REGION:1, ...

    Raises:
        DataError: both or neither fit the number of neurons, an empty label, or an id that occurs twice.
    """
    if regions is None:
        names, sizes = _sized(count, region_sizes, region_names)
        order = np.arange(count)
    elif region_sizes is None:
        names, sizes, order = _labelled(count, list(regions), region_names)
    else:
        raise DataError("regions and region_sizes: found both; give the region of each neuron, or the sizes.")
    if ids is None:
        return Neurons(
            order, np.array([f"{n}:{i}" for n, m in zip(names, sizes, strict=True) for i in range(m)]), names, sizes
        )
    return Neurons(order, np.asarray(unique_ids(ids, count, "neuron"))[order], names, sizes)


def without(dataset: xr.Dataset, ids: Iterable[object]) -> xr.Dataset:
    """The dataset without some neurons, whose ids its attribute ``left_out`` lists.

    Raises:
        DataError: there is no such neuron, or a region would have none left.
    """
    neurons, regions, names = dataset["neuron"].values, dataset["region"].values, dataset.attrs["region_names"]
    gone = np.asarray(list(ids))
    if len(gone) == 0:
        return dataset
    known = np.isin(gone, neurons)
    if not known.all():
        raise DataError(f"neuron {gone[~known][0]}: there is none of this id; the first are {neurons[:5].tolist()}.")
    keep = ~np.isin(neurons, gone)
    sizes = [int((keep & (regions == name)).sum()) for name in names]
    if 0 in sizes:
        raise DataError(f"region {names[sizes.index(0)]}: no neuron would be left; leave the region out.")
    left_out = [*dataset.attrs.get("left_out", []), *map(str, neurons[~keep])]
    return dataset.isel(neuron=keep).assign_attrs(region_sizes=sizes, left_out=left_out)


def of_session(dataset: xr.Dataset, name: str) -> xr.Dataset:
    """The dataset of one of the joined sessions, with its own ids, neurons and regions.

    Raises:
        DataError: there is no such session.
    """
    names = dataset["session_name"].values.tolist() if "session_name" in dataset.coords else []
    if name not in names:
        raise DataError(f"session: found {name!r}; allowed: {', '.join(names) or 'none, as no sessions were joined'}.")
    own, some = dataset["own_neuron"].sel(session_name=name), np.flatnonzero(dataset["session"].values == name)
    there = own.values != ""
    plain = dataset.drop_vars(["session", "session_name", "own_neuron"]).isel(neuron=there, trial=some)
    lengths, regions = plain["lengths"].values, plain["region"].values
    sizes = {region: int((regions == region).sum()) for region in dataset.attrs["region_names"]}
    ids = [_name(str(i).removeprefix(f"{name}/")) for i in plain["trial"].values]
    # Text that stands for whole numbers is what it was before.
    whole = all(str(i).lstrip("-").isdigit() for i in ids)
    plain = plain.isel(time=slice(0, int(lengths.max(initial=0))))
    plain = plain.assign_coords(trial=np.array([int(i) for i in ids] if whole else ids), neuron=own.values[there])
    own_regions = {region: size for region, size in sizes.items() if size}
    return plain.assign_attrs(region_names=list(own_regions), region_sizes=list(own_regions.values()))


def unique_ids(ids: Iterable[object], count: int, what: str) -> list[str | int]:
    """Ids of neurons or trials, whole numbers or text. Raises DataError where there is not one of its own for each."""
    found = [_name(value) for value in ids]
    if len(found) != count:
        raise DataError(f"{what} ids: found {len(found)} for {count} {what}s; need one for each.")
    twice = _first_repeated(found)
    if twice is not None:
        raise DataError(f"{what} ids: {twice!r} occurs twice; give each {what} an id of its own.")
    return found


def default_input_names(count: int) -> list[str]:
    """``input 0``, ``input 1``, ..."""
    return [f"input {i}" for i in range(count)]


def check_input_names(names: Iterable[object] | None, count: int, region_names: Sequence[str]) -> list[str]:
    """Name of each input, by default ``input 0``, ...

    Raises:
        DataError: another number of names, or a name that is empty, occurs twice or is a region's, since messages are
            selected by source.
    """
    found = default_input_names(count) if names is None else [str(_name(name)).strip() for name in names]
    if len(found) != count:
        raise DataError(f"input_names: found {len(found)} names for {count} inputs: {found}.")
    if "" in found:
        raise DataError(f"input_names: the name of input {found.index('')} is empty; give each input a name.")
    twice = _first_repeated([*region_names, *found])
    if twice is not None:
        raise DataError(
            f"input_names: {twice!r} occurs twice among regions and inputs, which are the sources of messages; "
            "give each a name of its own."
        )
    return found


def _sized(
    count: int, region_sizes: Sequence[int] | None, region_names: Sequence[str] | None
) -> tuple[list[str], list[int]]:
    sizes = [count] if region_sizes is None else [int(n) for n in np.ravel(region_sizes)]
    if sum(sizes) != count or min(sizes) < 1:
        raise DataError(
            f"region_sizes: {sizes} add up to {sum(sizes)}, but ys has {count} neurons. "
            "Give the number of neurons of each region, at least one each, in the order of the columns of ys."
        )
    names = [f"region{r}" for r in range(len(sizes))] if region_names is None else [str(n) for n in region_names]
    if len(names) != len(sizes):
        raise DataError(f"region_names: found {len(names)} names for {len(sizes)} regions: {names}.")
    twice = _first_repeated(names)
    if twice is not None:
        raise DataError(f"region_names: {twice!r} occurs twice in {names}; name each region once.")
    return names, sizes


def _labelled(
    count: int, given: list[object], region_names: Sequence[str] | None
) -> tuple[list[str], list[int], Int[np.ndarray, " neuron"]]:
    if len(given) != count:
        raise DataError(f"regions: found {len(given)} labels for {count} neurons; need one for each.")
    labels = [str(_name(label)).strip() for label in given]
    unnamed = [i for i, (label, raw) in enumerate(zip(labels, given, strict=True)) if not label or _missing(raw)]
    if unnamed:
        raise DataError(
            f"regions: neuron {unnamed[0]} has the label {given[unnamed[0]]!r}"
            + (f" (and {len(unnamed) - 1} more)" if len(unnamed) > 1 else "")
            + "; name the region of each neuron, and leave out those whose region is not known."
        )
    found = list(dict.fromkeys(labels))
    names = found if region_names is None else [str(name) for name in region_names]
    if sorted(names) != sorted(found):
        raise DataError(f"region_names: found {names}, but the regions of the neurons are {found}; name each once.")
    place = np.array([names.index(label) for label in labels])
    return names, np.bincount(place).tolist(), np.argsort(place, kind="stable")


def _missing(label: object) -> bool:
    """None, masked, or what does not equal itself: NaN, NaT and NA of pandas."""
    if label is None or label is np.ma.masked or str(label) in ("<NA>", "NaT"):
        return True
    return bool(label != label)


def _name(value: object) -> str | int:
    """An id or label as it is, of numpy or not; whole numbers that MATLAB keeps as floats are whole."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return int(value)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    return value.decode() if isinstance(value, bytes) else str(value)


def _first_repeated(values: Sequence[object]) -> object | None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
