"""The equations of the model written out plainly, one network, one state and one trial at a time, to test against."""

import itertools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random
from numpyro.infer import SVI
from scipy.special import log_softmax, logsumexp
from scipy.stats import multivariate_normal

from mrsds_ppl.data.batch import Batch
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.models import MRSDS
from mrsds_ppl.ppl.elbo import MarkovELBO

ACTIVATIONS = {None: lambda a: a, "relu": lambda a: jnp.maximum(a, 0.0), "tanh": jnp.tanh}


def make_batch(lengths, num_bins, num_neurons, num_inputs=1, num_stages=0, missing=0.2, seed=0, counts=False, first=0):
    """Random signals with missing entries and padded bins; what is not observed is zero. Numbers begin at ``first``."""
    rng = np.random.default_rng(seed)
    lengths = np.asarray(lengths)
    grid = (len(lengths), num_bins)
    valid = (np.arange(num_bins) < lengths[:, None])[..., None]
    observed = (rng.random((*grid, num_neurons)) > missing) & valid
    y = rng.poisson(2.0, (*grid, num_neurons)) if counts else rng.normal(size=(*grid, num_neurons))
    u = rng.normal(size=(*grid, num_inputs)) * valid
    stage = np.eye(max(num_stages, 1))[rng.integers(0, max(num_stages, 1), grid)][..., :num_stages]
    arrays = (
        np.where(observed, y, 0).astype(float),
        u,
        observed,
        observed,
        lengths,
        stage,
        first + np.arange(len(lengths)),
    )
    return jax.device_put(Batch(*arrays))


def filled(build, seed=0, scale=0.5):
    """What ``build`` makes, with every number drawn anew, so that no term is zero or like another."""
    shapes, rng = eqx.filter_eval_shape(build), np.random.default_rng(seed)

    def draw(leaf):
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        return jax.device_put(np.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype))

    return jax.tree.map(draw, shapes)


def filled_guide(kind, model, options, **kwargs):
    """A guide of a model of five neurons whose recognition is so filled."""
    built = []

    def build():
        built.append(kind(model, key=random.key(0), options=options, **kwargs))
        return built[-1].recognition

    recognition = filled(build, seed=3)
    # A spread of the signals is positive.
    recognition = eqx.tree_at(lambda r: r.standardizer.spread, recognition, jnp.array([0.5, 1.0, 1.5, 2.0, 1.0]))
    guide = built[-1]
    guide.recognition = recognition
    return guide


def filled_model(*args, seed=0, **kwargs):
    """A model whose networks are so filled."""
    built = []

    def build():
        built.append(MRSDS(*args, key=random.key(0), **kwargs))
        return built[-1].networks

    networks = filled(build, seed)
    built[-1].networks = networks
    return built[-1]


def params_of_plain_script(guide, batch, num_steps):
    """Values of all sites after the NumPyro script of the README, whose losses are finite and fall."""
    svi = SVI(guide.model, guide, optax.adam(1e-2), loss=MarkovELBO())
    result = svi.run(random.key(1), num_steps, batch, progress_bar=False)
    assert np.isfinite(result.losses).all()
    assert result.losses[-10:].mean() < result.losses[:10].mean()
    return result.params


def perceptron(network, place, x):
    """One network of a stack; ``place`` is its index, and axes of size one are shared by all."""
    for layer, weight in enumerate(network.weights):
        x = x @ weight[tuple(min(i, n - 1) for i, n in zip(place, weight.shape, strict=False))]
        if network.biases is not None:
            x = x + network.biases[layer][place]
        x = ACTIVATIONS[network.activations[layer]](x)
    return x


