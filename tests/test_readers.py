"""Kinds of files: told by what they hold, whatever their names, and refused with what to do."""

import struct
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import xarray as xr
from matlab_files import write_hdf5_mat, write_mat
from scipy import sparse

from mrsds_ppl.data import load_recording
from mrsds_ppl.errors import DataError

LENGTHS = (3, 6, 5)
RNG = np.random.default_rng(0)
YS = [RNG.poisson(1.0, (n, 4)).astype(float) for n in LENGTHS]
US = [RNG.normal(size=(n, 2)).astype(np.float32).astype(float) for n in LENGTHS]
BLOCK = RNG.poisson(1.0, (3, 6, 4)).astype(float)
INPUTS = RNG.normal(size=(3, 6, 2)).astype(np.float32)
SIZES = np.array([1.0, 3.0])


def assert_block(trials):
    np.testing.assert_array_equal(trials.y, BLOCK)
    assert trials.region_sizes == [1, 3]


def assert_unequal(trials):
    assert trials.lengths.tolist() == list(LENGTHS)
    for i, y in enumerate(YS):
        np.testing.assert_array_equal(trials.y[i, : len(y)], y)


def refused(path):
    with pytest.raises(DataError) as error:
        load_recording(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "TypeCheckError" not in message
    return message


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        file["ys"] = BLOCK
        file.attrs["region_sizes"] = [1, 3]
        file["region_names"] = ["V1", "MT"]


def dataset(**attrs):
    variables = {"ys": (("trial", "time", "neuron"), BLOCK), "us": (("trial", "time", "input"), INPUTS)}
    return xr.Dataset(variables, attrs={"region_sizes": [1, 3], **attrs})


WRITERS = {
    "MATLAB 5": lambda path: scipy.io.savemat(path, {"ys": BLOCK, "region_sizes": SIZES}, appendmat=False),
    "MATLAB 7.3": lambda path: write_hdf5_mat(path, ys=BLOCK, region_sizes=SIZES),
    "npz": lambda path: np.savez(path.open("wb"), ys=BLOCK, region_sizes=SIZES),
    "HDF5": write_hdf5,
    "netCDF 4": lambda path: dataset().to_netcdf(path, engine="h5netcdf"),
    "netCDF 3": lambda path: dataset().to_netcdf(path, engine="scipy"),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("name", ["a.mat", "a.npz", "recording"])
@pytest.mark.filterwarnings("ignore:unclosed file")
def test_what_a_file_holds_says_how_to_read_it(tmp_path, kind, name):
    WRITERS[kind](tmp_path / name)
    assert_block(load_recording(tmp_path / name))


def test_names_of_regions_in_a_plain_hdf5_file(tmp_path):
    write_hdf5(tmp_path / "a.h5")
    assert load_recording(tmp_path / "a.h5").region_names == ["V1", "MT"]


def test_zarr_without_names_of_dimensions(tmp_path):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("ys", data=BLOCK)
    group.attrs["region_sizes"] = [1, 3]
    assert_block(load_recording(tmp_path / "a.zarr"))


def test_a_group_of_trials_is_told_to_be_an_array(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for i, y in enumerate(YS):
            file[f"ys/{i}"] = y
        file["region_sizes"] = [1, 3]
    message = refused(tmp_path / "a.h5")
    assert "ys: is a group with the fields 0, 1, 2; save one array" in message
    assert "'lengths'" in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty (0 bytes)"),
        (b"neuron,count\n1,2\n", "is a text file"),
        (b"\x1f\x8b\x08\x00", "gunzip"),
        (b"BZh91AY", "bunzip2"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "download the file again"),
        (b"\x80\x04\x95\x10\x00", "numpy.savez"),
        (b"CDF\x05\x00\x00", "nccopy"),
        (b"PK\x03\x04 the rest is lost", "cut short"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM", "cut short after the header"),
        (bytes(range(200, 256)), "no file of a known kind"),
    ],
)
def test_other_kinds_are_refused_with_what_to_do(tmp_path, content, said):
    (tmp_path / "a.mat").write_bytes(content)
    assert said in refused(tmp_path / "a.mat")


def test_what_is_no_file_is_told_apart(tmp_path, monkeypatch):
    assert "no such file" in refused(tmp_path / "none.mat")
    assert "no such file" in refused(tmp_path / "a.mat" / "b.mat")
    (tmp_path / "session").mkdir()
    assert "It is empty" in refused(tmp_path / "session")
    (tmp_path / "session" / "a.mat").touch()
    assert "is a folder, and not one of zarr. Give one of its files: a.mat" in refused(tmp_path / "session")

    def forbidden(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    assert "may not be read" in refused(tmp_path / "session" / "a.mat")


WRITES = "import h5py, os, sys; f = h5py.File(sys.argv[1], 'w', libver='latest'); f['ys'] = [1.0]; f.flush(); "


def test_a_file_that_another_program_writes(tmp_path):
    command = [sys.executable, "-c", WRITES + "print(flush=True); sys.stdin.read()", str(tmp_path / "a.h5")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        message = refused(tmp_path / "a.h5")
    assert "another program has it open for writing" in message
    assert "damaged" not in message


def test_a_file_that_was_left_open(tmp_path):
    subprocess.run([sys.executable, "-c", WRITES + "os._exit(0)", str(tmp_path / "a.h5")], check=True)
    message = refused(tmp_path / "a.h5")
    assert "was not closed by what wrote it" in message
    assert "h5clear" in message


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_sparse_matrices_of_matlab(tmp_path, version):
    ys = [sparse.csc_array(y) for y in YS]
    silent = [sparse.csc_array((n, 2)) for n in LENGTHS]
    write_mat(tmp_path / "a.mat", version, ys=ys, us=silent, region_sizes=sparse.csc_array(SIZES[None]))
    trials = load_recording(tmp_path / "a.mat")
    assert_unequal(trials)
    assert (trials.u == 0).all()
    assert trials.num_inputs == 2


@pytest.mark.parametrize("version", ["5", "7.3"])
@pytest.mark.parametrize("order", ["time first", "neurons first"])
@pytest.mark.parametrize("lengths", [LENGTHS, (6, 6, 6)])
def test_struct_array_of_trials(tmp_path, version, order, lengths):
    rows = [{"y": RNG.normal(size=(n, 4)), "u": RNG.normal(size=(n, 2)), "id": float(n)} for n in lengths]
    turned = [{**row, "y": row["y"].T, "u": row["u"].T} for row in rows] if order == "neurons first" else rows
    write_mat(tmp_path / "a.mat", version, trials=turned, region_sizes=SIZES, other={"y": np.ones((2, 2)), "note": "a"})
    trials = load_recording(tmp_path / "a.mat")
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(trials.y[i, : lengths[i]], row["y"].astype(np.float32))
        np.testing.assert_array_equal(trials.u[i, : lengths[i]], row["u"].astype(np.float32))


@pytest.mark.parametrize("version", ["5", "7.3"])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"trials": [{"y": np.ones((4, 4))}] * 2}, ["trials(i).y", "either axis may be the time"]),
        ({"session": {"ys": BLOCK, "us": BLOCK}}, ["session is a struct with the fields", "'-struct', 'session'"]),
        ({"trials": [{"spikes": BLOCK[0], "T": 6.0}] * 2}, ["no key 'ys'", "trials 2 structs with the fields"]),
        ({"ys": {"data": BLOCK, "rate": 3.0}}, ["ys: is a struct with the fields data, rate; save"]),
        ({"ys": BLOCK, "us": [{"a": 1.0}, {"a": 2.0}]}, ["us: is a struct with the fields a"]),
    ],
)
def test_structs_are_named_with_their_fields(tmp_path, version, values, said):
    write_mat(tmp_path / "a.mat", version, **values, region_sizes=SIZES)
    message = refused(tmp_path / "a.mat")
    for words in said:
        assert words in message


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_text_of_matlab(tmp_path, version):
    names, labels = np.array(["V1", "MT+"]), ["left", "right", "left"]
    write_mat(tmp_path / "a.mat", version, ys=YS, region_sizes=SIZES, region_names=names, labels=labels)
    trials = load_recording(tmp_path / "a.mat")
    assert trials.region_names == ["V1", "MT+"]
    assert trials.labels.tolist() == labels


