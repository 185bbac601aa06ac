"""``mrsds edges``: which messages are there."""

from collections.abc import Callable, Iterator
from itertools import product
from math import isfinite
from pathlib import Path

import xarray as xr

from mrsds_ppl.backend.device import enable_compilation_cache
from mrsds_ppl.fitted import Fit


def edges(given: str | Path, *, rate: float = 0.1, log: Callable[[str], None] = print) -> xr.Dataset:
    """Print which messages of a run are there, and what each is worth to its test trials.

    Args:
        given: the run, see :meth:`mrsds_ppl.fitted.Fit.load`.
        rate: false discovery rate.
        log: prints a line for the user.

    Raises:
        ConfigError, DataError, RunError: the run or its recording cannot be read, or has too few trials.
    """
    enable_compilation_cache()
    found = Fit.load(given).edges(rate=rate)
    for line in table_of(found):
        log(line)
    return found


def table_of(found: xr.Dataset) -> Iterator[str]:
    """Lines about edges, a heading and one for each.

    Args:
        found: of :meth:`mrsds_ppl.fitted.Fit.edges`.
    """
    about = found.attrs
    yield (
        f"evidence: nats of log p(y) that test trials lose without a message (standard error over {about['trials']}); "
        f"p: whether they and training trials need it; present: false discovery rate {about['false_discovery_rate']:g}"
    )
    names = [str(name) for axis in ("source", "target") for name in found[axis].values]
    width = max(4, *map(len, names))
    yield f"state  {'from':{width}}  {'to':{width}}  {'evidence':>15}  p_value  q_value"
    for state, target, source in product(*(found[axis].values for axis in ("state", "target", "source"))):
        if source == target:
            continue
        one = found.sel(state=state, target=target, source=source)
        evidence, error, p, q = (float(one[name]) for name in ("evidence", "error", "p_value", "q_value"))
        there = "  present" if one["present"] else ""
        worth = f"{evidence:.2f}" + (f" ({error:.2f})" if isfinite(error) else "")
        yield f"{state:5}  {source:{width}}  {target:{width}}  {worth:>15}  {p:7.4f}  {q:7.4f}{there}"
