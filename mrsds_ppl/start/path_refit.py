"""Dynamics networks from smoothed paths, moved further than their update says, and the noise that suits them.

With sparse signals most of what a smoothed path knows of a step is the dynamics it was smoothed with, so
expectation-maximisation moves them a little at a time. Each refit therefore regresses on steps stretched about the
dynamics f of before,

    x_t  ->  f_k(x_{t-1}, u_t) + eta (x_t - f_k(x_{t-1}, u_t)),    eta >= 1,

whose mean given x_{t-1} is f + eta (f_EM - f). The state noise Q cannot be read off such steps, and those of likeliest
states make it too large, as a bin in a wrong state is read as noise. It is scaled by the factor with the largest
evidence log p(y), states and paths summed out; see :mod:`mrsds_ppl.statespace.hypotheses`.
Source: Salakhutdinov and Roweis (2003), over-relaxed bound optimisation.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax, random
from jaxtyping import Array, Float, PRNGKeyArray

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.models.covariance import Covariance, inverse_softplus
from mrsds_ppl.models.mrsds import MRSDS, Networks
from mrsds_ppl.nn.adam import descend
from mrsds_ppl.ppl.gaussian_chain import GaussianChain
from mrsds_ppl.ppl.markov import potentials
from mrsds_ppl.statespace.hypotheses import Weighed, weigh_states
from mrsds_ppl.statespace.merging import Counted, count_transitions
from mrsds_ppl.statespace.smoothing import Linear, PathMoments, Sites, chain_of, linearised, smooth_path, valid_bins
from mrsds_ppl.train.regimen.sparsity import sizes_of

_BATCH, _RATE = 32, 1e-2
# Sites of the networks that paths and states have a say in.
_NETWORK_SITES = ("dynamics$params", "transitions$params")
NOISE_FACTORS = (0.7, 0.85, 1.0, 1.2)
_TRIALS, _KEPT = 48, 8


def refit_networks(
    key: PRNGKeyArray,
    params: dict[str, Any],
    before: Any,
    model: MRSDS,
    data: Batch,
    paths: PathMoments,
    states: Float[Array, "trial bin state"],
    *,
    num_steps: int,
    stretch: float | Float[Array, ""],
    sparsity: float = 0.0,
) -> dict[str, Any]:
    """Networks of dynamics and transitions by Adam on draws of the paths; Q stays.

    Args:
        key: random key.
        params: values of the program's sites.
        before: dynamics f that the paths were smoothed with, with ``means(x, u)``.
        model: the program.
        data: the trials.
        paths: their moments.
        states: their states, one-hot.
        num_steps: of Adam.
        stretch: eta; 1 is expectation-maximisation.
        sparsity: weight of the penalty of :mod:`mrsds_ppl.train.regimen.sparsity`, in nats a bin.
    """

    def aim(networks: Networks, batch: Batch, x: Array, weight: Array) -> Array:
        first, then, u, now = _steps(model, batch, x, weight)
        old = lax.stop_gradient(before.means(first, u))
        noise = lax.stop_gradient(networks.dynamics.noise)
        penalty = jnp.zeros(())
        if sparsity > 0:
            # Stretched steps count eta times as much, which the penalty has to match to end at the same place.
            messages = networks.dynamics.messages(first, u)
            means = networks.dynamics.summed(messages)
            penalty = sparsity * stretch * sizes_of(networks.dynamics, messages.cross, now).sum()
        else:
            means = networks.dynamics.means(first, u)
        fit = noise.around(means).log_prob(old + stretch * (then - old))
        found = (fit.T * now).sum() / batch.lengths.sum() - penalty
        return found + _log_transitions(networks, model, batch, x, weight)

    return _ascended(key, params, _NETWORK_SITES, aim, model, data, paths, states, num_steps)


def refit_transitions(
    key: PRNGKeyArray,
    params: dict[str, Any],
    model: MRSDS,
    data: Batch,
    paths: PathMoments,
    states: Float[Array, "trial bin state"],
    *,
    num_steps: int,
) -> dict[str, Any]:
    """Transitions alone, as :func:`refit_networks` does them."""

    def aim(networks: Networks, batch: Batch, x: Array, weight: Array) -> Array:
        return _log_transitions(networks, model, batch, x, weight)

    return _ascended(key, params, _NETWORK_SITES[1:], aim, model, data, paths, states, num_steps)


def _log_transitions(networks: Networks, model: MRSDS, batch: Batch, x: Array, weight: Array) -> Array:
    """log p(z | x) a bin."""
    now = jnp.where(valid_bins(batch)[:, 1:, None], weight[:, 1:], 0.0)
    moves = potentials(model.switching(networks, batch), x).transition
    pairs = jnp.moveaxis(weight[:, :-1, :, None] * now[:, :, None], 0, -1)
    return jnp.where(pairs > 0, pairs * moves, 0.0).sum() / batch.lengths.sum()


def _ascended(
    key: Array,
    params: dict[str, Any],
    sites: Sequence[str],
    aim: Callable[[Networks, Batch, Array, Array], Array],
    model: MRSDS,
    data: Batch,
    paths: PathMoments,
    states: Array,
    num_steps: int,
) -> dict[str, Any]:
    """Some sites after steps of Adam on an aim that is given networks, some trials, draws of their paths and states."""
    chosen: dict[str, Any] = {name: params[name] for name in sites if name in params}
    chain, size = chain_of(paths), min(_BATCH, data.lengths.shape[0])

    def loss(some: dict[str, Any], key: Array) -> Array:
        index_key, draw_key = random.split(key)
        index = random.choice(index_key, data.lengths.shape[0], (size,), replace=False)
        batch, parts, weight = jax.tree.map(lambda leaf: leaf[index], (data, chain, states))
        x = GaussianChain(*parts).sample(draw_key)
        return -aim(model.networks_from({**params, **some}), batch, x, weight)

    return {**params, **descend(key, loss, chosen, num_steps=num_steps, rate=_RATE, last=0.05).params}


def weigh(
    networks: Networks, model: MRSDS, batch: Batch, x: Float[Array, "trial bin latent"], *, num_kept: int = 16
) -> Weighed:
    """State probabilities of the program linearised around paths, and its evidence in the likeliest paths of states."""
    return weigh_states(networks, batch.lengths, *around(networks, model, batch, x), num_kept=num_kept)


def count(
    networks: Networks, model: MRSDS, batch: Batch, x: Float[Array, "trial bin latent"], *, order: int = 2
) -> Counted:
    """Evidence and expected transitions of the program linearised around paths, no path of states dropped."""
    return count_transitions(networks, batch.lengths, *around(networks, model, batch, x), order=order)


def around(
    networks: Networks, model: MRSDS, batch: Batch, x: Float[Array, "trial bin latent"]
) -> tuple[Linear, Sites, Float[Array, "trial pair from to"]]:
    """Dynamics, signals and log p(z_t | z_{t-1}), (trial, pair, from, to), around paths."""
    moves = jnp.moveaxis(potentials(model.switching(networks, batch), x).transition, -1, 0)
    return *linearised(networks, batch, x, model.dynamics_inputs(batch.u)), moves


def smooth_once(
    networks: Networks,
    model: MRSDS,
    batch: Batch,
    x: Float[Array, "trial bin latent"],
    states: Float[Array, "trial bin state"],
) -> PathMoments:
    """Paths smoothed under the program, linearised around given ones."""
    return smooth_path(networks, batch, *linearised(networks, batch, x, model.dynamics_inputs(batch.u)), states)


def relax(
    networks: Networks,
    model: MRSDS,
    batch: Batch,
    x: Float[Array, "trial bin latent"],
    states: Float[Array, "trial bin state"],
) -> PathMoments:
    """Paths smoothed under the program, linearised around given ones and once more around what comes of it."""
    return smooth_once(networks, model, batch, smooth_once(networks, model, batch, x, states).mean, states)


class Steps(NamedTuple):
    """Steps of drawn paths, each bin but the first a row: x_{t-1}, x_t, u_t, and the probability of each state.

    The probabilities are 0 in rows that do not count.
    """

    before: Float[Array, "row latent"]
    after: Float[Array, "row latent"]
    u: Float[Array, "row input"]
    weights: Float[Array, "row state"]


def drawn_steps(
    key: PRNGKeyArray, model: MRSDS, data: Batch, paths: PathMoments, states: Float[Array, "trial bin state"]
) -> Steps:
    """The steps of one draw of every path."""
    return _steps(model, data, GaussianChain(*chain_of(paths)).sample(key), states)


def _steps(model: MRSDS, batch: Batch, x: Array, states: Array) -> Steps:
    weights = jnp.where(valid_bins(batch)[:, 1:, None], states[:, 1:], 0.0)
    parts = (x[:, :-1], x[:, 1:], model.dynamics_inputs(batch.u)[:, 1:], weights)
    return Steps(*(part.reshape(weights.shape[0] * weights.shape[1], part.shape[-1]) for part in parts))


def noise_factor(
    networks: Networks,
    model: MRSDS,
    data: Batch,
    x: Float[Array, "trial bin latent"],
    states: Float[Array, "trial bin state"],
    *,
    factors: Sequence[float] = NOISE_FACTORS,
) -> Float[Array, ""]:
    """Factor of Q's Cholesky factor with the largest evidence on some of the trials, each around its own paths.

    Args:
        networks: of the program.
        model: the program.
        data: the trials; the first 48 are used.
        x, states: their paths and states, which the paths under every factor start from.
        factors: those to choose from.
    """
    tried = jnp.asarray(factors, x.dtype)
    if not networks.dynamics.noise.trainable:
        return jnp.ones_like(tried[0])
    some, x, states = jax.tree.map(lambda leaf: leaf[:_TRIALS], (data, x, states))

    def evidence(factor: Array) -> Array:
        scaled = networks._replace(dynamics=with_scaled_noise(networks.dynamics, factor))
        path = relax(scaled, model, some, x, states).mean
        return weigh(scaled, model, some, path, num_kept=_KEPT).log_evidence.sum()

    return tried[lax.map(evidence, tried).argmax()]


def scaled_noise(params: dict[str, Any], factor: float | Float[Array, ""]) -> dict[str, Any]:
    """Parameters with the Cholesky factor of Q times ``factor``."""
    return {**params, "dynamics$params": with_scaled_noise(params["dynamics$params"], factor)}


def with_scaled_noise(dynamics: Any, factor: float | Float[Array, ""]) -> Any:
    """Dynamics with the Cholesky factor of their noise times ``factor``."""

    def scaled(noise: Covariance) -> Covariance:
        noise = eqx.tree_at(lambda n: n.raw_diagonal, noise, inverse_softplus(noise.scale * factor))
        return noise if noise.lower is None else eqx.tree_at(lambda n: n.lower, noise, noise.lower * factor)

    return eqx.tree_at(lambda d: d.noise, dynamics, replace_fn=scaled)
