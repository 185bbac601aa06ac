"""Smoother and filters of many trials: a few trials a call, calls side by side, compiled programs shared.

Every program of the package becomes the same thing once it is linearised around paths: gains, offsets, Gaussian terms
of the signals, and transitions. So linearising is compiled for each kind of dynamics, while smoother and filters are
compiled once, whoever calls them: the linear start, the climb of the evidence, the networks, new trials.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mrsds_ppl.backend.side_by_side import compiled
from mrsds_ppl.backend.trial_parts import Parts, in_parts, over_parts, put_together
from mrsds_ppl.data.trials import Batch
from mrsds_ppl.models.covariance import Covariance
from mrsds_ppl.models.initial import Initial
from mrsds_ppl.models.mrsds import MRSDS, Networks
from mrsds_ppl.start.path_refit import around, with_scaled_noise
from mrsds_ppl.statespace.hypotheses import likeliest, weigh_states
from mrsds_ppl.statespace.merging import Counted, count_transitions
from mrsds_ppl.statespace.smoothing import Linear, PathMoments, Sites, smooth_path

# Factors of Q's Cholesky factor while new trials are smoothed: first loose, then as fitted.
_FACTORS, _KEPT_OF_NEW = (8.0, 6.0, 4.0, 3.0, 2.0, 1.5, 1.2, 1.0, 1.0), 32

# Dynamics, signals and log p(z_t | z_{t-1}), (trial, pair, from, to), around paths.
Around = tuple[Linear, Sites, Float[Array, "trial pair from to"]]


class Judged(NamedTuple):
    """One-hot states, each bin's likeliest, and log p(y) of each trial in nats."""

    states: Float[Array, "trial bin state"]
    log_evidence: Float[Array, " trial"]

    def nats_a_bin(self, parts: Parts) -> float:
        """The evidence of all trials for each of their bins."""
        return float(np.asarray(self.log_evidence, float).sum() / parts.num_bins)


class Noise(NamedTuple):
    """What a linearised program keeps of its dynamics."""

    noise: Covariance


class Laws(NamedTuple):
    """What smoother and filters read of a program beside what is linearised: the first bin, and the state noise."""

    initial: Initial
    dynamics: Noise


def laws_of(networks: Any) -> Laws:
    """Those of a program with any dynamics."""
    return Laws(networks.initial, Noise(networks.dynamics.noise))


linearise_trials = compiled(around, static_argnames="model")
count_trials = compiled(count_transitions, static_argnames="order")


@compiled
def smooth_trials(laws: Laws, batch: Batch, around: Around, states: Array) -> PathMoments:
    """See :func:`mrsds_ppl.statespace.smoothing.smooth_path`."""
    linear, site, _ = around
    return smooth_path(laws, batch, linear, site, states)


@partial(compiled, static_argnames="num_kept")
def judge_trials(laws: Laws, lengths: Array, around: Around, *, num_kept: int = 16) -> tuple[Array, Array]:
    """Likeliest states and log p(y); see :func:`mrsds_ppl.statespace.hypotheses.weigh_states`."""
    found = weigh_states(laws, lengths, *around, num_kept=num_kept)
    return likeliest(found.probabilities), found.log_evidence


def relax(
    networks: Networks,
    model: MRSDS,
    parts: Parts,
    x: Float[Array, "trial bin latent"],
    states: Float[Array, "trial bin state"],
) -> PathMoments:
    """Paths smoothed under the program, linearised around given ones and once more around what comes of it."""
    return put_together(parts, over_parts(partial(_relaxed, networks, model), parts, x, states))


def judge(networks: Networks, model: MRSDS, parts: Parts, x: Float[Array, "trial bin latent"]) -> Judged:
    """Likeliest states of the program linearised around paths, and its evidence in the likeliest paths of states."""
    laws = laws_of(networks)

    def judged(batch: Batch, x: Array) -> tuple[Array, Array]:
        return judge_trials(laws, batch.lengths, linearise_trials(networks, model, batch, x))

    return Judged(*put_together(parts, over_parts(judged, parts, x)))


def relax_and_judge(
    networks: Networks,
    model: MRSDS,
    parts: Parts,
    x: Float[Array, "trial bin latent"],
    states: Float[Array, "trial bin state"],
) -> tuple[PathMoments, Judged]:
    """:func:`relax`, and :func:`judge` around what comes of it."""
    laws = laws_of(networks)

    def both(batch: Batch, x: Array, states: Array) -> tuple[PathMoments, tuple[Array, Array]]:
        paths = _relaxed(networks, model, batch, x, states)
        return paths, judge_trials(laws, batch.lengths, linearise_trials(networks, model, batch, paths.mean))

    paths, judged = put_together(parts, over_parts(both, parts, x, states))
    return paths, Judged(*judged)


def count(networks: Networks, model: MRSDS, parts: Parts, x: Float[Array, "trial bin latent"]) -> Counted:
    """Evidence and expected transitions of the program linearised around paths, no path of states dropped."""
    laws = laws_of(networks)

    def counted(batch: Batch, x: Array) -> Counted:
        return count_trials(laws, batch.lengths, *linearise_trials(networks, model, batch, x))

    return put_together(parts, over_parts(counted, parts, x))


def smooth_anew(params: dict[str, Any], model: MRSDS, data: Batch, x: Float[Array, "trial bin latent"]) -> PathMoments:
    """Paths smoothed under a fitted program and its likeliest states, from where the fit left them.

    Steps of Adam on draws leave the covariances of a path wider and less alike than the program says.

    Args:
        params: values of the program's sites.
        model: the program.
        data: the trials.
        x: their paths.
    """
    networks, parts = model.networks_from(params), in_parts(data)
    return relax(networks, model, parts, x, judge(networks, model, parts, x).states)


def smooth_new_trials(
    params: dict[str, Any], model: MRSDS, data: Batch
) -> tuple[PathMoments, Float[Array, "trial bin state"]]:
    """Smoothed paths and likeliest states of trials under a fitted program, from nothing but their visible signals.

    Under a Q as small as the true one, paths that start at zero stay at what the dynamics do there. They begin with Q
    several times as large, which comes down round by round.

    Args:
        params: values of the program's sites.
        model: the program.
        data: the trials.
    """
    networks, num_states = model.networks_from(params), model.num_states
    loosened = [laws_of(networks._replace(dynamics=_with_noise(networks.dynamics, factor))) for factor in _FACTORS]

    def smoothed(batch: Batch) -> tuple[PathMoments, Array]:
        kind = networks.dynamics.noise.raw_diagonal.dtype
        x = jnp.zeros((*batch.y.shape[:2], model.num_latents), kind)
        states = jnp.full((*x.shape[:2], num_states), 1.0 / num_states, kind)
        for number, laws in enumerate(loosened):
            known = linearise_trials(networks, model, batch, x)
            # The first paths are zero and say nothing of the states.
            if number > 0 and num_states > 1:
                states, _ = judge_trials(laws, batch.lengths, known, num_kept=_KEPT_OF_NEW)
            x = smooth_trials(laws, batch, known, states).mean
            paths = smooth_trials(laws, batch, linearise_trials(networks, model, batch, x), states)
            x = paths.mean
        return paths, states

    parts = in_parts(data)
    return put_together(parts, over_parts(smoothed, parts))


_with_noise = jax.jit(with_scaled_noise)


def _relaxed(networks: Networks, model: MRSDS, batch: Batch, x: Array, states: Array) -> PathMoments:
    laws = laws_of(networks)
    for _ in range(2):
        paths = smooth_trials(laws, batch, linearise_trials(networks, model, batch, x), states)
        x = paths.mean
    return paths
