"""The ascent of the evidence: its gradient against a sum over every path of states, what it gains, and the networks."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from mrsds_ppl.config.loading import ignored_keys, load_config
from mrsds_ppl.data.simulate import simulate_oscillators
from mrsds_ppl.data.trials import Batch, Trials
from mrsds_ppl.models import MRSDS, DynamicsOptions, EmissionOptions, ModelOptions
from mrsds_ppl.models.covariance import Covariance
from mrsds_ppl.models.dynamics import Dynamics, Rows, with_scaled_noise
from mrsds_ppl.models.filtering import smooth_new_trials
from mrsds_ppl.models.linearised import linearised, shared_terms, with_dynamics
from mrsds_ppl.start import laplace_em
from mrsds_ppl.start.ascent.cubic_dynamics import CubicDynamics
from mrsds_ppl.start.ascent.evidence_ascent import Ascended, evidence_ascent, evidence_gradient, why_no_ascent
from mrsds_ppl.start.ascent.network_fit import fit_networks
from mrsds_ppl.start.ascent.polynomials import num_features
from mrsds_ppl.start.laplace_em import LaplaceEM
from mrsds_ppl.start.pca import initialize
from mrsds_ppl.statespace.gaussian_sum import expected_transitions, state_posterior


def _as_params(model):
    return {f"{name}$params": part for name, part in model.networks._asdict().items()}


def one_trial(bins: int, dynamics: DynamicsOptions) -> tuple[MRSDS, Batch]:
    """A program of two regions and two states, and a trial."""
    y = np.random.default_rng(0).normal(size=(bins, 4))
    options = ModelOptions(ux=False, xz=False, dynamics=dynamics)
    model = MRSDS([2, 2], 1, 2, key=random.key(0), options=options)
    return model, jax.tree.map(jnp.asarray, Trials.from_arrays([y], region_sizes=[2, 2]).batch())


@pytest.mark.slow
@pytest.mark.compiling
def test_the_gradient_of_the_evidence_is_that_of_the_sum_over_every_path_of_states():
    """Linear networks and Gaussian signals, where the linearised program is the program."""
    with jax.enable_x64(True):
        model, batch = one_trial(4, DynamicsOptions(layers=(), activations=(None,)))
        params = _as_params(model)

        def weighed(dynamics):
            networks = model.networks._replace(dynamics=dynamics)
            trials = linearised(networks, model, batch, jnp.zeros((1, 4, 2)))
            return expected_transitions(shared_terms(networks), trials, order=4).log_evidence[0]

        def summed(dynamics):
            networks = model.networks._replace(dynamics=dynamics)
            moves = networks.transitions.logits(jnp.zeros((1, 0)))[:, 0]
            start, moves = (jax.nn.log_softmax(part) for part in (networks.initial.state_logits, moves))

            def one(path):
                def log_joint(flat):
                    x = flat.reshape(4, 2)
                    total = networks.initial.noise.around(networks.initial.means[path[0]]).log_prob(x[0])
                    means = dynamics.means(x[:-1], jnp.zeros((3, 0)))[path[1:], jnp.arange(3)]
                    total = total + dynamics.noise.around(means).log_prob(x[1:]).sum()
                    return total + networks.emissions.law(x[None], batch.observed).log_prob(batch.y)[0]

                at = jnp.zeros(8)
                precision, slope = -jax.hessian(log_joint)(at), jax.grad(log_joint)(at)
                integral = log_joint(at) + 0.5 * slope @ jnp.linalg.solve(precision, slope)
                integral = integral - 0.5 * jnp.linalg.slogdet(precision / (2 * jnp.pi))[1]
                return start[path[0]] + moves[path[:-1], path[1:]].sum() + integral

            return jax.nn.logsumexp(jax.vmap(one)(jnp.asarray(list(product(range(2), repeat=4)))))

        found, expected = (jax.jit(jax.value_and_grad(f))(params["dynamics$params"]) for f in (weighed, summed))
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-9)
        np.testing.assert_allclose(found[1].pairs.weights[0], expected[1].pairs.weights[0], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(found[1].noise.raw_diagonal, expected[1].noise.raw_diagonal, rtol=1e-6, atol=1e-9)
        assert np.abs(found[1].pairs.weights[0]).min() > 1e-4


@pytest.mark.slow
@pytest.mark.compiling
def test_the_slope_along_the_noise_is_that_of_finite_differences():
    with jax.enable_x64(True):
        model, batch = one_trial(6, DynamicsOptions(layers=(4,), activations=("tanh", None)))
        x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 6, 2)))
        weights = jnp.asarray(0.3 * np.random.default_rng(2).normal(size=(2, 2, num_features((1, 1), 0))))
        cubic = CubicDynamics(weights, model.networks.dynamics.noise, (1, 1))

        @jax.jit
        def evidence(factors):
            networks = with_dynamics(model.networks, with_scaled_noise(cubic, factors))
            trials = linearised(networks, model, batch, x)
            return expected_transitions(shared_terms(networks), trials, order=1).log_evidence[0]

        found = evidence_gradient(with_dynamics(model.networks, cubic), model, batch, x)[1]
        steps = 1e-4 * np.eye(2)
        expected = [float(evidence(np.exp(step)) - evidence(np.exp(-step))) / 2e-4 for step in steps]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert np.abs(expected).min() > 1e-3
        assert np.ptp(expected) > 1e-2


def _dynamics(**options):
    return DynamicsOptions(**{"layers": (16, 16), "activations": ("relu", "relu", None), **options})


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.compiling
def test_the_ascent_raises_the_evidence_by_dynamics_alone():
    trials = simulate_oscillators(0, num_trials=16, num_regions=2, num_states=2, min_bins=40, num_bins=50)
    options = ModelOptions(ux=False, xz=False, emissions=EmissionOptions(dist="poisson"), dynamics=_dynamics())
    model = MRSDS(trials.region_sizes, 2, 2, key=random.key(0), options=options, num_trials=16)
    params = initialize(_as_params(model), trials, model.latent_sizes)
    batch = jax.device_put(trials.batch())
    assert why_no_ascent(model) is None
    paths = smooth_new_trials(params, model, batch)
    start = model.networks_from(params)
    ascent = evidence_ascent(random.key(1), start, model, batch, paths)
    found: list[Ascended] = [next(ascent) for _ in range(5)]
    # In nats a bin; a trial has 40 to 50 of them.
    assert found[-1].evidence > found[0].evidence + 0.02
    # It begins at the nearest polynomial with one noise for all, and reports the evidence of what it returns.
    first, last = found[0].networks.dynamics, found[-1]
    assert np.ptp(np.asarray(first.noise.scale)) < 1e-6

    def evidence(one):
        trials = linearised(one.networks, model, batch, one.paths.moments.mean)
        return np.asarray(state_posterior(shared_terms(one.networks), trials).log_evidence)

    before, after = evidence(found[0]), evidence(last)
    np.testing.assert_allclose(after.sum() / trials.lengths.sum(), last.evidence, rtol=1e-5)
    assert (after - before).mean() > 0.5
    assert (after > before).mean() > 0.7
    for name in ("initial", "transitions", "emissions"):
        jax.tree.map(np.testing.assert_array_equal, getattr(last.networks, name), getattr(start, name))
    np.testing.assert_array_equal(np.asarray(last.paths.states).sum(-1), 1.0)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.compiling
def test_the_start_by_smoothing_ascends_where_polynomials_can_and_says_so():
    trials = simulate_oscillators(
        0, num_trials=8, num_regions=2, num_states=2, min_bins=30, num_bins=40, mean_count=2.0
    )
    batch = jax.device_put(trials.batch())

    def start(stop=False, xz=False, **dynamics):
        options = ModelOptions(
            ux=False, xz=xz, emissions=EmissionOptions(dist="poisson"), dynamics=_dynamics(**dynamics)
        )
        model = MRSDS(trials.region_sizes, 2, 2, key=random.key(0), options=options, num_trials=8)
        params = initialize(_as_params(model), trials, model.latent_sizes)
        said = []
        start = LaplaceEM(num_refit_steps=50, evidence_steps=2, say=said.append, should_stop=lambda: stop)
        found = start(random.key(1), params, model, batch)
        assert np.isfinite(found.paths.moments.mean).all()
        np.testing.assert_array_equal(np.asarray(found.paths.states).sum(-1), 1.0)
        moved = np.asarray(found.params["transitions$params"].weight - params["transitions$params"].weight)
        return "\n".join(said), np.abs(moved).max(initial=0.0)

    said, moved = start(xz=True)
    marks = ("evidence ", "2 steps on it ", "of the networks ")
    before, after, networks = (float(said.split(mark)[1].split()[0].rstrip(",")) for mark in marks)
    assert after > before
    assert networks > before
    # Where latents drive the states, the transitions are fitted to the paths that the ascent has found.
    assert moved > 0.01
    conditional, _ = start(stop=True, communication_type="conditional")
    assert "without steps on the evidence: those are for messages that add up" in conditional


@pytest.mark.nightly
@pytest.mark.slow
def test_networks_are_those_of_the_polynomials_message_by_message():
    sizes, inputs = (2, 1), 1
    rng = np.random.default_rng(0)
    weights = 0.1 * rng.normal(size=(2, 3, num_features(sizes, inputs)))
    weights[:, np.arange(3), [1, 2, 10]] += 0.8
    noise = Covariance((3,), 0.2, triangular=False, trainable=True)
    cubic = CubicDynamics(jnp.asarray(weights, jnp.float32), noise, sizes)
    x, u = (jnp.asarray(rng.normal(size=(3000, n)), jnp.float32) for n in (3, 1))
    share = jnp.asarray(np.eye(2)[rng.integers(0, 2, 3000)], jnp.float32)
    start = Dynamics(2, sizes, inputs, _dynamics(), key=random.key(0))
    networks = fit_networks(random.key(1), start, cubic, Rows(x, u, share))
    np.testing.assert_array_equal(networks.noise.scale, noise.scale)
    for state in range(2):
        rows = np.flatnonzero(share[:, state])
        aim, found = (part.means(x, u)[state, rows] for part in (cubic, networks))
        assert float(((found - aim) ** 2).mean() / aim.var()) < 0.01
        messages = cubic.messages(x, u)[state, 1, rows, :2]  # from region 1 to region 0
        sent = networks.messages(x, u).cross[state, 0, 1, rows]
        apart = (sent - sent.mean(0)) - (messages - messages.mean(0))
        assert float((apart**2).sum() / ((messages - messages.mean(0)) ** 2).sum()) < 0.05


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, None),
        ({"communication_type": "additive-shared"}, None),
        ({"communication_type": "conditional"}, "additive"),
        ({"communication_type": "additive-linear"}, "additive"),
        ({"input_type": "conditional"}, "additive"),
        ({"layers": (), "activations": (None,)}, "hidden layers"),
        ({"input_layers": (4,), "input_activations": ("tanh", None)}, "hidden layers"),
    ],
)
def test_a_model_that_polynomials_do_not_stand_for_is_told_why(options, reason):
    model = MRSDS([4, 4], 2, 2, num_inputs=1, key=random.key(0), options=ModelOptions(dynamics=_dynamics(**options)))
    found = why_no_ascent(model)
    assert (found is None) if reason is None else (reason in found)


@pytest.mark.parametrize(("layers", "rounds"), [((16, 16), 10 + 6 + 6 + 2), ((), 10 + 6 + 5)])
def test_the_bar_counts_the_rounds_that_there_will_be(monkeypatch, layers, rounds):
    def begun(stage, total, *rest):
        raise RuntimeError(f"{stage}: {total}")

    monkeypatch.setattr(laplace_em, "Rounds", begun)
    model, batch = one_trial(6, _dynamics(layers=layers, activations=None))
    with pytest.raises(RuntimeError, match=f"^smoothing: {rounds}$"):
        LaplaceEM()(random.key(1), {}, model, batch)


def test_too_many_weights_are_named():
    model = MRSDS([9, 9], 8, 2, key=random.key(0), options=ModelOptions(ux=False, dynamics=_dynamics()))
    assert "polynomials would have 10528 weights" in why_no_ascent(model)


def test_steps_on_the_evidence_are_named_where_there_is_no_start_by_smoothing(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("inference: {guide: gaussian_markov, encoder: none}\ntraining: {evidence_steps: 5}\n")
    assert "training.start.evidence_steps" not in ignored_keys(load_config(path))
    off = {"inference.encoder": "convolution", "training.switch_init_steps": 0, "model.weight_prior": {"scale": 1.0}}
    for key, value in off.items():
        assert "training.start.evidence_steps" in ignored_keys(load_config(path, {key: value}))
