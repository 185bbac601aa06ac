"""The laws of signals: density, information, draws, start and refused data of each, and all in one program."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_hand import filled
from five_laws import LAWS, five_regions
from jax import random
from jaxtyping import Array
from scipy import special, stats

from mrsds_ppl.config import config_for
from mrsds_ppl.data import Trials
from mrsds_ppl.errors import ConfigError, DataError
from mrsds_ppl.models import EMISSIONS, MRSDS, DynamicsOptions, EmissionOptions, ModelOptions
from mrsds_ppl.models.emissions.emissions import Emissions, refused_of
from mrsds_ppl.models.linearised import signal_terms
from mrsds_ppl.models.readout import Readout
from mrsds_ppl.output.describe import emissions_phrase
from mrsds_ppl.start.pca import initialize

NEURONS = 3
ETA = np.array([[-1.2, 0.3, 1.5], [0.4, -0.5, 0.1]])
COUNTS = ("negative_binomial", "bernoulli")
NEW = (*COUNTS, "zero_inflated_gamma")


def law_of(name: str):
    """A law of three neurons that differ, in x64."""
    return filled(lambda: EMISSIONS[name](NEURONS, final_activation=None, triangular=False, trainable=True))


def values(name: str) -> np.ndarray:
    return {
        "negative_binomial": np.array([[0.0, 7.0, 2.0], [1.0, 0.0, 30.0]]),
        "bernoulli": np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]),
        "zero_inflated_gamma": np.array([[0.0, 0.7, 2.0], [1.3, 0.0, 1e-3]]),
    }[name]


def log_density_by_scipy(name: str, law, eta: np.ndarray, y: np.ndarray) -> np.ndarray:
    if name == "bernoulli":
        return stats.bernoulli.logpmf(y, special.expit(eta))
    rate = np.log1p(np.exp(eta)) + 1e-6
    if name == "negative_binomial":
        r = 1 / (np.exp(np.asarray(law.log_dispersion)) + 1e-3)
        return stats.nbinom.logpmf(y, r, r / (r + rate))
    size, shape = np.exp(np.asarray(law.log_size)), np.exp(np.asarray(law.log_shape))
    some = 1 - np.exp(-rate)
    with np.errstate(divide="ignore"):
        positive = np.log(some) + stats.gamma.logpdf(y, shape, scale=size * rate / some / shape)
    return np.where(y > 0, positive, -rate)


@pytest.mark.parametrize("name", NEW)
def test_density_and_its_slope_are_those_of_scipy_over_what_is_observed(name):
    with jax.enable_x64(True):
        law, y = law_of(name), values(name)
        seen = np.array([[True, True, True], [True, False, True]])

        @jax.jit
        def total(eta: Array, y: Array) -> Array:
            return law.distribution(eta[None], jnp.asarray(seen[None])).log_prob(y[None])[0]

        found, slope = jax.jit(jax.value_and_grad(total))(jnp.asarray(ETA), jnp.asarray(y))
        np.testing.assert_allclose(found, log_density_by_scipy(name, law, ETA, y)[seen].sum(), rtol=1e-6)
        step = 1e-6
        up, down = (log_density_by_scipy(name, law, ETA + sign * step, y) for sign in (1, -1))
        np.testing.assert_allclose(slope, np.where(seen, (up - down) / (2 * step), 0.0), rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(total(jnp.asarray(ETA), jnp.where(seen, y, 1.0 - y)), total(ETA, y))


@pytest.mark.parametrize("name", NEW)
def test_information_is_the_expected_square_of_the_score(name):
    with jax.enable_x64(True):
        law, eta = law_of(name), jnp.asarray(ETA[:1])
        mean, slope = jax.jvp(law.mean, (eta,), (jnp.ones_like(eta),))
        found = np.asarray(law.information(mean))[0]
        y, weight = _nodes(name, law, np.asarray(mean[0]))
        step = 1e-5
        up, down = (log_density_by_scipy(name, law, ETA[0] + sign * step, y) for sign in (1, -1))
        score = (up - down) / (2 * step) / np.asarray(slope[0])
    # Floors of 1e-6 are in the mean alone.
    np.testing.assert_allclose(found, (weight * score**2).sum(0), rtol=1e-4)
    np.testing.assert_allclose((weight * score).sum(0), 0.0, atol=1e-4)


def _nodes(name: str, law, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (value, neuron) and their probabilities, those of a gamma by Gauss-Laguerre quadrature."""
    if name != "zero_inflated_gamma":
        y = np.tile(np.arange(2.0 if name == "bernoulli" else 600.0)[:, None], NEURONS)
        eta = special.logit(mean) if name == "bernoulli" else np.log(np.expm1(mean - 1e-6))
        return y, np.exp(log_density_by_scipy(name, law, eta, y))
    size, shape = np.exp(np.asarray(law.log_size)), np.exp(np.asarray(law.log_shape))
    some = 1 - np.exp(-mean / size)
    rules = [special.roots_genlaguerre(8, k - 1) for k in shape]
    y = np.stack([nodes * m / q / k for (nodes, _), m, q, k in zip(rules, mean, some, shape, strict=True)], -1)
    weight = np.stack([q * w / w.sum() for (_, w), q in zip(rules, some, strict=True)], -1)
    return np.concatenate([np.zeros((1, NEURONS)), y]), np.concatenate([1 - some[None], weight])


