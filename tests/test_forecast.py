"""Rollouts against explicit loops, forecasts of a system whose future is known, and silenced messages, in float64."""

import by_hand
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from jax import random

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.communication import posterior_messages
from mrsds_ppl.analysis.forecast import forecast
from mrsds_ppl.analysis.rollouts import Start, generate, posterior_starts
from mrsds_ppl.analysis.silencing import SilencedDynamics, silence
from mrsds_ppl.data import Trials
from mrsds_ppl.errors import RunError
from mrsds_ppl.guides import GaussianMarkov, GaussianMarkovPaths
from mrsds_ppl.models import DynamicsOptions, ModelOptions
from mrsds_ppl.models.covariance import Covariance
from mrsds_ppl.nn.encoders import EncoderOptions

pytestmark = [pytest.mark.slow, pytest.mark.compiling]

LENGTHS = (9, 6, 8)
SMALL = EncoderOptions(embedding_layers=(3,), channels=4, dilations=(1,))


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def params_of(networks, guide=None):
    found = {f"{name}$params": network for name, network in networks._asdict().items()}
    return found if guide is None else {**found, "recognition$params": guide.recognition}


def quiet(networks, scale=2e-4):
    """Networks whose dynamics have next to no noise."""
    noise = Covariance(networks.dynamics.noise.raw_diagonal.shape, scale, triangular=False, trainable=True)
    return networks._replace(dynamics=eqx.tree_at(lambda d: d.noise, networks.dynamics, noise))


class Fit:
    def __init__(self, communication="additive"):
        form = DynamicsOptions(layers=(3,), activations=("tanh", None), communication_type=communication)
        self.model = by_hand.filled_model([3, 2], [2, 1], 2, num_inputs=1, options=ModelOptions(dynamics=form))
        self.guide = GaussianMarkov(self.model, key=random.key(0), options=SMALL)
        rng = np.random.default_rng(0)
        self.trials = Trials.from_arrays(
            [rng.normal(size=(n, 5)) for n in LENGTHS],
            [rng.normal(size=(n, 1)) for n in LENGTHS],
            region_sizes=[3, 2],
            region_names=["V1", "V2"],
        )
        self.fitted = FittedProgram(self.model, params_of(self.model.networks, self.guide), self.guide)

    @property
    def parts(self):
        return self.fitted, self.trials


@pytest.fixture(scope="module")
def fit():
    with jax.enable_x64(True):
        return Fit()


def test_path_of_given_states_is_a_loop_over_the_dynamics(fit):
    networks, rng = quiet(fit.model.networks), np.random.default_rng(1)
    u, z = rng.normal(size=(2, 6, 1)), rng.integers(0, 2, size=(2, 6))
    start = Start(np.array([1, 1]), rng.normal(size=(2, 3)))
    found = generate(
        random.key(0), FittedProgram(fit.model, params_of(networks)), u, np.array([6, 4]), start=start, z=z
    )
    mean = jax.jit(lambda x, u: jnp.stack([by_hand.mean(networks.dynamics, k, x, u) for k in range(2)]))
    for path, length in enumerate((6, 4)):
        x = start.x[path]
        for t in range(length):
            x = x if t == 0 else np.asarray(mean(x, u[path, t]))[z[path, t]]
            np.testing.assert_allclose(found.x[path, t], x, atol=3e-3)
            signal = by_hand.readout_matrix(networks.emissions.readout) @ found.x[path, t]
            np.testing.assert_allclose(found.y_mean[path, t], signal + networks.emissions.readout.bias, rtol=1e-10)
    np.testing.assert_array_equal(found.z[0], z[0])
    np.testing.assert_array_equal(found.z[1, 4:], -1)
    assert np.isnan(found.x[1, 4:]).all()
    assert np.isnan(found.y_mean[1, 4:]).all()


