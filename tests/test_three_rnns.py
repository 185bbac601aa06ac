"""The three recurrent networks against a scalar loop, their weights, and the law of what is drawn."""

import inspect

import numpy as np
import pytest
from scipy import stats

from mrsds_ppl.data.simulate import SIMULATORS, simulate_three_rnns
from mrsds_ppl.data.simulate.three_rnns import draw_networks, input_effect, principal_components, sent_messages
from mrsds_ppl.errors import ConfigError

SMALL = {"num_trials": 4, "num_bins": 40, "units_per_region": 12, "warm_up": 0.1}


def of_units(trials, units):
    """Latents that are the units: activity (trial, bin, region, unit) and messages as drawn."""
    return trials.x.reshape(*trials.x.shape[:2], 3, units).astype(float), trials.messages.astype(float)


def residual(trials, networks, latents, axes):
    """x_t - x_{t-1} - sum of messages - effect of the input on the latents."""
    change = np.diff(trials.x.reshape(*trials.x.shape[:2], 3, latents).astype(float), axis=1)
    driven = np.einsum("rdn,tbrn->tbrd", axes, input_effect(networks, trials.u.astype(float)))
    return change - trials.messages[:, 1:].astype(float).sum(3) - driven[:, 1:]


def networks_of(seed, **options):
    """The first thing that a simulation draws."""
    return draw_networks(np.random.default_rng(seed), **options)


def test_messages_and_input_equal_a_scalar_loop():
    networks = networks_of(0, num_units=6, cross_fraction=0.4)
    activity = np.random.default_rng(1).normal(size=(2, 3, 6))
    found = sent_messages(networks, activity)
    for b, r, s, i in np.ndindex(2, 3, 3, 6):
        if r == s:
            total = sum(networks.recurrent[r, i, j] * activity[b, r, j] for j in range(6))
            expected = 0.1 * (np.tanh(total) - activity[b, r, i])
        else:
            expected = 0.1 * np.tanh(sum(networks.cross[r, s, i, j] * activity[b, s, j] for j in range(6)))
        assert found[b, r, s, i] == pytest.approx(expected, abs=1e-14)
    u = np.arange(7.0)
    np.testing.assert_allclose(input_effect(networks, u), 0.1 * networks.inputs @ u)


@pytest.mark.parametrize(("latents", "trial_seed"), [(None, None), (5, None), (5, 1)])
def test_messages_and_input_make_up_every_change_where_there_is_no_noise(latents, trial_seed):
    quiet = {"state_noise": 0.0, "observation_noise": 0.0, **SMALL}
    trials = simulate_three_rnns(2, num_latents=latents, trial_seed=trial_seed, **quiet)
    assert np.array_equal(trials.y, simulate_three_rnns(2, num_latents=latents, **quiet).y) == (trial_seed is None)
    networks = networks_of(2, num_units=12)
    activity = trials.y.reshape(4, 40, 3, 12).astype(float)
    axes = principal_components(activity, latents)[1]
    assert np.abs(residual(trials, networks, latents or 12, axes)).max() < 2e-6  # of float32
    assert (trials.messages[:, 0] == 0).all()
    assert (trials.z == 0).all()


def test_every_unit_has_noise_of_its_own():
    sizes = SMALL | {"num_trials": 30}
    trials = simulate_three_rnns(3, num_latents=None, state_noise=0.03, observation_noise=0.0, **sizes)
    noise = residual(trials, networks_of(3, num_units=12), 12, np.tile(np.eye(12), (3, 1, 1)))
    flat = noise.reshape(-1, 36)
    assert stats.kstest(flat.ravel()[:20000] / 0.03, "norm").pvalue > 1e-3
    np.testing.assert_allclose(flat.std(0), 0.03, rtol=0.1)
    assert np.abs(np.corrcoef(flat.T) - np.eye(36)).max() < 5 / np.sqrt(len(flat))
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 5 / np.sqrt(noise.size)