def element(kind, content, order="<"):
    """An element of a v5 file."""
    return struct.pack(f"{order}2I", kind, len(content)) + content + bytes(-len(content) % 8)


def test_matlab_5_of_the_other_byte_order(tmp_path):
    content = b"MATLAB 5.0 MAT-file, Platform: SOL2".ljust(124) + b"\x01\x00MI"
    for name, value in {"ys": BLOCK, "region_sizes": SIZES[None]}.items():
        parts = [
            element(6, struct.pack(">2I", 6, 0), ">"),
            element(5, struct.pack(f">{value.ndim}i", *value.shape), ">"),
            element(1, name.encode(), ">"),
            element(9, value.astype(">f8").tobytes(order="F"), ">"),
        ]
        content += element(14, b"".join(parts), ">")
    (tmp_path / "a.mat").write_bytes(content)
    assert_block(load_recording(tmp_path / "a.mat"))


def opaque_element(name):
    """A MATLAB string in a v5 file: array flags of class 17, then name, type system, class and a reference."""
    reference = np.array([0xDD000000, 2, 1, 1, 1, 1], np.uint32).tobytes()
    array = element(6, struct.pack("<2I", 13, 0)) + element(5, struct.pack("<2i", 6, 1)) + element(1, b"")
    parts = [element(6, struct.pack("<2I", 17, 0)), *(element(1, text) for text in (name, b"MCOS", b"string"))]
    content = b"".join([*parts, element(14, array + element(6, reference))])
    return element(14, content)


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_string_objects_of_matlab_are_refused_where_they_are_needed(tmp_path, version):
    path = tmp_path / "a.mat"
    write_mat(path, version, ys=BLOCK, region_sizes=SIZES)
    for name in ("about", "region_names"):
        if version == "5":
            path.write_bytes(path.read_bytes() + opaque_element(name.encode()))
        else:
            with h5py.File(path, "r+") as file:
                file[name] = np.array([[0xDD000000, 2, 1, 1, 1, 1]], np.uint32).T
                file[name].attrs.update({"MATLAB_class": np.bytes_("string"), "MATLAB_object_decode": np.int32(3)})
        if name == "about":  # nothing reads it
            assert_block(load_recording(path))
    message = refused(path)
    assert "region_names: is a MATLAB" in message
    assert "char or cellstr" in message


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ys": BLOCK.transpose(0, 2, 1)}, ["(3, 4, 6)", "second axis", "(trial, neuron, time)", "last two axes"]),
        ({"ys": BLOCK.transpose(2, 0, 1), "us": INPUTS}, ["(4, 3, 6)", "first axis", "(neuron, trial, time)"]),
        ({"ys": BLOCK.transpose(2, 1, 0)}, ["(4, 6, 3)", "neurons first", "trials are first and neurons last"]),
        ({"ys": [y.T for y in YS]}, ["trial 0 of shape (4, 3)", "need (time, neuron)"]),
        (
            {"ys": [np.ones((7, n)) for n in LENGTHS]},
            ["trial 0 of shape (7, 3)", "7 in every trial, as the neurons should"],
        ),
        ({"ys": BLOCK, "us": INPUTS.transpose(1, 0, 2)}, ["us: found shape (6, 3, 2)", "3 trials of 6 bins"]),
        ({"ys": BLOCK, "us": INPUTS.transpose(0, 2, 1)}, ["(trial, input, time)"]),
        ({"ys": YS, "us": [u.T for u in US]}, ["us: trial 0 has shape (2, 3)", "(time, input)"]),
        ({"ys": BLOCK[0].T}, ["one matrix (4, 6)", "transpose it to (time, neuron)"]),
    ],
)
def test_transposed_recordings_are_told_to_transpose(tmp_path, values, said):
    write_mat(tmp_path / "a.mat", "5", **values, region_sizes=SIZES)
    message = refused(tmp_path / "a.mat")
    assert "fill" not in message
    assert "ranspose" in message
    for words in said:
        assert words in message


