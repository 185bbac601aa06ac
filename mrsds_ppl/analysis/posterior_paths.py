"""Draws of states and latents from the posterior of trials.

With several states a draw of the latents has states of its own: states are drawn given the signals, with the latents
summed out, and then latents given these (:mod:`mrsds_ppl.models.path_draws`). The guide says around which path the
program is linearised. With one state the draws are those of the guide, and so they are in trials whose smoothed path is
not finite.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Float, PRNGKeyArray

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.backend.side_by_side import compiled
from mrsds_ppl.backend.trials_at_once import in_parts, over_rounds, over_trials
from mrsds_ppl.data.batch import Batch
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.models.path_draws import DRAWS_AT_ONCE, draw_paths
from mrsds_ppl.ppl.markov import potentials
from mrsds_ppl.statespace.chain import smooth


class PosteriorPaths(NamedTuple):
    """Draws of the latents, and p(z_t | x) of each; meaningless in padded bins."""

    x: Float[np.ndarray, "draw trial time latent"]
    z_prob: Float[np.ndarray, "draw trial time state"]


class PosteriorDraws(NamedTuple):
    """Draws of the latents, the mean of the laws that they are drawn from, and p(z_t | y, u).

    ``z_prob`` is NaN in trials whose draws are the guide's, though there are several states.
    """

    mean: Float[np.ndarray, "trial time latent"]
    x: Float[np.ndarray, "trial draw time latent"]
    z_prob: Float[np.ndarray, "trial time state"]


def posterior_paths(key: PRNGKeyArray, fitted: FittedProgram, trials: Trials, *, draws: int = 20) -> PosteriorPaths:
    """Draws of x and p(z | x); :func:`mrsds_ppl.analysis.communication.posterior_messages` goes along those of its key.

    Args:
        key: random key.
        fitted: program, guide and parameters.
        trials: the trials.
        draws: number of draws.
    """
    batch = trials.batch()
    x = posterior_draws(key, fitted, batch, draws).x
    z_prob = over_trials(lambda _, some, paths: _states_given(fitted, some, paths), None, batch, x)
    return PosteriorPaths(np.moveaxis(x, 1, 0), np.moveaxis(z_prob, 1, 0))


def posterior_draws(key: PRNGKeyArray, fitted: FittedProgram, batch: Batch, draws: int) -> PosteriorDraws:
    """Draws of states, of which ``z_prob`` tells, and of latents given these.

    Args:
        key: random key.
        fitted: program, guide and parameters.
        batch: the trials.
        draws: number of draws of the latents.
    """
    model = fitted.model
    medians = over_rounds(lambda _, some: _medians(fitted, some), None, batch)
    if model.num_states == 1:
        x = _of_guide(key, fitted, batch, draws)
        return PosteriorDraws(medians, x, np.ones((*medians.shape[:2], 1), medians.dtype))
    path_key, guide_key = random.split(key)
    drawn = draw_paths(path_key, fitted.networks, model, in_parts(batch), jnp.asarray(medians), draws)
    x, means = (np.asarray(some)[:, :draws] for some in (drawn.x, drawn.means))
    found = PosteriorDraws(means.mean(1), x, np.asarray(drawn.probabilities))
    finite = np.isfinite(found.x).all((1, 2, 3)) & np.isfinite(found.z_prob).all((1, 2))
    if finite.all():
        return found
    keep = finite[:, None, None]
    return PosteriorDraws(
        np.where(keep, found.mean, medians),
        np.where(keep[..., None], found.x, _of_guide(guide_key, fitted, batch, draws)),
        np.where(keep, found.z_prob, np.nan),
    )


def transition_draws(
    key: PRNGKeyArray, fitted: FittedProgram, batch: Batch, draws: int
) -> Float[np.ndarray, "draw from to"]:
    """Draws of how likely each state follows each: states given the signals, then a law given how often they did.

        z ~ p(z | y),        p_j ~ Dirichlet(1 + n_j1(z), ..., 1 + n_jK(z)),

    with n_jk the number of steps from j to k, and the uniform law before any. Dynamics are as fitted in all of them.

    Args:
        key: random key.
        fitted: program, guide and parameters.
        batch: the trials.
        draws: number of draws.
    """
    count = fitted.model.num_states
    path_key, law_key = random.split(key)
    steps = np.zeros((draws, count, count))
    if count > 1:
        medians = over_rounds(lambda _, some: _medians(fitted, some), None, batch)
        drawn = draw_paths(path_key, fitted.networks, fitted.model, in_parts(batch), jnp.asarray(medians), draws)
        states = np.moveaxis(np.asarray(drawn.states)[:, :draws], 1, 0)
        inside = np.arange(1, states.shape[-1]) < np.asarray(batch.lengths)[:, None]
        # Of trials whose smoothed path is not finite nothing is known.
        inside &= np.isfinite(np.asarray(drawn.x)).all((1, 2, 3))[:, None]
        each = np.broadcast_to(np.arange(draws)[:, None], (draws, inside.sum()))
        np.add.at(steps, (each, states[:, :, :-1][:, inside], states[:, :, 1:][:, inside]), 1.0)
    rng = np.random.default_rng(np.asarray(random.key_data(law_key)))
    law = rng.standard_gamma(1.0 + steps)
    return law / law.sum(-1, keepdims=True)


def _of_guide(key: PRNGKeyArray, fitted: FittedProgram, batch: Batch, draws: int) -> np.ndarray:
    """The guide's draws of the latents, (trial, draw, time, latent)."""
    rounds = -(-draws // DRAWS_AT_ONCE)
    x = over_rounds(lambda own, some: _guides_draws(own, fitted, some), key, batch, rounds=rounds)
    x = np.moveaxis(x.reshape(rounds, -1, *x.shape[1:]), 0, 1)
    return x.reshape(len(x), -1, *x.shape[3:])[:, :draws]


@compiled
def _medians(fitted: FittedProgram, batch: Batch) -> Array:
    return fitted.medians(batch)


@compiled
def _guides_draws(key: PRNGKeyArray, fitted: FittedProgram, batch: Batch) -> Array:
    return jnp.moveaxis(fitted.draws(key, batch, DRAWS_AT_ONCE), 0, 1)


@compiled
def _states_given(fitted: FittedProgram, batch: Batch, x: Array) -> Array:
    """p(z | x) of each draw, (trial, draw, bin, state)."""
    switching = fitted.model.switching(fitted.networks, batch)
    z = lax.map(lambda path: smooth(potentials(switching, path)).marginals, jnp.swapaxes(x, 0, 1))
    return jnp.transpose(z, (3, 0, 1, 2))
