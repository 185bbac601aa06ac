"""``mrsds report``: one page about a run."""

import time
from collections.abc import Callable
from pathlib import Path

from mrsds_ppl.backend.device import enable_compilation_cache
from mrsds_ppl.data.labels import read_labels
from mrsds_ppl.fitted import Fit
from mrsds_ppl.output.report.gather import write_report
from mrsds_ppl.storage.paths import find_run


def report(
    given: str | Path,
    *,
    out: Path | None = None,
    labels: Path | None = None,
    quick: bool = False,
    log: Callable[[str], None] = print,
) -> Path:
    """Write ``NAME_report.html`` and return its path.

    Args:
        given: the run, see :meth:`mrsds_ppl.fitted.Fit.load`.
        out: another name for the page.
        labels: conditions of the trials, see :func:`mrsds_ppl.data.labels.read_labels`; those of the recording where
            not given.
        quick: leave the tests of messages out.
        log: prints a line for the user.

    Raises:
        ConfigError, DataError, RunError: the run or its recording cannot be read, or it has not ended yet.
    """
    started, paths = time.perf_counter(), find_run(given)
    enable_compilation_cache()
    fit = Fit.load(given)
    conditions = None if labels is None else read_labels(labels, fit.trials.ids)
    page = write_report(fit, paths.report if out is None else out, conditions, quick=quick)
    log(f"{page}: {page.stat().st_size / 1e6:.1f} MB in {time.perf_counter() - started:.0f} s")
    return page
