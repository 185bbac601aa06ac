"""NumPyro's automatic guides over the site x, trial by trial; there is no encoder.

    auto_normal    q(x) = prod N(loc, scale^2), independent numbers
    auto_lowrank   q(x_i) = N(loc_i, W_i W_i^T + diag(s_i^2)) of the whole path of trial i
    auto_delta     a point; its "bound" is the log joint density, whose maximum is the mode (MAP), and cannot be
                   compared with the bounds of other guides

They are ``AutoNormal``, ``AutoLowRankMultivariateNormal`` and ``AutoDelta`` of NumPyro, with a table of one entry for
each trial (:mod:`mrsds_ppl.guides.path_guide`). The low rank is one for each trial, which are independent given the
program.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.guides.base import padding, positive, unconstrained_scale
from mrsds_ppl.guides.path_guide import START_SCALE, PathGuide
from mrsds_ppl.statespace.smoothing import PathMoments, independent_scales

_STEPS = 0  # from smoothed paths, steps on draws gain less than a nat a trial, and may lose ten


class AutoPathNormal(PathGuide):
    """Independent normals, as of ``numpyro.infer.autoguide.AutoNormal``."""

    new_trial_steps = _STEPS

    def entries(self, loc: Float[np.ndarray, "trial bin latent"]) -> dict[str, np.ndarray]:
        return {"auto_path_loc": loc, "auto_path_scale": np.full_like(loc, START_SCALE)}

    def at(self, moments: PathMoments) -> dict[str, Array]:
        return {"auto_path_loc": moments.mean, "auto_path_scale": unconstrained_scale(independent_scales(moments))}

    def law(self, entries: dict[str, Array], batch: Batch) -> dist.Distribution:
        pad = padding(batch)
        scale = jnp.where(pad, 1.0, positive(entries["auto_path_scale"]))
        return dist.Normal(jnp.where(pad, 0.0, entries["auto_path_loc"]), scale).to_event(2)


class AutoPathLowRank(PathGuide):
    """Normal with a covariance of low rank and a diagonal, as of ``AutoLowRankMultivariateNormal``, for each path.

    Args:
        rank: columns of W.
        (others): see :class:`PathGuide`.
    """

    new_trial_steps = _STEPS

    def __init__(self, model: Any, *, key: PRNGKeyArray | None = None, rank: int = 10) -> None:
        self.rank = rank
        super().__init__(model, key=key)

    def entries(self, loc: Float[np.ndarray, "trial bin latent"]) -> dict[str, np.ndarray]:
        return {
            "auto_path_loc": loc,
            "auto_path_scale": np.full_like(loc, START_SCALE),
            "auto_path_factor": 0.01 * self._directions(loc.shape),
        }

    def at(self, moments: PathMoments) -> dict[str, Array]:
        scales = independent_scales(moments)
        return {
            "auto_path_loc": moments.mean,
            "auto_path_scale": unconstrained_scale(scales),
            "auto_path_factor": 0.03 * scales[..., None] * self._directions(scales.shape),
        }

    def _directions(self, shape: tuple[int, ...]) -> np.ndarray:
        # Columns of W that start at zero would all get the same gradient, zero.
        return np.random.default_rng(0).normal(size=(*shape, self.rank))

    def law(self, entries: dict[str, Array], batch: Batch) -> dist.Distribution:
        pad, loc = padding(batch), entries["auto_path_loc"]
        trials, shape = loc.shape[0], loc.shape[1:]
        scale = jnp.where(pad, 1.0, positive(entries["auto_path_scale"]))
        factor = jnp.where(pad[..., None], 0.0, entries["auto_path_factor"])
        flat = dist.LowRankMultivariateNormal(
            jnp.where(pad, 0.0, loc).reshape(trials, -1),
            factor.reshape(trials, -1, self.rank),
            (scale**2).reshape(trials, -1),
        )
        return dist.TransformedDistribution(flat, dist.transforms.ReshapeTransform(shape, (shape[0] * shape[1],)))


class AutoPathDelta(PathGuide):
    """A point, as of ``AutoDelta``: log q is 0 there, so the objective is that of the mode, not a bound."""

    point = True  # steps find the mode itself

    def entries(self, loc: Float[np.ndarray, "trial bin latent"]) -> dict[str, np.ndarray]:
        return {"auto_path_loc": loc}

    def law(self, entries: dict[str, Array], batch: Batch) -> dist.Distribution:
        return dist.Delta(jnp.where(padding(batch), 0.0, entries["auto_path_loc"]), event_dim=2)
