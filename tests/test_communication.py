"""Messages along posterior paths against the dynamics' mean, plain loops over bins, and made-up truths, in float64."""

import by_hand
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from jax import random

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.communication import (
    communication_matrix,
    interval_of,
    message_norms,
    path_messages,
    posterior_messages,
    state_communication,
)
from mrsds_ppl.analysis.posterior import PosteriorSampler
from mrsds_ppl.analysis.posterior_paths import PosteriorPaths, posterior_paths
from mrsds_ppl.analysis.recovery.alignment import align_latents, valid_bins
from mrsds_ppl.analysis.recovery.message_scores import message_scores
from mrsds_ppl.analysis.weights import WeightPosterior
from mrsds_ppl.analysis.weights.tangents import tangents
from mrsds_ppl.backend.trials_at_once import over_rounds, over_trials
from mrsds_ppl.data import Trials
from mrsds_ppl.errors import RunError
from mrsds_ppl.guides import GaussianMarkov
from mrsds_ppl.models import DynamicsOptions, ModelOptions
from mrsds_ppl.models.dynamics import Rows
from mrsds_ppl.nn.encoders import EncoderOptions

pytestmark = [pytest.mark.slow, pytest.mark.compiling]

LENGTHS, DRAWS = (7, 5, 6), 3
SMALL = EncoderOptions(embedding_layers=(3,), channels=4, dilations=(1,))


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def make_fit(latent_sizes=(2, 1), region_names=("V1", "V2"), pooled=False, num_inputs=2, **options):
    """A fitted program and trials of unequal length, every number drawn."""
    form = DynamicsOptions(layers=(3,), activations=("tanh", None), single_region_latent=pooled, **options)
    choices = ModelOptions(dynamics=form)
    model = by_hand.filled_model([3, 2], list(latent_sizes), 2, num_inputs=num_inputs, options=choices)
    guide = GaussianMarkov(model, key=random.key(0), options=SMALL)
    params = {f"{name}$params": network for name, network in model.networks._asdict().items()}
    params["recognition$params"] = guide.recognition
    rng = np.random.default_rng(0)
    trials = Trials.from_arrays(
        [rng.normal(size=(n, 5)) for n in LENGTHS],
        [rng.normal(size=(n, num_inputs)) for n in LENGTHS],
        region_sizes=[3, 2],
        region_names=list(region_names),
        bin_width=0.02,
        input_names=["contrast", "wheel"][:num_inputs],
    )
    return FittedProgram(model, params, guide), trials


@pytest.fixture(scope="module")
def fit():
    with jax.enable_x64(True):
        return make_fit(communication_type="conditional", input_type="conditional")


def gathered(messages, sizes):
    """Sum over sources, regions side by side: (draw, trial, time, latent)."""
    total = messages.values.sum(4)
    return np.concatenate([total[:, :, :, r, :n] for r, n in enumerate(sizes)], axis=-1)


@pytest.mark.parametrize("state", [None, 0, 1])
def test_messages_and_the_latents_before_add_up_to_the_mean_of_the_dynamics(fit, state):
    fitted, trials = fit
    model = fitted.model
    messages = posterior_messages(random.key(1), fitted, trials, draws=DRAWS, state=state)
    x, z_prob = posterior_paths(random.key(1), fitted, trials, draws=DRAWS)
    before = jnp.asarray(x[:, :, :-1])
    u = jnp.broadcast_to(jnp.asarray(trials.u[:, 1:], float), (DRAWS, *trials.u[:, 1:].shape))
    means = np.asarray(jax.jit(lambda x, u: model.networks.dynamics.means(x, u))(before, u))
    weight = z_prob[:, :, 1:] if state is None else np.eye(2)[np.full((*x.shape[:2], x.shape[2] - 1), state)]
    expected = np.einsum("nbtk,knbtd->nbtd", weight, means)
    found = gathered(messages, model.latent_sizes)[:, :, 1:] + x[:, :, :-1]
    valid = np.broadcast_to(valid_bins(trials.lengths, 7)[None, :, 1:, None], found.shape)
    np.testing.assert_allclose(found[valid], expected[valid], rtol=1e-12, atol=1e-13)
    assert np.ptp(found[valid]) > 0.1


