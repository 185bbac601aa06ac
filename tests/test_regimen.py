"""Each term of the regimen against its definition written out: numpy, scipy, loops, and sums over all paths."""

import itertools
from dataclasses import replace

import by_hand
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from jax import random
from scipy.special import log_softmax, logsumexp, rel_entr
from scipy.stats import multivariate_normal

from mrsds_ppl.guides import MeanField
from mrsds_ppl.models import DynamicsOptions, ModelOptions
from mrsds_ppl.nn.encoders import EncoderOptions
from mrsds_ppl.ppl.markov import potentials
from mrsds_ppl.statespace.chain import Chain, hold_after, path_log_weight, sequential_log_normalizer, smooth
from mrsds_ppl.train.objective import make_objective, records_state_weights
from mrsds_ppl.train.regimen.chosen import Regimen, make_terms
from mrsds_ppl.train.regimen.overshoot import horizon_scores
from mrsds_ppl.train.regimen.terms import (
    Temperature,
    beta_at,
    roughness,
    state_divergence,
    temperature_at,
    tempered_log_normalizer,
)

pytestmark = [pytest.mark.slow, pytest.mark.compiling]

LENGTHS, BINS = [5, 3, 1], 5
SMALL = EncoderOptions(embedding_layers=(3,), channels=4, dilations=(1,))
HOT = Temperature(t_init=3.0, t_min=1.0, rate=0.5, steps=10, kickin_steps=5)
ALL = Regimen(50.0, 40, 100.0, (0.5, 0.3, 0.2), 2.0, 0.1, HOT, 0.5)


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def make_case(num_states=2):
    form = ModelOptions(dynamics=DynamicsOptions(layers=(), activations=(None,), triangular_cov=True, noise_scale=0.5))
    model = by_hand.filled_model([3, 2], [2, 1], num_states, num_inputs=1, options=form, seed=1)
    return model, by_hand.make_batch(LENGTHS, BINS, 5)