@pytest.mark.parametrize("name", NEW)
def test_draws_have_the_mean_and_variance_of_the_law(name):
    with jax.enable_x64(True):
        law = law_of(name)
        mean = np.asarray(law.mean(jnp.asarray(ETA[0])))
        nodes, weight = _nodes(name, law, mean)
        drawn = law.draw(np.random.default_rng(0), np.tile(mean, (100_000, 1)))
        unknown = law.draw(np.random.default_rng(0), np.full((1, NEURONS), np.nan, np.float32))
    variance = (weight * (nodes - mean) ** 2).sum(0)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=5 * np.sqrt(variance.max() / len(drawn)))
    np.testing.assert_allclose(drawn.var(0), variance, rtol=0.05)
    assert (drawn.dtype == np.int32) == (name in COUNTS)
    np.testing.assert_array_equal(unknown, -1 if name in COUNTS else np.nan)


@pytest.mark.parametrize("name", NEW)
def test_the_start_expects_what_was_seen(name):
    law, rng = law_of(name), np.random.default_rng(0)
    eta = jnp.asarray([0.5, -0.5, 0.0], jnp.float32)
    y = law.draw(rng, np.tile(np.asarray(law.mean(eta)), (40, 100, 1)))
    trials = Trials.from_arrays(y.astype(float), region_sizes=[NEURONS])
    emissions = Emissions(Readout([NEURONS], [1], (), (), key=random.key(0)), [EMISSIONS[name]])
    started = initialize({"emissions$params": emissions}, trials, (1,))["emissions$params"]
    np.testing.assert_allclose(started.activity(jnp.zeros(1)), y.mean((0, 1)), rtol=1e-4)
    wanted, (found,) = jax.tree.leaves(law), started.laws
    for one, other in zip(wanted, jax.tree.leaves(found), strict=True):
        # Logarithms of what a law learns; the component takes some of the noise.
        np.testing.assert_allclose(other, one, atol=0.5)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("negative_binomial", 0.5, "a fractional count"),
        ("negative_binomial", -1.0, "a negative count"),
        ("bernoulli", 0.5, "a fractional count"),
        ("bernoulli", 2.0, r"trial 1, bin 2, neuron 3 .* a count above one: 2.0.* use narrower bins, or poisson"),
        ("zero_inflated_gamma", -0.1, r"neuron 3 .* a negative value: -0.1.* for dF/F .* use gaussian"),
    ],
)
def test_a_value_that_a_law_cannot_have_is_named_in_the_region_of_the_law(name, value, said):
    y = np.ones((2, 4, 4))
    y[0, 0, :2] = -0.5  # the other region's, whose law takes any
    y[1, 2, 3] = value
    y[1, 3, 3] = np.nan
    trials = Trials.from_arrays(y, region_sizes=[2, 2], region_names=["a", "b"])
    with pytest.raises(DataError, match=said):
        trials.validate(refused=refused_of(EmissionOptions(dist={"b": name, "a": "gaussian"}), trials))
    y[1, 2, 3] = 0.0
    trials = Trials.from_arrays(y, region_sizes=[2, 2], region_names=["a", "b"])
    trials.validate(refused=refused_of(EmissionOptions(dist=("gaussian", name)), trials))