def test_messages_are_labelled_and_missing_where_there_are_none(fit):
    fitted, trials = fit
    messages = posterior_messages(random.key(1), fitted, trials, draws=DRAWS)
    assert messages.dims == ("draw", "trial", "time", "target", "source", "latent")
    assert messages.shape == (DRAWS, 3, 7, 2, 4, 2)
    assert list(messages["target"].values) == ["V1", "V2"]
    assert list(messages["source"].values) == ["V1", "V2", "contrast", "wheel"]
    np.testing.assert_allclose(messages["time"], 0.02 * np.arange(7))
    assert messages["time"].attrs["units"] == "s"
    assert np.isnan(messages.sel(target="V2", latent=1)).all()
    assert np.isnan(messages.isel(trial=1, time=slice(5, None))).all()
    assert not np.isnan(messages.sel(target="V1").isel(trial=1, time=slice(0, 5))).any()
    assert not np.any(messages.sel(target="V1").isel(time=0))


def test_messages_stand_at_the_right_source_and_bin(fit):
    fitted, trials = fit
    model = fitted.model
    x, _ = posterior_paths(random.key(1), fitted, trials, draws=DRAWS)
    messages = posterior_messages(random.key(1), fitted, trials, draws=DRAWS, state=1)
    local, cross, inputs = by_hand.messages(
        model.networks.dynamics, 1, jnp.asarray(x[2, 0, 3]), jnp.asarray(trials.u[0, 4], float)
    )
    found = messages.isel(draw=2, trial=0, time=4)
    np.testing.assert_allclose(found.sel(target="V1", source="V1"), local[0] - x[2, 0, 3, :2], rtol=1e-10)
    np.testing.assert_allclose(found.sel(target="V1", source="V2"), cross[0][1], rtol=1e-10)
    np.testing.assert_allclose(found.sel(target="V2", source="V1", latent=0), cross[1][0][0], rtol=1e-10)
    np.testing.assert_allclose(found.sel(target="V1", source="wheel"), inputs[0][1], rtol=1e-10)


@pytest.mark.slow
def test_messages_at_the_posterior_mean_are_those_of_the_written_posterior(fit):
    fitted, trials = fit
    posterior = PosteriorSampler(fitted).infer(random.key(0), trials, draws=20, predictive=False)
    paths = PosteriorPaths(posterior.x_mean[None], posterior.z_prob[None])
    found = path_messages(fitted, trials, paths).values[0]
    known = ~np.isnan(found)
    np.testing.assert_allclose(found[known], posterior.messages[known], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("num_inputs", [0, 2])
def test_pooled_latent_has_one_region_named_after_all(num_inputs):
    fitted, trials = make_fit(pooled=True, input_func_type="together", num_inputs=num_inputs)
    messages = posterior_messages(random.key(1), fitted, trials, draws=2)
    assert list(messages["target"].values) == ["V1+V2"]
    assert list(messages["source"].values) == ["V1+V2", "inputs"][: 1 + (num_inputs > 0)]
    assert not messages.isel(trial=0).isnull().any()


def test_norms_have_their_mean_and_quantiles_over_draws():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 1, 4, 2, 3, 2))
    values[:, :, 3] = np.nan
    values[:, :, :, 1, :, 1] = np.nan
    messages = xr.DataArray(values, dims=("draw", "trial", "time", "target", "source", "latent"))
    norms = interval_of(message_norms(messages), 0.8)
    assert norms["mean"].dims == ("trial", "time", "target", "source")
    wide = np.hypot(values[:, 0, 2, 0, 1, 0], values[:, 0, 2, 0, 1, 1])
    at = {"trial": 0, "time": 2, "target": 0, "source": 1}
    np.testing.assert_allclose(norms["mean"].isel(at), wide.mean())
    np.testing.assert_allclose(norms["low"].isel(at), np.quantile(wide, 0.1))
    np.testing.assert_allclose(norms["high"].isel(at), np.quantile(wide, 0.9))
    narrow = np.abs(values[:, 0, 2, 1, 1, 0])
    np.testing.assert_allclose(norms["mean"].isel({**at, "target": 1}), narrow.mean())
    assert np.isnan(norms["low"].isel(time=3)).all()
    with pytest.raises(RunError, match="level: found 90"):
        interval_of(messages, 90.0)


