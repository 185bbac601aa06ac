"""Formats, and functions of the user's: every one gives the same trials, and what cannot be read says why."""

import importlib.util

import h5py
import numpy as np
import pytest
import scipy.io
import xarray as xr
from matlab_files import cell, write_hdf5_mat

from mrsds_ppl.data import load_recording, load_user_function
from mrsds_ppl.errors import ConfigError, DataError

LENGTHS = (3, 5, 4)
RNG = np.random.default_rng(0)
YS = [RNG.normal(size=(n, 4)).astype(np.float32) for n in LENGTHS]
US = [RNG.normal(size=(n, 2)).astype(np.float32) for n in LENGTHS]
STATES = [np.arange(n) % 2 for n in LENGTHS]
BLOCK = RNG.normal(size=(3, 5, 4)).astype(np.float32)


def padded(arrays):
    out = np.full((3, 5, *arrays[0].shape[1:]), np.nan)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return out


def assert_unequal(trials):
    """The trials above with their inputs."""
    assert trials.lengths.tolist() == list(LENGTHS)
    for i, (y, u) in enumerate(zip(YS, US, strict=True)):
        np.testing.assert_array_equal(trials.y[i, : len(y)], y)
        np.testing.assert_array_equal(trials.u[i, : len(u)], u)
    assert trials.region_sizes == [1, 3]


def test_mat_of_cells(tmp_path):
    path = tmp_path / "a.mat"
    rows, columns = [z[None] for z in STATES], [z[:, None] for z in STATES]
    values = {"ys": cell(YS), "us": cell(US), "region_sizes": [1, 3], "region_names": cell(["V1", "MT"])}
    scipy.io.savemat(path, {**values, "bin_width": 0.02, "z": cell(rows), "stages": cell(columns)})
    trials = load_recording(path)
    assert_unequal(trials)
    assert trials.region_names == ["V1", "MT"]
    assert trials.bin_width == 0.02
    assert trials.z[0].tolist() == [0, 1, 0, -1, -1]
    assert trials.num_stages == 2


def test_mat_7_3_of_cells(tmp_path):
    path = tmp_path / "a.mat"
    rows = [z[None].astype(float) for z in STATES]
    write_hdf5_mat(path, ys=YS, us=US, region_sizes=[1, 3], region_names=["V1", "MT"], bin_width=0.02, z=rows)
    trials = load_recording(path)
    assert_unequal(trials)
    assert trials.region_names == ["V1", "MT"]
    assert trials.bin_width == 0.02
    assert trials.z[0].tolist() == [0, 1, 0, -1, -1]


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_mat_of_arrays_with_one_input_and_one_latent(tmp_path, version):
    """MATLAB drops a last axis of one."""
    path, values = tmp_path / "a.mat", {"ys": BLOCK, "us": BLOCK[..., 0], "x": BLOCK[..., 1], "region_sizes": [1, 3]}
    scipy.io.savemat(path, values) if version == "5" else write_hdf5_mat(path, **values)
    trials = load_recording(path)
    np.testing.assert_array_equal(trials.y, BLOCK)
    np.testing.assert_array_equal(trials.u, BLOCK[..., :1])
    np.testing.assert_array_equal(trials.x, BLOCK[..., 1:2])


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_mat_with_empty_inputs(tmp_path, version):
    path, values = tmp_path / "a.mat", {"ys": BLOCK, "us": np.zeros((0, 0)), "region_sizes": [1, 3]}
    scipy.io.savemat(path, values) if version == "5" else write_hdf5_mat(path, **values)
    assert load_recording(path).num_inputs == 0


def test_mat_with_padding_and_text(tmp_path):
    path = tmp_path / "a.mat"
    names = np.array(["V1", "MT+"])  # saved as a char matrix, padded with blanks
    values = {"ys": padded(YS), "us": padded(US), "lengths": LENGTHS, "region_sizes": [1, 3], "region_names": names}
    scipy.io.savemat(path, values)
    trials = load_recording(path)
    assert_unequal(trials)
    assert trials.region_names == ["V1", "MT+"]


