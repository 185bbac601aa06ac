"""Dynamics networks from smoothed paths, moved further than their update says, and the noise that suits them.

With sparse signals most of what a smoothed path knows of a step is the dynamics it was smoothed with, so
expectation-maximisation moves them a little at a time. Each refit therefore regresses on steps stretched about the
dynamics f of before,

    x_t  ->  f_k(x_{t-1}, u_t) + eta (x_t - f_k(x_{t-1}, u_t)),    eta >= 1,

whose mean given x_{t-1} is f + eta (f_EM - f). The state noise Q cannot be read off such steps, and those of likeliest
states make it too large, as a bin in a wrong state is read as noise. It is scaled by the factor with the largest
evidence log p(y), states and paths summed out; see :mod:`mrsds_ppl.statespace.gaussian_sum`.
Source: Salakhutdinov and Roweis (2003), over-relaxed bound optimisation.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.models.dynamics import Dynamics, Rows, with_scaled_noise
from mrsds_ppl.models.filtering import SmoothedPaths, iterated_smoother
from mrsds_ppl.models.linearised import linearised, path_log_density, shared_terms
from mrsds_ppl.models.mrsds import MRSDS, Networks
from mrsds_ppl.nn.adam import descend
from mrsds_ppl.ppl.gaussian_chain import GaussianChain
from mrsds_ppl.ppl.markov import potentials
from mrsds_ppl.start.refit.drawn_steps import DrawnSteps, each_state, step_draws
from mrsds_ppl.statespace.gaussian_sum import state_posterior
from mrsds_ppl.statespace.linear_gaussian import TrialTerms, valid_bins
from mrsds_ppl.statespace.smoothing import PathMoments, chain_of, smooth_path, uphill
from mrsds_ppl.train.regimen.sparsity import sizes_of

_BATCH, _RATE = 32, 1e-2
# Sites of the networks that paths and states have a say in.
_DYNAMICS, _TRANSITIONS = "dynamics$params", "transitions$params"
NOISE_FACTORS = (0.7, 0.85, 1.0, 1.2)
_TRIALS, _KEPT = 48, 8
# What Adam maximises: of some sites, and some steps of the paths.
Aim = Callable[[dict[str, PyTree], DrawnSteps], Array]


class Refit(NamedTuple):
    """How networks are fitted to draws of the paths.

    Args:
        num_steps: of Adam.
        stretch: eta; 1 is expectation-maximisation.
        sparsity: weight of the penalty of :mod:`mrsds_ppl.train.regimen.sparsity`, in nats a bin.
    """

    num_steps: int = 400
    stretch: float | Float[Array, ""] = 1.0
    sparsity: float = 0.0


def refit_networks(
    key: PRNGKeyArray,
    params: dict[str, PyTree],
    model: MRSDS,
    data: Batch,
    paths: SmoothedPaths,
    refit: Refit,
) -> dict[str, PyTree]:
    """Networks of dynamics and transitions by Adam on draws of the paths; Q stays.

    Args:
        key: random key.
        params: values of the program's sites; its dynamics are the f of before, about which steps are stretched.
        model: the program.
        data: the trials.
        paths: posterior of their paths.
        refit: how.
    """
    before, stretch, sparsity = model.networks_from(params).dynamics, refit.stretch, refit.sparsity

    def said(one: Dynamics, x: Array, u: Array) -> tuple[Array, Array]:
        if sparsity == 0:
            return one.means(x, u)[0], jnp.zeros(())
        messages = one.messages(x, u)
        return one.summed(messages)[0], sizes_of(one, messages.cross, jnp.ones((x.shape[0], 1))).sum()

    def aim(some: dict[str, PyTree], steps: DrawnSteps) -> Array:
        networks = model.networks_from({**params, **some})
        inputs = model.dynamics_inputs(steps.trials.u)
        first, then, u = (steps.by_state(part) for part in (steps.x[:, 0], steps.x[:, 1], inputs[:, 1]))
        old = lax.stop_gradient(each_state(lambda one, x, u: one.means(x, u)[0], before, first, u))
        means, sizes = each_state(said, networks.dynamics, first, u)
        fit = lax.stop_gradient(networks.dynamics.noise).around(means).log_prob(old + stretch * (then - old))
        # Stretched steps count eta times as much, which the penalty has to match to end at the same place.
        penalty = sparsity * stretch * jnp.where(steps.share > 0, sizes, 0.0).sum()
        return steps.share @ fit.mean(1) - penalty + _log_transitions(networks, model, steps)

    chosen = {name: params[name] for name in (_DYNAMICS, _TRANSITIONS)}
    return {**params, **_ascended(key, chosen, aim, data, paths, refit.num_steps)}


def refit_transitions(
    key: PRNGKeyArray, params: dict[str, PyTree], model: MRSDS, data: Batch, paths: SmoothedPaths, num_steps: int
) -> dict[str, PyTree]:
    """Transitions alone, as :func:`refit_networks` does them."""

    def aim(some: dict[str, PyTree], steps: DrawnSteps) -> Array:
        return _log_transitions(model.networks_from({**params, **some}), model, steps)

    chosen = {_TRANSITIONS: params[_TRANSITIONS]}
    return {**params, **_ascended(key, chosen, aim, data, paths, num_steps)}


def _log_transitions(networks: Networks, model: MRSDS, steps: DrawnSteps) -> Array:
    """log p(z | x) a bin."""
    states = np.arange(model.num_states)
    moves = potentials(model.switching(networks, steps.trials), steps.x).transition[0]
    # Of each state's steps, those into it: (from, state, row).
    into = moves.reshape(*moves.shape[:2], len(states), -1)[:, states, states]
    before = jnp.moveaxis(steps.by_state(steps.before), -1, 0)
    return steps.share @ jnp.where(before > 0, before * into, 0.0).sum(0).mean(1)


def _ascended(
    key: Array, sites: dict[str, PyTree], aim: Aim, data: Batch, paths: SmoothedPaths, num_steps: int
) -> dict[str, PyTree]:
    """Sites after steps of Adam on an aim of some steps of the paths, drawn anew for each of Adam's."""
    draw = step_draws(data, paths, min(_BATCH, data.lengths.shape[0]) * (data.y.shape[1] - 1))

    def loss(some: dict[str, PyTree], key: Array) -> Array:
        return -aim(some, draw(key))

    return descend(key, loss, sites, num_steps=num_steps, rate=_RATE, last=0.05).params


