"""Gaussian Markov guide without an encoder: every trial has numbers m_t, A_t and L_t of its own.

    x_t - m_t = A_t (x_{t-1} - m_{t-1}) + L_t eps_t,    eps_t ~ N(0, I)

What an encoder cannot tell from the signals is not lost here: with sparse counts and small state noise a posterior is
narrow, and the errors of an encoder are wider than it. The price is that new trials are smoothed, not read off.
Training trials begin at the Laplace posterior of the program itself, and end there.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.guides.base import lower_triangle, padding, positive, unconstrained_scale
from mrsds_ppl.guides.gaussian_markov import bounded
from mrsds_ppl.guides.path_guide import START_SCALE, PathGuide
from mrsds_ppl.ppl.gaussian_chain import GaussianChain
from mrsds_ppl.statespace.smoothing import PathMoments, chain_of


class GaussianMarkovPaths(PathGuide):
    """One Gaussian chain for each trial; see :class:`~mrsds_ppl.guides.PathGuide` for how trials are found."""

    # They stay at the Laplace posterior under likeliest states; steps on draws lower the bound, unless they are many.
    new_trial_steps, new_trial_rate = 0, 0.003

    def entries(self, loc: Float[np.ndarray, "trial bin latent"]) -> dict[str, np.ndarray]:
        latents = loc.shape[-1]
        return {
            "auto_path_loc": loc,
            "auto_path_scale": np.full_like(loc, START_SCALE),
            "auto_path_gain": np.zeros((*loc.shape, latents)),
            "auto_path_lower": np.zeros((*loc.shape[:2], latents * (latents - 1) // 2)),
        }

    def law(self, entries: dict[str, Array], batch: Batch) -> dist.Distribution:
        pad, mean, gain = padding(batch), entries["auto_path_loc"], entries["auto_path_gain"]
        latents = mean.shape[-1]
        scale = jnp.where(pad, 1.0, positive(entries["auto_path_scale"]))
        lower = jnp.where(pad[..., None], 0.0, lower_triangle(entries["auto_path_lower"], latents))
        gain = bounded(gain.reshape(*gain.shape[:2], -1)).reshape(gain.shape)
        return GaussianChain(
            jnp.where(pad, 0.0, mean),
            jnp.where(pad[..., None], 0.0, gain),
            scale[..., None] * jnp.eye(latents, dtype=mean.dtype) + lower,
        )

    def at(self, moments: PathMoments) -> dict[str, Array]:
        """Entries of the table that give the chains these moments, or the nearest stable ones."""
        return _entries_of(moments)


@jax.jit
def _entries_of(moments: PathMoments) -> dict[str, Array]:
    mean, gain, cholesky = chain_of(moments)
    latents = mean.shape[-1]
    rows, columns = np.tril_indices(latents, -1)
    scale = jnp.diagonal(cholesky, axis1=-2, axis2=-1)
    # The inverse of `bounded`.
    share = jnp.minimum((gain**2).sum((-1, -2), keepdims=True) / (1.44 * latents), 0.98)
    return {
        "auto_path_loc": mean,
        "auto_path_scale": unconstrained_scale(scale),
        "auto_path_gain": gain / jnp.sqrt(1.0 - share),
        "auto_path_lower": cholesky[..., rows, columns],
    }