def test_noise_of_given_states_is_that_of_the_model(fit):
    count = 4000
    z = np.tile([0, 1], (count, 1))
    found = generate(random.key(3), fit.fitted, np.zeros((count, 2, 1)), np.full(count, 2), z=z)
    networks = fit.model.networks
    first = by_hand.cholesky(networks.initial.noise)
    error = found.x[:, 0] - np.asarray(networks.initial.means)[0]
    np.testing.assert_allclose(np.cov(error.T), first @ first.T, atol=0.15)
    np.testing.assert_allclose(error.mean(0), 0.0, atol=5 * first.max() / np.sqrt(count))
    means = jax.jit(lambda x, u: networks.dynamics.means(x, u))(jnp.asarray(found.x[:, 0]), jnp.zeros((count, 1)))
    later = found.x[:, 1] - np.asarray(means)[1]
    noise = by_hand.cholesky(networks.dynamics.noise)
    np.testing.assert_allclose(np.cov(later.T), noise @ noise.T, atol=0.15)


def test_sampled_states_follow_the_transitions(fit):
    count = 4000
    start = Start(np.zeros(count, int), np.tile([0.5, -1.0, 0.2], (count, 1)))
    found = generate(random.key(3), fit.fitted, np.zeros((count, 2, 1)), np.full(count, 2), start=start)
    transitions = fit.model.networks.transitions
    logits = np.asarray(transitions.weight)[0] @ start.x[0] + np.asarray(transitions.bias)[0]
    expected = np.exp(logits[1]) / np.exp(logits).sum()
    np.testing.assert_allclose(found.z[:, 1].mean(), expected, atol=4 * np.sqrt(0.25 / count))
    np.testing.assert_array_equal(found.x[:, 0], start.x)


def test_states_that_the_model_does_not_have_are_named(fit):
    z = np.array([[0, 1, 2]])
    with pytest.raises(RunError, match="z: path 0, bin 2 is 2; the model has states 0 to 1"):
        generate(random.key(0), fit.fitted, np.zeros((1, 3, 1)), np.array([3]), z=z)
    # In padding any number may stand.
    generate(random.key(0), fit.fitted, np.zeros((1, 3, 1)), np.array([2]), z=z)


@pytest.mark.slow
def test_filtered_start_knows_nothing_later_and_smoothed_start_does(fit):
    fitted, trials = fit.parts
    changed = trials.dataset.copy(deep=True)
    changed["y"][:, 4:] += 3.0
    changed["u"][:, 4:] -= 3.0
    for filtered in (True, False):
        one, other = (
            posterior_starts(random.key(0), fitted, t, 3, filtered=filtered) for t in (trials, Trials(changed))
        )
        assert np.allclose(one.x, other.x, rtol=0, atol=1e-12) == filtered
    assert one.x.shape == (3, 3)
    assert one.z.shape == (3,)


def known_future(decay=0.97, trials=12, bins=40, noise=0.01, horizon=8):
    """One region that turns and decays, read out nearly without noise, and a guide whose mean inverts the readout."""
    turn = decay * np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    linear = ModelOptions(xz=False, dynamics=DynamicsOptions(layers=(), activations=(None,)))
    model = by_hand.filled_model([6], [2], 1, options=linear)
    rng = np.random.default_rng(0)
    loading = rng.normal(size=(6, 2))
    networks = by_hand.with_values(
        model.networks, turn[None], np.zeros((1, 2)), loading, np.zeros(6),
        noise=noise, first_noise=1.0, emission_noise=0.1, first_means=np.zeros((1, 2)),
    )  # fmt: skip
    guide = GaussianMarkov(model, key=random.key(0), options=SMALL)
    recognition = jax.tree.map(jnp.zeros_like, guide.recognition)
    raw = np.zeros_like(guide.recognition.head.bias)
    raw[2:4] = -8.0  # next to no spread
    inverse = np.linalg.pinv(loading).T
    recognition = eqx.tree_at(
        lambda r: (r.direct, r.standardizer.spread, r.head.bias),
        recognition,
        (jnp.asarray(inverse), jnp.ones(6), jnp.asarray(raw)),
    )
    x = np.zeros((trials, bins, 2))
    x[:, 0] = rng.normal(size=(trials, 2))
    for t in range(1, bins):
        x[:, t] = x[:, t - 1] @ turn.T + noise * rng.normal(size=(trials, 2))
    lengths = rng.integers(bins - 10, bins + 1, size=trials)
    recorded = Trials.from_arrays([(s @ loading.T)[:n] for s, n in zip(x, lengths, strict=True)])
    params = params_of(networks) | {"recognition$params": recognition}
    return FittedProgram(model, params, guide), recorded, turn, loading