def test_signals_are_the_activities_with_independent_noise():
    quiet, noisy = (simulate_three_rnns(4, num_latents=None, observation_noise=n, **SMALL) for n in (0.0, 0.4))
    np.testing.assert_array_equal(quiet.y.reshape(4, 40, 36), quiet.x)
    noise = noisy.y - quiet.y
    assert noise.std() == pytest.approx(0.4, rel=0.05)
    for axis in range(3):
        shared = noise.mean(axis=tuple(a for a in range(3) if a != axis))
        assert np.abs(shared).max() < 5 * 0.4 / np.sqrt(noise.size / noise.shape[axis])


@pytest.mark.nightly
def test_weights_have_their_gains_and_sparseness():
    networks = networks_of(5, num_units=300, cross_fraction=0.05, cross_gain=0.4, cross_spread=0.5)
    np.testing.assert_allclose(networks.recurrent.std((1, 2)) * np.sqrt(300), [1.8, 1.5, 1.5], rtol=0.02)
    radius = np.abs(np.linalg.eigvals(networks.recurrent)).max(1)
    assert (radius > 1.2).all()  # above one the networks are active of themselves
    gains = np.empty((3, 3))
    for r, s in np.ndindex(3, 3):
        weights = networks.cross[r, s]
        if r == s:
            assert not weights.any()
            continue
        assert (weights != 0).mean() == pytest.approx(0.05, abs=0.005)
        gains[r, s] = weights[weights != 0].std() * np.sqrt(0.05 * 300)
        assert 0.19 < gains[r, s] < 0.62
    assert np.ptp(gains[~np.eye(3, dtype=bool)]) > 0.05
    same = networks_of(5, num_units=300, cross_gain=0.4, cross_spread=0.0).cross[~np.eye(3, dtype=bool)]
    np.testing.assert_allclose([w[w != 0].std() * np.sqrt(15) for w in same], 0.4, rtol=0.05)


def test_only_the_driven_regions_get_inputs_each_its_own():
    inputs = networks_of(6, num_units=100).inputs
    assert not inputs[0].any()
    assert not inputs[1, :, 5:].any()
    assert not inputs[2, :, :5].any()
    for reached in (inputs[1].any(-1), inputs[2].any(-1)):
        assert 0.3 < reached.mean() < 0.7
    # The bumps of the sequence move over the units.
    peaks = inputs[1, :, :5].argmax(0)
    assert (np.diff(peaks) > 5).all()


def test_inputs_are_a_sequence_then_rest_and_two_patterns_one_after_the_other():
    u = simulate_three_rnns(7, **SMALL | {"num_bins": 200}).u
    assert u.shape == (4, 200, 7)
    assert (u == u[0]).all()
    onsets = u[0, :, :5].argmax(0)
    np.testing.assert_array_equal(onsets, [0, 20, 40, 60, 80])
    np.testing.assert_allclose(u[0, 80:, :5], np.tile(u[0, 80, :5], (120, 1)))
    np.testing.assert_array_equal(u[0, :, 5], np.arange(200) < 120)
    np.testing.assert_array_equal(u[0, :, 6], np.arange(200) >= 120)


def test_latents_are_principal_components_of_each_region():
    trials = simulate_three_rnns(8, num_latents=4, observation_noise=0.0, **SMALL)
    x, y = trials.x.reshape(-1, 3, 4).astype(float), trials.y.reshape(-1, 3, 12).astype(float)
    for r in range(3):
        left, sizes, _ = np.linalg.svd(y[:, r] - y[:, r].mean(0), full_matrices=False)
        expected = left[:, :4] * sizes[:4]
        sign = np.sign((expected * x[:, r]).sum(0))
        np.testing.assert_allclose(x[:, r], expected * sign, atol=2e-5)


