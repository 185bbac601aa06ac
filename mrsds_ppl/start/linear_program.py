"""The switching linear program of the start by smoothing, and its closed-form updates.

    x_t = W_k [x_{t-1}; u_t; 1] + N(0, Q),    W_k = (sum w_t(k) E[x_t f_t^T]) (sum w_t(k) E[f_t f_t^T])^-1
    c_n <- c_n + H_n^-1 sum_t E[s_tn [x_t; 1]],    H_n = sum_t E[(da/deta)^2 i [x_t; 1][x_t; 1]^T]
    s = da/deta (y - a) i

for neuron n with expected signal a(eta), eta = c_n^T [x; 1] and Fisher information i about it: Newton's method
(Fisher scoring); where i is not 1 / variance, s is not the score, but zero in expectation all the same.
Expectations over eta are by three Gauss-Hermite nodes.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mrsds_ppl.data.trials import Batch
from mrsds_ppl.models.covariance import Covariance, inverse_softplus
from mrsds_ppl.models.emissions.emissions import Emissions
from mrsds_ppl.models.emissions.sessions import SessionEmissions, SomeEmissions
from mrsds_ppl.models.initial import Initial
from mrsds_ppl.models.mrsds import Networks
from mrsds_ppl.models.readout import Readout
from mrsds_ppl.statespace.linear_gaussian import valid_bins
from mrsds_ppl.statespace.smoothing import PathMoments

_RIDGE = 1e-2
_NODES = ((0.0, 2 / 3), (3**0.5, 1 / 6), (-(3**0.5), 1 / 6))
# Q moves by this power of its own update, and by no more than these factors of it.
_STRIDE, _SMALLEST, _LARGEST = 8.0, 0.9, 1.25


class LinearDynamics(eqx.Module):
    """f_k(x, u) = W_k [x; u; 1]."""

    weights: Float[Array, "state latent feature"]
    noise: Covariance

    def means(self, x: Float[Array, "*batch latent"], u: Float[Array, "*batch input"]) -> Array:
        """(state, *batch, latent)."""
        features = jnp.concatenate([x, u, jnp.ones_like(x[..., :1])], axis=-1)
        return jnp.einsum("kij,...j->k...i", self.weights, features)


class LinearNetworks(NamedTuple):
    """Parts of the program, with linear dynamics."""

    initial: Initial
    dynamics: LinearDynamics
    emissions: SomeEmissions


class LinearProgram(NamedTuple):
    """Networks with linear dynamics, the log transition matrix, and the states of every bin."""

    networks: LinearNetworks
    log_transition: Float[Array, "from to"]
    states: Float[Array, "trial bin state"]

    def begin(self, states: Float[Array, "trial bin state"]) -> "LinearProgram":
        """The program with first states, and transitions that mostly stay."""
        count = states.shape[-1]
        moves = jnp.log(0.95 * jnp.eye(count) + 0.05 / max(count - 1, 1) * (1 - jnp.eye(count)) + 1e-30)
        return self._replace(log_transition=moves, states=states)

    def with_states(self, states: Float[Array, "trial bin state"], data: Batch) -> "LinearProgram":
        """New states and the transitions they make, with one of each added."""
        both = valid_bins(data.lengths, data.y.shape[1])[:, 1:, None, None]
        counts = jnp.where(both, states[:, :-1, :, None] * states[:, 1:, None], 0.0).sum((0, 1)) + 1.0
        return LinearProgram(self.networks, jnp.log(counts / counts.sum(1, keepdims=True)), states)

    def normalised(self, data: Batch, paths: PathMoments) -> tuple["LinearProgram", PathMoments]:
        """The same law in latents of mean square 1."""
        valid, networks = valid_bins(data.lengths, data.y.shape[1])[..., None], self.networks
        square = paths.mean**2 + jnp.diagonal(paths.covariance, axis1=-2, axis2=-1)
        scale = jnp.sqrt(jnp.where(valid, square, 0.0).sum((0, 1)) / valid.sum())
        weights, latents = networks.dynamics.weights, len(scale)
        weights = weights.at[..., :latents].multiply(scale) / scale[:, None]
        dynamics = _with_noise(eqx.tree_at(lambda d: d.weights, networks.dynamics, weights),
                               networks.dynamics.noise.scale / scale)  # fmt: skip
        emissions = _scaled(networks.emissions, scale)
        both = scale[:, None] * scale
        moments = PathMoments(paths.mean / scale, paths.covariance / both, paths.lagged / both)
        return self._replace(networks=networks._replace(dynamics=dynamics, emissions=emissions)), moments


def linear_program(networks: Networks, data: Batch, *, num_states: int, num_inputs: int) -> LinearProgram:
    """Slowly decaying latents of mean square 1, with the emissions of ``networks``.

    All states are the same, and share every bin alike: together they are one.
    """
    latents = networks.initial.means.shape[1]
    eye = np.concatenate([0.9 * np.eye(latents), np.zeros((latents, num_inputs + 1))], axis=1)
    kind = networks.initial.means.dtype
    dynamics = LinearDynamics(
        jnp.tile(jnp.asarray(eye, kind), (num_states, 1, 1)),
        Covariance((latents,), 0.5, triangular=False, trainable=True),
    )
    initial = Initial(num_states, latents, triangular=False, trainable=True, key=jax.random.key(0))
    initial = eqx.tree_at(lambda i: i.means, initial, jnp.zeros((num_states, latents), kind))
    states = jnp.full((*data.y.shape[:2], num_states), 1.0 / num_states, kind)
    moves = jnp.full((num_states, num_states), -np.log(num_states), kind)
    return LinearProgram(LinearNetworks(initial, dynamics, networks.emissions), moves, states)


def improved(program: LinearProgram, data: Batch, u: Array, paths: PathMoments, step: float = _STRIDE) -> LinearProgram:
    """Dynamics, noise and affine emissions for given paths and states.

    Args:
        program: as it was when the paths were smoothed.
        data: the trials.
        u: inputs that the dynamics read.
        paths: moments of the paths.
        step: power of the update of Q; 1 is expectation-maximisation.
    """
    networks = program.networks
    dynamics = _dynamics(networks.dynamics, data, u, paths, program.states, step)
    emissions = networks.emissions
    if emissions.readout.hidden is None:
        emissions = improved_emissions(emissions, data, paths)
    return program._replace(networks=networks._replace(dynamics=dynamics, emissions=emissions))


def _dynamics(
    dynamics: LinearDynamics, data: Batch, u: Array, paths: PathMoments, states: Array, step: float
) -> LinearDynamics:
    mean, covariance, lagged = paths
    latents = mean.shape[-1]
    weight = jnp.where(valid_bins(data.lengths, data.y.shape[1])[:, 1:, None], states[:, 1:], 0.0)
    features = jnp.concatenate([mean[:, :-1], u[:, 1:], jnp.ones_like(mean[:, 1:, :1])], axis=-1)
    gram = jnp.einsum("btk,bti,btj->kij", weight, features, features) + _RIDGE * jnp.eye(features.shape[-1])
    gram = gram.at[:, :latents, :latents].add(jnp.einsum("btk,btij->kij", weight, covariance[:, :-1]))
    cross = jnp.einsum("btk,bti,btj->kij", weight, mean[:, 1:], features)
    cross = cross.at[..., :latents].add(jnp.einsum("btk,btij->kji", weight, lagged[:, :-1]))
    weights = jnp.swapaxes(jnp.linalg.solve(gram, jnp.swapaxes(cross, 1, 2)), 1, 2)
    power = jnp.einsum("btk,bti->i", weight, mean[:, 1:] ** 2) + jnp.einsum("btk,btii->i", weight, covariance[:, 1:])
    left = power - 2 * jnp.einsum("kij,kij->i", weights, cross) + jnp.einsum("kij,kjl,kil->i", weights, gram, weights)
    variance, before = jnp.maximum(left / weight.sum(), 1e-4), dynamics.noise.scale**2
    if step != 1.0:
        variance = before * jnp.clip(variance / before, _SMALLEST, _LARGEST) ** step
    return _with_noise(eqx.tree_at(lambda d: d.weights, dynamics, weights), jnp.sqrt(jnp.maximum(variance, 1e-4)))


def improved_emissions(emissions: SomeEmissions, data: Batch, paths: PathMoments) -> SomeEmissions:
    """Affine emissions after one step of Newton's method for given paths, those of each session by its own trials.

    Args:
        emissions: as they were when the paths were smoothed.
        data: the trials.
        paths: moments of the paths.
    """
    if not isinstance(emissions, SessionEmissions):
        return _emissions(emissions, data, paths)

    def of_session(own: Emissions, number: Array) -> Emissions:
        shown = data.observed & (data.session == number)[:, None, None]
        return _emissions(own, data._replace(observed=shown), paths)

    return emissions.each(of_session)


def _emissions(emissions: Emissions, data: Batch, paths: PathMoments) -> Emissions:
    readout = emissions.readout
    loadings, (mean, covariance, _) = _loadings(readout), paths
    member = jnp.concatenate([_members(readout), jnp.ones((loadings.shape[0], 1), bool)], axis=1)
    seen = data.observed & valid_bins(data.lengths, data.y.shape[1])[..., None]
    centre = readout(mean)
    # Second moments stand flat beside each other, so that all neurons share one product of two large matrices.
    trials, bins, neurons = data.y.shape
    rows, latents = trials * bins, mean.shape[-1]
    both = (loadings[:, :, None] * loadings[:, None]).reshape(neurons, -1)
    spread = jnp.sqrt(covariance.reshape(rows, -1) @ both.T).reshape(data.y.shape)
    score, weight, square = (jnp.zeros_like(centre) for _ in range(3))
    for node, share in _NODES:
        eta = centre + node * spread
        signal, slope = jax.jvp(emissions.inverse_link, (eta,), (jnp.ones_like(eta),))
        known = emissions.information(signal)
        score = score + share * slope * (data.y - signal) * known
        weight = weight + share * slope**2 * known
        square = square + share * (data.y - signal) ** 2
    score, weight = jnp.where(seen, score, 0.0), jnp.where(seen, jnp.maximum(weight, 1e-4), 0.0)
    features = jnp.concatenate([mean, jnp.ones_like(mean[..., :1])], axis=-1)
    padded = jnp.pad(covariance, ((0, 0), (0, 0), (0, 1), (0, 1)))
    weights, moments = weight.reshape(rows, neurons).T, features[..., None] * features[..., None, :] + padded
    shared = jnp.pad(
        (weights @ covariance.reshape(rows, -1)).reshape(neurons, latents, latents), ((0, 0), (0, 1), (0, 1))
    )
    coefficients = jnp.concatenate([loadings, readout.bias[:, None]], axis=1)
    slope_sum = score.reshape(rows, neurons).T @ features.reshape(rows, -1)
    # By Stein's identity E[s x] = E[s] m + E[ds/deta] P c, and ds/deta is minus the weight.
    slope_sum = slope_sum - jnp.einsum("nij,nj->ni", shared, coefficients)
    curvature = (weights @ moments.reshape(rows, -1)).reshape(neurons, latents + 1, latents + 1)
    curvature = jnp.where(member[:, :, None] & member[:, None], curvature, 0.0)
    curvature = curvature + jnp.where(member, _RIDGE, 1.0)[..., None] * jnp.eye(member.shape[1])
    change = jnp.linalg.solve(curvature, jnp.where(member, slope_sum, 0.0)[..., None])[..., 0]
    coefficients = coefficients + jnp.where(member, change, 0.0)
    emissions = _with_loadings(emissions, coefficients[:, :-1])
    emissions = eqx.tree_at(lambda e: e.readout.bias, emissions, coefficients[:, -1].astype(readout.bias.dtype))
    return emissions.with_residual(jnp.where(seen, square, 0.0).sum((0, 1)) / jnp.maximum(seen.sum((0, 1)), 1))


def in_coordinates(emissions: Emissions, matrix: Array, offset: Array) -> Emissions:
    """Affine emissions that say of latents ``matrix x + offset`` what they said of x."""
    loadings = _loadings(emissions.readout) @ jnp.linalg.inv(matrix)
    bias = emissions.readout.bias - loadings @ offset
    return eqx.tree_at(lambda e: e.readout.bias, _with_loadings(emissions, loadings), bias)


def _scaled(emissions: SomeEmissions, scale: Array) -> SomeEmissions:
    """Emissions of latents that were divided by ``scale``."""
    if isinstance(emissions, SessionEmissions):
        return emissions.each(lambda own, _: _with_loadings(own, _loadings(own.readout) * scale))
    return _with_loadings(emissions, _loadings(emissions.readout) * scale)


def _loadings(readout: Readout) -> Float[Array, "neuron latent"]:
    """The affine map's weights of every latent, zero where a neuron does not see it; a tangent of a perceptron."""
    return jax.jacfwd(readout)(jnp.zeros(sum(readout.latent_sizes), readout.weight.dtype))


def _members(readout: Readout) -> np.ndarray:
    owner = readout.owner()
    return owner[:, None] == np.repeat(np.arange(len(readout.latent_sizes)), readout.latent_sizes)


def _with_loadings(emissions: Emissions, loadings: Array) -> Emissions:
    readout = emissions.readout
    if readout.hidden is not None:
        return emissions
    starts = np.concatenate([[0], np.cumsum(readout.latent_sizes)])
    owner = readout.owner()
    slots = np.minimum(starts[owner][:, None] + np.arange(max(readout.latent_sizes)), loadings.shape[1] - 1)
    inside = np.arange(max(readout.latent_sizes)) < np.asarray(readout.latent_sizes)[owner][:, None]
    weight = jnp.where(inside, jnp.take_along_axis(loadings, slots, axis=1), readout.weight)
    return eqx.tree_at(lambda e: e.readout.weight, emissions, weight.astype(readout.weight.dtype))


def _with_noise(dynamics: LinearDynamics, scale: Array) -> LinearDynamics:
    return eqx.tree_at(lambda d: d.noise.raw_diagonal, dynamics, inverse_softplus(scale))