def drawn_rows(key: PRNGKeyArray, model: MRSDS, data: Batch, paths: SmoothedPaths) -> Rows:
    """The steps of one draw of every path."""
    x = GaussianChain(*chain_of(paths.moments)).sample(key)
    weights = jnp.where(valid_bins(data.lengths, data.y.shape[1])[:, 1:, None], paths.states[:, 1:], 0.0)
    parts = (x[:, :-1], model.dynamics_inputs(data.u)[:, 1:], weights)
    return Rows(*(part.reshape(weights.shape[0] * weights.shape[1], part.shape[-1]) for part in parts))


def noise_factor(networks: Networks, model: MRSDS, data: Batch, paths: SmoothedPaths) -> Float[Array, ""]:
    """Factor of Q's Cholesky factor with the largest evidence on some of the trials, each around its own paths.

    Args:
        networks: of the program.
        model: the program.
        data: the trials; the first 48 are used.
        paths: posterior of their paths, which the paths under every factor start from.
    """
    tried = jnp.asarray(NOISE_FACTORS, paths.moments.mean.dtype)
    if not networks.dynamics.noise.trainable:
        return jnp.ones_like(tried[0])
    some, x, states = jax.tree.map(lambda leaf: leaf[:_TRIALS], (data, paths.moments.mean, paths.states))

    def evidence(factor: Array) -> Array:
        scaled = networks._replace(dynamics=with_scaled_noise(networks.dynamics, factor))
        shared = shared_terms(scaled)

        def around(x: Array) -> TrialTerms:
            return linearised(scaled, model, some, x)

        def smooth(trials: TrialTerms, x: Array) -> PathMoments:
            moments = smooth_path(shared, trials, states)
            return moments._replace(mean=uphill(density, shared, trials, states, x, moments.mean))

        density = partial(path_log_density, scaled, shared, some, model.dynamics_inputs(some.u), states)
        path = iterated_smoother(around, smooth, x).mean
        return state_posterior(shared, around(path), num_kept=_KEPT).log_evidence.sum()

    return tried[lax.map(evidence, tried).argmax()]