def random_chain(num_bins=4, num_states=3, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    shapes = ((num_states, batch), (num_bins - 1, num_states, num_states, batch), (num_bins - 1, num_states, batch))
    return Chain(*(jnp.asarray(2 * rng.normal(size=shape)) for shape in shapes))


def paths_of(chain):
    """log weight of every path: (path, batch)."""
    num_bins, (num_states, batch) = chain.evidence.shape[0] + 1, chain.initial.shape
    every = np.array(list(itertools.product(range(num_states), repeat=num_bins)))
    return np.array([path_log_weight(chain, jnp.tile(jnp.asarray(path)[:, None], batch)) for path in every])


def test_beta_has_ten_cycles_of_a_line_and_half_a_cosine_and_is_never_below_one():
    # Cycles of 100 steps, 20 of them rising to 50.
    found = [float(beta_at(step, 50.0, 200, 1000)) for step in (0, 10, 20, 60, 99, 100, 110, 910, 920, 1000, 5000)]
    late = 25 * (1 + np.cos(np.pi * 79 / 80))
    np.testing.assert_allclose(found, [1, 25, 50, 25, max(1, late), 1, 25, 25, 50, 1, 1], rtol=1e-12)
    assert float(beta_at(jnp.asarray(20), 0.5, 200, 1000)) == 1.0


@pytest.mark.parametrize("warmup", [0, 1000, 5000])
def test_beta_of_any_warm_up_stays_within_its_bounds(warmup):
    found = np.array([float(beta_at(step, 50.0, warmup, 100)) for step in range(100)])
    assert np.all((found >= 1) & (found <= 50))


def test_temperature_falls_by_the_rate_after_it_kicks_in():
    found = [float(temperature_at(step, HOT)) for step in (0, 5, 15, 25, 1000)]
    np.testing.assert_allclose(found, [3.0, 3.0, 1.5, 1.0, 1.0])


@pytest.mark.parametrize("tau", [0.3, 1.0, 4.0])
def test_tempered_normalizer_equals_the_sum_over_all_paths(tau):
    chain = random_chain()
    expected = tau * logsumexp(paths_of(chain) / tau, axis=0)
    found = tempered_log_normalizer(chain, tau, sequential_log_normalizer)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_cold_normalizer_is_the_weight_of_the_likeliest_path():
    chain = random_chain()
    found = tempered_log_normalizer(chain, 1e-6, sequential_log_normalizer)
    np.testing.assert_allclose(found, paths_of(chain).max(0), rtol=1e-6)


def test_temperature_of_padded_trials_leaves_padding_out():
    chain = random_chain(num_bins=5)
    held = hold_after(chain, jnp.asarray([3, 5]))
    short = Chain(chain.initial[:, :1], chain.transition[:2, ..., :1], chain.evidence[:2, :, :1])
    found = tempered_log_normalizer(held, 2.0, sequential_log_normalizer)
    np.testing.assert_allclose(found[0], 2 * logsumexp(paths_of(short) / 2, axis=0)[0], rtol=1e-12)


def test_state_divergence_equals_scipy_over_valid_bins():
    rng = np.random.default_rng(0)
    weights, exact = (rng.dirichlet(np.ones(3), size=(3, BINS)) for _ in range(2))
    weights[0, 0] = [1.0, 0.0, 0.0]
    found = state_divergence(jnp.asarray(weights), jnp.asarray(np.moveaxis(exact, 0, -1)), jnp.asarray(LENGTHS))
    expected = [rel_entr(weights[i, :n], exact[i, :n]).sum() for i, n in enumerate(LENGTHS)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_roughness_equals_numpy_diff_over_valid_bins():
    x = np.random.default_rng(0).normal(size=(3, BINS, 2))
    expected = [
        sum(np.abs(np.diff(x[i, :n], order, axis=0)).sum() for order in (1, 2, 3)) for i, n in enumerate(LENGTHS)
    ]
    np.testing.assert_allclose(roughness(jnp.asarray(x), jnp.asarray(LENGTHS)), expected, rtol=1e-12)


def score_by_loop(networks, batch, trial, x, marginals, horizon):
    """S_h of one trial, bin after bin and state after state."""
    weight, bias = np.asarray(networks.transitions.weight), np.asarray(networks.transitions.bias)
    noise, first = (f @ f.T for f in map(by_hand.cholesky, (networks.dynamics.noise, networks.initial.noise)))
    u, y, seen = (np.asarray(a[trial]) for a in (batch.u, batch.y, batch.observed))
    num_states, length = len(bias), LENGTHS[trial]
    start = log_softmax(np.asarray(networks.initial.state_logits))
    means = np.asarray(networks.initial.means)
    score = logsumexp([start[k] + multivariate_normal(means[k], first).logpdf(x[0]) for k in range(num_states)])
    score += by_hand.gaussian_emission(networks.emissions, x[0], y[0], seen[0])
    for t in range(1, length):
        back = min(horizon, t)
        states, place = marginals[t - back], x[t - back]
        for s in range(t - back + 1, t + 1):
            moves = np.exp(log_softmax(weight @ place + bias, axis=-1))
            centers = np.array([by_hand.mean(networks.dynamics, k, place, u[s]) for k in range(num_states)])
            states = states @ moves
            place = states @ centers
        score += np.log(sum(states[k] * multivariate_normal(centers[k], noise).pdf(x[t]) for k in range(num_states)))
        score += by_hand.gaussian_emission(networks.emissions, place, y[t], seen[t])
    return score


@pytest.mark.slow
@pytest.mark.parametrize("num_states", [1, 2])
def test_overshooting_equals_a_loop_over_bins_states_and_horizons(num_states):
    model, batch = make_case(num_states)
    x = 0.5 * random.normal(random.key(0), (3, BINS, 3))

    def both(x):
        switching = model.switching(model.networks, batch)
        chain = potentials(switching, x)
        return horizon_scores(model.networks, switching, batch, x, chain, num_horizons=3), smooth(chain).marginals

    found, marginals = jax.jit(both)(x)
    for trial, horizon in itertools.product(range(3), (1, 2, 3)):
        states = np.asarray(marginals[..., trial])
        expected = score_by_loop(model.networks, batch, trial, np.asarray(x[trial]), states, horizon)
        np.testing.assert_allclose(found[horizon - 1, trial], expected, rtol=1e-9)


@pytest.fixture(scope="module")
def trained():
    """A mean-field guide that records state weights, and its parameters."""
    with jax.enable_x64(True):
        model, batch = make_case()
        plain = MeanField(model, key=random.key(2), options=SMALL)

        def guide(batch):
            found = plain(batch)
            level = numpyro.param("level", jnp.zeros(2))
            numpyro.deterministic("state_weights", jnp.broadcast_to(jax.nn.softmax(level), (3, BINS, 2)))
            return found

        def collect():
            found = {}
            for program in (guide, model):
                with numpyro.handlers.seed(rng_seed=0), numpyro.handlers.trace() as sites:
                    program(batch)
                found |= {n: s["value"] for n, s in sites.items() if s["type"] == "param"}
            return found

        return model, guide, jax.jit(collect)(), batch


def same(left, right):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), left, right)


def evaluate(trained, regimen, guide_name, step=7, **options):
    model, guide, params, batch = trained
    terms = make_terms(regimen, guide=guide_name, num_states=2, num_steps=100, **options)
    objective = make_objective(model, guide, 10.0, terms=terms.on)
    (loss, metrics), gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))(
        params, random.key(1), batch, jnp.asarray(step)
    )
    return float(loss), {name: float(value) for name, value in metrics.items()}, gradient, terms