def test_one_matrix_is_no_recording(tmp_path):
    write_mat(tmp_path / "a.mat", "5", ys=BLOCK[0], region_sizes=SIZES)
    message = refused(tmp_path / "a.mat")
    assert "one matrix (6, 4)" in message
    assert "add an axis of length 1 before the others" in message
    assert "ranspose" not in message


def test_other_numbers_of_neurons_are_not_called_transposed(tmp_path):
    """One trial has a neuron more: nothing says that an axis of equal length is that of the neurons."""
    write_mat(tmp_path / "a.mat", "5", ys=[np.ones((6, 4)), np.ones((6, 5))], region_sizes=SIZES)
    assert "trial 1 has 5 neurons and trial 0 has 4" in refused(tmp_path / "a.mat")


@pytest.mark.parametrize("kind", ["h5netcdf", "scipy", "zarr"])
@pytest.mark.parametrize(
    ("units", "step", "width"),
    [
        ("ms", 20, 0.02),
        ("s", 0.02, 0.02),
        ("microseconds", 500, 5e-4),
        ("seconds since 2026-01-01", 2, 2),
        ("m", 2, 0.3),
    ],
)
def test_units_of_time_give_the_bin_width(tmp_path, kind, units, step, width):
    if kind == "zarr":
        pytest.importorskip("zarr")
    data = dataset().assign_coords(time=("time", np.arange(6) * step, {"units": units}))
    path = tmp_path / "a"
    data.to_zarr(path, consolidated=False) if kind == "zarr" else data.to_netcdf(path, engine=kind)
    assert load_recording(path, bin_width=0.3).bin_width == pytest.approx(width)