def test_regions_of_one_program_have_laws_of_their_own():
    """Start, density with slopes, linearised signals, scores and draws are those of each region alone."""
    trials = five_regions(4, 6)
    options = ModelOptions(emissions=EmissionOptions(dist=LAWS), dynamics=DynamicsOptions(layers=()))
    model = MRSDS([2] * 5, 1, 1, key=random.key(0), options=options)
    params = initialize({"emissions$params": model.networks.emissions}, trials, model.latent_sizes)
    emissions, batch = params["emissions$params"], jax.device_put(trials.batch())
    x = 0.5 * random.normal(random.key(0), (4, 6, 5))

    def alone(region: int) -> Emissions:
        own = slice(2 * region, 2 * region + 2)
        readout = Readout([2], [1], (), (), key=random.key(0))
        values = (emissions.readout.weight[own], emissions.readout.bias[own])
        readout = eqx.tree_at(lambda r: (r.weight, r.bias), readout, values)
        one = Emissions(readout, [EMISSIONS[LAWS[region]]])
        return eqx.tree_at(lambda e: e.laws, one, (emissions.laws[region],))

    @jax.jit
    def scored(emissions: Emissions, each: list[Emissions], batch, x: Array):
        def log_prob(x: Array) -> tuple[Array, Array]:
            found = emissions.law(x, batch.observed).log_prob(batch.y)
            return found.sum(), found

        total, means = 0.0, []
        for region, one in enumerate(each):
            own, path = slice(2 * region, 2 * region + 2), x[..., region : region + 1]
            total += one.law(path, batch.observed[..., own]).log_prob(batch.y[..., own])
            means.append(one.activity(path))
        of_all = jax.value_and_grad(log_prob, has_aux=True)(x), signal_terms(emissions, batch, x), emissions.activity(x)
        return of_all, (total, jnp.concatenate(means, axis=-1))

    (((_, found), slope), terms, activity), (total, means) = scored(emissions, [alone(r) for r in range(5)], batch, x)
    np.testing.assert_allclose(activity, means, rtol=1e-5)
    np.testing.assert_allclose(found, total, rtol=1e-5)
    assert np.isfinite(slope).all()
    assert all(np.isfinite(part).all() for part in terms)
    assert (np.linalg.eigvalsh(terms.precision) >= -1e-5).all()
    np.testing.assert_array_equal(slope[3, 4:], 0.0)
    drawn = emissions.draw(np.random.default_rng(0), np.asarray(activity))
    Trials.from_arrays(np.asarray(drawn, float), region_sizes=[2] * 5).validate(refused=emissions.refused)
    np.testing.assert_array_equal(emissions.counts, np.repeat([False, True, True, True, False], 2))


def test_what_each_law_has_learned_is_told_by_name_and_is_what_its_draws_show():
    readout = Readout([2] * 5, [1] * 5, (), (), key=random.key(0))
    emissions = filled(lambda: Emissions(readout, [EMISSIONS[law] for law in LAWS]))
    mean = np.linspace(0.6, 1.5, 10)
    drawn = emissions.draw(np.random.default_rng(0), np.tile(mean, (200_000, 1)))
    variance, zeros = drawn.var(0), (drawn == 0).mean(0)
    sizes = np.where(drawn > 0, drawn, np.nan)[:, 8:]
    shown = {
        "noise_scale": (slice(0, 2), np.sqrt(variance[:2])),
        "dispersion": (slice(4, 6), (variance - mean)[4:6] / mean[4:6] ** 2),
        "event_size": (slice(8, 10), -mean[8:] / np.log(zeros[8:])),
        "gamma_shape": (slice(8, 10), np.nanmean(sizes, 0) ** 2 / np.nanvar(sizes, 0)),
    }
    found = emissions.parameters()
    assert found.keys() == shown.keys()
    for name, (own, values) in shown.items():
        np.testing.assert_allclose(found[name][own], values, rtol=0.05, err_msg=name)
        assert np.isnan(np.delete(found[name], own)).all()
    assert Emissions(readout, [EMISSIONS["poisson"]] * 5).parameters() == {}


@pytest.mark.parametrize(
    ("most", "emission", "hinted"), [(1, "poisson", True), (2, "poisson", False), (1, "bernoulli", False)]
)
def test_the_log_says_where_bernoulli_would_do(most, emission, hinted):
    trials = Trials.from_arrays(np.arange(24.0).reshape(2, 4, 3) % (most + 1))
    said = emissions_phrase(config_for(1, 1, emission=emission), trials)
    assert said.startswith(f"{emission} emissions (all signals are counts")
    assert ("for which there is bernoulli" in said) == hinted


def test_a_probability_has_no_rate_function():
    with pytest.raises(ConfigError, match=r"final_activation: found exp with bernoulli.*allowed: none"):
        EMISSIONS["bernoulli"](3, final_activation="exp", triangular=False, trainable=True)