def test_npz_with_lengths(tmp_path):
    path = tmp_path / "a.npz"
    beside = {"labels": np.array(["l", "r", "l"]), "z": padded(STATES), "x": padded(US), "bin_width": 0.01}
    np.savez(path, ys=padded(YS), us=padded(US), region_sizes=[1, 3], lengths=LENGTHS, **beside)
    trials = load_recording(path)
    assert_unequal(trials)
    assert trials.labels.tolist() == ["l", "r", "l"]
    assert trials.z[0].tolist() == [0, 1, 0, -1, -1]
    np.testing.assert_array_equal(trials.x[1], US[1])
    assert trials.bin_width == 0.01


def test_bin_width_of_the_file_goes_before_the_given_one(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, ys=BLOCK, region_sizes=[1, 3])
    assert load_recording(path, bin_width=0.05).bin_width == 0.05
    np.savez(path, ys=BLOCK, region_sizes=[1, 3], bin_width=0.01)
    assert load_recording(path, bin_width=0.05).bin_width == 0.01


@pytest.mark.parametrize("kind", ["5", "7.3", "npz", "nc"])
def test_regions_ids_and_input_names_by_neuron(tmp_path, kind):
    path = tmp_path / {"npz": "a.npz", "nc": "a.nc"}.get(kind, "a.mat")
    regions, names = ["MT", "V1", "MT", "V1"], ["contrast", "wheel"]
    values = {"ys": BLOCK, "us": BLOCK[..., :2], "neurons": np.array([5.0, 6.0, 7.0, 9.0])}
    match kind:
        case "5":
            scipy.io.savemat(path, {**values, "regions": cell(regions), "input_names": cell(names)})
        case "7.3":
            write_hdf5_mat(path, **values, regions=regions, input_names=names)
        case "npz":
            np.savez(path, **values, regions=regions, input_names=names)
        case "nc":
            axes = {"ys": ("trial", "time", "neuron"), "us": ("trial", "time", "input"), "neurons": ("neuron",)}
            variables = {key: (axes[key], value) for key, value in values.items()}
            variables |= {"regions": (("neuron",), regions), "input_names": (("input",), names)}
            xr.Dataset(variables).to_netcdf(path, engine="h5netcdf")
    trials = load_recording(path)
    assert trials.region_names == ["MT", "V1"]
    assert trials.neuron_ids.tolist() == [5, 7, 6, 9]
    assert trials.input_names == names
    np.testing.assert_array_equal(trials.y, BLOCK[..., [0, 2, 1, 3]])


def make_dataset():
    variables = {"ys": (("trial", "time", "neuron"), BLOCK), "us": (("trial", "time", "input"), BLOCK[..., :2])}
    return xr.Dataset(variables, attrs={"region_sizes": [1, 3], "region_names": ["V1", "MT"], "bin_width": 0.02})


def assert_dataset(trials):
    np.testing.assert_array_equal(trials.y, BLOCK)
    np.testing.assert_array_equal(trials.u, BLOCK[..., :2])
    assert trials.region_sizes == [1, 3]
    assert trials.region_names == ["V1", "MT"]
    assert trials.bin_width == 0.02


def test_netcdf(tmp_path):
    make_dataset().to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    assert_dataset(load_recording(tmp_path / "a.nc"))


def test_zarr(tmp_path):
    pytest.importorskip("zarr")
    make_dataset().to_zarr(tmp_path / "a.zarr", zarr_format=2)
    assert_dataset(load_recording(tmp_path / "a.zarr"))


def test_nwb(tmp_path):
    pynwb = pytest.importorskip("pynwb")
    from datetime import UTC, datetime

    file = pynwb.NWBFile("session", "id", datetime(2020, 1, 1, tzinfo=UTC))
    file.add_scratch(BLOCK, name="ys", description="signals")
    file.add_scratch(np.array([1, 3]), name="region_sizes", description="neurons")
    with pynwb.NWBHDF5IO(str(tmp_path / "a.nwb"), "w") as io:
        io.write(file)
    trials = load_recording(tmp_path / "a.nwb")
    np.testing.assert_array_equal(trials.y, BLOCK)
    assert trials.region_sizes == [1, 3]


