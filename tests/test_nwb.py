"""NWB files as the software of a lab writes them, against a count by hand of what was written."""

import shutil
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest

import mrsds_ppl as mrsds
from mrsds_ppl.commands.init import init, suited
from mrsds_ppl.config.loading import ignored_keys, load_config, parse_assignment, resolved_yaml
from mrsds_ppl.data.readers import needs_binning
from mrsds_ppl.errors import ConfigError, DataError

pynwb = pytest.importorskip("pynwb")
from pynwb.ophys import DfOverF, Fluorescence, ImageSegmentation, OpticalChannel  # noqa: E402

RNG = np.random.default_rng(0)
SPIKES = [np.sort(np.round(RNG.uniform(0, 40, size=n), 3)) for n in (300, 500, 200, 400, 350)]
AREAS = ["CA1", "V1", "V1", "CA1", "V1"]
IDS = [12, 15, 16, 20, 31]
QUALITY = ["good", "good", "mua", "good", "good"]
STARTS, STOPS = np.array([1.0, 8.0, 15.0, 24.0, 38.5]), np.array([4.5, 10.25, 19.0, 26.0, 43.0])
STIMULUS = np.array([2.0, 9.0, np.nan, 24.5, 60.0])
CONTRAST = np.array([0.1, 0.5, 1.0, 0.25, 0.0])
CHOICE = ["left", "right", "left", "none", "right"]
OBSERVED = [[0.0, 9.0], [9.5, 45.0]]
WIDTH = 0.25
WHEEL = np.arange(0, 45, 0.05)


def session():
    return pynwb.NWBFile("a session", "id", datetime(2020, 1, 1, tzinfo=UTC))


def add_probes(file):
    """Two probes of four electrodes; the last of each is in another area."""
    device = file.create_device(name="probe")
    groups = {}
    for name, area in (("probe0", "V1"), ("probe1", "CA1")):
        groups[name] = file.create_electrode_group(name=name, description="", location=area, device=device)
        for i in range(4):
            file.add_electrode(location="LP" if i == 3 else area, group=groups[name], group_name=name)
    return groups


def add_units(file, electrodes=True, **columns):
    for name in sorted(columns.keys() - {"obs_intervals", "electrode_group"}):  # which the format knows
        file.add_unit_column(name=name, description=name)
    places = {"V1": [[0, 1, 3], [1], [2, 1]], "CA1": [[4], [5, 6, 7]]}
    for i, (times, area, number) in enumerate(zip(SPIKES, AREAS, IDS, strict=True)):
        more = {"electrodes": places[area].pop(0)} if electrodes else {}
        of_unit = {name: values[i] for name, values in columns.items()}
        file.add_unit(id=number, spike_times=times, waveform_mean=np.zeros((8, 4)), **more, **of_unit)


def add_trials(file):
    for name in ("stimulus_time", "contrast", "choice"):
        file.add_trial_column(name=name, description=name)
    for i, number in enumerate(range(100, 105)):
        file.add_trial(
            id=number,
            start_time=STARTS[i],
            stop_time=STOPS[i],
            stimulus_time=STIMULUS[i],
            contrast=CONTRAST[i],
            choice=CHOICE[i],
        )


def add_wheel(file, name="wheel"):
    behavior = file.create_processing_module(name="behavior", description="")
    holder = pynwb.behavior.BehavioralTimeSeries(name="BehavioralTimeSeries")
    behavior.add(holder)
    values = np.stack([np.sin(WHEEL), np.cos(WHEEL)], axis=1)
    holder.create_timeseries(name=name, data=values, unit="m", rate=20.0, starting_time=0.0, conversion=2.0)
    return behavior


