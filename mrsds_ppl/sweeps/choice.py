"""Which number of states and latents the held-out trials ask for, from the evidence of all cells.

Of the seeds of one K, d and fold the one with the highest bound on its training trials counts, as among restarts; all
seeds are shown. Trials of all folds are pooled, since each is held out once. Taken is the smallest program within two
standard errors of the best, as by ``mrsds compare``.
"""

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Int

from mrsds_ppl.analysis.evidence import Choice, smallest_adequate


class Shape(NamedTuple):
    """K and the latents of each region, as they stand along the axes of the dataset."""

    num_states: int
    latent_size: int | str

    def __str__(self) -> str:
        return f"K={self.num_states}, d={self.latent_size}"


def shapes(cells: xr.Dataset) -> list[Shape]:
    """All of them, smallest program first."""
    found = [Shape(int(k), d) for k in cells.num_states.values for d in cells.latent_size.values.tolist()]
    sizes = cells.parameters.fillna(np.inf)
    return sorted(found, key=lambda shape: float(sizes.sel(shape._asdict())))


def shape_named(cells: xr.Dataset, name: str) -> Shape:
    """The one that reads so as text."""
    return next(shape for shape in shapes(cells) if str(shape) == name)


def counted_seeds(cells: xr.Dataset) -> Int[np.ndarray, "states size fold"]:
    """Number of the seed that counts in each fold, that of the highest bound; -1 where none was fitted."""
    bound = cells.bound.transpose("num_states", "latent_size", "fold", "seed").values
    known = np.isfinite(bound)
    return np.where(known.any(-1), np.where(known, bound, -np.inf).argmax(-1), -1)


def pooled_evidence(cells: xr.Dataset) -> xr.DataArray:
    """log p(y) of every held-out trial by the seed that counts in its fold, (num_states, latent_size, trial).

    NaN where that was not fitted.
    """
    evidence = cells.evidence.transpose("num_states", "latent_size", "seed", "trial")
    counted = counted_seeds(cells)[:, :, cells.trial_fold.values]
    found = np.take_along_axis(evidence.values, np.maximum(counted, 0)[:, :, None], axis=2)[:, :, 0]
    coords = {name: evidence[name] for name in ("num_states", "latent_size", "trial")}
    return xr.DataArray(np.where(counted >= 0, found, np.nan), coords, tuple(coords), "evidence", {"units": "nats"})


def choose(cells: xr.Dataset) -> Choice | None:
    """The rule's choice among the shapes whose held-out trials all have a finite evidence; None where there is none.

    Names are those of :class:`Shape` as text.
    """
    pooled = pooled_evidence(cells)
    complete = {}
    for shape in shapes(cells):
        values = pooled.sel(shape._asdict()).values
        if len(values) and np.isfinite(values).all():
            complete[str(shape)] = values
    return smallest_adequate(complete) if complete else None


def compared(cells: xr.Dataset) -> xr.Dataset:
    """One row for each shape, (num_states, latent_size).

    ``evidence`` and its ``error`` over trials, in nats a trial; ``difference`` to the best and the error of that;
    ``over_seeds`` and ``over_folds``, standard deviations of the mean evidence over seeds (same trials) and over folds;
    ``parameters``; ``done``, cells that were fitted; ``seconds``, of all of them; ``peak_memory``, the largest in MB;
    ``state_agreement`` and ``message_agreement`` of seeds, means over folds.
    """
    pooled, choice = pooled_evidence(cells), choose(cells)
    known = pooled.notnull().all("trial")
    axes = ("num_states", "latent_size")
    found = xr.Dataset(
        {
            "evidence": pooled.mean("trial", skipna=False),
            "error": _spread(pooled, "trial").where(known) / np.sqrt(max(pooled.sizes["trial"], 1)),
            "over_seeds": _spread(cells.evidence.mean("trial", skipna=False), "seed"),
            "over_folds": _spread(pooled.groupby(cells.trial_fold).mean(skipna=False), "trial_fold"),
            "parameters": cells.parameters,
            "done": cells.bound.notnull().sum(["seed", "fold"]),
            "seconds": cells.seconds.sum(["seed", "fold"]),
            "peak_memory": cells.peak_memory.max(["seed", "fold"]),
            "state_agreement": _mean(cells.state_agreement, "fold"),
            "message_agreement": _mean(cells.message_agreement, "fold"),
        }
    )
    for name in ("difference", "difference_error"):
        found[name] = (axes, np.full([found.sizes[axis] for axis in axes], np.nan))
    if choice is not None:
        for shape in shapes(cells):
            if str(shape) in choice.difference:
                found.difference.loc[shape._asdict()] = choice.difference[str(shape)]
                found.difference_error.loc[shape._asdict()] = choice.error[str(shape)]
    return found


def _spread(values: xr.DataArray, axis: str) -> xr.DataArray:
    """Standard deviation along an axis of what is known; NaN for fewer than two."""
    known = values.notnull().sum(axis)
    squares = ((values - _mean(values, axis)) ** 2).fillna(0.0).sum(axis)
    return (squares / (known - 1).where(known > 1)) ** 0.5


def _mean(values: xr.DataArray, axis: str) -> xr.DataArray:
    """Mean along an axis of what is known; NaN, and no warning, where nothing is."""
    known = values.notnull().sum(axis)
    return values.fillna(0.0).sum(axis) / known.where(known > 0)
