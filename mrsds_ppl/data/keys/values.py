"""What readers find beside arrays, text and lists: structs, and what only another program can read."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_SHOWN = 8


@dataclass(frozen=True)
class Struct:
    """A struct of MATLAB, or a group of HDF5 or zarr: values by name."""

    fields: Mapping[str, object]
    kind: str = "struct"


@dataclass(frozen=True)
class Unread:
    """A value that is not read; ``why`` says what it is and how to save it instead, after the word "is"."""

    why: str


def shown(value: object) -> str:
    """A value in a few words: text and few numbers as they are, larger arrays by shape."""
    match value:
        case Unread():
            return "not readable"
        case Struct():
            return f"a {value.kind} with the fields {listed(value.fields)}"
        case list() if not value:
            return "an empty list"
        case list() if isinstance(value[0], Struct):
            return f"{len(value)} structs with the fields {listed(value[0].fields)}"
        case list() if isinstance(value[0], np.ndarray):
            shapes = [str(np.shape(item)) for item in value]
            return f"a list of {len(value)}, shapes {listed(shapes, 3)}"
        case np.ndarray() if value.size > _SHOWN:
            return str(value.shape)
        case np.ndarray():
            return repr(value.tolist())
    return repr(value) if len(repr(value)) < 80 else type(value).__name__


def listed(names: object, most: int = _SHOWN) -> str:
    """The first names, and how many more there are."""
    found = [str(name) for name in names] if isinstance(names, Mapping | list | tuple | set) else [str(names)]
    more = "" if len(found) <= most else f" and {len(found) - most} more"
    return ", ".join(found[:most]) + more
