"""What readers find beside arrays, text and lists: structs, and what only another program can read."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mrsds_ppl.errors import listed

SHOWN = 8  # names, or numbers


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
            return f"a {value.kind} with the fields {listed(value.fields, SHOWN)}"
        case list() if not value:
            return "an empty list"
        case list() if isinstance(value[0], Struct):
            return f"{len(value)} structs with the fields {listed(value[0].fields, SHOWN)}"
        case list() if isinstance(value[0], np.ndarray):
            shapes = [str(np.shape(item)) for item in value]
            return f"a list of {len(value)}, shapes {listed(shapes, 3)}"
        case np.ndarray() if value.size > SHOWN:
            return str(value.shape)
        case np.ndarray():
            return repr(value.tolist())
    return repr(value) if len(repr(value)) < 80 else type(value).__name__