def test_communication_matrix_is_the_mean_over_valid_bins_from_the_second_on(fit):
    fitted, trials = fit
    messages = posterior_messages(random.key(1), fitted, trials, draws=DRAWS)
    norms = np.sqrt(np.nansum(messages.values**2, axis=-1))
    expected = np.concatenate([norms[:, i, 1:n] for i, n in enumerate(LENGTHS)], axis=1).mean(1)
    found = communication_matrix(messages)
    assert found.dims == ("draw", "target", "source")
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    by_label = communication_matrix(messages, labels=["go", "stop", "go"])
    assert list(by_label["condition"].values) == ["go", "stop"]
    np.testing.assert_allclose(by_label.sel(condition="stop"), norms[:, 1, 1:5].mean(1), rtol=1e-12)
    with pytest.raises(RunError, match="one label for each of 3 trials"):
        communication_matrix(messages, labels=["go", "stop"])


def test_bins_are_weighted_by_the_state_posterior(fit):
    fitted, trials = fit
    messages = posterior_messages(random.key(1), fitted, trials, draws=DRAWS)
    z_prob = posterior_paths(random.key(1), fitted, trials, draws=DRAWS).z_prob
    found = communication_matrix(messages, z_prob)
    assert found.dims == ("draw", "state", "target", "source")
    norms = np.sqrt(np.nansum(messages.values**2, axis=-1))
    total, count = 0.0, 0.0
    for i, n in enumerate(LENGTHS):
        for t in range(1, n):
            total, count = total + z_prob[1, i, t, 0] * norms[1, i, t], count + z_prob[1, i, t, 0]
    np.testing.assert_allclose(found[1, 0], total / count, rtol=1e-12)
    averaged = communication_matrix(messages, z_prob.mean(0))
    assert averaged.shape == found.shape
    with pytest.raises(RunError, match="z_prob: found shape"):
        communication_matrix(messages, z_prob[:, :2])


def some_weights(fitted):
    """A posterior of the weights that is wide along the first directions of each message."""
    rng = np.random.default_rng(1)
    rows = Rows(*(jnp.asarray(a) for a in (rng.normal(size=(20, 3)), rng.normal(size=(20, 2)), np.full((20, 2), 0.5))))
    found = tangents(random.key(5), fitted.networks.dynamics, rows, count=2)
    none, shape = np.zeros(found.scales.size), found.scales.shape
    return WeightPosterior(found, none.reshape(shape), none[None], np.diag(none), none, 0.3 * np.eye(len(none)), none)


@pytest.mark.parametrize("labels", [None, [1, 0, 1]])
@pytest.mark.parametrize("drawn", [False, True])
def test_state_communication_weighs_the_messages_of_each_state(fit, labels, drawn):
    fitted, trials = fit
    weights = some_weights(fitted) if drawn else None
    paths = posterior_paths(random.key(1), fitted, trials, draws=DRAWS)
    options = {"draws": DRAWS, "weights": weights}
    each = [posterior_messages(random.key(1), fitted, trials, state=k, **options) for k in range(2)]
    expected = communication_matrix(xr.concat(each, "state"), paths.z_prob, labels)
    found = state_communication(random.key(1), fitted, trials, labels=labels, **options)
    assert found.dims == expected.dims
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert list(found["source"].values) == list(each[0]["source"].values)
    assert np.abs(found.isel(state=0) - found.isel(state=1)).max() > 1e-3
    held = state_communication(random.key(1), fitted, trials, draws=DRAWS, labels=labels)
    assert (np.abs(found - held).max() > 1e-2) == drawn


def test_states_out_of_range_are_named(fit):
    with pytest.raises(RunError, match="state: found 2, the model has states 0 to 1"):
        posterior_messages(random.key(0), *fit, draws=2, state=2)


def test_trials_are_taken_a_few_at_a_time_without_changing_what_comes_out():
    values = np.arange(70.0).reshape(70, 1)
    calls = []

    def double(key, some):
        calls.append(some.shape)
        return {"twice": 2 * some}

    np.testing.assert_array_equal(over_trials(double, None, values)["twice"], 2 * values)
    assert calls == [(32, 1)] * 3
    calls.clear()
    # Two rounds share the call in which one ends and the other begins.
    found = over_rounds(double, None, values, rounds=2)["twice"]
    np.testing.assert_array_equal(found, np.concatenate([2 * values] * 2))
    assert calls == [(32, 1)] * 5


