"""What a worker does: the fit of a cell, with its files, and what the sweep needs of it."""

import gc
import logging
import resource
import socket
import sys
import time
import warnings
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr

from mrsds_ppl.analysis.communication import input_labels, region_labels
from mrsds_ppl.analysis.evidence import program_size, trial_evidence
from mrsds_ppl.analysis.recovery.alignment import valid_bins
from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.data.trials_file import read_trials
from mrsds_ppl.errors import MrsdsError, RunError
from mrsds_ppl.fit import fit_into_files
from mrsds_ppl.fitted import Fit
from mrsds_ppl.storage.atomic import remove_asides, written_aside
from mrsds_ppl.sweeps.cells import Cell
from mrsds_ppl.sweeps.files import RECORDING_FILE, SweepPaths
from mrsds_ppl.sweeps.measures import variance_explained

_PROCESS = Path("/proc/self")


class Outcome(NamedTuple):
    """How the fit of a cell ended: ``error`` says what went wrong, in a sentence, where it was not done."""

    cell: Cell
    error: str | None = None


def run_cell(paths: SweepPaths, config: RunConfig, cell: Cell) -> Outcome:
    """Fit a cell and write ``CELL-cell.nc``; one that was begun before goes on from its checkpoint.

    Args:
        paths: files of the sweep, whose recording is read once by each process.
        config: of the sweep.
        cell: which one.

    Returns:
        how it ended. An error of this package is one of this cell, and told, so that the other cells go on.
    """
    if paths.result(cell).exists():
        return Outcome(cell)
    remove_asides(paths.result(cell))
    try:
        _fit_cell(paths, config, cell)
    except MrsdsError as error:
        return Outcome(cell, str(error))
    finally:
        # What was compiled for one cell fits no other but those of its shape, which read it from the cache on disk. A
        # process has memory maps for a few hundred programs.
        jax.clear_caches()
        gc.collect()
    return Outcome(cell)


def _fit_cell(paths: SweepPaths, config: RunConfig, cell: Cell) -> None:
    began, run = time.perf_counter(), paths.run(cell)
    _forget_peak_memory()
    if not paths.recording.exists():
        raise RunError(
            f"{paths.recording}: the worker on {socket.gethostname()} does not see this file. All workers need the "
            "folder of the results under the same path (--result-path)."
        )
    trials = _recording(paths.recording, paths.recording.stat().st_mtime_ns)
    with warnings.catch_warnings():
        warnings.showwarning = _to_log
        fit = fit_into_files(
            trials,
            cell.configured(config, RECORDING_FILE),
            run,
            say=lambda line: None,
            resume=run.config.exists(),
            progress=False,
        )
        found = summary(fit)
    found.attrs |= {"seconds": time.perf_counter() - began, "peak_memory": _peak_memory()}
    with written_aside(paths.result(cell)) as aside:
        found.to_netcdf(aside, engine="h5netcdf", encoding={"norms": {"zlib": True, "complevel": 1}})


def summary(fit: Fit) -> xr.Dataset:
    """What a sweep needs of a fit: ``evidence``, likeliest ``states`` and ``norms`` of messages of the test trials.

    ``bound``, an attribute, is that of the training trials in nats per observed value.
    """
    test, model = fit.split.test, fit.model
    regions = region_labels(model, fit.trials)
    sources = regions + input_labels(model, fit.trials)
    between = [(t, s) for t in range(len(regions)) for s in range(len(sources)) if t != s]
    norms = np.stack([fit.test.norms[..., t, s] for t, s in between] or [np.zeros((*test.y.shape[:2],))], axis=-1)
    states = np.where(valid_bins(test.lengths, test.num_bins), fit.test.z_prob.argmax(-1), -1)
    return xr.Dataset(
        {
            "evidence": ("trial", trial_evidence(fit.program, test).astype(float)),
            "states": (("trial", "time"), states.astype(np.int16)),
            "norms": (("trial", "time", "message"), norms.astype(np.float32)),
            "lengths": ("trial", test.lengths),
            "variance_explained": (
                ("region", "component"),
                variance_explained(fit.test.x_mean, test, list(model.latent_sizes)),
            ),
        },
        {
            "trial": test.ids.astype(str) if test.ids.dtype.kind == "O" else test.ids,
            "message": [f"{sources[s]} to {regions[t]}" for t, s in between] or ["none"],
            "region": regions,
        },
        {
            "bound": float(fit.train.elbo.sum() / fit.split.train.observed.sum()),
            "parameters": program_size(model),
        },
    )


@lru_cache(maxsize=1)
def _recording(path: Path, written: int) -> Trials:
    """The recording of a sweep, read once by each process; ``written`` is the time of its file."""
    return read_trials(path)


def _to_log(message: Warning | str, *_: object, **__: object) -> None:
    """Warnings of a worker, which has no terminal of its own, go to the log of the run."""
    logging.getLogger("mrsds_ppl").warning("warning: %s", message)


def _forget_peak_memory() -> None:
    """Count anew from here, where the system can (Linux)."""
    try:
        (_PROCESS / "clear_refs").write_text("5")
    except OSError:
        return


def _peak_memory() -> float:
    """Largest resident memory in megabytes, since it was forgotten."""
    status = _PROCESS / "status"
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
