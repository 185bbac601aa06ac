"""Splits of trials, and the neurons hidden for co-smoothing."""

import numpy as np
import pytest

from mrsds_ppl.config.loading import config_of
from mrsds_ppl.config.recording import split_of
from mrsds_ppl.data import Trials, choose_held_out_neurons, split_into_fold, split_trials
from mrsds_ppl.data.sessions.join import join
from mrsds_ppl.errors import ConfigError, DataError


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


def two_sessions():
    """Seven trials of one session and five of another."""
    return join([make_trials(7), make_trials(5)], ["a", "b"])


@pytest.mark.parametrize("trials", [make_trials(11), two_sessions()], ids=["trials", "sessions"])
def test_every_trial_is_the_test_of_exactly_one_fold(trials):
    splits = [split_into_fold(trials, 4, fold, seed=2) for fold in range(4)]
    assert sorted(np.concatenate([split.test.numbers for split in splits]).tolist()) == trials.numbers.tolist()
    for split in splits:
        assert not split.gap.num_trials
        assert sorted([*split.train.numbers, *split.test.numbers]) == trials.numbers.tolist()
        if trials.sessions is not None:
            assert {str(name) for name in split.test.sessions} == {"a", "b"}
    sizes = [split.test.num_trials for split in splits]
    assert max(sizes) - min(sizes) <= (1 if trials.sessions is None else 2)


def test_folds_are_dealt_by_the_seed_alone():
    dealt = [split_into_fold(make_trials(20), 5, 1, seed).test.ids.tolist() for seed in (0, 0, 1)]
    assert dealt[0] == dealt[1] != dealt[2]
    assert np.abs(np.diff(dealt[0])).max() > 1


def test_a_fold_of_one_recording_is_a_block_with_a_gap_around_it():
    trials = Trials.from_continuous(np.random.default_rng(0).normal(size=(120, 3)), piece=10)
    splits = [split_into_fold(trials, 3, fold, seed=5) for fold in range(3)]
    assert [split.test.ids.tolist() for split in splits] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert [split.gap.ids.tolist() for split in splits] == [[4], [3, 8], [7]]
    for split in splits:
        assert split.train.num_trials + split.test.num_trials + split.gap.num_trials == 12


def test_too_few_trials_or_pieces_for_the_folds_are_refused():
    with pytest.raises(DataError, match="found 3 trials for 4 folds; need at least one trial for each fold"):
        split_into_fold(make_trials(3), 4, 0, seed=0)
    with pytest.raises(DataError, match="session b: ys: found 5 trials for 6 folds"):
        split_into_fold(two_sessions(), 6, 0, seed=0)
    pieces = Trials.from_continuous(np.ones((30, 2)) * np.arange(30)[:, None], piece=10)
    with pytest.raises(DataError, match="found 3 pieces of one recording for 3 folds"):
        split_into_fold(pieces, 3, 1, seed=0)


def test_the_configuration_names_the_fold():
    config = config_of({}, {"training.folds": 4, "training.fold": 2})
    trials = make_trials(9)
    np.testing.assert_array_equal(split_of(config, trials).test.ids, split_into_fold(trials, 4, 2, 0).test.ids)
    whole = split_of(config_of({}, {"training.test_perc": 0.3}), trials)
    np.testing.assert_array_equal(whole.test.ids, split_trials(trials, 0.3, 0).test.ids)


@pytest.mark.parametrize(
    ("training", "told"),
    [({"folds": 1}, "folds"), ({"fold": 1}, "there are no folds"), ({"folds": 3, "fold": 3}, "allowed: 0 to 2")],
)
def test_folds_that_cannot_be_are_refused(training, told):
    with pytest.raises(ConfigError, match=told):
        config_of({"training": {"split": training}})
