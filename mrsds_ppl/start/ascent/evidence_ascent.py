"""Evidence ascent: Gauss-Newton steps of the dynamics on log p(y), states and paths summed out.

    W  <-  W + (I(W) + P + d C(W))^-1 ( d/dW log p(y | W) - P W ),      log p(y) = log sum_z int p(y, x, z) dx

with the program linearised around each trial's smoothed path, smoothed anew after each step, and no path of states
dropped from the slope; see :mod:`mrsds_ppl.statespace.gaussian_sum`. W are the weights of polynomial dynamics, I the
information of :mod:`mrsds_ppl.start.ascent.weight_information`, P the precision of
:mod:`mrsds_ppl.start.ascent.message_prior`, and C the curvature of expectation-maximisation, a little of which damps
the step. The state noise of each latent goes where the evidence rises, at strides that halve where it turns.

Smoothed paths mostly repeat the dynamics they were smoothed with, most of all where a region's local message and those
of others look alike. Dynamics fitted to such paths hardly move: I(W) is what knows the directions in which the
signals say little.
"""

from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float, PRNGKeyArray

from mrsds_ppl.backend.side_by_side import compiled
from mrsds_ppl.backend.trials_at_once import Parts, in_parts, over_parts
from mrsds_ppl.data.trials import Batch
from mrsds_ppl.models.covariance import Covariance, inverse_softplus
from mrsds_ppl.models.dynamics import Rows, StateDynamics, with_scaled_noise
from mrsds_ppl.models.filtering import SmoothedPaths, smooth_and_find_states
from mrsds_ppl.models.linearised import linearised, shared_terms, with_dynamics
from mrsds_ppl.models.mrsds import MRSDS, Networks
from mrsds_ppl.start.ascent.cubic_dynamics import CubicDynamics, cubic_from
from mrsds_ppl.start.ascent.message_prior import Edge, edge, first_widths, moved_widths, precision
from mrsds_ppl.start.ascent.polynomials import why_no_polynomials
from mrsds_ppl.start.ascent.weight_information import weight_information
from mrsds_ppl.start.refit.path_refit import drawn_rows
from mrsds_ppl.statespace.gaussian_sum import expected_transitions

# Share of C; precision of constants, local weights and those of inputs.
_DAMPING, _RIDGE = 0.05, 0.1
_STRIDE = 0.16  # of the log noise, at first


class Ascended(NamedTuple):
    """Networks with polynomial dynamics, paths and states under them, and the evidence in nats a bin."""

    networks: Networks
    paths: SmoothedPaths
    evidence: float

    @property
    def cubic(self) -> CubicDynamics:
        """The polynomial, which stands in the place of the networks of the dynamics."""
        return _cubic(self.networks)


class Slope(NamedTuple):
    """What a step needs: d log p(y) / dW, I(W); for each state the sum of phi phi^T, the mean of phi, and its bins.

    ``noise`` is the derivative along the log of the state noise of each latent.
    """

    gradient: Float[Array, " weight"]
    noise: Float[Array, " latent"]
    information: Float[Array, "weight weight"]
    square: Float[Array, "state feature feature"]
    mean: Float[Array, "state feature"]
    bins: Float[Array, " state"]


def why_no_ascent(model: MRSDS) -> str | None:
    """What keeps polynomials from standing for a model's dynamics, or None."""
    dynamics = model.networks.dynamics
    return why_no_polynomials(model.options, dynamics.latent_sizes, dynamics.num_inputs, model.num_states)


def evidence_ascent(
    key: PRNGKeyArray, networks: Networks, model: MRSDS, data: Batch, paths: SmoothedPaths
) -> Iterator[Ascended]:
    """Polynomial dynamics and their noise before the first step and after each, without end; all other parts stay.

    Args:
        key: random key.
        networks: parts of the program; its dynamics are any that have means and noise.
        model: the program, one that :func:`why_no_ascent` says nothing of.
        data: the trials, on the device.
        paths: posterior of the paths to start from.
    """
    parts = in_parts(data)
    cubic = _first(networks.dynamics, model, draw_rows(random.fold_in(key, 0), model, data, paths))
    now = _ascended(with_dynamics(networks, cubic), model, parts, paths)
    size = len(cubic.noise.scale)
    widths, stride, way = None, np.full(size, _STRIDE), np.zeros(size)
    for number in count(1):
        yield now
        slope, cubic = _slope(random.fold_in(key, number), model, data, parts, now), now.cubic
        edges = _edges(cubic, slope)
        widths = first_widths(edges) if widths is None else widths
        weights, widths = _step(cubic, slope, edges, widths)
        cubic = eqx.tree_at(lambda c: c.weights, cubic, weights)
        if cubic.noise.trainable:
            before, way = way, np.sign(np.asarray(slope.noise, float))
            stride = np.where(before * way < 0.0, stride / 2.0, stride)
            cubic = with_scaled_noise(cubic, jnp.asarray(np.exp(way * stride), cubic.weights.dtype))
        now = _ascended(with_dynamics(now.networks, cubic), model, parts, now.paths)


