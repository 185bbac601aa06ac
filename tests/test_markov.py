"""The enumerated chain against brute force over all K^T paths, in float64: values, gradients, probabilities, draws."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro import handlers
from numpyro.infer.util import log_density
from scipy.special import logsumexp, softmax

from mrsds_ppl.ppl.markov import (
    PathLaw,
    StateLaw,
    Switching,
    ancestral,
    markov,
    potentials,
    select,
    summed_out,
)
from mrsds_ppl.statespace import chain as chains

TRIALS, BINS, LATENTS = 3, 5, 2
LENGTHS = np.array([5, 3, 1])


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def make_params(num_states):
    rng = np.random.default_rng(num_states)
    params = {
        "initial": rng.normal(size=num_states),
        "means": rng.normal(size=(num_states, LATENTS)),
        "transition": rng.normal(size=(LATENTS + 1, num_states, num_states)),
        "dynamics": rng.normal(size=(num_states, LATENTS, LATENTS)),
        "offset": rng.normal(size=(num_states, LATENTS)),
        "log_scale": np.array([-0.3, 0.2]),
    }
    return jax.tree.map(jnp.asarray, params)


def make_switching(params, lengths=LENGTHS, bins=BINS, log_normalizer=chains.sequential_log_normalizer):
    """A switching linear system in which the state, the latents and the input all matter."""
    num_states = params["initial"].shape[0]
    inputs = np.random.default_rng(7).normal(size=(BINS, TRIALS, 1))
    inputs = jnp.asarray(np.concatenate([inputs, np.ones((max(0, bins - BINS), TRIALS, 1))])[:bins])

    def initial(u):
        z = numpyro.sample("z", dist.Categorical(logits=jnp.broadcast_to(params["initial"], (TRIALS, num_states))))
        loc = jnp.broadcast_to(params["means"][:, None], (num_states, TRIALS, LATENTS))
        return z, numpyro.sample("x", dist.Normal(select(loc, z), 0.7).to_event(1))

    def transition(z, x, u):
        table = jnp.einsum("...i,ijk->j...k", jnp.concatenate([x, u], -1), params["transition"])
        z = numpyro.sample("z", dist.Categorical(logits=select(table, z)))
        loc = jnp.einsum("kio,...i->k...o", params["dynamics"], jnp.tanh(x)) + 0.5 * u
        loc = loc + params["offset"].reshape((num_states,) + (1,) * (x.ndim - 1) + (LATENTS,))
        return z, numpyro.sample("x", dist.Normal(select(loc, z), jnp.exp(params["log_scale"])).to_event(1))

    return Switching(initial, transition, num_states, LATENTS, inputs, jnp.asarray(lengths), log_normalizer)


def log_joint_by_hand(params, inputs, x, path):
    """log p(z, x) of one trial, by the definition of the model: the first bin, then the sum over those that follow."""

    def later_bin(previous_state, state, previous_x, x, u):
        logits = jnp.concatenate([previous_x, u]) @ params["transition"][:, previous_state]
        mean = params["dynamics"][state].T @ jnp.tanh(previous_x) + params["offset"][state] + 0.5 * u
        log_path = jax.scipy.stats.norm.logpdf(x, mean, jnp.exp(params["log_scale"])).sum()
        return jax.nn.log_softmax(logits)[state] + log_path

    first = jax.nn.log_softmax(params["initial"])[path[0]]
    first = first + jax.scipy.stats.norm.logpdf(x[0], params["means"][path[0]], 0.7).sum()
    length = path.shape[0]
    if length == 1:
        return first
    return first + jax.vmap(later_bin)(path[:-1], path[1:], x[: length - 1], x[1:length], inputs[1:length]).sum()


score_paths = jax.jit(jax.vmap(log_joint_by_hand, in_axes=(None, None, None, 0)))


def brute_force(params, inputs, x, lengths=LENGTHS):
    """Per trial: all paths and their log p(z, x)."""
    num_states = params["initial"].shape[0]
    tables = []
    for trial, length in enumerate(lengths):
        paths = np.array(list(itertools.product(range(num_states), repeat=int(length))))
        tables.append((paths, score_paths(params, inputs[:, trial], x[trial], paths)))
    return tables


def path_probabilities(params, inputs, x):
    """Per trial: all paths, their log p(z, x) and p(z | x), as numpy arrays."""
    tables = [(paths, np.asarray(scores)) for paths, scores in brute_force(params, inputs, x)]
    return [(paths, scores, np.exp(scores - logsumexp(scores))) for paths, scores in tables]


def valid_density(params, x, lengths=LENGTHS, **options):
    """sum over trials of log p(x) over valid bins."""
    switching = make_switching(params, lengths, x.shape[1], **options)
    return switching.log_normalizer(potentials(switching, x)).sum()


def make_path():
    return jnp.asarray(np.random.default_rng(11).normal(size=(TRIALS, BINS, LATENTS)))


@functools.partial(jax.jit, static_argnames="log_normalizer")
def density_and_gradient(params, x, log_normalizer):
    density = functools.partial(valid_density, log_normalizer=log_normalizer)
    return jax.value_and_grad(density, argnums=(0, 1))(params, x)


@pytest.fixture(params=[2, 3])
def case(request):
    return make_params(request.param), make_path()


@functools.cache
def density_and_gradient_by_hand(num_states):
    """sum over trials of log sum over all paths of p(z, x), and its gradient in the parameters and x."""
    params = make_params(num_states)
    inputs = make_switching(params).inputs

    def by_hand(params, x):
        return sum(jax.nn.logsumexp(scores) for _, scores in brute_force(params, inputs, x))

    return jax.jit(jax.value_and_grad(by_hand, argnums=(0, 1)))(params, make_path())


@pytest.mark.parametrize("algorithm", [chains.sequential_log_normalizer, chains.parallel_log_normalizer])
def test_density_and_gradient_equal_brute_force(case, algorithm):
    params, x = case
    expected, expected_grad = density_and_gradient_by_hand(len(params["initial"]))
    found, found_grad = density_and_gradient(params, x, algorithm)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    for a, b in zip(jax.tree.leaves(found_grad), jax.tree.leaves(expected_grad), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_smoothed_pairwise_and_most_likely_equal_brute_force(case):
    params, x = case
    switching = make_switching(params)

    @jax.jit
    def decode(x):
        chain = potentials(switching, x)
        return chains.smooth(chain), chains.most_likely_path(chain)

    smoothed, best = jax.tree.map(np.asarray, decode(x))
    num_states = switching.num_states
    for trial, (paths, scores, weights) in enumerate(path_probabilities(params, switching.inputs, x)):
        length = LENGTHS[trial]
        for t in range(length):
            marginal = [weights[paths[:, t] == k].sum() for k in range(num_states)]
            np.testing.assert_allclose(smoothed.marginals[t, :, trial], marginal, rtol=1e-10)
        for t in range(length - 1):
            pair = [
                [weights[(paths[:, t] == j) & (paths[:, t + 1] == k)].sum() for k in range(num_states)]
                for j in range(num_states)
            ]
            np.testing.assert_allclose(smoothed.pairwise[t, :, :, trial], pair, rtol=1e-10)
        np.testing.assert_array_equal(best[:length, trial], paths[np.argmax(scores)])
        np.testing.assert_array_equal(best[length:, trial], best[length - 1, trial])


def test_posterior_draws_have_the_law_of_the_paths():
    params, x = make_params(2), make_path()
    switching = make_switching(params)
    draws = np.asarray(jax.jit(lambda x, key: StateLaw(switching, x).sample(key, (4000,)))(x, random.key(3)))
    for trial, (paths, _, expected) in enumerate(path_probabilities(params, switching.inputs, x)):
        seen = (draws[:, trial, None, : LENGTHS[trial]] == paths).all(-1).mean(0)
        assert np.abs(seen - expected).max() < 4 * np.sqrt(0.25 / 4000)


def test_state_law_is_the_normalised_joint(case):
    params, x = case
    switching = make_switching(params)
    tables = path_probabilities(params, switching.inputs, x)
    path = np.stack([np.pad(paths[-1], (0, BINS - len(paths[-1])), mode="edge") for paths, _, _ in tables])
    expected = [scores[-1] - logsumexp(scores) for _, scores, _ in tables]
    found = jax.jit(lambda x, path: StateLaw(switching, x).log_prob(path))(x, path)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.compiling
def test_padding_order_and_jit_change_nothing(case):
    params, x = case
    plain = valid_density(params, x)
    compiled = jax.jit(valid_density)
    padded = np.concatenate([x, np.full((TRIALS, 4, LATENTS), 3.0)], axis=1)
    np.testing.assert_allclose(compiled(params, padded), plain, rtol=1e-12)
    np.testing.assert_allclose(compiled(params, x), plain, rtol=1e-12)
    switching = make_switching(params)
    order = np.array([2, 0, 1])
    shuffled = switching._replace(inputs=switching.inputs[:, order], lengths=switching.lengths[order])
    found, expected = jax.jit(lambda x: (PathLaw(shuffled).log_prob(x[order]), PathLaw(switching).log_prob(x)))(x)
    np.testing.assert_allclose(found, expected[order], rtol=1e-12)


def test_garbage_in_padded_bins_reaches_neither_value_nor_gradient(case):
    params, x = case
    spoiled = np.array(x)
    spoiled[1, 3:], spoiled[2, 1:] = 1e6, -1e6
    (value, (gradient, _)), (expected, (expected_gradient, _)) = (
        density_and_gradient(params, path, chains.sequential_log_normalizer) for path in (spoiled, x)
    )
    np.testing.assert_allclose(value, expected, rtol=1e-10)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


@pytest.mark.slow
def test_prior_samples_have_the_law_of_the_programs():
    """The first two bins: frequencies of (z_1, z_2) against quadrature over x_1 by plain Monte Carlo."""
    params = make_params(2)
    switching = make_switching(params, lengths=np.full(TRIALS, BINS))
    draw = jax.jit(jax.vmap(lambda k: ancestral(switching, k)))
    z, x = (np.asarray(a) for a in draw(random.split(random.key(0), 20000)))
    params = jax.tree.map(np.asarray, params)
    inputs = np.asarray(switching.inputs)[1, 0]
    prior = softmax(params["initial"])
    np.testing.assert_allclose((z[:, 0, 0] == 1).mean(), prior[1], atol=0.015)
    for k in range(2):
        chosen = x[:, 0, 0][z[:, 0, 0] == k]
        np.testing.assert_allclose(chosen.mean(0), params["means"][k], atol=0.04)
        np.testing.assert_allclose(chosen.std(0), 0.7, atol=0.03)
    features = np.concatenate([x[:, 0, 0], np.broadcast_to(inputs, (20000, 1))], -1)
    rows = softmax(np.einsum("si,ijk->sjk", features, params["transition"]), axis=-1)
    expected = np.take_along_axis(rows, z[:, 0, 0][:, None, None], axis=1)[:, 0, 1].mean()
    np.testing.assert_allclose((z[:, 0, 1] == 1).mean(), expected, atol=0.015)
    mean = np.einsum("sio,si->so", params["dynamics"][z[:, 0, 1]], np.tanh(x[:, 0, 0]))
    residual = x[:, 0, 1] - mean - params["offset"][z[:, 0, 1]] - 0.5 * inputs
    np.testing.assert_allclose(residual.mean(0), 0.0, atol=0.04)
    np.testing.assert_allclose(residual.std(0), np.exp(params["log_scale"]), rtol=0.03)


def test_program_has_the_joint_density_and_sums_to_the_marginal(case):
    params, x = case
    switching = make_switching(params)

    def program():
        with numpyro.plate("trials", TRIALS):
            markov(switching)

    def sites(key):
        trace = handlers.trace(handlers.seed(program, key)).get_trace()
        return {name: site["value"] for name, site in trace.items() if site["type"] == "sample"}

    values = jax.eval_shape(sites, random.key(0))
    assert {"x", "z"} <= set(values)
    assert values["z"].shape == (TRIALS, BINS)

    @jax.jit
    def densities(x):
        law = StateLaw(switching, x)
        z = law.sample(random.key(1))
        marginal, _ = log_density(summed_out(program), (), {}, {"x": x})
        joint, _ = log_density(program, (), {}, {"x": x, "z": z})
        return marginal, joint, PathLaw(switching).log_prob(x).sum(), law.log_prob(z).sum()

    marginal, joint, path_density, state_density = densities(x)
    np.testing.assert_allclose(marginal, path_density, rtol=1e-12)
    np.testing.assert_allclose(joint, marginal + state_density, rtol=1e-12)


def test_extreme_evidence_keeps_the_sum_finite():
    halves = np.full((6, 2, 2, 1), -np.log(2.0))
    evidence = np.array([[[0.0], [-800.0]], [[-800.0], [0.0]]] * 3)
    chain = chains.Chain(*map(jnp.asarray, (np.zeros((2, 1)), halves, evidence)))
    value, grad = jax.jit(jax.value_and_grad(lambda c: chains.sequential_log_normalizer(c).sum()))(chain)
    np.testing.assert_allclose(value, np.log(2.0) - 6 * np.log(2.0), rtol=1e-12)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grad))
