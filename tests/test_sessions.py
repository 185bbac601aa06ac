"""Several sessions as one recording: what is kept of each, how it is split, and what is refused."""

import re

import numpy as np
import pytest
import tiny_run
import xarray as xr

import mrsds_ppl as mrsds
from mrsds_ppl.data.split import split_trials
from mrsds_ppl.data.trials_file import read_trials, write_trials
from mrsds_ppl.errors import DataError


def session(seed: int, regions: dict[str, int], num_trials: int = 8, bins: int = 12, **options) -> mrsds.Trials:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(bins // 2, bins + 1, num_trials)
    ys = [rng.poisson(1.0, (n, sum(regions.values()))).astype(float) for n in lengths]
    labels = [name for name, size in regions.items() for _ in range(size)]
    given = {"us": [rng.normal(size=(n, 2)) for n in lengths], "bin_width": 0.05} | options
    return mrsds.Trials.from_arrays(ys, regions=labels, neurons=[f"{seed}-{i}" for i in range(len(labels))], **given)


FIRST, SECOND = session(1, {"V1": 4, "CA1": 3}), session(2, {"MOs": 2, "V1": 6}, num_trials=6, bins=20)


def test_each_session_comes_back_as_it_was_given():
    joined = mrsds.join([FIRST, SECOND], ["monday", "tuesday"])
    assert (joined.region_names, joined.region_sizes) == (["V1", "CA1", "MOs"], [6, 3, 2])
    assert joined.num_neurons == 11 < FIRST.num_neurons + SECOND.num_neurons
    assert (joined.ids[0], joined.ids[-1]) == ("monday/0", "tuesday/5")
    assert joined.numbers.tolist() == list(range(14))
    for name, before in (("monday", FIRST), ("tuesday", SECOND)):
        after = joined.of_session(name)
        order = [after.neuron_ids.tolist().index(neuron) for neuron in before.neuron_ids]
        np.testing.assert_array_equal(after.y[..., order], before.y[:, : after.num_bins])
        np.testing.assert_array_equal(after.u, before.u)
        assert after.ids.tolist() == before.ids.tolist()
        sizes = (dict(zip(some.region_names, some.region_sizes, strict=True)) for some in (after, before))
        assert next(sizes) == next(sizes)


def test_columns_without_a_neuron_are_never_observed():
    joined = mrsds.join([FIRST, SECOND])
    there = joined.own_neurons != ""
    assert there.sum(1).tolist() == [7, 8]
    assert not joined.observed[~there[joined.session_numbers][:, None].repeat(joined.num_bins, 1)].any()
    joined.validate(counts=True)
    np.testing.assert_array_equal(joined.batch().session, [0] * 8 + [1] * 6)
    assert FIRST.batch().session is None


def test_every_session_is_split_by_itself():
    joined = mrsds.join([session(1, {"V1": 3}, 40), session(2, {"V1": 5}, 10)])
    split = split_trials(joined, 0.2, 0)
    assert np.bincount(split.test.session_numbers).tolist() == [8, 2]
    assert sorted([*split.train.ids, *split.test.ids]) == sorted(joined.ids)


def test_a_neuron_that_one_session_never_observed_is_named_although_its_column_is():
    silent = session(2, {"V1": 4, "CA1": 3})
    silent.dataset["observed"][..., 1] = False
    with pytest.raises(DataError, match=r"session session1: ys: neuron 1"):
        mrsds.join([FIRST, silent]).validate()


def test_a_file_gives_back_joined_trials(tmp_path):
    joined = mrsds.join([FIRST, SECOND], ["monday", "tuesday"])
    write_trials(tmp_path / "trials.nc", joined)
    found = read_trials(tmp_path / "trials.nc")
    assert found.dataset.identical(joined.dataset)
    assert found.digest == joined.digest


@pytest.mark.parametrize(
    ("others", "names", "said"),
    [
        ([], None, "found no session"),
        ([FIRST, session(2, {"V1": 3}, bin_width=0.02)], None, "session 1 has bins of 0.02 s and session 0 of 0.05 s"),
        ([FIRST, session(2, {"V1": 3}, input_names=["a", "b"])], None, "inputs: session 1 has"),
        ([FIRST, session(2, {"v1": 3})], None, "no other session has any of these"),
        ([FIRST, SECOND], ["a", "a"], "a name of its own for each"),
        ([FIRST, SECOND], ["a", "b/c"], "without a slash"),
        ([mrsds.join([FIRST, SECOND]), SECOND], None, "was joined already"),
    ],
)
def test_what_does_not_belong_together_is_refused(others, names, said):
    with pytest.raises(DataError, match=said):
        mrsds.join(others, names)


@pytest.mark.slow
@pytest.mark.compiling
@pytest.mark.parametrize("start", ["none", pytest.param("smoothing", marks=pytest.mark.nightly)])
def test_joined_sessions_are_fitted_scored_saved_and_read_back(tmp_path, start):
    whole = tiny_run.simulated()
    sessions = [
        whole.select(slice(first, first + 6)).without_neurons(whole.neuron_ids[first // 6 :: 4]) for first in (0, 6)
    ]
    training = {"num_steps": 4, "log_steps": 2, "save_steps": 4, "batch_size": 4}
    fit = mrsds.fit(
        mrsds.join(sessions, ["monday", "tuesday"]),
        *(2, 1),
        model=tiny_run.MODEL,
        training=training,
        start=start,
        test=0.25,
        save_to=tmp_path / "run",
        progress=False,
    )
    assert fit.latents["session"].values.tolist() == ["monday"] * 6 + ["tuesday"] * 6
    if start == "smoothing":
        log = (tmp_path / "run-log.txt").read_text(encoding="utf-8")
        assert re.search(r"session (monday|tuesday) alone.*session (?!\1)(monday|tuesday): evidence", log, re.DOTALL)
    scores = fit.score()
    assert scores.sizes["session"] == 2
    again = mrsds.load(tmp_path / "run")
    xr.testing.assert_identical(again.latents, fit.latents)
    assert set(fit.communication(fit.trials.sessions)["condition"].values) == {"monday", "tuesday"}
    with pytest.raises(mrsds.MrsdsError, match="session"):
        fit.calibrate()