def test_forecast_is_the_mean_of_the_future():
    fitted, trials, turn, loading = known_future()
    found = forecast(random.key(0), fitted, trials, 6, 40, cuts=[0, 10, 33])
    assert found.y_mean.shape == (3, 12, 6, 6)
    now = trials.y[:, 10] @ np.linalg.pinv(loading).T
    for h in range(1, 7):
        expected = now @ np.linalg.matrix_power(turn, h).T @ loading.T
        np.testing.assert_allclose(found.y_mean[1, :, h - 1], expected, atol=0.05)
    assert np.all(found.r2 > 0.99)
    # Bins past the end of a trial are neither forecast nor scored.
    inside = 33 + np.arange(1, 7) < trials.lengths[:, None]
    np.testing.assert_array_equal(np.isfinite(found.y_mean[2]).all(-1), inside)
    truth = np.stack([trials.y[:, np.minimum(c + 6, trials.num_bins - 1)] for c in (0, 10, 33)], axis=1)
    kept = np.isfinite(found.y_mean[:, :, 5]).all(-1).T
    error = ((truth - np.moveaxis(found.y_mean[:, :, 5], 0, 1))[kept] ** 2).sum(0)
    spread = ((truth[kept] - truth[kept].mean(0)) ** 2).sum(0)
    np.testing.assert_allclose(found.scores[5].r2_by_neuron, 1 - error / spread, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.nightly
def test_forecast_without_an_encoder_reads_each_trial_up_to_the_cut_and_no_other():
    fitted, trials, turn, loading = known_future()
    guide = GaussianMarkovPaths(fitted.model)
    with numpyro.handlers.seed(rng_seed=0), numpyro.handlers.trace() as sites:
        guide(trials.batch())
    params = {k: v for k, v in fitted.params.items() if not k.startswith("recognition")}
    params |= {n: site["value"] for n, site in sites.items() if site["type"] == "param" and n.startswith("auto_")}
    fitted = FittedProgram(fitted.model, params, guide)
    changed = trials.dataset.copy(deep=True)
    changed["y"][:, 12:] += 3.0
    one, other = (forecast(random.key(0), fitted, t, 4, 40, cuts=[10]) for t in (trials, Trials(changed)))
    np.testing.assert_allclose(one.y_mean, other.y_mean, rtol=0, atol=1e-9)
    now = trials.y[:, 10] @ np.linalg.pinv(loading).T
    for h in range(1, 5):
        expected = now @ np.linalg.matrix_power(turn, h).T @ loading.T
        np.testing.assert_allclose(one.y_mean[0, :, h - 1], expected, atol=0.15)


@pytest.mark.slow
def test_forecast_of_wrong_dynamics_is_worse_the_further_ahead():
    fitted, trials, *_ = known_future()
    dynamics = fitted.params["dynamics$params"]
    fitted.params["dynamics$params"] = eqx.tree_at(
        lambda d: d.pairs.weights[0], dynamics, dynamics.pairs.weights[0].at[..., 0, 1].add(0.05)
    )
    found = forecast(random.key(0), fitted, trials, 5, 20)
    assert np.all(np.diff(found.r2) < 0)
    assert found.r2[-1] < 0.98
    assert len(found.cuts) == 8
    assert found.cuts.max() == trials.lengths.max() - 6


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"horizon": 9}, "horizon: found 9, the longest trial allows 1 to 8 bins"),
        ({"horizon": 0}, "horizon: found 0"),
        ({"horizon": 2, "cuts": [9]}, "cuts: found bin 9, the longest trial has bins 0 to 8"),
    ],
)
def test_forecasts_that_cannot_be_made_are_refused(fit, given, message):
    with pytest.raises(RunError, match=message):
        forecast(random.key(0), *fit.parts, **given)


