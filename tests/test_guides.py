"""Laws of the guides against dense Gaussians, and what may and may not reach an encoder's features, in float64."""

import by_hand
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy import stats

from mrsds_ppl.guides import GUIDES, GaussianChain, GaussianMarkov, MeanField
from mrsds_ppl.models import DynamicsOptions, ModelOptions
from mrsds_ppl.nn.encoders import ENCODERS, EncoderOptions

LENGTHS, BINS, LATENTS = [5, 3], 5, 3
SIZES = {"embedding_layers": (3,), "channels": 4, "dilations": (1, 2)}
SIZES |= {"head_size": 3, "num_heads": 2, "ff_dim": 4, "mlp_units": (16,)}
SMALL = EncoderOptions(**SIZES)


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def make_guide(kind=GaussianMarkov, **kwargs):
    """A guide of a model of 3 + 2 neurons and 2 + 1 latents, and parameters for it, every number drawn."""
    linear = ModelOptions(dynamics=DynamicsOptions(layers=(), activations=(None,)))
    model = by_hand.filled_model([3, 2], [2, 1], 2, num_inputs=1, options=linear)
    guide = by_hand.filled_guide(kind, model, SMALL, **kwargs)
    shared = jnp.asarray(np.random.default_rng(4).normal(size=6))
    return guide, {
        "recognition$params": eqx.filter(guide.recognition, eqx.is_inexact_array),
        "shared_covariance": shared,
    }


def random_chain():
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(2, BINS, LATENTS))
    gain = 0.5 * rng.normal(size=(2, BINS, LATENTS, LATENTS))
    cholesky = np.tril(0.4 * rng.normal(size=(2, BINS, LATENTS, LATENTS)), -1)
    cholesky += np.exp(0.3 * rng.normal(size=(2, BINS, LATENTS)))[..., None] * np.eye(LATENTS)
    return mean, gain, cholesky


def dense_covariance(gain, cholesky):
    """Covariance of a whole path: deviations d solve d_t - A_t d_{t-1} = L_t eps_t."""
    solve, noise = np.eye(BINS * LATENTS), np.zeros((BINS * LATENTS, BINS * LATENTS))
    for t in range(BINS):
        here = slice(t * LATENTS, (t + 1) * LATENTS)
        noise[here, here] = cholesky[t]
        if t:
            solve[here, (t - 1) * LATENTS : t * LATENTS] = -gain[t]
    root = np.linalg.solve(solve, noise)
    return root @ root.T


def test_chain_is_the_dense_gaussian():
    parts = random_chain()
    law = GaussianChain(*map(jnp.asarray, parts))
    x = random.normal(random.key(0), (4, 2, BINS, LATENTS))
    log_prob, covariances = jax.jit(lambda x: (law.log_prob(x), law.covariances))(x)
    for trial, (mean, gain, cholesky) in enumerate(zip(*parts, strict=True)):
        dense = dense_covariance(gain, cholesky)
        expected = stats.multivariate_normal(mean.ravel(), dense).logpdf(np.asarray(x)[:, trial].reshape(4, -1))
        np.testing.assert_allclose(log_prob[:, trial], expected, rtol=1e-10)
        blocks = dense.reshape(BINS, LATENTS, BINS, LATENTS)
        np.testing.assert_allclose(covariances[trial], [blocks[t, :, t] for t in range(BINS)], rtol=1e-10)


def test_chain_draws_have_its_mean_and_covariance_over_time():
    parts, draws = random_chain(), 20000
    law = GaussianChain(*map(jnp.asarray, parts))
    x = np.asarray(jax.jit(lambda k: law.sample(k, (draws,)))(random.key(1)))
    assert x.shape == (draws, 2, BINS, LATENTS)
    for trial, (mean, gain, cholesky) in enumerate(zip(*parts, strict=True)):
        dense = dense_covariance(gain, cholesky)
        variance = np.diag(dense)
        flat = x[:, trial].reshape(draws, -1)
        error = flat.mean(0) - mean.ravel()
        assert (np.abs(error) < 5 * np.sqrt(variance / draws)).all()
        spread = np.sqrt((np.outer(variance, variance) + dense**2) / draws)
        assert (np.abs(np.cov(flat.T) - dense) < 5 * spread).all()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_density_from_the_noise_of_a_draw_equals_that_from_its_value(shape):
    law = GaussianChain(*map(jnp.asarray, random_chain()))

    def both(key):
        x, noise = law.sample_with_intermediates(key, shape)
        return x, law.log_prob(x, noise), law.log_prob(x)

    x, quick, plain = jax.jit(both)(random.key(2))
    assert (x.shape, plain.shape) == ((*shape, 2, BINS, LATENTS), (*shape, 2))
    np.testing.assert_allclose(quick, plain, rtol=1e-11)


