"""``mrsds edges``: which messages the held-out trials ask for."""

from collections.abc import Callable
from pathlib import Path

import xarray as xr

from mrsds_ppl.backend.device import enable_compilation_cache
from mrsds_ppl.fitted import Fit


def edges(given: str | Path, *, rate: float = 0.1, log: Callable[[str], None] = print) -> xr.Dataset:
    """Print what each message is worth to the test trials of a run, and which are present.

    Args:
        given: the run, see :meth:`mrsds_ppl.fitted.Fit.load`.
        rate: false discovery rate.
        log: prints a line for the user.

    Raises:
        ConfigError, DataError, RunError: the run or its recording cannot be read, or has fewer than five test trials.
    """
    enable_compilation_cache()
    found = Fit.load(given).edges(rate=rate)
    log(
        f"{found.attrs['trials']} test trials; evidence log p(y) that is lost without a message, in nats a trial "
        f"(standard error); present: false discovery rate {rate:g}"
    )
    width = max(len(str(name)) for axis in ("source", "target") for name in found[axis].values)
    log(f"state  {'from':{width}}  {'to':{width}}  {'evidence':>16}  p_value  q_value")
    for state in found["state"].values:
        for target in found["target"].values:
            for source in found["source"].values:
                one = found.sel(state=state, target=target, source=source)
                if source != target:
                    log(
                        f"{state:5}  {source:{width}}  {target:{width}}  {float(one['evidence']):8.2f} "
                        f"({float(one['error']):.2f})  {float(one['p_value']):7.4f}  {float(one['q_value']):7.4f}"
                        f"{'  present' if one['present'] else ''}"
                    )
    return found
