"""What the benchmarks that are run by hand make of their measurements, and hand from process to process."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.fixture(scope="module")
def scaling():
    return runpy.run_path(str(BENCHMARKS / "scaling.py"))


@pytest.fixture(scope="module")
def peers():
    sys.path.insert(0, str(BENCHMARKS / "peers"))
    yield runpy.run_path(str(BENCHMARKS / "peers" / "__main__.py"), run_name="imported")
    sys.path.remove(str(BENCHMARKS / "peers"))


def test_an_exponent_is_that_of_the_upper_half(scaling):
    base = scaling["BASES"]["step"]
    seconds = {50: 1.0, 100: 1.0, 500: 2.0, 1000: 2.0 * 2**1.5, 5000: 2.0 * 10**1.5}
    rows = [scaling["Row"](base._replace(bins=bins), value, 1.0, value**2) for bins, value in seconds.items()]
    other = scaling["Row"](base._replace(states=5), 99.0, 1.0, 1.0)
    found = scaling["along"]([other, *rows[::-1]], "step", "bins")
    assert found == rows
    assert scaling["exponent"](found, "bins") == pytest.approx(1.5)
    assert scaling["exponent"](found, "bins", "megabytes") == pytest.approx(3.0)


def test_every_case_differs_from_its_base_in_one_size(scaling):
    for kind, base in scaling["BASES"].items():
        cases = list(scaling["cases"](kind))
        assert cases[0] == base
        assert len(set(cases)) == len(cases)
        assert {sum(a != b for a, b in zip(case, base, strict=True)) for case in cases[1:]} == {1}


def test_a_recording_is_read_as_it_was_written(peers, tmp_path):
    import exchange

    rng = np.random.default_rng(0)
    train, test = (
        exchange.Part([rng.normal(size=(n, 4)) for n in lengths], [rng.normal(size=(n, 2)) for n in lengths])
        for lengths in ((3, 5, 2), (4, 1))
    )
    exchange.write_recording(tmp_path / "recording.npz", exchange.Recording(train, test, np.array([1, 3]), 2, 3, 7))
    found = exchange.read_recording(tmp_path / "recording.npz")
    assert (found.latents, found.states, found.seed) == (2, 3, 7)
    for given, back in ((train, found.train), (test, found.test)):
        for a, b in zip(given.y + given.u, back.y + back.u, strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_a_peer_finds_is_scored_trial_by_trial(peers):
    import exchange

    from mrsds_ppl.data.simulate import simulate_wells

    test = simulate_wells(0, num_trials=4, num_bins=12, neurons_per_region=2)
    inside = np.arange(test.num_bins) < test.lengths[:, None]
    x, z = test.x[inside], np.eye(2)[test.z[inside]]
    # Latents in other coordinates and states under other numbers are the truth still; a shift by one bin is not.
    turned = np.concatenate([part @ [[1.0, 2.0], [0.5, -1.0]] + 3.0 for part in np.split(x, 3, axis=1)], axis=1)
    right = peers["scored"](exchange.Found("the end", turned, z[:, ::-1], 1.0, 2.0), test, False)
    np.testing.assert_allclose(right.r2, 1.0, atol=1e-6)
    assert right.states == 1.0
    late = peers["scored"](
        exchange.Found("the end", np.roll(turned, 1, axis=0), np.roll(z, 1, axis=0), 1.0, 2.0), test, False
    )
    assert late.r2.max() < 0.999
    assert late.states < 1.0
