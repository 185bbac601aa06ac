"""One continuous recording: cut into pieces that know their place, split by blocks with a gap, fitted as trials are."""

import numpy as np
import pytest
import tiny_run
import yaml

from mrsds_ppl.config.loading import load_config
from mrsds_ppl.config.recording import make_trials
from mrsds_ppl.data import Trials, load_recording, split_trials
from mrsds_ppl.data.simulate import simulate_oscillators
from mrsds_ppl.data.trials_file import read_trials, write_trials
from mrsds_ppl.errors import DataError


def recording(bins, neurons=3):
    """Every bin of every neuron has a value of its own."""
    return np.arange(bins * neurons, dtype=np.float32).reshape(bins, neurons)


def joined(trials, values):
    """(time, ...) of the recording from (trial, time, ...) of its pieces."""
    return np.concatenate([part[:length] for part, length in zip(values, trials.lengths, strict=True)])


def test_pieces_put_together_are_the_recording():
    y, u, z = recording(107), recording(107, 2), np.arange(107) % 3
    y[30:33, 1] = np.nan
    trials = Trials.from_continuous(y, u, piece=1.0, region_sizes=[2, 1], bin_width=0.1, stages=z, z=z, x=y[:, :2])
    assert trials.lengths.tolist() == [10] * 10 + [7]
    for found, given in (
        (trials.y, y),
        (trials.u, u),
        (trials.z, z),
        (trials.stage, np.eye(3)[z]),
        (trials.x, y[:, :2]),
    ):
        np.testing.assert_array_equal(joined(trials, found), given)
    assert not trials.observed[-1, 7:].any()
    assert np.isnan(trials.y[-1, 7:]).all()
    seconds = np.concatenate(
        [start + np.arange(n) * 0.1 for start, n in zip(trials.starts, trials.lengths, strict=True)]
    )
    np.testing.assert_allclose(seconds, np.arange(107) * 0.1)
    assert trials.follows.tolist() == [False] + [True] * 10
    assert trials.region_sizes == [2, 1]


@pytest.mark.parametrize(
    ("bins", "pieces", "longest"), [(20_000, 134, 150), (3_000, 20, 150), (1_000, 20, 50), (90, 5, 20)]
)
def test_a_piece_has_150_bins_unless_these_would_be_few(bins, pieces, longest):
    trials = Trials.from_continuous(recording(bins, 1))
    assert (trials.num_trials, trials.num_bins) == (pieces, longest)
    assert trials.lengths.sum() == bins


def test_a_rest_of_one_bin_is_left_out():
    assert Trials.from_continuous(recording(41), piece=10).lengths.tolist() == [10] * 4
    assert Trials.from_continuous(recording(42), piece=10).lengths.tolist() == [10] * 4 + [2]


def test_a_piece_without_any_value_is_left_out_and_the_next_follows_nothing():
    y = recording(60)
    y[20:30] = np.nan
    with pytest.warns(UserWarning, match="1 of 6 pieces are left out, in which nothing was observed: 2"):
        trials = Trials.from_continuous(y, piece=10)
    assert trials.dataset.attrs["notes"] == ["1 of 6 pieces are left out, in which nothing was observed: 2."]
    assert trials.ids.tolist() == [0, 1, 3, 4, 5]
    assert trials.numbers.tolist() == [0, 1, 2, 3, 4]
    assert trials.starts.tolist() == [0, 10, 30, 40, 50]
    assert trials.follows.tolist() == [False, True, False, True, True]
    np.testing.assert_array_equal(trials.y[2], y[30:40])


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        (100.0, "found 100 s, but the recording has 6 s"),
        (0.1, "found 0.1 s; need at least 2 bins of 0.1 s"),
        (-1.0, "found -1 s; need at least 2 bins"),
        (np.nan, "need at least 2 bins"),
    ],
)
def test_pieces_that_cannot_be_are_refused(piece, message):
    with pytest.raises(DataError, match=message):
        Trials.from_continuous(recording(60), piece=piece, bin_width=0.1)


def test_several_trials_are_not_cut():
    trials = tiny_run.simulated()
    assert trials.in_pieces().dataset.identical(trials.dataset)
    with pytest.raises(DataError, match="there are 12 trials, and pieces are of one continuous recording"):
        trials.in_pieces(2.0)
    pieces = Trials.from_continuous(recording(60), piece=10)
    assert pieces.in_pieces().dataset.identical(pieces.dataset)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("pieces", "fraction", "tests", "blocks"), [(133, 0.1, 13, 4), (40, 0.5, 20, 5), (4, 0.1, 1, 1)]
)
def test_blocks_are_held_out_with_a_gap_on_both_sides(pieces, fraction, tests, blocks, seed):
    trials = Trials.from_continuous(recording(10 * pieces, 1), piece=10)
    train, test, gap = (part.ids for part in split_trials(trials, fraction, seed))
    assert sorted([*train, *test, *gap]) == list(range(pieces))
    assert len(test) == tests
    assert not {*train} & {near for place in test for near in (place - 1, place + 1)}
    assert {*gap} == {near for place in test for near in (place - 1, place + 1) if 0 <= near < pieces} - {*test}
    # A block that reaches over the end of the recording goes on at its start.
    assert len(train) >= 1
    assert blocks <= 1 + (np.diff(test) > 1).sum() <= blocks + 1


