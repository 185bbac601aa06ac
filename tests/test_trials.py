"""The data container: padding, missing values, coordinates, and what it refuses."""

import itertools
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import sparse

from mrsds_ppl.data import Trials
from mrsds_ppl.errors import DataError

LENGTHS = (3, 5, 4)


def signals(seed=0, neurons=4):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, neurons)).astype(np.float32) for n in LENGTHS]


def make_trials(ys=None, **options):
    return Trials.from_arrays(signals() if ys is None else ys, region_sizes=[1, 3], **options)


def test_unequal_trials_are_padded_with_nan_and_not_observed():
    ys = signals()
    trials = make_trials(ys)
    assert (trials.num_trials, trials.num_bins, trials.num_neurons) == (3, 5, 4)
    assert trials.lengths.tolist() == list(LENGTHS)
    for i, y in enumerate(ys):
        np.testing.assert_array_equal(trials.y[i, : len(y)], y)
        assert np.isnan(trials.y[i, len(y) :]).all()
        assert trials.observed[i, : len(y)].all()
        assert not trials.observed[i, len(y) :].any()


def test_nan_is_missing_and_zero_is_not():
    ys = signals()
    ys[1][2, 3] = np.nan
    ys[0][0, 0] = 0.0
    trials = make_trials(ys)
    trials.validate(counts=False)
    assert not trials.observed[1, 2, 3]
    assert trials.observed[0, 0, 0]
    assert trials.observed.sum() == sum(LENGTHS) * 4 - 1
    batch = trials.batch()
    assert batch.y[1, 2, 3] == 0.0
    assert np.isfinite(batch.y).all()
    np.testing.assert_array_equal(batch.observed, trials.observed)


def test_masked_entries_are_missing():
    masked = np.ma.masked_equal(np.array([[1.0, 999.0], [999.0, 4.0], [5.0, 6.0]]), 999.0)
    for ys in ([masked, masked[:2]], np.ma.stack([masked, masked])):
        trials = Trials.from_arrays(ys)
        np.testing.assert_array_equal(trials.y[0], [[1.0, np.nan], [np.nan, 4.0], [5.0, 6.0]])
        np.testing.assert_array_equal(trials.observed[0], ~masked.mask)


def test_tables_labelled_arrays_and_sparse_matrices_are_their_values():
    ys = [np.round(y) for y in signals()]
    ys[1][2, 3] = np.nan
    frames = [pd.DataFrame(y) for y in ys]
    whole = [frame.astype("Int64") for frame in frames]  # with NA of pandas
    labelled = [xr.DataArray(y.T, dims=("neuron", "time")) for y in ys]
    for given in (frames, whole, labelled):
        np.testing.assert_array_equal(make_trials(given).y, make_trials(ys).y)
    ys[1][2, 3] = 0.0
    for kind in (sparse.csr_array, sparse.csc_matrix, sparse.coo_array):
        np.testing.assert_array_equal(make_trials([kind(y) for y in ys]).y, make_trials(ys).y)


def test_named_axes_of_one_array_are_put_in_order():
    y, u = np.random.default_rng(1).normal(size=(3, 6, 4)), np.ones((3, 6, 2))
    named = xr.DataArray(y, dims=("trial", "time", "unit")), xr.DataArray(u, dims=("trials", "bin", "input"))
    wanted = make_trials(y, us=u).dataset
    for order in itertools.permutations(range(3)):
        turned = [array.transpose(*(array.dims[axis] for axis in order)) for array in named]
        assert make_trials(turned[0], us=turned[1]).dataset.identical(wanted)
    nameless = xr.DataArray(y)
    assert make_trials(nameless, us=u).dataset.identical(wanted)


def test_transposed_trials_are_told_to_be_transposed():
    for given, sizes in ((signals(), None), (np.ones((3, 6, 4)), [1, 3])):
        turned = [y.T for y in given] if isinstance(given, list) else given.transpose(0, 2, 1)
        with pytest.raises(DataError, match=r"^ys: .*need \(.*time, neuron\)\. Transpose"):
            Trials.from_arrays(turned, region_sizes=sizes)