@pytest.mark.parametrize("triangular", [False, True])
@pytest.mark.parametrize("per_bin", [False, True])
def test_mean_field_is_a_product_of_normals(per_bin, triangular):
    guide, params = make_guide(MeanField, per_bin=per_bin, triangular=triangular)
    batch = by_hand.make_batch(LENGTHS, BINS, 5)
    x = random.normal(random.key(0), (2, BINS, LATENTS))

    def evaluate(params, batch):
        law = guide.path_law(params, batch)
        return law.log_prob(x), law.mean, guide.recognition(batch)

    log_prob, mean, outputs = jax.jit(evaluate)(params, batch)
    expected = np.zeros(2)
    for trial in range(2):
        for t in range(BINS):
            center, factor = np.zeros(LATENTS), np.eye(LATENTS)
            if t < LENGTHS[trial]:
                center = np.asarray(outputs[0])[trial, t]
                raw = outputs[1][trial, t] if per_bin else params["shared_covariance"][:LATENTS]
                factor = np.diag(np.log1p(np.exp(np.asarray(raw) - 1.05)) + 1e-3)
                if triangular:
                    factor[np.tril_indices(LATENTS, -1)] = (
                        outputs[2][trial, t] if per_bin else params["shared_covariance"][LATENTS:]
                    )
            np.testing.assert_allclose(mean[trial, t], center, rtol=1e-12)
            expected[trial] += stats.multivariate_normal(center, factor @ factor.T).logpdf(x[trial, t])
    np.testing.assert_allclose(log_prob, expected, rtol=1e-10)


@pytest.mark.parametrize("name", ["gaussian_markov", "mean_field", "switching_structured"])
def test_padded_bins_are_standard_normal_and_independent(name):
    guide, params = make_guide(GUIDES[name], triangular=True)
    batch = by_hand.make_batch(LENGTHS, BINS, 5)
    x = random.normal(random.key(0), (2, BINS, LATENTS))
    other = x.at[1, 3:].set(random.normal(random.key(1), (2, LATENTS)))
    law = jax.jit(lambda x: guide.path_law(params, batch).log_prob(x))
    change = stats.norm.logpdf(other[1, 3:]).sum() - stats.norm.logpdf(x[1, 3:]).sum()
    np.testing.assert_allclose(law(other) - law(x), [0.0, change], rtol=1e-6)


def make_encoder(name, options=SMALL):
    return by_hand.filled(lambda: ENCODERS[name]([3, 2], 1, options, key=random.key(0)), seed=5)


@pytest.mark.parametrize("name", ENCODERS)
def test_nothing_of_the_padding_reaches_a_valid_bin(name):
    encoder = make_encoder(name)
    batch = by_hand.make_batch(LENGTHS, BINS, 5)
    run = jax.jit(lambda y, u: encoder(y, u, batch.lengths))
    features = run(batch.y, batch.u)
    rng = np.random.default_rng(0)
    junk = [jnp.concatenate([a, 9 * rng.normal(size=(2, 4, a.shape[2]))], axis=1) for a in (batch.y, batch.u)]
    spoiled = run(*(a.at[1, 3:5].set(-50.0) for a in junk))
    for trial, length in enumerate(LENGTHS):
        np.testing.assert_allclose(spoiled[trial, :length], features[trial, :length], rtol=1e-12, atol=1e-13)
        assert np.any(features[trial, :length] != 0, axis=-1).all()
    # Valid bins do reach one another.
    assert np.any(run(batch.y.at[0, 2].add(1.0), batch.u)[0, 3] != features[0, 3])


