"""Draws of the latents from the posterior, with the state probabilities given each."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from mrsds_ppl.backend.trials_at_once import over_trials
from mrsds_ppl.data.trials import Batch, Trials
from mrsds_ppl.models.mrsds import MRSDS
from mrsds_ppl.ppl.markov import potentials
from mrsds_ppl.statespace.chain import smooth


class PosteriorPaths(NamedTuple):
    """Draws of the latents, and p(z_t | x) of each; meaningless in padded bins."""

    x: Float[np.ndarray, "draw trial time latent"]
    z_prob: Float[np.ndarray, "draw trial time state"]


def posterior_paths(
    key: PRNGKeyArray, params: dict[str, Any], model: MRSDS, guide: Any, trials: Trials, *, draws: int = 20
) -> PosteriorPaths:
    """Draws of x and p(z | x); :func:`mrsds_ppl.analysis.communication.posterior_messages` goes along those of its key.

    Args:
        key: random key.
        params: fitted parameters by site.
        model, guide: program and guide.
        trials: the trials.
        draws: number of draws.
    """
    draw = partial(_draw_paths, params=params, model=model, guide=guide, draws=draws)
    return PosteriorPaths(*(np.moveaxis(a, 1, 0) for a in over_trials(draw, key, trials.batch())))


@partial(jax.jit, static_argnames=("model", "guide", "draws"))
def _draw_paths(
    key: PRNGKeyArray, batch: Batch, params: dict[str, Any], *, model: MRSDS, guide: Any, draws: int
) -> tuple[Array, Array]:
    """(trial, draw, bin, latent) and (trial, draw, bin, state)."""
    x = guide.sample_posterior(key, params, batch, sample_shape=(draws,))["x"]
    switching = model.switching(model.networks_from(params), batch)
    z = lax.map(lambda path: jnp.transpose(smooth(potentials(switching, path)).marginals, (2, 0, 1)), x)
    return jnp.moveaxis(x, 0, 1), jnp.moveaxis(z, 0, 1)
