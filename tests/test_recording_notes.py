"""What the user is told of a recording that a fit can learn little from, and neurons that are left out."""

import numpy as np
import pytest
import yaml

from mrsds_ppl import cli
from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.data.check import idle_neurons, recording_notes
from mrsds_ppl.data.split import split_trials
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.data.trials_file import read_trials, write_trials
from mrsds_ppl.errors import DataError
from mrsds_ppl.output.describe import notes

IDS = [f"unit{number}" for number in range(12)]


def counts(**options):
    y = np.random.default_rng(0).poisson(1.0, (8, 30, 12)).astype(float)
    return y, {"region_sizes": [4, 8], "region_names": ["V1", "PMd"], "neurons": IDS, **options}


def test_a_usual_recording_has_no_notes():
    y, options = counts(us=np.random.default_rng(1).normal(size=(8, 30, 2)))
    assert recording_notes(Trials.from_arrays(y, **options), [2, 3]) == []


def test_silent_constant_unseen_and_rare_neurons_are_named():
    y, options = counts()
    y[..., 0] = 0.0
    y[..., 1] = 3.0
    y[..., 2] = np.nan
    y[..., 4] = 0.0
    y[2, 5, 4] = 9.0
    y[..., 5] = 0.0
    y[2, 5, 5] = 10.0
    found = recording_notes(Trials.from_arrays(y, **options), [1, 1])
    assert [note.split(",")[0] for note in found] == [
        "neurons unit0: silent in training",
        "neurons unit1: constant in training",
        "neurons unit2: not observed in any training trial",
        "neurons unit4: fewer than 10 counts in training",
    ]
    assert "data.drop_silent_neurons: true" in found[0]


def test_at_most_five_neurons_are_named():
    y, options = counts()
    y[..., 4:11] = 0.0
    assert "neurons unit4, unit5, unit6, unit7, unit8 and 2 more: silent" in recording_notes(
        Trials.from_arrays(y, **options), [1, 1]
    )[0]  # fmt: skip


def test_more_latents_than_neurons_carry_are_named():
    y, options = counts()
    trials = Trials.from_arrays(y, **options)
    assert "region V1: 4 latents for 4 neurons" in recording_notes(trials, [4, 4])[0]
    # Four of the eight neurons of PMd are others of them once more.
    y[..., 8:] = 2.0 * y[..., 4:8] + 1.0
    trials = Trials.from_arrays(y, **options)
    assert recording_notes(trials, [3, 4]) == []
    [note] = recording_notes(trials, [3, 5])
    assert note.startswith("region PMd: 5 latents, but its 8 neurons vary along fewer directions")
    # One pooled latent space reads all neurons.
    assert recording_notes(trials, [8]) == []
    assert "region all: 9 latents" in recording_notes(trials, [9])[0]


@pytest.mark.parametrize(("scale", "named"), [((1.0, 99.0), []), ((1.0, 200.0), [1]), ((1e-4, 2.0), [1]), ((0, 2), [])])
def test_inputs_of_a_large_or_very_different_scale_are_named(scale, named):
    u = np.random.default_rng(1).choice([-1.0, 1.0], (8, 30, 2)) * scale
    y, options = counts(us=u, input_names=["light", "speed"])
    found = recording_notes(Trials.from_arrays(y, **options), [1, 1])
    assert [note.split(":")[0] for note in found] == [f"input {('light', 'speed')[which]}" for which in named]


def test_without_neurons_keeps_the_ids_of_the_others(tmp_path):
    y, options = counts()
    y[..., 3] = 0.0
    trials = Trials.from_arrays(y, **options)
    left = trials.without_neurons(["unit3", "unit10"])
    assert left.region_sizes == [3, 7]
    assert left.neuron_ids.tolist() == [one for one in IDS if one not in ("unit3", "unit10")]
    np.testing.assert_array_equal(left.y, np.delete(y, [3, 10], axis=2))
    assert left.without_neurons([]).digest == left.digest != trials.digest
    assert not idle_neurons(left).any()
    write_trials(tmp_path / "left.nc", left)
    again = read_trials(tmp_path / "left.nc")
    assert again.without_neurons(["unit0"]).dataset.attrs["left_out"] == ["unit3", "unit10", "unit0"]


def test_without_neurons_refuses_unknown_ids_and_empty_regions():
    y, options = counts()
    trials = Trials.from_arrays(y, **options)
    with pytest.raises(DataError, match="neuron unit99: there is none of this id"):
        trials.without_neurons(["unit99"])
    with pytest.raises(DataError, match="region V1: no neuron would be left"):
        trials.without_neurons(IDS[:4])


def test_silent_neurons_are_dropped_where_that_is_asked_for_and_said(tmp_path, capsys):
    y, _ = counts()
    y[..., 1] = 0.0
    y[..., 7] = np.nan
    np.savez(tmp_path / "rec.npz", ys=y, region_sizes=[4, 8])
    config = {"data": {"data_source": "mydata"}, "training": {"test_perc": 0.25}, "inference": {"encoder": "none"}}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(config))
    command = ["check", str(tmp_path / "plain.yaml"), str(tmp_path / "rec.npz")]
    assert cli.main(command) == 2
    assert "never observed" in capsys.readouterr().err
    assert cli.main([*command, "--set", "data.drop_silent_neurons=true"]) == 0
    said = capsys.readouterr().out
    assert "region0 (3 neurons), region1 (7 neurons)" in said
    assert "note: neurons region0:1, region1:3: left out" in said


def test_neurons_that_are_active_in_test_trials_alone_are_silent_in_training():
    y, options = counts()
    config = RunConfig()
    test = split_trials(Trials.from_arrays(y, **options), 0.1, 0).test.numbers
    y[np.setdiff1d(np.arange(8), test), :, 3] = 0.0
    assert y[test, :, 3].any()
    trials = Trials.from_arrays(y, **options)
    found = notes(config, trials, split_trials(trials, 0.1, 0))
    assert [note.split(",")[0] for note in found if note.startswith("neurons")] == ["neurons unit3: silent in training"]