@pytest.mark.parametrize(
    ("ys", "said"),
    [
        (pd.DataFrame(np.ones((5, 4))), "found one DataFrame; need one array a trial: ys=[ys] for one trial"),
        (sparse.csr_array(np.ones((5, 4))), "found one csr_array; need one array a trial: ys=[ys]"),
        ({"first": np.ones((5, 4))}, "found one dict; need one array a trial: ys=list(ys.values())"),
        (xr.Dataset({"ys": ("time", np.ones(3))}), "found one Dataset; need one array a trial: ys=dataset['ys']"),
        ([pd.DataFrame({"a": ["x", "y"]})], "trial 0 is not an array of numbers"),
    ],
    ids=["table", "sparse", "mapping", "dataset", "text"],
)
def test_what_is_no_list_of_trials_is_refused_by_name(ys, said):
    with pytest.raises(DataError) as error:
        make_trials(ys)
    assert said in str(error.value)


def test_a_list_and_an_array_of_equal_trials_are_the_same():
    y, u = np.random.default_rng(1).normal(size=(3, 6, 4)), np.ones((3, 6, 2))
    one, other = make_trials(y, us=u), make_trials(list(y), us=list(u))
    assert one.dataset.identical(other.dataset)


def test_coordinates_name_trials_seconds_regions_and_neurons():
    trials = make_trials(bin_width=0.02, region_names=["V1", "V2"], labels=["left", "right", "left"])
    data = trials.dataset
    np.testing.assert_allclose(data["time"], 0.02 * np.arange(5))
    assert data["region"].values.tolist() == ["V1", "V2", "V2", "V2"]
    assert data["neuron"].values.tolist() == ["V1:0", "V2:0", "V2:1", "V2:2"]
    assert trials.region_sizes == [1, 3]
    assert trials.region_names == ["V1", "V2"]
    assert trials.region_of_neuron.tolist() == [0, 1, 1, 1]
    assert trials.bin_width == 0.02
    assert trials.ids.tolist() == [0, 1, 2]
    assert trials.labels.tolist() == ["left", "right", "left"]


def test_regions_by_neuron_are_sorted_and_ids_say_which_is_which():
    ys, labels = signals(neurons=5), ["MT", "V1", "MT", "V2", "V1"]
    trials = Trials.from_arrays(ys, regions=labels, neurons=[70, 71, 72, 73, 74])
    assert trials.region_names == ["MT", "V1", "V2"]
    assert trials.region_sizes == [2, 2, 1]
    assert trials.neuron_ids.tolist() == [70, 72, 71, 74, 73]
    assert trials.y.flags.c_contiguous  # as read from a file, so that sums over it are rounded alike
    by_id = trials.dataset["y"].sel(trial=1)
    for column, (number, label) in enumerate(zip(range(70, 75), labels, strict=True)):
        np.testing.assert_array_equal(by_id.sel(neuron=number), ys[1][:, column])
        assert by_id["region"].sel(neuron=number) == label
    plain = Trials.from_arrays(ys, regions=np.array(labels), region_names=["V1", "V2", "MT"])
    assert plain.neuron_ids.tolist() == ["V1:0", "V1:1", "V2:0", "MT:0", "MT:1"]
    np.testing.assert_array_equal(plain.y[1], ys[1][:, [1, 4, 3, 0, 2]])


def test_regions_in_order_are_the_same_as_sizes():
    one, other = make_trials(region_names=["b", "a"]), Trials.from_arrays(signals(), regions=["b", "a", "a", "a"])
    assert one.dataset.identical(other.dataset)


