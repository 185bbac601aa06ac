"""Spike times in bins against a count by hand, what is not observed, signals beside them, and wrong clocks."""

import numpy as np
import pytest

from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.data import Trials
from mrsds_ppl.data.split import split_trials
from mrsds_ppl.data.trials_file import read_trials, write_trials
from mrsds_ppl.errors import DataError
from mrsds_ppl.output.describe import notes

RNG = np.random.default_rng(0)
# Of whole milliseconds, so that many fall on an edge; unsorted, one unit before the clock starts, one silent.
SPIKES = [np.round(RNG.uniform(-1, 30, size=n), 3) for n in (400, 300, 250, 0, 350)]
REGIONS = ["MT", "V1", "MT", "V2", "V1"]
TRIALS = np.array([[1.0, 3.0], [4.25, 5.5], [10.0, 14.1], [13.0, 14.0]])
WIDTH = 0.25  # exact in binary, as are the starts


def counted(spikes, start, num_bins, width=WIDTH):
    """(bin, unit) spikes from the start of each bin up to, not at, its stop."""
    return [
        [sum(start + b * width <= t < start + (b + 1) * width for t in unit) for unit in spikes]
        for b in range(num_bins)
    ]


def of_spikes(spikes=SPIKES, regions=REGIONS, **options):
    return Trials.from_spikes(spikes, regions, **{"bin_width": WIDTH, "trials": TRIALS, **options})


def in_order_given(trials, values):
    """(trial, time, neuron) with neurons by id, 0 to 4, and not by region."""
    return values[..., np.argsort(trials.neuron_ids)]


def test_counts_of_trials_that_differ_in_length_and_overlap():
    trials = of_spikes(neurons=range(5))
    # The last 0.1 s of trial 2 are no whole bin.
    assert trials.lengths.tolist() == [8, 5, 16, 4]
    assert trials.bin_width == WIDTH
    for trial, (start, n) in enumerate(zip(TRIALS[:, 0], trials.lengths, strict=True)):
        np.testing.assert_array_equal(in_order_given(trials, trials.y)[trial, :n], counted(SPIKES, start, n))
    assert trials.region_names == ["MT", "V1", "V2"]
    assert trials.neuron_ids.tolist() == [0, 2, 1, 4, 3]
    trials.validate(counts=True)


def test_widths_that_are_not_exact_lose_no_bin():
    trials = of_spikes(trials=[[0.1, 0.4], [0.3, 0.9]], bin_width=0.1)
    assert trials.lengths.tolist() == [3, 6]


def test_a_mapping_has_ids_and_a_window_goes_around_events(tmp_path):
    by_id = {70 + i: times for i, times in enumerate(SPIKES)}
    events = np.array([5.0, np.nan, 12.5, 400.0, 20.0])
    labels = ["a", "b", "c", "d", "e"]
    regions = {70: "MT", 71: "V1", 72: "MT", 73: "V2", 74: "V1", 99: "none"}
    with pytest.warns(UserWarning, match="1 of 5 trials are left out") as warned:
        trials = Trials.from_spikes(
            by_id, regions, bin_width=WIDTH, align=events, window=(-0.5, 1.0), labels=labels, trial_ids=range(10, 15)
        )
    assert [str(w.message) for w in warned] == [
        "1 of 5 trials are left out, which have no time (NaN): 11.",
        f"1 of 5 trials are left out, which lie outside the recording ({min(map(min, SPIKES[:3])):g} to "
        f"{max(map(max, SPIKES[:3])):g} s): 13.",
    ]
    assert trials.dataset.attrs["notes"] == [str(w.message) for w in warned]
    write_trials(tmp_path / "kept.nc", trials.noting(["and another"]))
    told = [*trials.dataset.attrs["notes"], "and another"]
    found = read_trials(tmp_path / "kept.nc")
    assert found.dataset.attrs["notes"] == told
    assert notes(RunConfig(), found, split_trials(found, 0.4, 0))[:3] == told
    assert trials.ids.tolist() == [10, 12, 14]
    assert trials.labels.tolist() == ["a", "c", "e"]
    assert trials.neuron_ids.tolist() == [70, 72, 71, 74, 73]
    np.testing.assert_array_equal(in_order_given(trials, trials.y)[1], counted(SPIKES, 12.0, 6))