def test_every_call_of_every_round_has_a_key_of_its_own_whichever_ends_first():
    values = np.arange(70.0).reshape(70, 1)

    def drawn(key, some):
        return np.asarray(random.uniform(key, some.shape))

    rounds = over_rounds(drawn, random.key(0), values, rounds=2)
    assert len(np.unique(rounds)) == 140
    np.testing.assert_array_equal(rounds, over_rounds(drawn, random.key(0), values, rounds=2))
    # The first calls are those of a set of trials gone through once.
    np.testing.assert_array_equal(rounds[:64], over_trials(drawn, random.key(0), values)[:64])


def made_up_truth(seed=0):
    """True messages of two regions in two states; in state 1 region 0 sends nothing; and the map to other latents."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4, 30, 4))
    z = rng.integers(0, 2, size=(4, 30))
    true = rng.normal(size=(4, 30, 2, 2, 2))
    true[:, :, 1, 0][z == 1] = 0.0
    true[:, 0] = 0.0
    true[3, 20:] = np.nan
    maps = rng.normal(size=(2, 2, 2)) + 2 * np.eye(2)
    estimated_x = np.concatenate([x[..., :2] @ np.linalg.inv(maps[0]) + 1.0, x[..., 2:] @ np.linalg.inv(maps[1])], -1)
    lengths = np.array([30, 30, 30, 20])
    alignment = align_latents(x, estimated_x, lengths, [2, 2])
    told = np.stack([true[:, :, r] @ np.linalg.inv(maps[r]) for r in range(2)], axis=2)
    return true, told, alignment, z


def as_messages(told, draws=2):
    spread = np.linspace(-0.1, 0.1, draws)[:, None, None, None, None, None]
    dims = ("draw", "trial", "time", "target", "source", "latent")
    return xr.DataArray(told[None] + spread, dims=dims)


def test_messages_in_other_coordinates_score_as_the_truth():
    true, told, alignment, z = made_up_truth()
    scores = message_scores(true, as_messages(told), alignment, z)
    np.testing.assert_allclose(scores.r2, 1.0, atol=1e-10)
    np.testing.assert_allclose([scores.r2_cross, scores.r2_local], 1.0, atol=1e-10)
    np.testing.assert_allclose(scores.cosine, 1.0, atol=1e-10)
    np.testing.assert_allclose(scores.true_matrix, scores.estimated_matrix, atol=1e-8)
    assert scores.absent_ratio < 1e-8
    assert scores.true_matrix[1, 1, 0] == 0
    assert scores.true_matrix[0, 1, 0] > 0.5


def test_constants_of_messages_count_only_if_not_centred():
    true, told, alignment, z = made_up_truth()
    shifted = told.copy()
    shifted[:, 1:, 1, 0] += 3.0
    np.testing.assert_allclose(message_scores(true, as_messages(shifted), alignment, z).r2, 1.0, atol=1e-10)
    plain = message_scores(true, as_messages(shifted), alignment, z, centre=False)
    assert plain.r2[1, 0] < 0
    np.testing.assert_allclose(np.delete(plain.r2.ravel(), 2), 1.0, atol=1e-10)
    assert plain.absent_ratio > 0.8
    assert plain.cosine[1] < 0.9


def test_message_r2_is_one_less_the_share_of_error():
    true, _, alignment, z = made_up_truth()
    # Estimates in the true latents: the map is the identity.
    same = alignment._replace(weights=[np.eye(2), np.eye(2)])
    scores = message_scores(true, as_messages(0.5 * true), same, z)
    np.testing.assert_allclose(scores.r2, 0.75, atol=1e-10)
    np.testing.assert_allclose(scores.cosine, 1.0)
    wrong = np.where(np.isnan(true), np.nan, np.random.default_rng(1).normal(size=true.shape))
    scores = message_scores(true, as_messages(wrong), same, z)
    assert scores.r2_cross < 0
    assert 0.8 < scores.absent_ratio < 1.2


def test_sources_that_the_simulation_does_not_tell_are_left_out_and_other_regions_are_refused():
    true, told, alignment, z = made_up_truth()
    more = np.concatenate([told, 9 * told[:, :, :, :1]], axis=3)
    assert message_scores(true, as_messages(more), alignment, z).r2.shape == (2, 2)
    with pytest.raises(RunError, match="Messages cannot be compared"):
        message_scores(true[:, :, :1, :1], as_messages(told), alignment, z)