def test_inputs_have_names_also_where_they_are_widened():
    us = [np.ones((n, 2)) for n in LENGTHS]
    assert make_trials(us=us).input_names == ["input 0", "input 1"]
    named = make_trials(us=us, input_names=["contrast", "wheel"])
    assert named.dataset["u"].sel(input="wheel").shape == (3, 5)
    assert named.with_inputs(3).input_names == ["contrast", "wheel", "input 2"]
    assert make_trials().input_names == []


def test_one_region_unless_told():
    trials = Trials.from_arrays(signals())
    assert trials.region_sizes == [4]
    assert trials.region_names == ["region0"]


def test_without_inputs_stages_or_truth_widths_are_zero():
    trials = make_trials()
    assert trials.u.shape == (3, 5, 0)
    assert trials.stage.shape == (3, 5, 0)
    assert (trials.x, trials.z, trials.messages, trials.labels) == (None, None, None, None)


def test_batch_has_the_types_that_a_program_takes():
    batch = make_trials(us=[np.ones((n, 2), int) for n in LENGTHS]).batch()
    for name in ("y", "u", "stage"):
        assert getattr(batch, name).dtype == np.float32
    assert batch.lengths.dtype == np.int32
    assert batch.observed.dtype == batch.visible.dtype == bool
    np.testing.assert_array_equal(batch.u[0, 3:], 0.0)


def test_hidden_neurons_are_scored_but_not_visible():
    trials = make_trials()
    batch = trials.batch(hidden_neurons=[0, 2])
    np.testing.assert_array_equal(batch.observed, trials.observed)
    assert not batch.visible[..., [0, 2]].any()
    np.testing.assert_array_equal(batch.visible[..., [1, 3]], trials.observed[..., [1, 3]])
    assert trials.batch().visible.sum() == trials.observed.sum()


def test_truth_of_a_simulation_is_padded_beside_the_signals():
    x = [np.full((n, 2), n, float) for n in LENGTHS]
    z = [np.arange(n) % 2 for n in LENGTHS]
    messages = [np.full((n, 2, 2, 1), n, float) for n in LENGTHS]
    trials = make_trials(x=x, z=z, messages=messages)
    assert trials.z.tolist() == [[0, 1, 0, -1, -1], [0, 1, 0, 1, 0], [0, 1, 0, 1, -1]]
    assert trials.z.dtype.kind == "i"
    assert np.isnan(trials.x[0, 3:]).all()
    np.testing.assert_array_equal(trials.x[1], 5.0)
    assert trials.messages.shape == (3, 5, 2, 2, 1)
    np.testing.assert_array_equal(trials.messages[1], 5.0)
    assert np.isnan(trials.messages[2, 4]).all()