def test_bins_not_wholly_inside_what_was_observed_are_missing():
    observed = [
        np.array([[4.0, 4.5], [4.5, 5.0]]),  # two that touch
        np.array([[4.3, 5.6], [1.0, 2.3]]),  # in no order, and not at edges
        None,
        np.array([[4.0, 6.0], [4.2, 4.4]]),  # one inside the other
        np.zeros((0, 2)),
    ]
    trials = of_spikes(neurons=range(5), observed=observed)
    seen = in_order_given(trials, trials.observed)
    for trial, (start, n) in enumerate(zip(TRIALS[:, 0], trials.lengths, strict=True)):
        for b in range(n):
            low, high = start + b * WIDTH, start + (b + 1) * WIDTH
            inside = [
                low >= 4.0 and high <= 5.0,
                (low >= 4.3 and high <= 5.6) or (low >= 1.0 and high <= 2.3),
                True,
                low >= 4.0 and high <= 6.0,
                False,
            ]
            assert seen[trial, b].tolist() == inside
    known = trials.observed
    np.testing.assert_array_equal(trials.y[known], of_spikes(neurons=range(5)).y[known])
    assert not of_spikes(observed=[np.zeros((0, 2))] * 5).observed.any()


def test_intervals_for_all_units_and_trials_out_of_them():
    with pytest.warns(UserWarning, match=r"2 of 4 trials .* outside the recording \(2 to 8 s\): 2, 3"):
        trials = of_spikes(observed=np.array([[2.0, 8.0]]))
    assert trials.observed[0].all(-1).tolist() == [False] * 4 + [True] * 4
    assert trials.observed[1, :5].all()


