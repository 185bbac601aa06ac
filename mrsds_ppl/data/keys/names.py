"""Keys that are not there, and names in the file that may be meant."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from mrsds_ppl.data.keys.values import SHOWN, Struct, shown
from mrsds_ppl.errors import DataError, listed

_NEEDED = "ys (trial, time, neuron), us (trial, time, input), region_sizes or regions"
# What the same is called elsewhere.
_ALSO = {
    "ys": ("y", "spikes", "spike_counts", "counts", "data", "activity", "rates", "neural", "signals", "dff", "binned"),
    "region_sizes": ("num_neurons", "n_neurons", "neurons_per_region", "sizes", "regions_sizes"),
}
# Too short to be meant by a neighbour, or with a neighbour that names an axis.
_NOT_MISSPELT = ("x", "z", "regions", "neurons")


def refuse_missing(found: Mapping[str, object], required: Sequence[str], optional: Sequence[str]) -> None:
    """Check that the required keys are there.

    Raises:
        DataError: one is not; what was found with its shape, and what may be meant.
    """
    missing = [key for key in required if key not in found]
    if not missing:
        return
    key = missing[0]
    inside = [name for name, value in found.items() if isinstance(value, Struct) and key in value.fields]
    if inside:
        value = found[inside[0]]
        raise DataError(
            f"has no key '{key}', but {inside[0]} is {shown(value)}. Save its fields as variables of their own"
            + (f": save('file.mat', '-struct', '{inside[0]}')." if getattr(value, "kind", "") == "struct" else ".")
        )
    others = [name for name in found if name not in (*required, *optional)]
    near = _near(key, others)
    meant = f" Did you mean {near}? Save it as {key}." if near else f" Needed are {_NEEDED}."
    all_found = [f"{name} {shown(value)}" for name, value in sorted(found.items())] or ["nothing"]
    raise DataError(f"has no key '{key}'; found {listed(all_found, SHOWN)}.{meant}")


def _near(key: str, others: Sequence[str]) -> str | None:
    folded = {name.casefold(): name for name in others}
    for word in (key, *_ALSO[key]):
        if word in folded:
            return folded[word]
    for word in (key, *_ALSO[key]):
        close = get_close_matches(word, folded, n=1, cutoff=0.75)
        if close:
            return folded[close[0]]
    return None


def refuse_misspelt(found: Mapping[str, object], optional: Sequence[str]) -> None:
    """Check that no optional key is written in another way, which would leave it out without a word.

    Raises:
        DataError: one is, such as ``label`` or ``Us``.
    """
    absent = {_bare(key): key for key in optional if key not in found and key not in _NOT_MISSPELT}
    for name in found:
        if name not in optional and _bare(name) in absent:
            key = absent[_bare(name)]
            raise DataError(f"found the key '{name}', which is none; did you mean {key}? Rename it, or take it out.")


def _bare(name: str) -> str:
    return name.casefold().replace("_", "").replace(" ", "").removesuffix("s")
