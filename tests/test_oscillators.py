"""The hard simulator: its law, its messages and its refusals."""

import numpy as np
import pytest

from mrsds_ppl.data.simulate import simulate_oscillators
from mrsds_ppl.data.simulate.oscillators import draw_parameters, draw_world, sent_messages
from mrsds_ppl.errors import ConfigError

SMALL = {"num_trials": 12, "min_bins": 20, "num_bins": 30, "neurons_per_region": 6}


def test_without_noise_each_bin_is_the_last_one_plus_its_messages():
    trials = simulate_oscillators(0, state_noise=0.0, **SMALL)
    x, messages = trials.x, trials.messages
    change = (x[:, 1:] - x[:, :-1]).reshape(*x[:, 1:].shape[:2], 3, 2)
    np.testing.assert_allclose(messages[:, 1:].sum(3), change, atol=1e-5)
    assert np.isnan(x[trials.lengths < 30, -1]).all()


def test_another_trial_seed_gives_other_trials_of_the_same_regions_and_neurons():
    def readout(trials):
        """Loadings, from signals without noise."""
        valid = np.arange(trials.num_bins) < trials.lengths[:, None]
        return np.linalg.lstsq(trials.x[valid], trials.y[valid], rcond=None)[0]

    plain = {"emission": "gaussian", "observation_noise": 0.0, **SMALL}
    first, second, third = (simulate_oscillators(0, **plain, trial_seed=seed) for seed in (None, 0, 1))
    for other in (second, third):
        np.testing.assert_allclose(readout(other), readout(first), atol=1e-4)
        assert not np.array_equal(other.lengths, first.lengths)
        true = draw_parameters(np.random.default_rng(0), 3, 3, 0.2)
        state, bin = other.z[0, 1], other.x[:1, 0].reshape(1, 3, 2)
        np.testing.assert_allclose(other.messages[0, 1], sent_messages(true, np.array([state]), bin)[0], atol=1e-5)
    assert not np.array_equal(second.lengths, third.lengths)
    with pytest.raises(ConfigError, match=r"data\.simulation\.trial_seed: found -1"):
        simulate_oscillators(0, **plain, trial_seed=-1)


def test_state_noise_has_the_size_that_was_asked_for():
    trials = simulate_oscillators(1, num_trials=60, state_noise=0.05, neurons_per_region=2)
    x, messages = trials.x, trials.messages
    innovation = (x[:, 1:] - x[:, :-1]).reshape(*x[:, 1:].shape[:2], 3, 2) - messages[:, 1:].sum(3)
    assert np.nanstd(innovation) == pytest.approx(0.05, rel=0.02)


def test_messages_are_on_only_where_the_state_s_graph_has_them():
    trials = simulate_oscillators(2, **SMALL)
    true = draw_parameters(np.random.default_rng(2), 3, 3, 0.2)
    norms = np.linalg.norm(trials.messages, axis=-1)
    for state in range(3):
        bins = (trials.z == state) & (np.arange(30) > 0)
        present = norms[bins].mean(0) > 0
        np.testing.assert_array_equal(present & ~np.eye(3, dtype=bool), true.graph[state])
    assert len({graph.tobytes() for graph in true.graph}) == 3


@pytest.mark.parametrize("state", [0, 1, 2])
def test_a_lone_region_turns_on_its_limit_cycle(state):
    true = draw_parameters(np.random.default_rng(0), 3, 1, 0.2)
    radius = true.radius[state]
    x = np.array([[[radius, 0.0]]])
    after = x + sent_messages(true, np.array([state]), x).sum(2)
    assert np.linalg.norm(after) == pytest.approx(radius)
    assert np.arctan2(after[0, 0, 1], after[0, 0, 0]) == pytest.approx(true.turn[state, 0])


def test_detuning_spreads_the_turns_of_the_regions_and_nothing_else():
    near, far = (draw_parameters(np.random.default_rng(1), 3, 3, 0.2, d) for d in (0.03, 0.3))
    middle = np.array([0.2, 0.5, 0.8])[:, None]
    np.testing.assert_allclose(far.turn - middle, 10 * (near.turn - middle), rtol=1e-12)
    assert 0.2 < np.abs(far.turn - middle).max() <= 0.3
    np.testing.assert_array_equal(near.maps, far.maps)
    np.testing.assert_array_equal(near.graph, far.graph)


@pytest.mark.slow
def test_counts_have_the_mean_and_states_the_dwell_time_that_were_asked_for():
    trials = simulate_oscillators(3, mean_count=0.8, stay=0.95)
    assert trials.y[trials.observed].mean() == pytest.approx(0.8, rel=0.03)
    inside = np.arange(1, trials.z.shape[1]) < trials.lengths[:, None]
    stayed = (np.diff(trials.z, axis=1) == 0)[inside].mean()
    assert stayed == pytest.approx(0.95, abs=0.01)
    assert trials.lengths.min() >= 80
    assert trials.lengths.max() == 120 == trials.num_bins
    assert trials.num_inputs == 0


@pytest.mark.parametrize("mean_count", [1e-3, 0.8, 1e3])
def test_every_neuron_expects_the_count_that_was_asked_for(mean_count):
    world = draw_world(
        np.random.default_rng(0),
        num_trials=20,
        min_bins=20,
        num_bins=30,
        num_regions=3,
        num_states=3,
        neurons_per_region=4,
        mean_count=mean_count,
        loading=2.0,
        state_noise=0.05,
        message_strength=0.2,
        detuning=0.03,
        stay=0.95,
    )
    drive = world.drive(world.paths.x)
    assert drive.std((0, 1)).max() > 3.0
    expected = np.logaddexp(0.0, drive + world.bias).mean((0, 1))
    np.testing.assert_allclose(expected, mean_count, rtol=1e-9)


def test_one_seed_gives_one_data_set():
    first, again, other = (simulate_oscillators(seed, **SMALL).y for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_gaussian_signals_are_not_counts():
    y = simulate_oscillators(0, emission="gaussian", **SMALL).y
    assert np.nanmin(y) < 0


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("stay", 1.5),
        ("num_states", 9),
        ("min_bins", 31),
        ("emission", "poison"),
        ("state_noise", -0.1),
        ("loading", -1.0),
        ("detuning", -0.1),
    ],
)
def test_a_wrong_argument_is_named(argument, value):
    with pytest.raises(ConfigError, match=argument):
        simulate_oscillators(0, **{**SMALL, argument: value})
