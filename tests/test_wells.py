"""The simulator of wells, cycle and relay: its law, its states and its refusals."""

import numpy as np
import pytest

from mrsds_ppl.data.simulate import SIMULATORS, simulate_wells
from mrsds_ppl.data.simulate.wells import GRAPH, REGIONS, input_effect, sent_messages
from mrsds_ppl.errors import ConfigError

SMALL = {"num_trials": 20, "num_bins": 40, "neurons_per_region": 3}
NO_MAPS = np.zeros((2, 3, 3, 2, 2))


def alone(state, start, bins=200):
    """Latents of the three regions after some bins without messages, inputs and noise."""
    x = np.asarray(start, float).reshape(1, 3, 2)
    for _ in range(bins):
        x = x + sent_messages(np.array([state]), x, NO_MAPS).sum(2)
    return x[0]


def test_without_noise_each_bin_is_the_last_one_with_messages_and_inputs():
    trials = simulate_wells(0, state_noise=0.0, **SMALL)
    assert trials.region_names == list(REGIONS)
    change = (trials.x[:, 1:] - trials.x[:, :-1]).reshape(20, -1, 3, 2)
    for trial, length in enumerate(trials.lengths):
        inside = slice(0, length - 1)
        z, u = trials.z[trial, 1:length], trials.u[trial, 1:length]
        told = trials.messages[trial, 1:length].sum(2) + input_effect(z, u)
        np.testing.assert_allclose(change[trial, inside], told, atol=1e-5)
    assert np.isnan(trials.x[trials.lengths < trials.num_bins, -1]).all()


@pytest.mark.parametrize(("side", "state"), [(-1, 0), (1, 0), (-1, 1), (1, 1)])
def test_regions_by_themselves_rest_in_a_well_on_a_cycle_or_at_the_origin(side, state):
    wells, cycle, relay = alone(state, [[0.3 * side, 0.5], [0.6, 0.0], [0.4, 0.4]])
    np.testing.assert_allclose(wells, [side, 0.0], atol=1e-4)
    assert np.linalg.norm(cycle) == pytest.approx(1.0 if state == 0 else 0.0, abs=1e-3)
    np.testing.assert_allclose(relay, 0.0, atol=1e-4)


def test_messages_are_those_of_the_graph_and_no_larger_than_their_strength():
    trials = simulate_wells(1, **SMALL)
    later = np.arange(trials.num_bins) > 0
    for state in (0, 1):
        told = np.abs(trials.messages[(trials.z == state) & later])
        others = told * ~np.eye(3, dtype=bool)[..., None]
        np.testing.assert_array_equal((others > 0).any((0, 3)), GRAPH[state])
        assert others.max() <= 0.2 + 1e-6
    # The wells tell the relay different things in the two states.
    assert GRAPH[:, 2, 0].all()


def test_noise_counts_and_stays_have_the_size_that_was_asked_for():
    trials = simulate_wells(2, num_trials=150, neurons_per_region=10)
    change = (trials.x[:, 1:] - trials.x[:, :-1]).reshape(150, -1, 3, 2)
    valid = np.arange(1, trials.num_bins) < trials.lengths[:, None]
    z, u = trials.z[:, 1:][valid], trials.u[:, 1:][valid]
    left = change[valid] - trials.messages[:, 1:][valid].sum(2) - input_effect(z, u)
    assert left.std() == pytest.approx(0.07, rel=0.02)
    assert np.nanmean(trials.y) == pytest.approx(0.6, rel=0.02)
    stays = (trials.z[:, 1:] == trials.z[:, :-1])[valid].mean()
    assert stays == pytest.approx(0.96, abs=0.006)


def test_a_seed_gives_the_same_trials_and_another_one_others():
    first, again, other = (simulate_wells(seed, **SMALL) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.y, again.y)
    assert not np.array_equal(first.lengths, other.lengths)
    assert SIMULATORS["wells"] is simulate_wells


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"num_trials": 0}, "num_trials: found 0"),
        ({"num_bins": 2}, "num_bins: found 2"),
        ({"state_noise": 2.0}, "state_noise: found 2.0"),
    ],
)
def test_what_is_out_of_range_is_named(wrong, said):
    with pytest.raises(ConfigError, match=said):
        simulate_wells(0, **{**SMALL, **wrong})