def messages(dynamics, k, x, u):
    """local[r], cross[r][s], inputs[r][l] of state k for one (latents,) x and one (input,) u."""
    sizes, form = dynamics.latent_sizes, dynamics.options
    width, starts = max(sizes), np.cumsum((0, *sizes))
    own = [jnp.concatenate([x[a : a + n], jnp.zeros(width - n)]) for a, n in zip(starts[:-1], sizes, strict=True)]
    regions = range(len(sizes))
    nothing = jnp.zeros(width)

    def pair(target, source):
        if form.communication_type == "conditional":
            spoken = perceptron(dynamics.pairs, (k, target, source), jnp.concatenate([own[source], own[target]]))
            return spoken - perceptron(dynamics.pairs, (k, target, source), jnp.concatenate([nothing, own[target]]))
        # Of a source's hidden layers there is one for all its targets.
        sent = own[source] if dynamics.sent is None else perceptron(dynamics.sent, (k, 0, source), own[source])
        return perceptron(dynamics.pairs, (k, target, source), sent)

    def change(region):
        if form.communication_type == "additive":
            return pair(region, region)
        return perceptron(dynamics.local, (k, region), own[region])

    def told(target, group, value):
        if form.input_type == "conditional":
            value = jnp.concatenate([own[target], value])
        return perceptron(dynamics.inputs, (k, target, group), value)

    groups = [u] if form.input_func_type == "together" else [u[i : i + 1] for i in range(len(u))]
    local = [own[r] + change(r) for r in regions]
    cross = [[nothing if r == s else pair(r, s) for s in regions] for r in regions]
    inputs = [[told(r, l, v) - told(r, l, 0.0 * v) for l, v in enumerate(groups)] for r in regions]
    return local, cross, inputs


def mean(dynamics, k, x, u):
    """f_k(x, u), the sum of the messages."""
    local, cross, inputs = messages(dynamics, k, x, u)
    sums = [local[r] + sum(cross[r]) + sum(inputs[r]) for r in range(len(local))]
    return jnp.concatenate([s[:n] for s, n in zip(sums, dynamics.latent_sizes, strict=True)])


def cholesky(covariance):
    """L of a covariance, from its raw numbers."""
    diagonal = np.log1p(np.exp(np.asarray(covariance.raw_diagonal))) + 1e-4
    lower = 0.0 if covariance.lower is None else np.tril(np.asarray(covariance.lower), -1)
    return np.diag(diagonal) + lower


def readout_matrix(readout):
    """C of an affine readout: neuron by latent, zero outside a neuron's own region."""
    starts, matrix = np.cumsum((0, *readout.latent_sizes)), []
    owner = np.repeat(np.arange(len(readout.region_sizes)), readout.region_sizes)
    for neuron, row in enumerate(np.asarray(readout.weight)):
        region = owner[neuron] if len(readout.latent_sizes) > 1 else 0
        full, size = np.zeros(starts[-1]), readout.latent_sizes[region]
        full[starts[region] : starts[region] + size] = row[:size]
        matrix.append(full)
    return np.stack(matrix)


def affine_form(dynamics, k):
    """A, B, b of f_k(x, u) = A x + B u + b where every network is affine, from its weights."""
    sizes = dynamics.latent_sizes
    starts, regions = np.cumsum((0, *sizes)), range(len(sizes))
    a, b = np.eye(starts[-1]), np.zeros(starts[-1])
    gain = np.zeros((starts[-1], dynamics.num_inputs))
    for r in regions:
        rows = slice(starts[r], starts[r + 1])
        for s in regions:
            columns = slice(starts[s], starts[s + 1])
            a[rows, columns] += np.asarray(dynamics.pairs.weights[0])[k, r, s].T[: sizes[r], : sizes[s]]
            b[rows] += np.asarray(dynamics.pairs.biases[0])[k, r, s, : sizes[r]]
        for l in range(dynamics.num_inputs):
            gain[rows, l] += np.asarray(dynamics.inputs.weights[0])[k, r, l, 0, : sizes[r]]
    return a, gain, b


def factors(networks):
    """Cholesky factors of the first bin, of the state noise and of Gaussian signals."""
    return map(cholesky, (networks.initial.noise, networks.dynamics.noise, networks.emissions.laws[0].noise))


