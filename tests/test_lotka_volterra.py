"""The switching Lotka-Volterra simulator against a scalar loop, and the law of what it draws."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from mrsds_ppl.data.simulate import SIMULATORS, simulate_lotka_volterra
from mrsds_ppl.data.simulate.lotka_volterra import euler
from mrsds_ppl.errors import ConfigError

# Few Euler steps: the law of switches, loadings and noise does not depend on them.
QUICK = {"steps_per_bin": 10, "step": 0.01}


def scalar_path(states, steps_per_bin, step):
    """Prey and predator of one trial, one Euler step at a time, written as the equations are."""
    x, y = 1.0, 1.0
    path = [(x, y)]
    for state in states[1:]:
        alpha, beta, gamma, delta = [(2 / 3, 4 / 3, 1.0, 1.0), (0.9, 1.1, 0.8, 1.2)][state]
        for _ in range(steps_per_bin):
            dx, dy = alpha * x - beta * x * y, delta * x * y - gamma * y
            if state == 1:  # backwards in time
                dx, dy = -dx, -dy
            x, y = x + step * dx, y + step * dy
        path.append((x, y))
    return np.array(path)


def test_euler_equals_a_scalar_loop():
    states = np.random.default_rng(0).integers(0, 2, (3, 8))
    found = euler(states, np.ones(2), 50, 0.01)
    for trial, z in enumerate(states):
        np.testing.assert_allclose(found[trial], scalar_path(z, 50, 0.01), rtol=1e-12)


def test_latents_of_a_simulation_follow_its_states():
    trials = simulate_lotka_volterra(1, 4, num_bins=20, neurons_per_region=2, state_noise=0.0, **QUICK)
    for x, z in zip(trials.x, trials.z, strict=True):
        np.testing.assert_allclose(x, scalar_path(z, 10, 0.01), rtol=1e-6)


def test_published_sizes_and_steps_are_the_defaults():
    defaults = {n: p.default for n, p in inspect.signature(simulate_lotka_volterra).parameters.items()}
    assert (defaults["num_bins"], defaults["steps_per_bin"], defaults["step"]) == (150, 500, 0.001)
    assert (defaults["neurons_per_region"], defaults["observation_noise"]) == (50, 0.5)
    assert (defaults["state_noise"], defaults["random_first_state"], defaults["cue"]) == (1.5e-4, False, False)
    trials = simulate_lotka_volterra(0, num_trials=2)
    assert trials.y.shape == (2, 150, 100)
    assert trials.x.shape == (2, 150, 2)
    assert trials.region_sizes == [50, 50]
    assert trials.num_inputs == 0
    assert trials.messages is None
    trials.validate(counts=False)
    assert trials.x.min() > 0
    assert trials.x.max() < 10


def test_running_a_regime_forth_and_back_returns():
    """Regime 1 backwards from where its own forward equations lead returns to the start, to the order of the step."""
    alpha, beta, gamma, delta = 0.9, 1.1, 0.8, 1.2
    x, y = 1.0, 1.0
    for _ in range(5000):
        x, y = x + 2e-4 * (alpha * x - beta * x * y), y + 2e-4 * (delta * x * y - gamma * y)
    back = euler(np.array([[1, 1]]), np.array([x, y]), 5000, 2e-4)[0, 1]
    assert abs(x - 1.0) + abs(y - 1.0) > 0.1
    np.testing.assert_allclose(back, 1.0, atol=1e-3)


def test_each_trial_has_one_to_three_separate_switches():
    z = simulate_lotka_volterra(2, 600, num_bins=40, neurons_per_region=1, steps_per_bin=1).z
    assert (z[:, 0] == 0).all()
    switches = [np.flatnonzero(np.diff(row)) + 1 for row in z]
    counts = np.bincount([len(s) for s in switches], minlength=5)
    assert counts[0] == counts[4:].sum() == 0
    # Multinomial(600, 1/3): standard deviation 11.5.
    assert np.abs(counts[1:4] - 200).max() < 50
    for s in switches:
        assert np.diff([0, *s, 40]).min() >= 4
    once = np.array([s[0] for s in switches if len(s) == 1])
    # A lone switch is uniform on bins 4 to 36: mean 20, standard deviation 9.5, and about 200 of them.
    assert abs(once.mean() - 20) < 3.5
    assert once.min() < 7
    assert once.max() > 33


def test_first_regime_may_be_random():
    z = simulate_lotka_volterra(2, 400, num_bins=20, neurons_per_region=1, steps_per_bin=1, random_first_state=True).z
    assert 140 < z[:, 0].sum() < 260


def test_regions_see_only_their_own_latent_with_normal_weights():
    trials = simulate_lotka_volterra(3, 3, num_bins=40, neurons_per_region=400, observation_noise=0.0, **QUICK)
    assert trials.region_names == ["prey", "predator"]
    x, y = trials.x.reshape(-1, 2), trials.y.reshape(-1, 800)
    weights = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(weights[1, :400], 0.0, atol=1e-4)
    np.testing.assert_allclose(weights[0, 400:], 0.0, atol=1e-4)
    own = np.concatenate([weights[0, :400], weights[1, 400:]])
    assert stats.kstest(own, "norm").pvalue > 1e-3


def test_noise_is_independent_over_trials_bins_and_neurons():
    sizes = {"num_trials": 30, "num_bins": 40, "neurons_per_region": 10}
    quiet = simulate_lotka_volterra(4, observation_noise=0.0, **sizes, **QUICK)
    noise = simulate_lotka_volterra(4, observation_noise=0.5, **sizes, **QUICK).y - quiet.y
    assert stats.kstest(noise.ravel()[:5000] / 0.5, "norm").pvalue > 1e-3
    assert noise.std() == pytest.approx(0.5, rel=0.02)
    # A constant shared along any axis would leave a mean of that axis far from zero.
    for axis in range(3):
        shared = noise.mean(axis=tuple(a for a in range(3) if a != axis))
        assert np.abs(shared).max() < 5 * 0.5 / np.sqrt(noise.size / noise.shape[axis])
    lag = np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]
    assert abs(lag) < 5 / np.sqrt(noise.size)


def test_cue_marks_the_bin_in_which_a_regime_begins():
    trials = simulate_lotka_volterra(5, 6, num_bins=30, neurons_per_region=1, cue=True, **QUICK)
    assert trials.u.shape == (6, 30, 2)
    for z, u in zip(trials.z, trials.u, strict=True):
        begins = [t for t in range(30) if t == 0 or z[t] != z[t - 1]]
        expected = np.zeros((30, 2))
        expected[begins, z[begins]] = 1
        np.testing.assert_array_equal(u, expected)


def test_seed_alone_decides():
    first, again, other = (simulate_lotka_volterra(s, 2, num_bins=20, **QUICK) for s in (0, 0, 1))
    assert first.dataset.identical(again.dataset)
    assert not np.array_equal(first.y, other.y)


def test_cue_changes_nothing_else():
    plain, cued = (simulate_lotka_volterra(0, 2, num_bins=20, cue=cue, **QUICK) for cue in (False, True))
    np.testing.assert_array_equal(plain.y, cued.y)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_trials": 0}, "num_trials: found 0"),
        ({"neurons_per_region": -1}, "neurons_per_region: found -1"),
        ({"num_bins": 5}, "num_bins: found 5, need a whole number of at least 20"),
        ({"observation_noise": -0.5}, "observation_noise: found -0.5"),
        ({"state_noise": float("nan")}, "state_noise: found nan"),
        ({"step": 0.0}, "step: found 0"),
        ({"step": -0.001}, "step: found -0.001"),
        ({"step": 5.0}, "step: found 5.0.*diverges"),
        ({"seed": -1}, "seed: found -1"),
    ],
)
def test_bad_options_are_named(options, said):
    with pytest.raises(ConfigError, match=said):
        simulate_lotka_volterra(**{"seed": 0, **options})


def test_wrong_types_are_named_where_annotations_are_not_enforced():
    """As users run it, in a process of its own: a YAML value may have any type."""
    code = """if True:
        from mrsds_ppl.data.simulate import simulate_lotka_volterra
        from mrsds_ppl.errors import ConfigError
        for options in ({"num_trials": 2.5}, {"num_trials": "a"}, {"num_bins": None}, {"steps_per_bin": True},
                        {"observation_noise": "x"}, {"cue": "yes"}, {"random_first_state": 1}):
            try:
                simulate_lotka_volterra(0, **options)
            except ConfigError as error:
                print(error)
    """
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.splitlines()
    starts = [
        "num_trials: found 2.5, need a whole number",
        "num_trials: found 'a'",
        "num_bins: found None",
        "steps_per_bin: found True",
        "observation_noise: found 'x', need a number",
        "cue: found 'yes', need true or false",
        "random_first_state: found 1, need true or false",
    ]
    assert len(said) == len(starts)
    for message, start in zip(said, starts, strict=True):
        assert message.startswith(f"data.simulation.{start}")


def test_simulator_is_registered():
    assert SIMULATORS["lotka-volterra"] is simulate_lotka_volterra
