"""The dynamics climb the evidence: Gauss-Newton steps on log p(y), states and paths summed out.

    W  <-  W + (I(W) + P + d C(W))^-1 ( d/dW log p(y | W) - P W ),      log p(y) = log sum_z int p(y, x, z) dx

with the program linearised around each trial's smoothed path, smoothed anew after each step, and no path of states
dropped from the slope; see :mod:`mrsds_ppl.statespace.merging`. W are the weights of polynomial dynamics, I the
information of :mod:`mrsds_ppl.start.climb.weight_information`, P the precision of
:mod:`mrsds_ppl.start.climb.message_prior`, and C the curvature of expectation-maximisation, a little of which damps the
step. The state noise, one factor for all latents, goes where the evidence rises, at strides that halve where it turns.

Smoothed paths mostly repeat the dynamics they were smoothed with, most of all where what a region tells itself and what
others tell it look alike. Dynamics fitted to such paths hardly move: I(W) is what knows the directions in which the
signals say little.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float, PRNGKeyArray

from mrsds_ppl.backend.side_by_side import compiled
from mrsds_ppl.backend.trial_parts import Parts, in_parts, over_parts
from mrsds_ppl.data.trials import Batch
from mrsds_ppl.models.covariance import Covariance, inverse_softplus
from mrsds_ppl.models.filtering import relax_and_judge
from mrsds_ppl.models.mrsds import MRSDS, Networks
from mrsds_ppl.start.climb.cubic_dynamics import CubicDynamics, cubic_from, num_features
from mrsds_ppl.start.climb.message_prior import Edge, edge, first_widths, moved_widths, precision
from mrsds_ppl.start.climb.weight_information import weight_information
from mrsds_ppl.start.path_refit import Steps, count, drawn_steps, with_scaled_noise
from mrsds_ppl.statespace.smoothing import PathMoments, linearised

# Share of C; precision of constants, local weights and those of inputs.
_DAMPING, _RIDGE = 0.05, 0.1
_STRIDE = 0.16  # of the log noise, at first
_MOST_WEIGHTS = 1500


class Climbed(NamedTuple):
    """Networks with polynomial dynamics, paths and one-hot states under them, and the evidence in nats a bin."""

    networks: Networks
    paths: PathMoments
    states: Float[Array, "trial bin state"]
    evidence: float


class Slope(NamedTuple):
    """What a step needs: d log p(y) / dW, I(W); for each state the sum of phi phi^T, the mean of phi, and its bins.

    ``noise`` is the derivative along the log of a factor of the state noise.
    """

    gradient: Float[Array, " weight"]
    noise: Float[Array, ""]
    information: Float[Array, "weight weight"]
    square: Float[Array, "state feature feature"]
    mean: Float[Array, "state feature"]
    bins: Float[Array, " state"]


def why_not_climb(model: MRSDS) -> str | None:
    """What keeps a model from climbing by polynomials, or None."""
    options, dynamics = model.options.dynamics, model.networks.dynamics
    if options.communication_type != "additive" or (model.options.ux and options.input_type != "additive"):
        return "it is for messages that add up (communication_type and input_type: additive)"
    if not options.layers or (dynamics.num_inputs and options.input_layers):
        return "it is for dynamics with hidden layers and inputs without"
    count = model.num_states * model.num_latents * num_features(dynamics.latent_sizes, dynamics.num_inputs)
    if count > _MOST_WEIGHTS:
        return f"the polynomials would have {count} weights, more than {_MOST_WEIGHTS}"
    return None


def climb_evidence(
    key: PRNGKeyArray,
    networks: Networks,
    model: MRSDS,
    data: Batch,
    paths: PathMoments,
    states: Float[Array, "trial bin state"],
    *,
    num_steps: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Climbed]:
    """Polynomial dynamics and their noise before the first step and after each; all other parts stay.

    Args:
        key: random key.
        networks: parts of the program; its dynamics are any with ``means(x, u)`` and ``noise``.
        model: the program, one that :func:`why_not_climb` says nothing of.
        data: the trials, on the device.
        paths: posterior of the paths to start from.
        states: their states, one-hot.
        num_steps: steps.
        should_stop: asked before each step.
    """
    parts = in_parts(data)
    cubic = _first(networks.dynamics, model, draw_steps(random.fold_in(key, 0), model, data, paths, states))
    now = _climbed(networks._replace(dynamics=cubic), model, parts, paths.mean, states)
    found, widths, stride, way = [now], None, _STRIDE, 0.0
    for number in range(num_steps):
        if should_stop():
            break
        slope = _slope(random.fold_in(key, number + 1), model, data, parts, now)
        dynamics: Any = now.networks.dynamics
        edges = _edges(dynamics, slope)
        widths = first_widths(edges) if widths is None else widths
        weights, widths = _step(dynamics, slope, edges, widths)
        dynamics = eqx.tree_at(lambda d: d.weights, dynamics, weights)
        if dynamics.noise.trainable:
            turned, way = float(slope.noise) * way < 0.0, float(np.sign(slope.noise))
            stride = stride / 2.0 if turned else stride
            dynamics = with_scaled_noise(dynamics, float(np.exp(way * stride)))
        now = _climbed(now.networks._replace(dynamics=dynamics), model, parts, now.paths.mean, now.states)
        found.append(now)
    return found


@partial(compiled, static_argnames="model")
def _first(dynamics: Any, model: MRSDS, steps: Steps) -> CubicDynamics:
    """The polynomial nearest to given dynamics, with one noise for all latents.

    What linear dynamics leave of a step is their curvature more than it is noise, so it does not say which latents are
    noisy; how far the signals do, training says.
    """
    cubic = cubic_from(dynamics, model.latent_sizes, steps.before, steps.u, steps.weights)

    def equal(noise: Covariance) -> Covariance:
        scale = jnp.exp(jnp.log(noise.scale).mean()) * jnp.ones_like(noise.scale)
        return eqx.tree_at(lambda n: n.raw_diagonal, noise, inverse_softplus(scale))

    return cubic if not cubic.noise.trainable else eqx.tree_at(lambda c: c.noise, cubic, replace_fn=equal)


def _climbed(networks: Networks, model: MRSDS, parts: Parts, x: Array, states: Array) -> Climbed:
    paths, judged = relax_and_judge(networks, model, parts, x, states)
    return Climbed(networks, paths, judged.states, judged.nats_a_bin(parts))


draw_steps = compiled(drawn_steps, static_argnames="model")


def _slope(key: Array, model: MRSDS, data: Batch, parts: Parts, now: Climbed) -> Slope:
    def both(batch: Batch, x: Array, states: Array) -> tuple[tuple[Array, Array], Array]:
        # One after the other here, but those of several parts side by side.
        return _gradient(now.networks, model, batch, x), _information(now.networks, model, batch, x, states)

    # Trials without bins, which fill up the last part, say nothing.
    each = over_parts(both, parts, now.paths.mean, now.states)
    (gradient, noise), information = jax.tree.map(lambda *terms: sum(terms), *each)
    steps = draw_steps(key, model, data, now.paths, now.states)
    return Slope(gradient.reshape(-1), noise, information, *_moments(now.networks.dynamics, steps))


@partial(compiled, static_argnames="model")
def _gradient(networks: Networks, model: MRSDS, data: Batch, x: Array) -> tuple[Array, Array]:
    cubic: Any = networks.dynamics  # the polynomial stands in their place

    def evidence(weights: Array, log_factor: Array) -> Array:
        dynamics = with_scaled_noise(eqx.tree_at(lambda d: d.weights, cubic, weights), jnp.exp(log_factor))
        return count(networks._replace(dynamics=dynamics), model, data, x, order=1).log_evidence.sum()

    return jax.grad(evidence, (0, 1))(cubic.weights, jnp.zeros((), cubic.weights.dtype))


@partial(compiled, static_argnames="model")
def _information(networks: Networks, model: MRSDS, data: Batch, x: Array, states: Array) -> Array:
    cubic: Any = networks.dynamics
    u, features = model.dynamics_inputs(data.u), cubic.features
    linear, site = linearised(networks, data, x, u)
    before, given = x[:, :-1], u[:, 1:]
    slopes = jax.vmap(jax.vmap(jax.jacfwd(features)))(before, given)
    return weight_information(networks, x, linear, site, states, features(before, given), slopes)


@compiled
def _moments(cubic: CubicDynamics, steps: Steps) -> tuple[Array, Array, Array]:
    weight, phi = steps.weights, cubic.features(steps.before, steps.u)
    bins = jnp.maximum(weight.sum(0), 1.0)
    square = jax.vmap(lambda of_state: (phi * of_state[:, None]).T @ phi, 1)(weight)
    return square, (weight.T @ phi) / bins[:, None], bins


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