def gaussian_emission(emissions, x, y, observed):
    """log p(y | x) of one bin: the normal density of the observed block."""
    if not observed.any():
        return 0.0
    location = readout_matrix(emissions.readout) @ x + np.asarray(emissions.readout.bias)
    factor = cholesky(emissions.laws[0].noise)
    block = (factor @ factor.T)[np.ix_(observed, observed)]
    return multivariate_normal(location[observed], block).logpdf(y[observed])


def log_joint_paths(networks, batch, x, trial, means):
    """log p(z, x, y) of one trial for every path z; ``means(k, x, u)`` is f_k. Features of W: x alone."""
    num_states, length = networks.transitions.bias.shape[0], int(batch.lengths[trial])
    x, u, y, seen = (np.asarray(a[trial]) for a in (x, batch.u, batch.y, batch.observed))
    weight, bias = np.asarray(networks.transitions.weight), np.asarray(networks.transitions.bias)
    first, noise = (f @ f.T for f in map(cholesky, (networks.initial.noise, networks.dynamics.noise)))
    start = log_softmax(np.asarray(networks.initial.state_logits))
    emitted = sum(gaussian_emission(networks.emissions, x[t], y[t], seen[t]) for t in range(length))
    moves = [log_softmax(weight @ x[t - 1] + bias, axis=-1) for t in range(1, length)]
    steps = [
        [multivariate_normal(means(k, x[t - 1], u[t]), noise).logpdf(x[t]) for k in range(num_states)]
        for t in range(1, length)
    ]
    scores = []
    for z in itertools.product(range(num_states), repeat=length):
        score = emitted + start[z[0]]
        score += multivariate_normal(np.asarray(networks.initial.means)[z[0]], first).logpdf(x[0])
        score += sum(moves[t - 1][z[t - 1], z[t]] + steps[t - 1][z[t]] for t in range(1, length))
        scores.append(score)
    return np.array(scores)


def log_density(networks, batch, x, means):
    """log p(x, y) of every trial over its valid bins, by the sum over all paths."""
    return np.array([logsumexp(log_joint_paths(networks, batch, x, i, means)) for i in range(len(batch.lengths))])


class PathPosterior(NamedTuple):
    """p(x | y, z) of one trial and one state path: log p(y | z), mean, precision of the whole path."""

    log_marginal: float
    mean: np.ndarray  # (bin, latent)
    precision: np.ndarray  # (bin, latent, bin, latent)


def gaussian_logpdf(residual, covariance):
    """log N(residual; 0, covariance)."""
    size = len(residual) * np.log(2 * np.pi)
    return -0.5 * (residual @ np.linalg.solve(covariance, residual) + np.linalg.slogdet(covariance)[1] + size)


def path_posterior(networks, y, states):
    """Exact posterior of a linear-Gaussian model without inputs, all of y observed, by one dense linear system.

    With x* the posterior mean and P the precision, log p(y) = log p(x*, y) + (T D log 2 pi - log det P) / 2.
    """
    forms = [affine_form(networks.dynamics, k) for k in range(networks.dynamics.num_states)]
    maps, shifts = [forms[k][0] for k in states], [forms[k][2] for k in states]
    start = np.asarray(networks.initial.means, float)[states[0]]
    first, noise, spread = (f @ f.T for f in factors(networks))
    loading = readout_matrix(networks.emissions.readout)
    signal = np.asarray(y, float) - np.asarray(networks.emissions.readout.bias, float)
    length, size = len(states), len(start)
    inverse, seen = np.linalg.inv(noise), loading.T @ np.linalg.inv(spread)
    precision, potential = np.zeros((length, size, length, size)), signal @ seen.T
    precision[0, :, 0] = np.linalg.inv(first)
    potential[0] += precision[0, :, 0] @ start
    for t in range(length):
        precision[t, :, t] += seen @ loading
        if t:
            precision[t, :, t] += inverse
            precision[t - 1, :, t - 1] += maps[t].T @ inverse @ maps[t]
            precision[t, :, t - 1] -= inverse @ maps[t]
            precision[t - 1, :, t] -= maps[t].T @ inverse
            potential[t] += inverse @ shifts[t]
            potential[t - 1] -= maps[t].T @ inverse @ shifts[t]
    flat = precision.reshape(length * size, -1)
    mean = np.linalg.solve(flat, potential.ravel()).reshape(length, size)
    joint = gaussian_logpdf(mean[0] - start, first)
    joint += sum(gaussian_logpdf(mean[t] - maps[t] @ mean[t - 1] - shifts[t], noise) for t in range(1, length))
    joint += sum(gaussian_logpdf(signal[t] - loading @ mean[t], spread) for t in range(length))
    marginal = joint + 0.5 * (length * size * np.log(2 * np.pi) - np.linalg.slogdet(flat)[1])
    return PathPosterior(marginal, mean, precision)


