"""Splits of trials, and the neurons hidden for co-smoothing."""

import numpy as np
import pytest

from mrsds_ppl.data import Trials, choose_held_out_neurons, split_trials
from mrsds_ppl.errors import DataError


def make_trials(num_trials):
    y = np.arange(num_trials)[:, None, None] * np.ones((num_trials, 3, 2))
    return Trials.from_arrays(y, region_sizes=[1, 1])


@pytest.mark.parametrize(("fraction", "tests"), [(0.2, 4), (0.0, 1), (1.0, 19), (0.13, 3)])
def test_split_is_a_partition_of_the_trials(fraction, tests):
    split = split_trials(make_trials(20), fraction, seed=3)
    assert split.test.num_trials == tests
    both = np.concatenate([split.train.ids, split.test.ids])
    assert sorted(both.tolist()) == list(range(20))
    for part in split:
        np.testing.assert_array_equal(part.y[:, 0, 0], part.ids)
        assert (np.diff(part.ids) > 0).all()


def test_split_depends_on_the_seed_alone():
    trials = make_trials(20)
    first, again, other = (split_trials(trials, 0.3, seed).test.ids.tolist() for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_every_trial_is_tested_about_as_often():
    trials = make_trials(10)
    counts = np.zeros(10)
    for seed in range(400):
        counts[split_trials(trials, 0.2, seed).test.ids] += 1
    # Binomial(400, 0.2): standard deviation 8.
    assert np.abs(counts - 80).max() < 40


def test_one_trial_cannot_be_split():
    with pytest.raises(DataError, match="found 1 trial; need at least 2"):
        split_trials(make_trials(1), 0.2, seed=0)


def test_held_out_neurons_are_a_fraction_of_each_region():
    sizes = [8, 20, 1, 3]
    hidden = choose_held_out_neurons(sizes, 0.25, seed=0)
    region = np.repeat(np.arange(4), sizes)
    assert np.bincount(region[hidden], minlength=4).tolist() == [2, 5, 0, 1]
    assert len(np.unique(hidden)) == len(hidden)
    assert (np.diff(hidden) > 0).all()


def test_held_out_neurons_at_the_ends():
    assert choose_held_out_neurons([5, 5], 0.0, seed=0).shape == (0,)
    # Small fractions hide one neuron of each region, large ones leave one in sight.
    assert len(choose_held_out_neurons([5, 5], 0.01, seed=0)) == 2
    assert len(choose_held_out_neurons([5, 5], 1.0, seed=0)) == 8


def test_held_out_neurons_depend_on_the_seed_alone():
    first, again, other = (choose_held_out_neurons([30, 30], 0.25, seed).tolist() for seed in (0, 0, 1))
    assert first == again
    assert first != other
