"""What signals may not be: rules that emissions refuse data by."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Refused(NamedTuple):
    """Values that signals may not have.

    ``what`` names one of them, ``found`` says where they are in an array (NaN, which is missing, is none), and
    ``remedy`` what to do.
    """

    what: str
    found: Callable[[np.ndarray], np.ndarray]
    remedy: str


_NEED_COUNTS = "These emissions need counts per bin; for rates and other signals use gaussian."
NOT_COUNTS = (
    Refused("a negative count", lambda y: y < 0, _NEED_COUNTS),
    Refused("a fractional count", lambda y: np.isfinite(y) & (y != np.round(y)), _NEED_COUNTS),
)