def test_inputs_are_numbers_of_trials_and_means_of_signals():
    times = np.arange(0, 30, 0.1) + 0.013
    wheel = np.stack([np.sin(times), times], axis=1)
    wheel[105] = np.nan
    slow = np.arange(0, 31.0)
    trials = of_spikes(inputs={"contrast": [0.1, 0.2, 0.3, 0.4], "wheel": (times, wheel), "slow": (slow, 2 * slow)})
    assert trials.input_names == ["contrast", "wheel:0", "wheel:1", "slow"]
    np.testing.assert_allclose(trials.u[2, :, 0], 0.3)
    for b in range(16):
        low, high = 10 + b * WIDTH, 10 + (b + 1) * WIDTH
        chosen = (times >= low) & (times < high)
        np.testing.assert_allclose(trials.u[2, b, 1:3], np.nanmean(wheel[chosen], axis=0), rtol=1e-6)
        # A sample where there is one, and between two of them what lies in the middle of the bin.
        np.testing.assert_allclose(trials.u[2, b, 3], 2 * (low if b % 4 == 0 else low + WIDTH / 2), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trials": None}, ["trials: give the start and stop", "align"]),
        ({"align": [1.0], "window": (0, 1)}, ["not both"]),
        ({"trials": None, "align": [1.0]}, ["window"]),
        ({"trials": None, "align": [1.0], "window": (1, 0)}, ["window", "(1, 0)", "(-0.2, 1)"]),
        ({"trials": [1.0, 2.0]}, ["trials: found shape (2,)", "(trial, 2)"]),
        ({"trials": [[np.nan, 1.0]]}, ["trials: none of 1 has a time"]),
        ({"bin_width": 1.1}, ["bins of 1.1 s are longer than trial 3 (13 to 14 s)"]),
        ({"bin_width": 0.0}, ["bin_width", "0.0"]),
        ({"trials": TRIALS + 500}, ["none lies in the recording", "from 501 to 514.1 s", "divide milliseconds"]),
        ({"trials": 1e5 * TRIALS}, ["trials", "100000", "seconds on one clock"]),
        ({"spike_times": [1e5 * s for s in SPIKES]}, ["seconds on one clock", "samples by the sampling rate"]),
        ({"spike_times": [np.array([0.5, 20.0])] * 5}, ["none of the spikes (0.5 to 20 s) is in a trial"]),
        ({"spike_times": [[]] * 5}, ["spike_times: found 5 units without a spike"]),
        ({"spike_times": [[1.0, np.nan]] * 5}, ["spike_times: unit 0 has a spike at nan"]),
        ({"spike_times": [["a"]] * 5}, ["spike_times: unit 0 is not an array of times"]),
        ({"spike_times": "session.nwb"}, ["spike_times: found 'session.nwb'", "one for each unit"]),
        ({"regions": ["V1"]}, ["regions: found 1", "5 units"]),
        ({"regions": {1: "V1"}}, ["regions: found a mapping", "spike_times"]),
        ({"observed": [np.zeros((1, 2))]}, ["observed: found 1", "5 units"]),
        ({"observed": [np.zeros(3)] * 5}, ["observed: unit 0"]),
        ({"observed": np.array([[5.0, 1.0]])}, ["observed: unit 0", "later stop"]),
        ({"observed": np.array([[0.0, np.inf]])}, ["observed: unit 0", "in seconds"]),
        ({"labels": ["a"]}, ["labels: found shape (1,)", "4 trials"]),
        ({"trial_ids": [1]}, ["trial_ids: found 1 for 4 trials"]),
        ({"inputs": {"cue": [1.0]}}, ["inputs: 'cue'", "shape (1,)", "4 trials"]),
        ({"inputs": {"cue": ["a"] * 4}}, ["inputs: 'cue' holds no numbers", "labels"]),
        ({"inputs": {"cue": [1, 2, np.nan, 3]}}, ["inputs: 'cue' is not known in all of trial 2"]),
        ({"inputs": {"wheel": (np.arange(4.0), np.arange(3.0))}}, ["'wheel' has 4 times and 3 values"]),
        ({"inputs": {"wheel": (np.array([1.0, 0.0]), np.arange(2.0))}}, ["'wheel'", "increasing"]),
        ({"inputs": {"wheel": (np.arange(8.0), np.arange(8.0))}}, ["'wheel' is not known in all of trial 2"]),
    ],
)
def test_what_does_not_fit_says_what_to_do(options, said):
    given = {"spike_times": SPIKES, "regions": REGIONS, "bin_width": WIDTH, "trials": TRIALS, **options}
    with pytest.raises(DataError) as error:
        Trials.from_spikes(**given)
    for words in said:
        assert words in str(error.value)


def test_objects_of_pynapple_are_taken_as_they_are():
    nap = pytest.importorskip("pynapple")
    seconds = np.arange(0, 30, 0.01)
    support = nap.IntervalSet(0.0, 30.0)
    kept = [np.sort(s[s >= 0]) for s in SPIKES[:3]]
    units = nap.TsGroup(
        {7 + i: nap.Ts(s) for i, s in enumerate(kept)}, time_support=support, metadata={"location": REGIONS[:3]}
    )
    trials = nap.IntervalSet(TRIALS[:3, 0], TRIALS[:3, 1], metadata={"choice": ["l", "r", "l"]})
    found = Trials.from_pynapple(
        units, trials=trials, bin_width=WIDTH, labels="choice", inputs={"wheel": nap.Tsd(seconds, np.sin(seconds))}
    )
    same = Trials.from_spikes(
        kept,
        REGIONS[:3],
        bin_width=WIDTH,
        trials=TRIALS[:3],
        neurons=[7, 8, 9],
        labels=["l", "r", "l"],
        inputs={"wheel": (seconds, np.sin(seconds))},
    )
    assert found.dataset.identical(same.dataset)
    events = Trials.from_pynapple(
        units, ["a", "b", "a"], trials=nap.Ts(np.array([1.25, 4.5])), window=(-0.25, 1), bin_width=WIDTH
    )
    np.testing.assert_array_equal(in_order_given(events, events.y)[1], counted(kept, 4.25, 5))
    with pytest.raises(DataError, match=r"regions: found 'area'; .*'location'"):
        Trials.from_pynapple(units, "area", trials=trials, bin_width=WIDTH)
