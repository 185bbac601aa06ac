"""How far fits of recordings like this one are from the truth, and intervals that allow for it.

The recording is simulated anew from the fit and fitted anew, n times. With e_b and t_b the estimated and the true norm
of a message in replicate b, and d_b = log e_b - log t_b,

    log t  in  log e - mean d  -+  q sd(d) (1 + 1/n)^1/2,        q of Student's law with n - 1 degrees of freedom.

A curvature knows how much of a message the signals leave open; that a procedure makes messages smaller, only its
repetition shows. Whether a message is there at all is not asked here, as no norm is zero: see
:mod:`mrsds_ppl.analysis.edges`. Source: Efron and Tibshirani (1993), bootstrap estimates of bias.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy import stats

from mrsds_ppl.analysis.calibration.recovered import LEVELS, Recovered


@dataclass(frozen=True)
class Calibration:
    """Refits of replicates.

    ``true`` and ``estimated``: mean norms of messages, (replicate, state, target, source). ``coverage``: share of
    latents, of messages bin by bin, and of mean norms that intervals of a level hold, (quantity, level).
    """

    true: xr.DataArray
    estimated: xr.DataArray
    coverage: xr.DataArray

    def interval(self, mean: xr.DataArray, level: float) -> xr.Dataset:
        """``mean low high`` of the mean norms of a fit.

        Args:
            mean: of the fit that the replicates were simulated from, (state, target, source); sources that these do not
                have, such as inputs, get NaN.
            level: probability between low and high.
        """
        off: xr.DataArray = xr.apply_ufunc(np.log, self.estimated / self.true)
        count = off.sizes["replicate"]
        reach = stats.t.ppf(0.5 + level / 2, count - 1) * off.std("replicate", ddof=1) * np.sqrt(1 + 1 / count)
        middle, reach = -off.mean("replicate").reindex_like(mean), reach.reindex_like(mean)
        low, high = (mean * np.exp(middle + sign * reach) for sign in (-1, 1))
        return xr.Dataset({"mean": mean, "low": low, "high": high}, attrs={"level": level, **mean.attrs})


def calibration(found: Sequence[Recovered], regions: Sequence[str]) -> Calibration:
    """What replicates say together.

    Args:
        found: of each of them, at least three.
        regions: names of targets and sources.
    """
    dims = ("replicate", "state", "target", "source")
    coords = {"target": list(regions), "source": list(regions)}
    true, estimated = (
        xr.DataArray(np.stack([getattr(one, name) for one in found]), coords, dims) for name in ("true", "estimated")
    )
    shares = {name: np.mean([getattr(one, name) for one in found], axis=0) for name in ("latents", "messages")}
    held = np.array([_held_by_others(true, estimated, level) for level in LEVELS])
    coverage = xr.DataArray(
        np.stack([*shares.values(), held]),
        {"quantity": [*shares, "communication"], "level": list(LEVELS)},
        ("quantity", "level"),
    )
    return Calibration(true, estimated, coverage)


def _held_by_others(true: xr.DataArray, estimated: xr.DataArray, level: float) -> float:
    """Share of the norms of each replicate that lie in the interval that all others give."""
    inside = []
    for left_out in range(true.sizes["replicate"]):
        others = np.arange(true.sizes["replicate"]) != left_out
        told = Calibration(true[others], estimated[others], xr.DataArray()).interval(estimated[left_out], level)
        between = true.isel(replicate=left_out)
        inside.append(((between >= told["low"]) & (between <= told["high"])).values[between.notnull().values])
    return float(np.concatenate(inside).mean())