@pytest.mark.parametrize(("ending", "package", "extra"), [(".nwb", "pynwb", "nwb"), (".zarr", "zarr", "zarr")])
def test_missing_extra_is_named(tmp_path, ending, package, extra):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    path = tmp_path / f"a{ending}"
    if ending == ".zarr":
        path.mkdir()
        (path / "zarr.json").touch()
    else:
        with h5py.File(path, "w") as file:
            file.attrs["nwb_version"] = "2.6.0"
    with pytest.raises(DataError, match=rf"a{ending}.*pip install 'mrsds-ppl\[{extra}\]'"):
        load_recording(path)


def refused(path):
    with pytest.raises(DataError) as error:
        load_recording(path)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", ["5", "7.3", "npz", "nc"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.95])
def test_truncated_file(tmp_path, kind, part):
    path = tmp_path / {"npz": "a.npz", "nc": "a.nc"}.get(kind, "a.mat")
    values = {"ys": BLOCK, "region_sizes": np.array([1, 3])}
    match kind:
        case "5":
            scipy.io.savemat(path, values)
        case "7.3":
            write_hdf5_mat(path, **values)
        case "npz":
            np.savez(path, **values)
        case "nc":
            make_dataset().to_netcdf(path, engine="h5netcdf")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    message = refused(path)
    assert ("Copy it again" if part else "is empty (0 bytes)") in message


@pytest.mark.parametrize("key", ["ys", "region_sizes"])
def test_missing_key_lists_those_found(tmp_path, key):
    values = {"ys": BLOCK, "region_sizes": [1, 3]}
    values[key + "_old"] = values.pop(key)
    np.savez(tmp_path / "a.npz", **values)
    message = refused(tmp_path / "a.npz")
    assert f"no key '{key}'" in message
    assert f"{key}_old" in message


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"lengths": [3, 5]}, ["lengths: found 2", "3 trials"]),
        ({"lengths": [3, 6, 4]}, ["lengths: trial 1 has length 6", "1 to 5"]),
        ({"lengths": [3, 5, 0]}, ["lengths: trial 2 has length 0"]),
        ({"lengths": [2.5, 5, 4]}, ["lengths", "2.5", "whole numbers"]),
        ({"lengths": [np.nan, 5, 4]}, ["lengths", "nan", "whole numbers"]),
        ({"lengths": ["a", "b", "c"]}, ["lengths", "'a'", "bins of each trial"]),
        ({"us": BLOCK[:, :4]}, ["us: trial 0 has 4 bins", "has 5"]),
        ({"region_sizes": [1, 1]}, ["region_sizes: [1, 1] add up to 2", "4 neurons"]),
        ({"region_sizes": [1.5, 2.5]}, ["region_sizes", "[1.5, 2.5]", "whole numbers"]),
        ({"region_sizes": ["V1", "MT"]}, ["region_sizes", "V1", "number of neurons"]),
        ({"region_sizes": []}, ["region_sizes: [] add up to 0", "4 neurons"]),
        ({"bin_width": "fast"}, ["bin_width", "fast", "seconds"]),
        ({"regions": ["a", "b", "b", "a"]}, ["regions and region_sizes", "both"]),
        ({"ys": 3.0}, ["ys", "one array a trial"]),
        ({"ys": cell(YS)[0]}, ["padded with NaN", "lengths"]),
    ],
)
def test_bad_key_is_named_with_its_file(tmp_path, values, said):
    path = tmp_path / "a.npz"
    np.savez(path, **{"ys": BLOCK, "region_sizes": [1, 3], **values})
    message = refused(path)
    for words in said:
        assert words in message


def write_function(tmp_path, body, arguments=""):
    path = tmp_path / "mine.py"
    path.write_text(f"import numpy as np\n\n\ndef load({arguments}):\n    {body}\n")
    return f"{path}:load"


GOOD = "return np.ones((2, 3, 4)), None, [1, 3], 2"


def test_user_function_with_options(tmp_path):
    source = write_function(tmp_path, "return [np.ones((3, 4)), np.ones((2, 4))], [], np.array([1, 3]), np.int64(2)")
    trials = load_user_function(source, bin_width=0.02, region_names=["V1", "MT"])
    assert trials.lengths.tolist() == [3, 2]
    assert trials.num_inputs == 0
    assert trials.bin_width == 0.02
    assert trials.region_names == ["V1", "MT"]