@partial(compiled, static_argnames="model")
def _first(dynamics: StateDynamics, model: MRSDS, rows: Rows) -> CubicDynamics:
    """The polynomial nearest to given dynamics, with one noise for all latents.

    What linear dynamics leave of a step is their curvature more than it is noise, so it does not say which latents are
    noisy; the signals do.
    """
    cubic = cubic_from(dynamics, model.latent_sizes, rows)

    def equal(noise: Covariance) -> Covariance:
        scale = jnp.exp(jnp.log(noise.scale).mean()) * jnp.ones_like(noise.scale)
        return eqx.tree_at(lambda n: n.raw_diagonal, noise, inverse_softplus(scale))

    return cubic if not cubic.noise.trainable else eqx.tree_at(lambda c: c.noise, cubic, replace_fn=equal)


def _cubic(networks: Networks) -> CubicDynamics:
    return cast(CubicDynamics, networks.dynamics)


def _ascended(networks: Networks, model: MRSDS, parts: Parts, paths: SmoothedPaths) -> Ascended:
    moments, found = smooth_and_find_states(networks, model, parts, paths.moments.mean, paths.states)
    return Ascended(networks, SmoothedPaths(moments, found.states), found.nats_a_bin(parts))


draw_rows = compiled(drawn_rows, static_argnames="model")


def _slope(key: Array, model: MRSDS, data: Batch, parts: Parts, now: Ascended) -> Slope:
    def both(batch: Batch, x: Array, states: Array) -> tuple[tuple[Array, Array], Array]:
        # One after the other here, but those of several parts side by side.
        return evidence_gradient(now.networks, model, batch, x), _information(now.networks, model, batch, x, states)

    # Trials without bins, which fill up the last part, say nothing.
    each = over_parts(both, parts, now.paths.moments.mean, now.paths.states)
    (gradient, noise), information = jax.tree.map(lambda *terms: sum(terms), *each)
    rows = draw_rows(key, model, data, now.paths)
    return Slope(gradient.reshape(-1), noise, information, *_moments(now.cubic, rows))


@partial(compiled, static_argnames="model")
def evidence_gradient(networks: Networks, model: MRSDS, data: Batch, x: Array) -> tuple[Array, Array]:
    """Slope of log p(y) of the program linearised around paths x, along W and the logarithm of each latent's noise."""
    cubic = _cubic(networks)

    def evidence(weights: Array, log_factors: Array) -> Array:
        moved = with_scaled_noise(eqx.tree_at(lambda c: c.weights, cubic, weights), jnp.exp(log_factors))
        program = with_dynamics(networks, moved)
        trials = linearised(program, model, data, x)
        return expected_transitions(shared_terms(program), trials, order=1).log_evidence.sum()

    return jax.grad(evidence, (0, 1))(cubic.weights, jnp.zeros_like(cubic.noise.scale))


@partial(compiled, static_argnames="model")
def _information(networks: Networks, model: MRSDS, data: Batch, x: Array, states: Array) -> Array:
    features, trials = _cubic(networks).features, linearised(networks, model, data, x)
    before, given = x[:, :-1], model.dynamics_inputs(data.u)[:, 1:]
    slopes = jax.vmap(jax.vmap(jax.jacfwd(features)))(before, given)
    return weight_information(shared_terms(networks), trials, x, states, features(before, given), slopes)


@compiled
def _moments(cubic: CubicDynamics, rows: Rows) -> tuple[Array, Array, Array]:
    weight, phi = rows.weights, cubic.features(rows.x, rows.u)
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