def with_values(networks, maps, shifts, loading, bias, *, noise, first_noise, emission_noise, first_means):
    """The networks of a model of affine maps x -> A_k x + b_k with given values; scales are standard deviations.

    Args:
        maps, shifts: A_k (state, latent, latent) and b_k (state, latent).
        loading, bias: rows of C (neuron, latents of the neuron's region) and d (neuron,).
    """
    dynamics = networks.dynamics
    sizes = dynamics.latent_sizes
    starts, width = np.cumsum((0, *sizes)), max(sizes)
    weights = np.zeros((len(maps), len(sizes), len(sizes), width, width))
    biases = np.zeros((len(maps), len(sizes), len(sizes), width))
    change = np.asarray(maps) - np.eye(starts[-1])
    for k, (r, s) in itertools.product(range(len(maps)), itertools.product(range(len(sizes)), repeat=2)):
        block = change[k, starts[r] : starts[r + 1], starts[s] : starts[s + 1]]
        weights[k, r, s, : sizes[s], : sizes[r]] = block.T
        if r == s:
            biases[k, r, s, : sizes[r]] = shifts[k][starts[r] : starts[r + 1]]
    raw = [np.log(np.expm1(np.full(n, v) - 1e-4)) for n, v in ((starts[-1], noise), (starts[-1], first_noise))]
    values = (weights, biases, loading, bias, *raw, first_means)
    found = [jax.device_put(np.asarray(v, float)) for v in values]
    networks = eqx.tree_at(
        lambda n: (
            n.dynamics.pairs.weights[0],
            n.dynamics.pairs.biases[0],
            n.emissions.readout.weight,
            n.emissions.readout.bias,
            n.dynamics.noise.raw_diagonal,
            n.initial.noise.raw_diagonal,
            n.initial.means,
        ),
        networks,
        tuple(found),
    )
    if emission_noise is None:  # counts
        return networks
    raw_emission = jnp.full(len(bias), np.log(np.expm1(emission_noise - 1e-4)))
    return eqx.tree_at(lambda n: n.emissions.laws[0].noise.raw_diagonal, networks, raw_emission)


def linear_recording(
    rng: np.random.Generator, maps: np.ndarray, loading: np.ndarray, shape: tuple[int, int], noise: float
) -> Trials:
    """Trials (number, bins) of two latents of state noise 0.5, of each of which three neurons are read."""
    ys, xs = [], []
    for _ in range(shape[0]):
        x = 0.5 * rng.normal(size=(shape[1], 2))
        for t in range(1, shape[1]):
            x[t] += maps @ x[t - 1]
        xs.append(x)
        ys.append(np.repeat(x, 3, axis=1) * loading[:, 0] + noise * rng.normal(size=(shape[1], 6)))
    return Trials.from_arrays(ys, region_sizes=[3, 3], x=xs)