def test_the_bin_width_of_the_file_goes_before_its_time(tmp_path):
    data = dataset(bin_width=0.05).assign_coords(time=("time", np.arange(6.0), {"units": "ms"}))
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    assert load_recording(tmp_path / "a.nc").bin_width == 0.05


def test_uneven_time_is_refused(tmp_path):
    data = dataset().assign_coords(time=("time", [0, 1, 2, 4, 5, 6], {"units": "ms"}))
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    assert "time: found steps from 1 to 2 ms" in refused(tmp_path / "a.nc")


def test_named_dimensions_are_put_in_order(tmp_path):
    data = dataset().transpose("neuron", "input", "time", "trial")
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    trials = load_recording(tmp_path / "a.nc")
    assert_block(trials)
    np.testing.assert_array_equal(trials.u, INPUTS)


def test_pickled_objects_matter_only_where_they_are_needed(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, ys=BLOCK, region_sizes=[1, 3], notes=np.array([{"mouse": 12}], object))
    assert_block(load_recording(path))
    np.savez(path, ys=BLOCK, region_sizes=[1, 3], region_names=np.array(["V1", "MT"], object))
    message = refused(path)
    assert "region_names: is a list of arrays or other objects" in message
    assert "dtype=str" in message


def test_one_array_alone_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", BLOCK)
    assert "one array alone, of shape (3, 6, 4)" in refused(tmp_path / "a.npy")
    sparse.save_npz(tmp_path / "a.npz", sparse.csr_array(BLOCK[0]))
    assert "one sparse matrix" in refused(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"Y": BLOCK, "region_sizes": [1, 3]}, ["found Y (3, 6, 4)", "Did you mean Y? Save it as ys."]),
        ({"spikes": BLOCK, "region_sizes": [1, 3]}, ["Did you mean spikes?"]),
        ({"data": BLOCK, "region_size": [1, 3]}, ["Did you mean data?", "region_size [1, 3]"]),
        ({"ys": BLOCK, "region_size": [1, 3]}, ["Did you mean region_size? Save it as region_sizes."]),
        ({"elephants": BLOCK}, ["found elephants (3, 6, 4)", "Needed are ys"]),
        ({"ys": BLOCK, "region_sizes": [1, 3], "Us": INPUTS}, ["found the key 'Us'", "did you mean us?"]),
        ({"ys": BLOCK, "region_sizes": [1, 3], "label": [1, 2, 3]}, ["did you mean labels?"]),
        ({"ys": BLOCK, "region_sizes": [1, 3], "bin_width": [0.1, 0.2]}, ["bin_width: found [0.1, 0.2]"]),
        ({"ys": BLOCK, "region_sizes": [1, 1e300]}, ["region_sizes: found [1.0, 1e+300]; need whole numbers"]),
    ],
)
def test_keys_that_are_meant_are_suggested(tmp_path, values, said):
    np.savez(tmp_path / "a.npz", **values)
    message = refused(tmp_path / "a.npz")
    for words in said:
        assert words in message