def written(path, file):
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(file)
    return path


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A file with all of it."""
    file = session()
    add_probes(file)
    rates = [len(times) / 40 for times in SPIKES]
    add_units(file, quality=QUALITY, firing_rate=[np.nan, *rates[1:]], area=["A", "B", "B", "A", "C"])
    add_trials(file)
    add_wheel(file)
    cues = pynwb.epoch.TimeIntervals(name="cues", description="")
    cues.add_column(name="onset", description="")
    cues.add_row(id=7, start_time=3.0, stop_time=5.0, onset=3.5)
    cues.add_row(id=9, start_time=6.0, stop_time=9.0, onset=7.0)
    file.add_time_intervals(cues)
    return written(tmp_path_factory.mktemp("nwb") / "recording.nwb", file)


def counts(units, start, num_bins):
    edges = start + WIDTH * np.arange(num_bins + 1)
    return np.stack([[((SPIKES[i] >= a) & (SPIKES[i] < b)).sum() for i in units] for a, b in pairwise(edges)])


def test_whole_trials_of_all_units_by_the_location_of_their_electrodes(recording):
    trials = mrsds.read_nwb(recording, bin_width=WIDTH)
    assert trials.region_names == ["CA1", "V1"]
    # One of the three electrodes of units 15 and 20 is in LP.
    assert trials.dataset["region"].values.tolist() == ["CA1", "CA1", "V1", "V1", "V1"]
    assert trials.neuron_ids.tolist() == [12, 20, 15, 16, 31]
    assert trials.ids.tolist() == [100, 101, 102, 103, 104]
    assert trials.lengths.tolist() == [14, 9, 16, 8, 18]
    for i, n in enumerate(trials.lengths):
        np.testing.assert_array_equal(trials.y[i, :n], counts([0, 3, 1, 2, 4], STARTS[i], n))
    trials.validate(counts=True)


def test_a_window_around_events_with_inputs_labels_and_some_units(recording):
    with pytest.warns(UserWarning, match=r"1 of 5 trials are left out") as warned:
        trials = mrsds.read(
            recording,
            bin_width=WIDTH,
            align="stimulus_time",
            window=(-0.5, 1.0),
            inputs=["contrast", "wheel"],
            labels="choice",
            units="quality == 'good' and (firing_rate > 0 or id == 12)",
        )
    told = [str(warning.message) for warning in warned]
    assert told[0].endswith("which have no time (NaN): 102.")
    assert "outside the recording" in told[1]
    assert told[1].endswith(": 104.")
    assert trials.ids.tolist() == [100, 101, 103]
    assert trials.labels.tolist() == ["left", "right", "none"]
    assert trials.neuron_ids.tolist() == [12, 20, 15, 31]
    assert trials.input_names == ["contrast", "wheel:0", "wheel:1"]
    np.testing.assert_allclose(trials.u[:, 0, 0], CONTRAST[[0, 1, 3]])
    for i, event in enumerate(STIMULUS[[0, 1, 3]]):
        np.testing.assert_array_equal(trials.y[i], counts([0, 3, 1, 4], event - 0.5, 6))
        for b in range(6):
            low = event - 0.5 + b * WIDTH
            inside = (low - 1e-9 <= WHEEL) & (low + WIDTH - 1e-9 > WHEEL)
            np.testing.assert_allclose(trials.u[i, b, 1], 2 * np.sin(WHEEL[inside]).mean(), atol=1e-6)


def test_other_tables_and_columns_and_the_order_of_regions(recording):
    cues = mrsds.read_nwb(recording, bin_width=WIDTH, align="cues", regions="area", region_names=["C", "A", "B"])
    assert cues.ids.tolist() == [7, 9]
    assert cues.region_names == ["C", "A", "B"]
    assert cues.neuron_ids.tolist() == [31, 12, 20, 15, 16]
    np.testing.assert_array_equal(cues.y[1], counts([4, 0, 3, 1, 2], 6.0, 12))
    for align in ("cues:onset", "cues.onset"):
        onset = mrsds.read_nwb(recording, bin_width=WIDTH, align=align, window=(0, 1), units="region == 'CA1'")
        np.testing.assert_array_equal(onset.y[1], counts([0, 3], 7.0, 4))
    starts = mrsds.read_nwb(recording, bin_width=WIDTH, window=(0, 1), regions=["a", "b", "b", "a", "b"])
    np.testing.assert_array_equal(starts.y[1], counts([0, 3, 1, 2, 4], 8.0, 4))
    whole = mrsds.read_nwb(recording, bin_width=WIDTH, align="session", inputs=["behavior/BehavioralTimeSeries/wheel"])
    assert whole.num_trials == 1
    np.testing.assert_array_equal(whole.y[0, :4], counts([0, 3, 1, 2, 4], min(times.min() for times in SPIKES), 4))


def test_units_without_electrodes_and_what_was_not_observed(tmp_path):
    # Trial 101 goes from 8 to 10.25 s, and unit 31 was observed in all of it.
    known = [True] * 4 + [False] * 2 + [True] * 3, [True] * 9
    invalid = [True, False, False, True, False, False, True, True, True], [True, False, False] + [True] * 6
    for name, (others, last) in (("known", known), ("invalid", invalid)):
        file = session()
        seen = [np.array(OBSERVED)] * 3 + [np.array([[0.0, 45.0]])] * 2
        add_units(file, electrodes=False, brain_area=AREAS, obs_intervals=seen)
        add_trials(file)
        if name == "invalid":
            file.add_invalid_time_interval(start_time=8.3, stop_time=8.6)
        path = written(tmp_path / f"{name}.nwb", file)
        trials = mrsds.read_nwb(path, bin_width=WIDTH, regions="brain_area", units="id != 20")
        assert trials.neuron_ids.tolist() == [12, 15, 16, 31]
        assert trials.observed[1, :9].T.tolist() == [others] * 3 + [last]
    with pytest.raises(DataError, match=r"regions: units refer to no electrodes.*'brain_area'"):
        mrsds.read_nwb(path, bin_width=WIDTH)


def test_units_by_their_electrode_group_or_peak_channel(tmp_path):
    file = session()
    groups = add_probes(file)
    of_units = [groups["probe1" if area == "CA1" else "probe0"] for area in AREAS]
    add_units(file, electrodes=False, electrode_group=of_units)
    add_trials(file)
    trials = mrsds.read_nwb(written(tmp_path / "a.nwb", file), bin_width=WIDTH)
    assert dict(zip(trials.neuron_ids.tolist(), trials.dataset["region"].values.tolist(), strict=True)) == dict(
        zip(IDS, AREAS, strict=True)
    )
    file = session()
    add_probes(file)
    add_units(file, electrodes=False, peak_channel_id=[4, 3, 0, 6, 1])
    add_trials(file)
    trials = mrsds.read_nwb(written(tmp_path / "b.nwb", file), bin_width=WIDTH)
    assert trials.region_names == ["CA1", "LP", "V1"]
    assert trials.neuron_ids.tolist() == [12, 20, 15, 16, 31]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bin_width": None}, ["recording.nwb", "bin_width: found none", "0.02"]),
        ({"align": "stimulus"}, ["align: found 'stimulus'", "stimulus_time", "cues (start_time, stop_time, onset)"]),
        ({"align": "stimulus_time"}, ["window: found none"]),
        ({"align": "choice", "window": (0, 1)}, ["align: the column 'choice' of trials"]),
        ({"regions": "brain_area"}, ["regions: found 'brain_area'", "'area'", "'location'"]),
        ({"regions": ["V1"]}, ["regions: found 1 labels for 5 units"]),
        ({"region_names": ["V1"]}, ["region_names: found ['V1']", "['CA1', 'V1']"]),
        ({"inputs": ["speed"]}, ["inputs: 'speed' is no column", "behavior/BehavioralTimeSeries/wheel"]),
        ({"inputs": ["choice"]}, ["inputs: 'choice' holds no numbers"]),
        ({"labels": "outcome"}, ["labels: found 'outcome'", "'choice'"]),
        ({"align": "session", "labels": "choice"}, ["labels: found 'choice'", "no table"]),
        ({"units": "rate > 1"}, ["units: found 'rate > 1'", "rate", "'firing_rate'"]),
        ({"units": "firing_rate"}, ["units: found 'firing_rate'"]),
        ({"units": "firing_rate > 1000"}, ["units: none of 5 is left by 'firing_rate > 1000'"]),
        ({"signals": "DfOverF"}, ["neither units with spike times nor regions of interest", "Series/wheel'"]),
    ],
)
def test_what_is_asked_for_and_not_there_is_told_with_what_is(recording, options, said):
    with pytest.raises(DataError) as error:
        mrsds.read_nwb(recording, **{"bin_width": WIDTH, **options})
    for words in said:
        assert words in str(error.value)


def test_files_without_trials_units_or_regions(tmp_path):
    file = session()
    add_units(file, electrodes=False, brain_area=["V1", "", "V1", "V2", ""])
    path = written(tmp_path / "a.nwb", file)
    with pytest.raises(DataError, match=r"no table of trials.*: none\..*align='session'"):
        mrsds.read_nwb(path, bin_width=WIDTH, regions="brain_area", units="region != ''")
    with pytest.raises(DataError, match=r"2 units have no region: 15, 31\..*region != ''"):
        mrsds.read_nwb(path, bin_width=WIDTH, regions="brain_area")
    file = session()
    add_trials(file)
    with pytest.raises(DataError, match=r"neither units.*units: none; tables of intervals: {'trials': \['start_time'"):
        mrsds.read_nwb(written(tmp_path / "b.nwb", file), bin_width=WIDTH)
    with pytest.raises(DataError, match="no such file"):
        mrsds.read_nwb(tmp_path / "c.nwb", bin_width=WIDTH)
    (tmp_path / "d.nwb").write_text("text")
    with pytest.raises(DataError, match=r"d\.nwb: is a text file"):
        mrsds.read_nwb(tmp_path / "d.nwb", bin_width=WIDTH)


RATE, FRAMES = 10.0, np.stack([RNG.normal(size=400) for _ in range(3)], axis=1)


def imaging(planes, raw=False):
    """A file with a plane for each location, of three regions of interest, whose frames come one after another."""
    file = session()
    device = file.create_device(name="microscope")
    ophys = file.create_processing_module(name="ophys", description="")
    segmentation = ImageSegmentation(name="ImageSegmentation")
    ophys.add(segmentation)
    holder = DfOverF(name="DfOverF")
    ophys.add(holder)
    more = Fluorescence(name="Fluorescence")
    ophys.add(more)
    for i, location in enumerate(planes):
        channel = OpticalChannel(name="green", description="", emission_lambda=500.0)
        plane = file.create_imaging_plane(
            name=f"plane{i}",
            optical_channel=channel,
            description="",
            device=device,
            excitation_lambda=600.0,
            indicator="GCaMP",
            location=location,
        )
        table = segmentation.create_plane_segmentation(name=f"table{i}", description="", imaging_plane=plane)
        table.add_column(name="iscell", description="")
        for cell in (1, 0, 1):
            table.add_roi(image_mask=np.zeros((2, 2)), iscell=cell)
        rois = table.create_roi_table_region(region=[0, 1, 2], description="")
        time = {"rate": RATE, "starting_time": 0.02 * i}
        holder.create_roi_response_series(name=f"of_plane{i}", data=FRAMES + i, rois=rois, unit="n.a.", **time)
        rois = table.create_roi_table_region(region=[0, 1, 2], description="")
        more.create_roi_response_series(name=f"raw{i}", data=100 + FRAMES, rois=rois, unit="n.a.", **time)
    for start, stop in ((1.0, 3.0), (10.05, 12.6)):
        file.add_trial(start_time=start, stop_time=stop)
    return file


def test_fluorescence_is_averaged_over_the_frames_of_a_bin(tmp_path):
    path = written(tmp_path / "a.nwb", imaging(["V1", "unknown"]))
    trials = mrsds.read(path, units="iscell == 1")
    assert trials.bin_width == pytest.approx(1 / RATE)
    assert trials.region_names == ["V1", "plane1"]
    assert trials.neuron_ids.tolist() == ["plane0:0", "plane0:2", "plane1:0", "plane1:2"]
    assert trials.lengths.tolist() == [20, 25]
    # Frame i of plane 0 is at i / 10 s, that of plane 1 comes 20 ms later: each bin holds one of each.
    for trial, first, n in ((0, 10, 20), (1, 101, 25)):
        frames = FRAMES[first : first + n, [0, 2]]
        expected = np.concatenate([frames, frames + 1], axis=1)
        np.testing.assert_allclose(trials.y[trial, :n], expected, rtol=1e-6)
    file = imaging(["V1"])
    file.add_invalid_time_interval(start_time=1.21, stop_time=1.3)
    seen = mrsds.read(written(tmp_path / "b.nwb", file)).observed[0, :20]
    assert np.flatnonzero(~seen.any(1)).tolist() == [2]
    wide = mrsds.read_nwb(path, bin_width=0.5, signals="Fluorescence/raw1", regions="iscell")
    assert wide.region_names == ["1", "0"]
    assert wide.neuron_ids.tolist() == [0, 2, 1]
    means = 100 + FRAMES[10:30].reshape(4, 5, 3).mean(1)
    np.testing.assert_allclose(wide.y[0, :4], means[:, [0, 2, 1]], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bin_width": 0.05}, ["bin_width: bins of 0.05 s are shorter than the 0.1 s between frames"]),
        ({"signals": "Deconvolved"}, ["signals: found 'Deconvolved'", "ophys/DfOverF/of_plane0"]),
        ({"signals": ["DfOverF", "raw0"]}, ["signals: several series are of the same plane"]),
        ({"signals": "units"}, ["no units with spike times"]),
        ({"regions": ["a"] * 3}, ["regions: found labels"]),
        ({"regions": "depth"}, ["regions: found 'depth'", "'iscell'"]),
        ({"units": "iscell > 1"}, ["no region of interest is left"]),
    ],
)
def test_fluorescence_that_is_not_there(tmp_path, options, said):
    path = written(tmp_path / "a.nwb", imaging(["V1"]))
    with pytest.raises(DataError) as error:
        mrsds.read_nwb(path, **options)
    for words in said:
        assert words in str(error.value)


def test_a_configuration_asks_for_the_same(recording, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        f"data: {{data_source: mydata, data_path: {recording}, bin_width: {WIDTH}, align: 'cues:onset', "
        "inputs: [onset], units: \"quality == 'good'\", regions: area, region_names: [C, A, B]}"
    )
    config = load_config(
        path, dict([parse_assignment("data.window=[0, 1]"), parse_assignment("data.align=cues.onset")])
    )
    found = mrsds.read(config.data.recordings()[0], **config.data.reading())
    same = mrsds.read_nwb(
        recording,
        bin_width=WIDTH,
        align="cues:onset",
        window=(0, 1),
        inputs=["onset"],
        units="quality == 'good'",
        regions="area",
        region_names=["C", "A", "B"],
    )
    assert found.dataset.identical(same.dataset)
    assert found.input_names == ["onset"]
    (tmp_path / "again.yaml").write_text(resolved_yaml(config, {}))
    assert load_config(tmp_path / "again.yaml") == config
    assert "data.align" in ignored_keys(load_config(path, {"data.data_source": "oscillators"}))
    for inputs, width in ((2, 2), (None, None), (["onset"], None)):
        assert load_config(path, {"data.inputs": inputs}).data.input_width == width
    for wrong in (-1, [1, 2], []):
        with pytest.raises(ConfigError, match=r"data\.inputs: found .*a width, at least 0, or a list of names"):
            load_config(path, {"data.inputs": wrong})


def test_a_file_of_spikes_is_known_by_what_it_holds(recording, tmp_path):
    renamed = shutil.copy(recording, tmp_path / "another-day.h5")
    assert needs_binning(renamed)
    with pytest.raises(DataError, match=r"none\.nwb: no such file"):
        needs_binning(tmp_path / "none.nwb")


@pytest.mark.filterwarnings("ignore:.*left out")
def test_spikes_without_a_configuration_are_counted_in_bins_of_20_ms(recording, tmp_path):
    asked = {"data.align": "stimulus_time", "data.window": [0, 1], "data.inputs": ["contrast"]}
    config, trials = suited({"data.data_path": str(recording), **asked})
    assert (trials.num_bins, trials.bin_width, trials.input_names) == (50, 0.02, ["contrast"])
    assert config.model.emissions.dist == "poisson"
    assert config.notes == ("spikes are counted in bins of 0.02 s; data.bin_width takes another width",)
    init(str(recording), out=tmp_path / "mine.yaml", settings={"data.bin_width": WIDTH, **asked})
    data = load_config(tmp_path / "mine.yaml").data
    assert (data.bin_width, data.align, data.window, data.inputs) == (WIDTH, "stimulus_time", (0, 1), ("contrast",))


def test_what_is_asked_of_an_nwb_file_cannot_be_asked_of_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", ys=np.zeros((2, 3, 2)), region_sizes=[1, 1])
    assert not needs_binning(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"a\.npz: holds binned trials, so leave out align, window"):
        mrsds.read(tmp_path / "a.npz", align="cue", window=(0, 1), regions=None)
