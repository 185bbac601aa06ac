"""The dynamics climb the evidence: Gauss-Newton steps on log p(y), states and paths summed out.

    W  <-  W + (I(W) + P + d C(W))^-1 ( d/dW log p(y | W) - P W ),      log p(y) = log sum_z int p(y, x, z) dx

with the program linearised around each trial's smoothed path, smoothed anew after each step, and the sum over the
likeliest hypotheses about the states. W are the weights of polynomial dynamics that stand for the networks where the
paths go, I the information of :mod:`mrsds_ppl.inference.weight_information`, P the precision of
:mod:`mrsds_ppl.inference.message_prior`, and C the curvature of expectation-maximisation, a little of which damps the
step. At the end the networks are fitted to the polynomials, message by message.

Smoothed paths mostly repeat the dynamics they were smoothed with, most of all where what a region tells itself and what
others tell it look alike. Networks fitted to such paths hardly move, and gradient steps on their weights are as slow:
I(W) is what knows the directions in which the signals say little.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax, random
from jaxtyping import Array, Float, PRNGKeyArray

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.inference.cubic_dynamics import CubicDynamics, cubic_from, num_features
from mrsds_ppl.inference.gaussian_chain import GaussianChain
from mrsds_ppl.inference.hypotheses import likeliest
from mrsds_ppl.inference.message_prior import Edge, edge, first_widths, moved_widths, precision
from mrsds_ppl.inference.path_refit import noise_factor, relax, weigh, with_scaled_noise
from mrsds_ppl.inference.smoothing import PathMoments, chain_of, linearised, valid_bins
from mrsds_ppl.inference.weight_information import weight_information
from mrsds_ppl.models.dynamics import Dynamics
from mrsds_ppl.models.mrsds import MRSDS, Networks

# Hypotheses kept for the gradient; share of C; precision of constants, local weights and those of inputs.
_KEPT, _DAMPING, _RIDGE = 3, 0.05, 0.1
_FACTORS = (0.85, 1.0, 1.15)  # of the noise, after each step
_MOST_WEIGHTS = 1500
_FIT_STEPS, _FIT_ROWS, _FIT_RATE = 1000, 2048, 1e-2

# A large product of matrices inside a loop can wait for ever for a thread of XLA's CPU pool that the loop itself holds.
_compiled = partial(jax.jit, static_argnames="model", compiler_options={"xla_cpu_multi_thread_eigen": False})


class Climbed(NamedTuple):
    """Parameters, paths and one-hot states after the climb, and the evidence before each step and after the last.

    ``evidence`` is in nats a bin.
    """

    params: dict[str, Any]
    mean: Float[Array, "trial bin latent"]
    states: Float[Array, "trial bin state"]
    evidence: Float[np.ndarray, " evaluation"]


class Slope(NamedTuple):
    """What a step needs: d log p(y) / dW, I(W); for each state the sum of phi phi^T, the mean of phi, and its bins."""

    gradient: Float[Array, " weight"]
    information: Float[Array, "weight weight"]
    square: Float[Array, "state feature feature"]
    mean: Float[Array, "state feature"]
    bins: Float[Array, " state"]


def why_not_climb(model: MRSDS) -> str | None:
    """What keeps a model from climbing by polynomials, or None."""
    options, dynamics = model.options.dynamics, model.networks.dynamics
    if options.communication != "additive" or (model.options.ux and options.input != "additive"):
        return "it is for messages that add up (communication_type and input_type: additive)"
    if not options.layers or (dynamics.num_inputs and options.input_layers):
        return "it is for dynamics with hidden layers and inputs without"
    count = model.num_states * model.num_latents * num_features(dynamics.latent_sizes, dynamics.num_inputs)
    if count > _MOST_WEIGHTS:
        return f"the polynomials would have {count} weights, more than {_MOST_WEIGHTS}"
    return None


def climb_evidence(
    key: PRNGKeyArray,
    params: dict[str, Any],
    model: MRSDS,
    data: Batch,
    paths: PathMoments,
    states: Float[Array, "trial bin state"],
    *,
    num_steps: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> Climbed:
    """Networks of the dynamics and their noise after some steps on the evidence; the other sites stay.

    Args:
        key: random key.
        params: values of the program's sites.
        model: the program, one that :func:`why_not_climb` says nothing of.
        data: the trials, on the device.
        paths: posterior of the paths to start from.
        states: their states, one-hot.
        num_steps: steps.
        should_stop: asked before each step; the networks are fitted to what was found by then.
    """
    networks, x = model.networks_from(params), paths.mean
    rows = _rows(random.fold_in(key, 0), model, data, paths, states)
    networks = networks._replace(dynamics=jax.jit(cubic_from)(networks.dynamics, *rows))
    networks, x, states, evidence = _smoothed(networks, model, data, x, states)
    found, widths = [evidence], None
    for number in range(num_steps):
        if should_stop():
            break
        slope = _slope(random.fold_in(key, number + 1), networks, model, data, x, states)
        edges = _edges(networks.dynamics, slope)
        widths = first_widths(edges) if widths is None else widths
        weights, widths = _step(networks.dynamics, slope, edges, widths)
        networks = networks._replace(dynamics=eqx.tree_at(lambda d: d.weights, networks.dynamics, weights))
        networks, x, states, evidence = _smoothed(networks, model, data, x, states)
        found.append(evidence)
    paths = _compiled(relax)(networks, model, data, x, states)
    rows = _rows(random.fold_in(key, num_steps + 1), model, data, paths, states)
    fitted = fit_networks(random.fold_in(key, num_steps + 2), params["dynamics$params"], networks.dynamics, *rows)
    return Climbed({**params, "dynamics$params": fitted}, x, states, np.asarray(found))


@_compiled
def _smoothed(
    networks: Networks, model: MRSDS, data: Batch, x: Array, states: Array
) -> tuple[Networks, Array, Array, Array]:
    """Noise that suits the dynamics, paths under both, states and evidence a bin."""
    x = relax(networks, model, data, x, states).mean
    factor = noise_factor(networks, model, data, x, states, factors=_FACTORS)
    networks = networks._replace(dynamics=with_scaled_noise(networks.dynamics, factor))
    x = relax(networks, model, data, x, states).mean
    weighed = weigh(networks, model, data, x)
    return networks, x, likeliest(weighed.probabilities), weighed.log_evidence.sum() / data.lengths.sum()


def _slope(key: Array, networks: Networks, model: MRSDS, data: Batch, x: Array, states: Array) -> Slope:
    gradient = _gradient(networks, model, data, x)
    information = _information(networks, model, data, x, states)
    return Slope(gradient.reshape(-1), information, *_moments(key, networks, model, data, x, states))


@_compiled
def _gradient(networks: Networks, model: MRSDS, data: Batch, x: Array) -> Array:
    cubic: Any = networks.dynamics  # the polynomial stands in their place

    def evidence(weights: Array) -> Array:
        moved = networks._replace(dynamics=eqx.tree_at(lambda d: d.weights, cubic, weights))
        return weigh(moved, model, data, x, num_kept=_KEPT).log_evidence.sum()

    return jax.grad(evidence)(cubic.weights)


@_compiled
def _information(networks: Networks, model: MRSDS, data: Batch, x: Array, states: Array) -> Array:
    cubic: Any = networks.dynamics
    u, features = model.dynamics_inputs(data.u), cubic.features
    linear, site = linearised(networks, data, x, u)
    before, given = x[:, :-1], u[:, 1:]
    slopes = jax.vmap(jax.vmap(jax.jacfwd(features)))(before, given)
    return weight_information(networks, x, linear, site, states, features(before, given), slopes)


@_compiled
def _moments(
    key: Array, networks: Networks, model: MRSDS, data: Batch, x: Array, states: Array
) -> tuple[Array, Array, Array]:
    rows, u, weight = _rows(key, model, data, relax(networks, model, data, x, states), states)
    cubic: Any = networks.dynamics
    phi, bins = cubic.features(rows, u), jnp.maximum(weight.sum(0), 1.0)
    square = jax.vmap(lambda of_state: (phi * of_state[:, None]).T @ phi, 1)(weight)
    return square, (weight.T @ phi) / bins[:, None], bins


def _rows(
    key: Array, model: MRSDS, data: Batch, paths: PathMoments, states: Array
) -> tuple[Float[Array, "row latents"], Float[Array, "row input"], Float[Array, "row state"]]:
    """A draw of every path, as steps: latents of the bin before, inputs and states of the bin."""
    x = GaussianChain(*chain_of(paths)).sample(key)
    weight = jnp.where(valid_bins(data)[:, 1:, None], states[:, 1:], 0.0)
    u = model.dynamics_inputs(data.u)[:, 1:]
    rows = x.shape[0] * (x.shape[1] - 1)
    return x[:, :-1].reshape(rows, -1), u.reshape(rows, u.shape[-1]), weight.reshape(rows, -1)


def _edges(cubic: CubicDynamics, slope: Slope) -> list[Edge]:
    """Prior terms of every message between regions, in units of the noise of its target."""
    index = np.arange(cubic.weights.size).reshape(cubic.weights.shape)
    share = np.asarray(slope.bins, float) / float(slope.bins.sum())
    square, mean = np.asarray(slope.square, float), np.asarray(slope.mean, float)
    each = square / np.asarray(slope.bins, float)[:, None, None] - mean[:, :, None] * mean[:, None]
    variance, scale = np.einsum("k,kfg->fg", share, each), np.asarray(cubic.noise.scale, float)
    return [
        edge(index[:, rows, columns], variance[columns, columns] / np.mean(scale[rows] ** 2))
        for target, rows in enumerate(cubic.rows())
        for source, columns in enumerate(cubic.columns())
        if target != source
    ]


def _step(
    cubic: CubicDynamics, slope: Slope, edges: list[Edge], widths: list[np.ndarray]
) -> tuple[Float[Array, "state latent feature"], list[np.ndarray]]:
    """Weights after one damped step, and the widths of the prior that suit them."""
    weights = np.asarray(cubic.weights, float).reshape(-1)
    prior = _RIDGE * np.eye(len(weights))
    for some, width in zip(edges, widths, strict=True):
        prior[np.ix_(some.weights, some.weights)] += precision(some, width)
    posterior = np.asarray(slope.information, float) + prior
    seen = np.zeros_like(posterior)
    index, variance = np.arange(len(weights)).reshape(cubic.weights.shape), np.asarray(cubic.noise.scale, float) ** 2
    for of_state, square in zip(index, np.asarray(slope.square, float), strict=True):
        for of_latent, noise in zip(of_state, variance, strict=True):
            seen[np.ix_(of_latent, of_latent)] = square / noise
    towards = np.asarray(slope.gradient, float) - prior @ weights
    weights = weights + np.linalg.solve(posterior + _DAMPING * seen, towards)
    covariance = np.linalg.inv(posterior)
    widths = [
        moved_widths(some, width, covariance[np.ix_(some.weights, some.weights)], weights[some.weights])
        for some, width in zip(edges, widths, strict=True)
    ]
    return jnp.asarray(weights.reshape(cubic.weights.shape), cubic.weights.dtype), widths


@jax.jit
def fit_networks(
    key: PRNGKeyArray,
    dynamics: Dynamics,
    cubic: CubicDynamics,
    x: Float[Array, "row latents"],
    u: Float[Array, "row input"],
    weights: Float[Array, "row state"],
) -> Dynamics:
    """Networks that tell what a polynomial tells, each message for itself, by Adam on some of the rows a step.

    Constants, which may stand in any message, are put into the local one.

    Args:
        key: random key.
        dynamics: networks to start from; their noise becomes that of ``cubic``.
        cubic: the polynomial.
        x, u: latents of the bin before and inputs of each row.
        weights: probability of each state in each row, 0 in rows that do not count.
    """
    share = weights / jnp.maximum(weights.sum(0), 1.0)
    told, scale = cubic.told(x, u), cubic.noise.scale
    constant = jnp.einsum("ksni,nk->ksi", told, share)
    own = np.zeros((len(cubic.latent_sizes), x.shape[-1]), bool)
    for region, rows in enumerate(cubic.rows()):
        own[region, rows] = True
    # (source, latent): what stands elsewhere is the whole of f, less the centred messages from others.
    messages = jnp.where(own[:, None], 0.0, told - constant[:, :, None])
    whole = cubic.means(x, u)
    optimizer = optax.adam(optax.cosine_decay_schedule(_FIT_RATE, _FIT_STEPS, 0.01))
    free, noise = eqx.partition(dynamics, eqx.tree_at(lambda d: d.noise, jax.tree.map(lambda _: True, dynamics), False))
    size = min(_FIT_ROWS, len(x))

    def loss(free: Any, key: Array) -> Array:
        index = random.choice(key, len(x), (size,))
        now = eqx.combine(free, noise)
        sent = _flat(now, now.messages(x[index], u[index]).cross)
        apart = (sent - messages[:, :, index]) / scale
        left = (now.means(x[index], u[index]) - whole[:, index]) / scale
        weight = weights[index].T
        return jnp.einsum("kn,ksni->", weight, apart**2) / size + jnp.einsum("kn,kni->", weight, left**2) / size

    def step(carry: tuple[Any, Any], key: Array) -> tuple[tuple[Any, Any], None]:
        free, state = carry
        updates, state = optimizer.update(jax.grad(loss)(free, key), state)
        return (optax.apply_updates(free, updates), state), None

    (free, _), _ = lax.scan(step, (free, optimizer.init(free)), random.split(key, _FIT_STEPS))
    return eqx.tree_at(lambda d: d.noise, eqx.combine(free, noise), cubic.noise)


def _flat(dynamics: Dynamics, cross: Array) -> Array:
    """(state, target, source, row, widest) to (state, source, row, latent)."""
    parts = [cross[:, target, ..., :size] for target, size in enumerate(dynamics.latent_sizes)]
    return jnp.concatenate(parts, axis=-1)