@pytest.mark.slow
@pytest.mark.parametrize("guide_name", ["switching_structured", pytest.param("mean_field", marks=pytest.mark.nightly)])
def test_reported_bound_is_the_plain_one_whatever_the_terms(trained, guide_name):
    plain_loss, plain, _, _ = evaluate(trained, Regimen(), guide_name)
    loss, metrics, gradient, _ = evaluate(trained, ALL, guide_name, records_state_weights=True)
    for name in ("elbo", "elbo_total", "log_px", "log_py", "log_qx"):
        assert metrics[name] == pytest.approx(plain[name], rel=1e-12)
    assert plain_loss == pytest.approx(-plain["elbo"], rel=1e-12)
    assert loss != pytest.approx(plain_loss, rel=1e-3)
    own = {"beta", "log_px0"} if guide_name == "switching_structured" else {"temperature"}
    assert set(metrics) - set(plain) == {"overshoot", "kl_z", "roughness", "message_size", *own}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_overshooting_at_horizon_zero_alone_changes_nothing(trained):
    plain = evaluate(trained, Regimen(), "mean_field")
    found = evaluate(trained, Regimen(overshoot=(1.0,)), "mean_field")
    assert found[0] == pytest.approx(plain[0], rel=1e-12)
    same(found[2], plain[2])


@pytest.mark.slow
def test_weights_of_one_and_a_temperature_of_one_change_nothing(trained):
    plain = evaluate(trained, Regimen(), "structured")[0]
    assert evaluate(trained, Regimen(beta_max=1.0, x0_weight=1.0), "structured")[0] == pytest.approx(plain, rel=1e-12)
    cold = Regimen(temperature=replace(HOT, t_init=0.0))
    assert evaluate(trained, cold, "mean_field")[0] == pytest.approx(plain, rel=1e-12)


@pytest.mark.slow
def test_weight_of_the_first_bin_adds_its_density(trained):
    plain = evaluate(trained, Regimen(), "structured")[0]
    loss, metrics, _, _ = evaluate(trained, Regimen(x0_weight=3.0), "structured")
    assert loss == pytest.approx(plain - 2 * metrics["log_px0"] / 10.0, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "named"), [("message_sparsity", "message_size"), ("message_bending", "message_bend")]
)
def test_messages_cost_their_size_or_bend_in_every_bin_and_move_the_dynamics_alone(trained, asked, named):
    plain = evaluate(trained, Regimen(), "mean_field")
    found = evaluate(trained, Regimen(**{asked: 0.5}), "mean_field")
    assert found[1][named] > 0
    assert found[0] == pytest.approx(plain[0] + 0.5 * sum(LENGTHS) * found[1][named] / 10.0, rel=1e-9)
    assert (
        np.abs(found[2]["dynamics$params"].pairs.weights[-1] - plain[2]["dynamics$params"].pairs.weights[-1]).max() > 0
    )
    same(found[2]["recognition$params"], plain[2]["recognition$params"])
    same(found[2]["dynamics$params"].noise, plain[2]["dynamics$params"].noise)


@pytest.mark.slow
def test_divergence_of_states_moves_the_guide_and_not_the_program(trained):
    plain = evaluate(trained, Regimen(), "switching_structured")
    found = evaluate(trained, Regimen(kl_z_scale=100.0), "switching_structured", records_state_weights=True)
    assert found[0] == pytest.approx(plain[0] + 100 * found[1]["kl_z"] / 10.0, rel=1e-12)
    assert np.abs(found[2]["level"]).max() > 0
    assert np.abs(plain[2]["level"]).max() == 0
    for name in ("dynamics$params", "transitions$params", "recognition$params"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), found[2][name], plain[2][name]
        )


def test_terms_that_a_guide_ignores_are_named(trained):
    notes = make_terms(ALL, guide="gaussian_markov", num_states=2, num_steps=100).notes
    assert len(notes) == 2
    assert "training.regimen.beta_max, training.regimen.x0_weight: ignored by guide gaussian_markov" in notes[0]
    assert "training.regimen.kl_z_scale: ignored by guide gaussian_markov" in notes[1]
    notes = make_terms(ALL, guide="structured", num_states=2, num_steps=100, records_state_weights=True).notes
    assert notes == ("training.regimen.temperature: ignored by guide structured",)
    assert make_terms(Regimen(), guide="mean_field", num_states=2, num_steps=100) == ((), ())


def test_recorded_state_weights_are_found_without_computing(trained):
    model, guide, params, batch = trained
    assert records_state_weights(guide, params, batch)
    assert not records_state_weights(MeanField(model, key=random.key(2), options=SMALL), params, batch)
