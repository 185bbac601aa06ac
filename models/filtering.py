"""Smoother and filter of many trials: a few trials a call, calls side by side, compiled programs shared.

Every program becomes the same arrays once it is linearised around paths. So linearising is compiled for each kind of
dynamics, while smoother and filter are compiled once, whoever calls them: the linear start, the ascent of the evidence,
the networks, new trials.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from mrsds_ppl.backend.side_by_side import compiled
from mrsds_ppl.backend.trials_at_once import Parts, in_parts, over_parts, put_together
from mrsds_ppl.data.trials import Batch
from mrsds_ppl.models.dynamics import with_scaled_noise
from mrsds_ppl.models.linearised import Program, linearised, path_log_density, shared_terms
from mrsds_ppl.models.mrsds import MRSDS, Networks
from mrsds_ppl.statespace.gaussian_sum import (
    ExpectedTransitions,
    expected_transitions,
    likeliest,
    state_posterior,
)
from mrsds_ppl.statespace.linear_gaussian import Inputs, Latents, SharedTerms, States, TrialTerms
from mrsds_ppl.statespace.smoothing import PathMoments, smooth_path, uphill

# Factors of Q's Cholesky factor while new trials are smoothed: first loose, then as fitted.
_FACTORS, _KEPT_OF_NEW = (8.0, 6.0, 4.0, 3.0, 2.0, 1.5, 1.2, 1.0, 1.0), 32


class SmoothedPaths(NamedTuple):
    """Posterior of every path, given the likeliest states, one-hot."""

    moments: PathMoments
    states: States


class LikeliestStates(NamedTuple):
    """Each bin's likeliest state, one-hot, p(z_t | y) of all states, and log p(y) of each trial in nats."""

    states: States
    probabilities: States
    log_evidence: Float[Array, " trial"]

    def nats_a_bin(self, parts: Parts) -> float:
        """The evidence of all trials for each of their bins."""
        return float(np.asarray(self.log_evidence, float).sum() / parts.num_bins)


shared_of = jax.jit(shared_terms)
linearise_trials = compiled(linearised, static_argnames="model")


@compiled
def _step_of_trials(
    program: Program, shared: SharedTerms, batch: Batch, u: Inputs, trials: TrialTerms, states: States, x: Latents,
    found: Latents,
) -> Latents:  # fmt: skip
    return uphill(partial(path_log_density, program, shared, batch, u, states), shared, trials, states, x, found)


@compiled
def smooth_trials(shared: SharedTerms, trials: TrialTerms, states: Array) -> PathMoments:
    """See :func:`mrsds_ppl.statespace.smoothing.smooth_path`."""
    return smooth_path(shared, trials, states)


@partial(compiled, static_argnames="num_kept")
def states_of_trials(shared: SharedTerms, trials: TrialTerms, *, num_kept: int = 16) -> LikeliestStates:
    """See :func:`mrsds_ppl.statespace.gaussian_sum.state_posterior`."""
    found = state_posterior(shared, trials, num_kept=num_kept)
    return LikeliestStates(likeliest(found.probabilities), *found)


@partial(compiled, static_argnames="order")
def transitions_of_trials(shared: SharedTerms, trials: TrialTerms, *, order: int = 2) -> ExpectedTransitions:
    """See :func:`mrsds_ppl.statespace.gaussian_sum.expected_transitions`."""
    return expected_transitions(shared, trials, order=order)


def smooth_uphill(
    program: Program, shared: SharedTerms, batch: Batch, u: Inputs, states: States, trials: TrialTerms, x: Latents
) -> PathMoments:
    """:func:`smooth_trials`, their means as far on the way from ``x`` as they become no less likely.

    Args:
        program, shared: whose paths are smoothed.
        batch, u, states: trials, inputs that the dynamics read, and probabilities of the states.
        trials: the program linearised around ``x``.
        x: paths.
    """
    moments = smooth_trials(shared, trials, states)
    return moments._replace(mean=_step_of_trials(program, shared, batch, u, trials, states, x, moments.mean))


def iterated_smoother(
    linearise: Callable[[Array], TrialTerms], smooth: Callable[[TrialTerms, Array], PathMoments], x: Array
) -> PathMoments:
    """Paths smoothed around given ones and once more around what comes of it: the iterated Kalman smoother.

    Args:
        linearise: the program around paths.
        smooth: of the linearised program, and the paths that it was linearised around.
        x: the paths to begin around.
    """
    x = smooth(linearise(x), x).mean
    return smooth(linearise(x), x)