def test_stages_as_integers_and_as_one_hot_agree():
    integers = [np.arange(n) // 2 for n in LENGTHS]
    one_hot = [np.eye(3)[s] for s in integers]
    one, other = make_trials(stages=integers), make_trials(stages=one_hot)
    assert one.num_stages == 3
    np.testing.assert_array_equal(one.stage, other.stage)
    np.testing.assert_array_equal(one.stage.sum(-1), np.arange(5) < np.array(LENGTHS)[:, None])


def test_select_keeps_ids_padding_and_labels():
    trials = make_trials(labels=["a", "b", "c"], z=[np.zeros(n) for n in LENGTHS])
    some = trials.select([2, 0])
    assert some.ids.tolist() == [2, 0]
    assert some.lengths.tolist() == [4, 3]
    assert some.num_bins == trials.num_bins
    assert some.labels.tolist() == ["c", "a"]
    np.testing.assert_array_equal(some.y, trials.y[[2, 0]])
    assert some.region_sizes == trials.region_sizes


def test_limit_bins_leaves_out_longer_trials():
    short = make_trials().limit_bins(4)
    assert short.ids.tolist() == [0, 2]
    assert short.num_bins == 4
    with pytest.raises(DataError, match=r"tlim.*2 bins or fewer.*3"):
        make_trials().limit_bins(2)


def test_with_inputs_widens_with_zeros():
    trials = make_trials(us=[np.ones((n, 1)) for n in LENGTHS]).with_inputs(3)
    assert trials.num_inputs == 3
    np.testing.assert_array_equal(trials.u[1, :, 0], 1.0)
    np.testing.assert_array_equal(trials.u[..., 1:], 0.0)
    assert make_trials().with_inputs(2).u.shape == (3, 5, 2)
    with pytest.raises(DataError, match=r"data\.inputs: found 2.*3 inputs"):
        trials.with_inputs(2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"us": [np.ones((n, 1)) for n in (3, 6, 4)]}, ["us: trial 1", "6 bins", "has 5"]),
        ({"us": [np.ones((n, 1)) for n in LENGTHS[:2]]}, ["us: found 2 trials", "has 3"]),
        ({"us": [np.ones((n, n)) for n in LENGTHS]}, ["us: trial 1", "(5, 5)", "(3, 3)"]),
        ({"us": [np.ones(n) for n in LENGTHS]}, ["us: trial 0", "(3,)", "2 axes"]),
        ({"z": [np.ones(n + 1) for n in LENGTHS]}, ["z: trial 0", "4 bins"]),
        ({"ys": []}, ["ys: found no trials"]),
        ({"ys": 3.0}, ["ys", "3.0", "one array a trial"]),
        ({"ys": [["a", "b"]]}, ["ys: trial 0", "not an array of numbers"]),
        ({"ys": [np.ones((3, 4)), np.ones((0, 4))]}, ["ys: trial 1 has no bins"]),
        ({"ys": [np.ones((3, 4)), np.ones((3, 5))]}, ["ys: trial 1 has 5 neurons", "trial 0 has 4"]),
        ({"ys": [np.ones((3, 5))]}, ["region_sizes", "[1, 3] add up to 4", "5 neurons"]),
        ({"region_names": ["V1"]}, ["region_names", "1 names for 2 regions"]),
        ({"bin_width": 0.0}, ["bin_width", "0.0", "positive"]),
        ({"bin_width": np.inf}, ["bin_width", "inf", "positive"]),
        ({"ys": [np.ones((3, 4)) * 1j]}, ["ys: trial 0", "complex"]),
        ({"z": [[0, 1, 0], [0, 1, 0, np.nan, 1], [0] * 4]}, ["z: trial 1, bin 3 is nan", "whole numbers from 0"]),
        ({"z": [[0, 0.5, 0], [0] * 5, [0] * 4]}, ["z: trial 0, bin 1 is 0.5"]),
        ({"stages": [[0, 1, 0], [0] * 5, [0, 0, -1, 0]]}, ["stages: trial 2, bin 2 is -1.0"]),
        ({"labels": ["a"]}, ["labels: found 1", "3 trials"]),
        ({"regions": ["a"] * 4}, ["regions and region_sizes", "both"]),
        ({"region_names": ["V1", "V1"]}, ["region_names", "'V1' occurs twice"]),
        ({"trial_ids": [3, 3, 4]}, ["trial ids: 3 occurs twice"]),
        ({"trial_ids": ["a", "b", "c"]}, ["trial_ids", "'a'", "whole numbers"]),
        ({"neurons": [1, 2, 3]}, ["neuron ids: found 3 for 4"]),
        ({"neurons": [1, 2, 3, 1]}, ["neuron ids: 1 occurs twice"]),
        ({"us": [np.ones((n, 2)) for n in LENGTHS], "input_names": ["a"]}, ["input_names", "1 names for 2 inputs"]),
        ({"us": [np.ones((n, 2)) for n in LENGTHS], "input_names": ["a", "a"]}, ["input_names", "'a' occurs twice"]),
        ({"us": [np.ones((n, 2)) for n in LENGTHS], "input_names": ["a", ""]}, ["input 1 is empty"]),
        ({"us": [np.ones((n, 1)) for n in LENGTHS], "input_names": ["region1"]}, ["'region1' occurs twice", "sources"]),
    ],
)
def test_what_does_not_fit_is_named(options, said):
    with pytest.raises(DataError) as error:
        make_trials(**options)
    for words in said:
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a", "b"], "regions: found 2 labels for 4 neurons"),
        (["a", "b", "", "a"], "regions: neuron 2 has the label ''"),
        (["a", np.nan, "b", np.nan], r"regions: neuron 1 has the label nan \(and 1 more\)"),
        (["a", "b", "b", None], "regions: neuron 3 has the label None"),
        (np.ma.masked_equal([1, 2, 2, 9], 9), "regions: neuron 3 has the label masked"),
    ],
)
def test_every_neuron_needs_a_region(labels, said):
    with pytest.raises(DataError, match=said):
        Trials.from_arrays(signals(), regions=labels)