def test_user_function_may_return_trials(tmp_path):
    body = "import mrsds_ppl; return mrsds_ppl.Trials.from_arrays(np.ones((2, 3, 4)), regions=list('abba'))"
    assert load_user_function(write_function(tmp_path, body)).region_sizes == [2, 2]


@pytest.mark.parametrize("arguments", ["data_path", "path", "seed=0, data_path=None", "*, data_path"])
def test_user_function_is_given_the_path(tmp_path, arguments):
    name = "path" if arguments == "path" else "data_path"
    body = f"return np.full((2, 3, 4), float({name})), None, [1, 3], 2"
    trials = load_user_function(write_function(tmp_path, body, arguments), data_path="7")
    assert (trials.y == 7).all()


def test_user_function_is_refused_a_bin_width_of_zero(tmp_path):
    with pytest.raises(DataError, match=r"bin_width: found 0\.0"):
        load_user_function(write_function(tmp_path, GOOD), bin_width=0.0)


def test_user_function_without_a_place_for_the_path(tmp_path):
    for arguments in ("", "bins=3"):
        assert load_user_function(write_function(tmp_path, GOOD, arguments), data_path="7").num_trials == 2


@pytest.mark.parametrize(
    ("arguments", "body", "said"),
    [
        ("", "return np.ones((2, 3, 4)), None, 2", ["returned 3 values", "ys, us, region_sizes, num_regions"]),
        ("", "return {'ys': 1}", ["returned dict", "ys, us, region_sizes, num_regions"]),
        ("", "pass", ["returned NoneType"]),
        ("", "return np.ones((2, 3, 4)), None, [1, 3], 3", ["num_regions=3", "[1, 3]"]),
        ("", "return np.ones((2, 3, 4)), None, 2, [1, 3]", ["num_regions=[1, 3]", "region_sizes=2"]),
        ("", "return np.ones((2, 3, 4)), None, None, 1", ["region_sizes=None"]),
        ("", "return None, None, [1, 3], 2", ["mine.py:load: ys", "None"]),
        ("", "return np.ones((2, 3, 4)), np.ones((2, 2, 1)), [1, 3], 2", ["us: trial 0 has 2 bins"]),
        ("", "return np.ones((2, 4, 3)), None, [1, 3], 2", ["(2, 4, 3)", "(trial, neuron, time)", "Transpose"]),
        ("", "return 1 / 0", ["mine.py, line 5", "ZeroDivisionError"]),
        ("data_path", GOOD, ["needs the argument 'data_path'", "--data-path"]),
        ("path, seed", GOOD, ["['path', 'seed']", "given one"]),
    ],
)
def test_bad_user_function_is_named(tmp_path, arguments, body, said):
    source = write_function(tmp_path, body, arguments)
    with pytest.raises(DataError) as error:
        load_user_function(source)
    assert "mine.py" in str(error.value)
    for words in said:
        assert words in str(error.value)


def test_user_file_that_cannot_be_used(tmp_path):
    with pytest.raises(DataError, match=r"none\.py: no such file.*file\.py:function"):
        load_user_function(f"{tmp_path}/none.py:load")
    source = write_function(tmp_path, GOOD)
    with pytest.raises(DataError, match=r"no function 'lod'; found \['load'\]"):
        load_user_function(source.replace(":load", ":lod"))
    write_function(tmp_path, "return (")
    with pytest.raises(DataError, match=r"cannot be imported \(SyntaxError"):
        load_user_function(source)


def test_user_file_may_define_dataclasses(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nimport numpy as np\n\n"
        "@dataclass\nclass Session:\n    neurons: int = 4\n\n"
        "def load():\n    return np.ones((2, 3, Session().neurons)), None, [1, 3], 2\n"
    )
    assert load_user_function(f"{path}:load").num_neurons == 4


def test_errors_of_ours_in_a_user_function_pass_through(tmp_path):
    body = "from mrsds_ppl.errors import ConfigError; raise ConfigError('data.mine: found 3')"
    with pytest.raises(ConfigError, match=r"^data\.mine: found 3$"):
        load_user_function(write_function(tmp_path, body))
