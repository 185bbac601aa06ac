"""TraceMarkovEnum_ELBO on hidden Markov models of the test's own, against a forward algorithm by hand, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from jax import random
from numpyro import handlers
from numpyro.infer import SVI
from numpyro.infer.autoguide import AutoNormal

from mrsds_ppl.errors import RunError
from mrsds_ppl.ppl import TraceMarkovEnum_ELBO

STATES, BINS, SEQUENCES, CHANNELS, SIZE = 3, 7, 4, 2, 12
SUMMED = {"enumerate": "parallel"}


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def make_signals():
    return jnp.asarray(np.random.default_rng(0).normal(size=(CHANNELS, BINS, SEQUENCES)))


def make_params():
    rng = np.random.default_rng(1)
    shapes = {"start": (STATES,), "moves": (STATES, STATES), "center": (CHANNELS, STATES), "spread": (CHANNELS, STATES)}
    return {name: jnp.asarray(0.5 * rng.normal(size=shape)) for name, shape in shapes.items()}


def hidden_markov(y, size=SIZE):
    """A mini-batch of sequences (channel, bin, sequence) with channels that share the state, and unknown means."""
    start = numpyro.param("start", jnp.zeros(STATES))
    moves = numpyro.param("moves", jnp.zeros((STATES, STATES)))
    with numpyro.plate("states", STATES, dim=-1), numpyro.plate("means", CHANNELS, dim=-2):
        level = numpyro.sample("level", dist.Normal(0.5, 2.0))
    channel = np.arange(CHANNELS)[:, None, None]
    channels = numpyro.plate("channels", CHANNELS, dim=-3)
    with numpyro.plate("sequences", size, subsample_size=y.shape[2], dim=-1):
        z = numpyro.sample("_PREV_z", dist.Categorical(logits=start), infer=SUMMED)
        with channels:
            numpyro.sample("first", dist.Normal(level[channel, z], 0.7), obs=y[:, :1])
        with numpyro.plate("_time", y.shape[1] - 1, dim=-2):
            z = numpyro.sample("z", dist.Categorical(logits=moves[z]), infer=SUMMED)
            with channels:
                numpyro.sample("rest", dist.Normal(level[channel, z], 0.7), obs=y[:, 1:])


def guide(y, size=SIZE):
    center = numpyro.param("center", jnp.zeros((CHANNELS, STATES)))
    spread = numpyro.param("spread", jnp.zeros((CHANNELS, STATES)))
    with numpyro.plate("states", STATES, dim=-1), numpyro.plate("means", CHANNELS, dim=-2):
        numpyro.sample("level", dist.Normal(center, jnp.exp(spread)))


def forward(params, level, y):
    """log p(y | level) of each sequence, one state path after another summed bin by bin."""
    moves = jax.nn.log_softmax(params["moves"], axis=-1)
    scores = dist.Normal(level[:, :, None, None], 0.7).log_prob(y[:, None]).sum(0)
    alpha = jax.nn.log_softmax(params["start"])[:, None] + scores[:, 0]
    for t in range(1, y.shape[1]):
        alpha = jax.nn.logsumexp(alpha[:, None] + moves[:, :, None], axis=0) + scores[:, t]
    return jax.nn.logsumexp(alpha, axis=0)


def bound_by_hand(params, key, y):
    guide_key = random.split(key)[1]
    level = handlers.trace(handlers.substitute(handlers.seed(guide, guide_key), params)).get_trace(y)["level"]["value"]
    log_q = dist.Normal(params["center"], jnp.exp(params["spread"])).log_prob(level).sum()
    log_prior = dist.Normal(0.5, 2.0).log_prob(level).sum()
    return SIZE / SEQUENCES * forward(params, level, y).sum() + log_prior - log_q


@pytest.mark.parametrize("particles", [1, 3])
def test_value_and_gradient_equal_the_forward_algorithm(particles):
    y, key = make_signals(), random.key(2)

    def by_hand(params):
        keys = [key] if particles == 1 else random.split(key, particles)
        return -sum(bound_by_hand(params, k, y) for k in keys) / particles

    def loss(params):
        return TraceMarkovEnum_ELBO(num_particles=particles).loss(key, params, hidden_markov, guide, y)

    both = jax.jit(lambda params: (jax.value_and_grad(loss)(params), jax.value_and_grad(by_hand)(params)))
    (found, gradient), (expected, expected_gradient) = both(make_params())
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    for name, value in expected_gradient.items():
        np.testing.assert_allclose(gradient[name], value, rtol=1e-10, atol=1e-10)


def test_given_nesting_and_programs_without_time_will_do():
    def mixture(y):
        level = numpyro.sample("level", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        with numpyro.plate("data", 12, subsample_size=4):
            z = numpyro.sample("z", dist.Categorical(logits=jnp.zeros(2)))
            numpyro.sample("y", dist.Normal(level[z], 1.0), obs=y)

    def point(y):
        numpyro.sample("level", dist.Delta(jnp.array([-1.0, 1.0])).to_event(1))

    y = make_signals()[0, 0]
    score = dist.Normal(jnp.array([[-1.0], [1.0]]), 1.0).log_prob(y)
    expected = 3 * (jax.nn.logsumexp(score, axis=0) - jnp.log(2)).sum() + dist.Normal().log_prob(1.0) * 2
    for nesting in (None, 1, 3):
        loss = TraceMarkovEnum_ELBO(max_plate_nesting=nesting).loss(random.key(0), {}, mixture, point, y)
        np.testing.assert_allclose(loss, -expected, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.nightly
def test_fit_with_an_automatic_guide_finds_the_levels():
    rng = np.random.default_rng(3)
    states = np.cumsum(rng.random((40, 6)) < 0.1, axis=0) % 2
    y = jnp.asarray(rng.normal(np.array([-2.0, 2.0])[states], 0.5))

    def program(y):
        level = numpyro.sample("level", dist.Normal(jnp.array([-1.0, 1.0]), 2.0).to_event(1))
        stay = numpyro.sample("stay", dist.Beta(2.0, 2.0))
        moves = jnp.log(jnp.array([[stay, 1 - stay], [1 - stay, stay]]))
        with numpyro.plate("sequences", y.shape[1], dim=-1):
            z = numpyro.sample("_PREV_z", dist.Categorical(logits=jnp.zeros(2)), infer=SUMMED)
            numpyro.sample("first", dist.Normal(level[z], 0.5), obs=y[0])
            with numpyro.plate("_time", y.shape[0] - 1, dim=-2):
                z = numpyro.sample("z", dist.Categorical(logits=moves[z]), infer=SUMMED)
                numpyro.sample("rest", dist.Normal(level[z], 0.5), obs=y[1:])

    automatic = AutoNormal(handlers.block(handlers.seed(program, 0), hide=["_PREV_z", "z"]))
    svi = SVI(program, automatic, optax.adam(0.05), loss=TraceMarkovEnum_ELBO(num_particles=4))
    fit = svi.run(random.key(0), 200, y, progress_bar=False)
    assert np.isfinite(fit.losses).all()
    assert fit.losses[-10:].mean() < fit.losses[:10].mean()
    found = automatic.median(fit.params)
    np.testing.assert_allclose(found["level"], [-2.0, 2.0], atol=0.15)
    assert 0.8 < found["stay"] < 0.97


def test_what_cannot_be_summed_is_named():
    y = make_signals()

    def refused(match, program, guide=guide):
        with pytest.raises(RunError, match=match):
            TraceMarkovEnum_ELBO().loss(random.key(0), make_params(), program, guide, y)

    def empty(y):
        pass

    def enumerates(y):
        guide(y)
        numpyro.sample("_PREV_z", dist.Categorical(logits=jnp.zeros((SEQUENCES, STATES))), infer=SUMMED)

    def scaled_apart(y):
        z = numpyro.sample("z", dist.Categorical(logits=jnp.zeros(STATES)))
        with handlers.scale(scale=2.0):
            numpyro.sample("y", dist.Normal(1.0 * z, 1.0), obs=0.3)

    def two_scales(y):
        scaled_apart(y)
        with handlers.scale(scale=3.0):
            numpyro.sample("other", dist.Bernoulli(0.5))

    def array_scale(y):
        with handlers.scale(scale=jnp.array(2.0)):
            numpyro.sample("z", dist.Bernoulli(0.5))

    refused("site 'level' is neither drawn by the guide", hidden_markov, empty)
    refused("guide marks its site '_PREV_z' to be enumerated", hidden_markov, enumerates)
    refused("site 'y' depends on enumerated states but has another scale", scaled_apart, empty)
    refused("share one scale; found", two_scales, empty)
    refused("enumerated site 'z' is scaled by an array", array_scale, empty)


def test_sites_that_do_not_depend_on_the_states_keep_a_scale_of_their_own():
    def program(y):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        with handlers.scale(scale=5.0):
            numpyro.sample("a", dist.Normal(x, 1.0), obs=0.4)
        with handlers.scale(scale=2.0):
            z = numpyro.sample("z", dist.Bernoulli(0.3))
            numpyro.sample("b", dist.Normal(x + z, 1.0), obs=0.1)

    def point(y):
        numpyro.sample("x", dist.Delta(0.2))

    normal = dist.Normal().log_prob
    summed = jnp.logaddexp(jnp.log(0.7) + normal(-0.1), jnp.log(0.3) + normal(-1.1))
    expected = normal(0.2) + 5 * normal(0.2) + 2 * summed
    loss = TraceMarkovEnum_ELBO().loss(random.key(0), {}, program, point, None)
    np.testing.assert_allclose(loss, -expected, rtol=1e-10)