@pytest.mark.parametrize("communication", ["additive", "conditional"])
def test_silenced_mean_leaves_out_the_messages_of_one_source(communication):
    model = Fit(communication).model
    dynamics = model.networks.dynamics
    silent, held = np.zeros((2, 3)), np.zeros((2, 2, 3, 2))
    silent[0, 1] = 1.0
    held[1, 0, 1] = [0.4, -0.3]
    other = SilencedDynamics(dynamics, jnp.asarray(silent), jnp.asarray(held))
    rng = np.random.default_rng(0)
    x, u = jnp.asarray(rng.normal(size=(4, 3, 3))), jnp.asarray(rng.normal(size=(4, 3, 1)))
    found = np.asarray(jax.jit(lambda x, u: other.means(x, u))(x, u))
    for k in range(2):
        local, cross, inputs = by_hand.messages(dynamics, k, x[2, 1], u[2, 1])
        expected = [local[0] + inputs[0][0] + held[k, 0, 1], local[1][:1] + cross[1][0][:1] + inputs[1][0][:1]]
        np.testing.assert_allclose(found[k, 2, 1], np.concatenate(expected), rtol=1e-10)


@pytest.mark.slow
def test_pairs_of_paths_differ_by_the_silent_message_alone(fit):
    fitted, trials = fit.parts
    model = fitted.model
    found = silence(random.key(0), fitted, trials, region="V1", from_bin=2, draws=5)
    np.testing.assert_array_equal(found.bins, np.arange(2, 9))
    assert found.x_difference.shape == (5, 3, 7, 3)
    # The start is the same, and in the first bin after it only the target of the message has changed.
    np.testing.assert_array_equal(found.x_difference[:, :, 0], 0.0)
    np.testing.assert_array_equal(found.x_difference[:, :, 1, :2], 0.0)
    for draw in range(5):
        for trial in range(3):
            state = found.z_intact[draw, trial, 1]
            assert state == found.z_silenced[draw, trial, 1]
            x, u = jnp.asarray(found.x_intact[draw, trial, 0]), jnp.asarray(trials.u[trial, 3], float)
            lost = by_hand.messages(model.networks.dynamics, state, x, u)[1][1][0][0]
            np.testing.assert_allclose(found.x_difference[draw, trial, 1, 2], -lost, rtol=1e-9)
    assert np.isnan(found.x_difference[:, 1, 4:]).all()
    assert np.isfinite(found.x_difference[:, 1, :4]).all()
    np.testing.assert_array_equal(found.z_silenced[:, 1, 4:], -1)
    read = by_hand.readout_matrix(model.networks.emissions.readout)
    np.testing.assert_allclose(found.y_difference[0], found.x_difference[:, 0].mean(0) @ read.T, rtol=1e-9, atol=1e-12)
    one = silence(random.key(0), fitted, trials, message=("V1", "V2"), from_bin=2, draws=5)
    np.testing.assert_array_equal(one.x_difference, found.x_difference)


@pytest.mark.slow
def test_held_message_keeps_its_mean_in_each_state(fit):
    fitted, trials = fit.parts
    given = {"message": (0, 1), "from_bin": 2, "draws": 5}
    plain, held = (silence(random.key(0), fitted, trials, hold=h, **given) for h in ("nothing", "mean"))
    back = held.x_silenced[:, :, 1, 2] - plain.x_silenced[:, :, 1, 2]
    _, mean_key = random.split(random.key(0))
    z = held.z_silenced[:, :, 1]
    for state in np.unique(z):
        told = posterior_messages(mean_key, fitted, trials, draws=5, state=int(state))
        told = told.sel(target="V2", source="V1", latent=0).values
        low, high = np.nanmin(told[:, :, 1:]), np.nanmax(told[:, :, 1:])
        values = back[z == state]
        np.testing.assert_allclose(values, values[0], rtol=1e-9)
        assert low < values[0] < high


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "either region=NAME, or message"),
        ({"region": "V1", "message": ("V1", "V2")}, "and not both"),
        ({"region": "V9"}, r"region: found 'V9'; allowed: \['V1', 'V2'\]"),
        ({"message": ("input 1", "V2")}, "message source: found 'input 1'"),
        ({"message": ("V1", "V1")}, "what the region does by itself"),
        ({"region": 0, "from_bin": 8}, "horizon: found 0 bins after bin 8"),
    ],
)
def test_what_cannot_be_silenced_is_named(fit, given, message):
    with pytest.raises(RunError, match=message):
        silence(random.key(0), *fit.parts, **given)