def test_names_beside_regions_are_their_order():
    with pytest.raises(DataError, match=r"region_names: found \['a'\].*\['a', 'b'\]"):
        Trials.from_arrays(signals(), regions=["a", "b", "a", "b"], region_names=["a"])


def spoiled(value, counts):
    ys = [np.full((n, 4), 2.0) for n in LENGTHS]
    ys[1][4, 2] = value
    trials = make_trials(ys, region_names=["V1", "V2"])
    with pytest.raises(DataError) as error:
        trials.validate(counts)
    return str(error.value)


@pytest.mark.parametrize(
    ("value", "counts", "said"),
    [
        (np.inf, False, "an infinite value"),
        (-np.inf, True, "an infinite value"),
        (-1.0, True, "a negative count"),
        (0.5, True, "a fractional count"),
    ],
)
def test_bad_value_is_named_by_trial_bin_and_neuron(value, counts, said):
    message = spoiled(value, counts)
    assert said in message
    assert "trial 1, bin 4, neuron 2 (V2:1)" in message


def test_value_too_large_for_single_precision_counts_as_infinite():
    assert "an infinite value" in spoiled(1e39, counts=False)


def test_bad_value_of_selected_trials_keeps_the_trial_id():
    ys = signals()
    ys[2][1, 0] = np.inf
    with pytest.raises(DataError, match="trial 2, bin 1, neuron 0"):
        make_trials(ys).select([2]).validate(counts=False)


def test_signals_may_be_negative_and_counts_may_be_missing():
    make_trials().validate(counts=False)
    ys = [np.full((n, 4), 3.0) for n in LENGTHS]
    ys[0][1] = np.nan
    make_trials(ys).validate(counts=True)


def test_neuron_never_observed_is_named():
    ys = signals()
    for y in ys:
        y[:, 3] = np.nan
    with pytest.raises(DataError, match=r"neuron 3 \(region1:2\) is never observed"):
        make_trials(ys).validate(counts=False)


def test_trials_of_one_bin_are_refused_where_all_are():
    one = np.ones((1, 4))
    make_trials([one, np.ones((2, 4))]).validate()
    with pytest.raises(DataError, match="every trial has one bin"):
        make_trials([one, one]).validate()


def test_inputs_must_be_finite():
    us = [np.ones((n, 2)) for n in LENGTHS]
    us[2][3, 1] = np.nan
    with pytest.raises(DataError, match="us: trial 2, bin 3, wheel is nan"):
        make_trials(us=us, input_names=["contrast", "wheel"]).validate(counts=False)


def test_data_layer_does_not_import_jax():
    code = "import sys, mrsds_ppl.data, mrsds_ppl.data.simulate; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_batch_carries_the_numbers_that_trials_have_in_the_recording():
    trials = make_trials()
    some = trials.select([2, 0])
    np.testing.assert_array_equal(trials.batch().number, np.arange(trials.num_trials))
    np.testing.assert_array_equal(some.batch([0]).number, [2, 0])
    assert some.batch().number.dtype == np.int32