def smooth_paths(networks: Networks, model: MRSDS, parts: Parts, x: Latents, states: States) -> PathMoments:
    """Paths under the program and given states, by :func:`iterated_smoother`."""
    return put_together(parts, over_parts(_smoother(networks, model), parts, x, states))


def find_states(networks: Networks, model: MRSDS, parts: Parts, x: Latents) -> LikeliestStates:
    """Likeliest states of the program linearised around paths, and its evidence in the likeliest paths of states."""
    return put_together(parts, over_parts(_state_finder(networks, model), parts, x))


def smooth_and_find_states(
    networks: Networks, model: MRSDS, parts: Parts, x: Latents, states: States
) -> tuple[PathMoments, LikeliestStates]:
    """:func:`smooth_paths`, and :func:`find_states` around what comes of it."""
    smoothed, found = _smoother(networks, model), _state_finder(networks, model)

    def both(batch: Batch, x: Array, states: Array) -> tuple[PathMoments, LikeliestStates]:
        paths = smoothed(batch, x, states)
        return paths, found(batch, paths.mean)

    return put_together(parts, over_parts(both, parts, x, states))


def count_transitions(networks: Networks, model: MRSDS, parts: Parts, x: Latents) -> ExpectedTransitions:
    """Evidence and expected transitions of the program linearised around paths, no path of states dropped."""
    shared = shared_of(networks)

    def counted(batch: Batch, x: Array) -> ExpectedTransitions:
        return transitions_of_trials(shared, linearise_trials(networks, model, batch, x))

    return put_together(parts, over_parts(counted, parts, x))


def smooth_anew(params: dict[str, PyTree], model: MRSDS, data: Batch, x: Latents) -> PathMoments:
    """Paths smoothed under a fitted program and its likeliest states, from where the fit left them.

    Steps of Adam on draws leave the covariances of a path wider and less alike than the program says.

    Args:
        params: values of the program's sites.
        model: the program.
        data: the trials.
        x: their paths.
    """
    networks, parts = model.networks_from(params), in_parts(data)
    return smooth_paths(networks, model, parts, x, find_states(networks, model, parts, x).states)


def smooth_new_trials(params: dict[str, PyTree], model: MRSDS, data: Batch) -> SmoothedPaths:
    """Smoothed paths and likeliest states of trials under a fitted program, from nothing but their visible signals.

    Under a Q as small as the true one, paths that start at zero stay at what the dynamics do there. They begin with Q
    several times as large, which comes down round by round.

    Args:
        params: values of the program's sites.
        model: the program.
        data: the trials.
    """
    networks, num_states = model.networks_from(params), model.num_states
    loosened = [_loosened(networks, factor) for factor in _FACTORS]

    def smoothed(batch: Batch) -> SmoothedPaths:
        kind, u = networks.dynamics.noise.raw_diagonal.dtype, model.dynamics_inputs(batch.u)
        x = jnp.zeros((*batch.y.shape[:2], model.num_latents), kind)
        states = jnp.full((*x.shape[:2], num_states), 1.0 / num_states, kind)
        for number, (loose, shared) in enumerate(loosened):
            trials = linearise_trials(networks, model, batch, x)
            # The first paths are zero and say nothing of the states.
            if number > 0 and num_states > 1:
                states = states_of_trials(shared, trials, num_kept=_KEPT_OF_NEW).states
            x = smooth_uphill(loose, shared, batch, u, states, trials, x).mean
            paths = smooth_uphill(loose, shared, batch, u, states, linearise_trials(networks, model, batch, x), x)
            x = paths.mean
        return SmoothedPaths(paths, states)

    parts = in_parts(data)
    return put_together(parts, over_parts(smoothed, parts))


@jax.jit
def _loosened(networks: Networks, factor: Array) -> tuple[Networks, SharedTerms]:
    loose = networks._replace(dynamics=with_scaled_noise(networks.dynamics, factor))
    return loose, shared_terms(loose)


def _smoother(networks: Networks, model: MRSDS) -> Callable[[Batch, Array, Array], PathMoments]:
    shared = shared_of(networks)

    def smoothed(batch: Batch, x: Array, states: Array) -> PathMoments:
        smooth = partial(smooth_uphill, networks, shared, batch, model.dynamics_inputs(batch.u), states)
        return iterated_smoother(partial(linearise_trials, networks, model, batch), smooth, x)

    return smoothed


def _state_finder(networks: Networks, model: MRSDS) -> Callable[[Batch, Array], LikeliestStates]:
    shared = shared_of(networks)
    return lambda batch, x: states_of_trials(shared, linearise_trials(networks, model, batch, x))