def test_convolutions_equal_sums_over_their_taps_by_loops():
    options = EncoderOptions(embedding_layers=(2,), channels=3, kernel_size=5, dilations=(1, 2))
    encoder = make_encoder("convolution", options)
    batch = by_hand.make_batch(LENGTHS, BINS, 5)
    found = jax.jit(lambda y, u: encoder(y, u, batch.lengths))(batch.y, batch.u)
    for trial, length in enumerate(LENGTHS):
        h = np.asarray(encoder.enter(jnp.concatenate([encoder.embedding(batch.y[trial]), batch.u[trial]], axis=-1)))
        for taps, mixer, dilation in zip(encoder.filters, encoder.mixers, encoder.dilations, strict=True):
            width, summed = h.shape[1], np.zeros_like(h[:length])
            for t in range(length):
                for tap in range(5):
                    other = t + (tap - 2) * dilation
                    if 0 <= other < length:
                        summed[t] += h[other] @ np.asarray(taps)[tap * width : (tap + 1) * width]
            h = h[:length] + np.maximum(summed, 0.0) @ np.asarray(mixer.weight) + np.asarray(mixer.bias)
        np.testing.assert_allclose(found[trial, :length], h[:length], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("positional", ["none", "sinusoidal"])
def test_transformer_knows_the_order_of_bins_by_its_positional_code_alone(positional):
    encoder = make_encoder("transformer", EncoderOptions(**SIZES, positional=positional))
    batch = by_hand.make_batch([BINS], BINS, 5)
    order = np.array([3, 0, 4, 2, 1])
    run = jax.jit(lambda y, u: encoder(y, u, batch.lengths))
    shuffled = run(batch.y[:, order], batch.u[:, order])
    equal = np.allclose(shuffled, run(batch.y, batch.u)[:, order], rtol=1e-10, atol=1e-12)
    assert equal == (positional == "none")


@pytest.mark.parametrize("encoder", ENCODERS)
def test_hidden_neurons_do_not_reach_the_posterior(encoder):
    guide, params = make_guide(encoder=encoder)
    batch = by_hand.make_batch(LENGTHS, BINS, 5, missing=0.0)
    mean = jax.jit(lambda b: guide.path_law(params, b).mean)
    hidden = batch._replace(visible=batch.visible.at[..., 1].set(False))
    np.testing.assert_array_equal(mean(hidden._replace(y=hidden.y.at[..., 1].add(5.0))), mean(hidden))
    assert np.any(mean(batch._replace(y=batch.y.at[..., 1].add(5.0))) != mean(batch))


def test_standardizer_keeps_the_size_of_a_regions_sum_where_neurons_are_hidden():
    guide, _ = make_guide()
    batch = by_hand.make_batch(LENGTHS, BINS, 5, missing=0.0)
    half = batch._replace(visible=batch.visible.at[..., 2].set(False))
    standardizer = guide.recognition.standardizer
    signals = (np.asarray(batch.y) - standardizer.center) / standardizer.spread
    found = jax.jit(lambda b: standardizer(b))(half)
    np.testing.assert_allclose(found[0], signals[0] * np.array([1.5, 1.5, 0.0, 1.0, 1.0]), rtol=1e-12)
    np.testing.assert_array_equal(found[1, 3:], 0.0)


@pytest.mark.slow
@pytest.mark.compiling
@pytest.mark.parametrize("name", ["gaussian_markov", "mean_field", "switching_structured"])
def test_posterior_draws_and_median_have_the_shape_of_the_path(name):
    guide, params = make_guide(GUIDES[name])
    batch = by_hand.make_batch(LENGTHS, BINS, 5)
    draw = jax.jit(lambda k, shape: guide.sample_posterior(k, params, batch, sample_shape=shape), static_argnums=1)
    assert draw(random.key(0), ())["x"].shape == (2, BINS, LATENTS)
    draws = draw(random.key(0), (400, 3))["x"]
    assert draws.shape == (400, 3, 2, BINS, LATENTS)
    median = jax.jit(lambda b: guide.median(params, b))(batch)["x"]
    np.testing.assert_allclose(draws.mean((0, 1)), median, atol=5 * draws.std((0, 1)).max() / np.sqrt(1200))
    np.testing.assert_array_equal(median[1, 3:], 0.0)


def test_chain_with_fixed_covariance_gives_its_factor_no_gradient():
    guide, params = make_guide(trainable_covariance=False)
    batch = by_hand.make_batch(LENGTHS, BINS, 5)

    def spread(params):
        law = guide.path_law(params, batch)
        return (law.cholesky**2).sum(), law.mean.sum()

    fixed, free = jax.jit(jax.jacrev(spread))(params)
    assert not np.any(fixed["recognition$params"].head.weight)
    assert np.any(free["recognition$params"].head.weight)