def test_messages_of_components_are_those_of_units_seen_along_the_axes_of_the_target():
    units, few = (simulate_three_rnns(9, num_latents=n, **SMALL) for n in (None, 3))
    activity, messages = of_units(units, 12)
    axes = principal_components(activity, 3)[1]
    np.testing.assert_allclose(axes @ np.swapaxes(axes, 1, 2), np.tile(np.eye(3), (3, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(few.messages, np.einsum("rdn,tbrsn->tbrsd", axes, messages), atol=2e-6)
    np.testing.assert_array_equal(units.y, few.y)


def test_networks_are_active_bounded_and_differ_between_trials():
    trials = simulate_three_rnns(10, 12, num_bins=150, num_latents=None)
    activity, messages = of_units(trials, 100)
    assert np.abs(activity).max() < 4  # recurrent, two messages of at most one, and the input
    assert (activity.std((0, 1, 3)) > 0.3).all()
    # One network, whose trials start anywhere: they stay apart.
    assert (activity.std(0).mean((0, 2)) > 0.1).all()
    size = np.linalg.norm(messages[:, 1:], axis=-1).mean((0, 1))
    off = size[~np.eye(3, dtype=bool)]
    assert (off > 0.05).all()
    assert off.max() > 1.3 * off.min()


def test_no_weights_between_regions_send_no_messages():
    for options in ({"cross_gain": 0.0}, {"cross_fraction": 0.0}):
        messages = simulate_three_rnns(11, **SMALL, num_latents=3, **options).messages
        assert not messages[..., ~np.eye(3, dtype=bool), :].any()
        assert messages[:, 1:, np.arange(3), np.arange(3)].all()


def test_warm_up_leaves_out_the_start():
    cold = simulate_three_rnns(12, num_latents=None, **SMALL | {"warm_up": 0.0, "num_trials": 60})
    assert stats.kstest(cold.x[:, 0].ravel().astype(float), stats.uniform(-1, 2).cdf).pvalue > 1e-3
    warm = simulate_three_rnns(12, num_latents=None, **SMALL | {"warm_up": 1.0, "num_trials": 60})
    fast = [np.abs(np.diff(t.x[:, :2], axis=1)).mean() for t in (cold, warm)]
    assert fast[1] < 0.8 * fast[0]


def test_published_sizes_are_the_defaults():
    defaults = {n: p.default for n, p in inspect.signature(simulate_three_rnns).parameters.items()}
    assert (defaults["units_per_region"], defaults["num_latents"]) == (100, 10)
    trials = simulate_three_rnns(0, num_trials=2, num_bins=20)
    assert trials.y.shape == (2, 20, 300)
    assert trials.x.shape == (2, 20, 30)
    assert trials.messages.shape == (2, 20, 3, 3, 10)
    assert trials.region_names == ["chaotic", "sequence", "fixed_point"]
    assert trials.bin_width == 0.01
    trials.validate(counts=False)


def test_seed_alone_decides():
    first, again, other = (simulate_three_rnns(s, num_latents=3, **SMALL) for s in (0, 0, 1))
    assert first.dataset.identical(again.dataset)
    assert not np.array_equal(first.y, other.y)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_trials": 0}, "num_trials: found 0"),
        ({"num_bins": 0}, "num_bins: found 0"),
        ({"units_per_region": -1}, "units_per_region: found -1"),
        ({"num_latents": 0}, "num_latents: found 0, need a whole number of at least 1 and at most 100"),
        ({"num_latents": 101}, "num_latents: found 101.*or null for all"),
        ({"cross_fraction": 1.5}, "cross_fraction: found 1.5"),
        ({"cross_gain": -1.0}, "cross_gain: found -1.0"),
        ({"cross_spread": 2.0}, "cross_spread: found 2.0"),
        ({"input_gain": float("nan")}, "input_gain: found nan"),
        ({"state_noise": -0.1}, "state_noise: found -0.1"),
        ({"observation_noise": float("inf")}, "observation_noise: found inf"),
        ({"warm_up": -1.0}, "warm_up: found -1.0"),
        ({"seed": -1}, "seed: found -1"),
    ],
)
def test_bad_options_are_named(options, said):
    with pytest.raises(ConfigError, match=said):
        simulate_three_rnns(**{"seed": 0, **options})


def test_simulator_is_registered():
    assert SIMULATORS["three-rnns"] is simulate_three_rnns