def test_every_piece_is_tested_about_as_often():
    trials, counts = Trials.from_continuous(recording(400, 1), piece=10), np.zeros(40)
    for seed in range(400):
        counts[split_trials(trials, 0.2, seed).test.ids] += 1
    # Binomial(400, 0.2): standard deviation 8.
    assert np.abs(counts - 80).max() < 40


def test_there_is_no_gap_where_nothing_was_recorded():
    y = recording(400)
    y[10::20] = y[11::20] = np.nan
    y[[*range(100, 110)]] = np.nan
    with pytest.warns(UserWarning, match="1 of 40 pieces"):
        trials = Trials.from_continuous(y, piece=10)
    for seed in range(40):
        split = split_trials(trials, 0.1, seed)
        if 9 in split.test.ids:
            assert 11 in split.train.ids or 11 in split.test.ids
            break
    else:
        pytest.fail("piece 9 was never tested")


def test_too_few_pieces_cannot_be_split():
    with pytest.raises(DataError, match="found 3 pieces of one recording; need at least 4"):
        split_trials(Trials.from_continuous(recording(30), piece=10), 0.1, seed=0)


def test_pieces_keep_their_place_in_a_file_and_come_of_one_trial_in_a_file(tmp_path):
    trials = Trials.from_continuous(recording(95), piece=10)
    write_trials(tmp_path / "pieces.nc", trials)
    assert read_trials(tmp_path / "pieces.nc").dataset.identical(trials.dataset)
    np.savez(tmp_path / "long.npz", ys=recording(95)[None], region_sizes=[2, 1], bin_width=0.1)
    assert load_recording(tmp_path / "long.npz").num_trials == 1
    assert load_recording(tmp_path / "long.npz", piece=1.0).starts[-1] == pytest.approx(9.0)
    with pytest.raises(DataError, match=r"long\.npz: piece: found 20 s"):
        load_recording(tmp_path / "long.npz", piece=20.0)
    data = {"data_source": "mydata", "data_path": str(tmp_path / "long.npz")}
    for given, lengths in (({"piece": 3.0}, [30, 30, 30, 5]), ({}, [20, 20, 20, 20, 15])):
        (tmp_path / "run.yaml").write_text(yaml.safe_dump({"data": {**data, **given}}))
        assert make_trials(load_config(tmp_path / "run.yaml")).lengths.tolist() == lengths


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.compiling
def test_a_fit_of_one_trial_is_of_pieces_and_has_latents_of_the_gap(tmp_path, capsys):
    import mrsds_ppl as mrsds

    one = tiny_run.simulated(trials=12)
    y, truth = one.y.reshape(1, 240, 8), one.x.reshape(1, 240, 2)
    trials = Trials.from_arrays(y, region_sizes=[4, 4], bin_width=0.5, x=truth)
    training = {"num_steps": 8, "log_steps": 4, "save_steps": 8, "batch_size": 5}
    fit = mrsds.fit(trials, 2, 1, model=tiny_run.MODEL, training=training, save_to=tmp_path / "run")
    assert "one recording in 12 pieces of 20 bins (10 s)" in capsys.readouterr().out
    split = fit.latents["split"].values
    assert (split == "test").sum() == 1
    assert (split == "gap").sum() == fit.split.gap.num_trials > 0
    assert np.isfinite(fit.latents).all()
    assert fit.states["start"].values.tolist() == [10.0 * piece for piece in range(12)]
    fit.plot.activity(trial=fit.split.gap.ids[0])
    again = mrsds.load(tmp_path / "run")
    assert again.split.gap.ids.tolist() == fit.split.gap.ids.tolist()
    np.testing.assert_array_equal(again.latents["split"], split)
    assert again.posterior["posterior"]["start"].values.tolist() == fit.split.test.starts.tolist()
    assert fit.posterior["posterior"]["start"].attrs["units"] == "s"


@pytest.mark.nightly
@pytest.mark.longest
@pytest.mark.slow
def test_a_long_recording_is_recovered_as_trials_are():
    import mrsds_ppl as mrsds
    from mrsds_ppl.analysis.recovery.alignment import align_latents, match_states

    world = {"num_regions": 2, "num_states": 2, "neurons_per_region": 20, "emission": "gaussian"}
    recordings = {
        "one": simulate_oscillators(0, num_trials=1, min_bins=20_000, num_bins=20_000, **world),
        "trials": simulate_oscillators(0, num_trials=134, min_bins=150, num_bins=150, **world),
    }
    r2, accuracy = {}, {}
    for name, trials in recordings.items():
        fit = mrsds.fit(trials, 2, 2, training={"num_steps": 600, "lr_warmup_steps": 60}, progress=False)
        test, found = fit.split.test, fit.test
        r2[name] = align_latents(test.x, found.x_mean, test.lengths, [2, 2], [2, 2]).r2
        accuracy[name] = match_states(test.z, found.z_prob, test.lengths).accuracy
    assert min(r2["one"]) > min(r2["trials"]) - 0.02
    assert accuracy["one"] > accuracy["trials"] - 0.03
    assert accuracy["one"] > 0.92
    assert min(r2["one"]) > 0.92
