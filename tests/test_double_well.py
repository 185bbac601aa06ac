"""The double well against a scalar loop, its fixed points, and the law of what it draws."""

import inspect

import numpy as np
import pytest
from scipy import stats

from mrsds_ppl.config.sections import DataConfig
from mrsds_ppl.data.simulate import SIMULATORS, simulate_double_well
from mrsds_ppl.data.simulate.double_well import input_effect, sent_messages, switch_probability
from mrsds_ppl.errors import ConfigError

HALF = np.sqrt(0.5)


def residual(trials):
    """x_t - x_{t-1} - sum of messages - effect of the input, from the fields of the trials alone."""
    change = np.diff(trials.x.astype(float), axis=1)
    told = trials.messages[:, 1:].astype(float).sum(3).reshape(change.shape)
    evidence = np.zeros_like(change)
    evidence[..., 0] = np.where(trials.z[:, 1:] == 0, 0.1 * trials.u[:, 1:, 0], 0.0)
    return change - told - evidence


def scalar_change(z, x):
    """Change of a_1, a_2, c_1, c_2 in a bin without input, one number at a time, as the equations are written."""
    a1, a2, c1, c2 = x
    near = np.exp(-(c1**2) - c2**2)
    up, across = (1 - 2 * c1 * c1) * near, -2 * c1 * c2 * near
    if z == 0:
        return [0.1 * (a1 - a1**3), -0.1 * a2, 0.045 * up + 0.06 * a2, 0.045 * across]
    return [-0.08 * a1, 0.08 * (0.5 - a2) + 0.025 * abs(c1 + HALF), -0.045 * up - 0.015, -0.045 * across]


def test_messages_equal_a_scalar_loop():
    rng = np.random.default_rng(0)
    z, x = rng.integers(0, 2, 50), rng.normal(size=(50, 4))
    found = sent_messages(z, x).sum(2).reshape(50, 4)
    np.testing.assert_allclose(found, [scalar_change(*row) for row in zip(z, x, strict=True)], rtol=1e-12, atol=1e-15)


def test_messages_and_input_make_up_every_change_where_there_is_no_noise():
    trials = simulate_double_well(1, 40, neurons_per_region=1, state_noise=0.0)
    assert set(np.unique(trials.z)) == {0, 1}
    assert np.abs(residual(trials)).max() < 5e-7  # of float32
    assert (trials.messages[:, 0] == 0).all()


def test_what_messages_and_input_leave_over_is_independent_normal_noise():
    trials = simulate_double_well(2, 200, neurons_per_region=1, state_noise=0.02)
    noise = residual(trials)
    assert stats.kstest(noise.ravel()[:20000] / 0.02, "norm").pvalue > 1e-3
    flat = noise.reshape(-1, 4)
    np.testing.assert_allclose(flat.std(0), 0.02, rtol=0.03)
    assert np.abs(np.corrcoef(flat.T) - np.eye(4)).max() < 5 / np.sqrt(len(flat))
    for axis in range(3):
        shared = noise.mean(axis=tuple(a for a in range(3) if a != axis))
        assert np.abs(shared).max() < 5 * 0.02 / np.sqrt(noise.size / noise.shape[axis])
    # The same size in both states: one covariance serves them.
    back = trials.z[:, 1:] == 1
    assert noise[back].std() == pytest.approx(noise[~back].std(), rel=0.05)


def test_the_accumulator_alone_has_its_fixed_points_at_minus_one_zero_and_one():
    points = np.array([[-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])

    def own(x):
        return sent_messages(np.zeros(len(x), int), x)[:, 0, 0]

    np.testing.assert_allclose(own(points), 0.0, atol=1e-15)
    beside = np.array([1e-6, 0.0, 0.0, 0.0])
    slope = (own(points + beside) - own(points - beside))[:, 0] / 2e-6
    np.testing.assert_allclose(slope, [-0.2, 0.1, -0.2], atol=1e-6)
    grid = np.zeros((400, 4))
    grid[:, 0] = np.linspace(-1.605, 1.595, 400)
    signs = np.sign(own(grid)[:, 0])
    assert (np.diff(signs) != 0).sum() == 3


# The constant push of the return moves its rest to the root of (2 c^2 - 1) exp(-c^2) = 1/3.
@pytest.mark.parametrize(("state", "rest"), [(0, HALF), (1, -0.95757)])
def test_the_controller_rests_on_the_right_and_when_returning_on_the_left(state, rest):
    x = np.array([[0.0, 0.0, 0.0, 0.05]])
    for _ in range(2000):
        x[:, 2:] += sent_messages(np.array([state]), x)[:, 1, 1]
    np.testing.assert_allclose(x[0, 2:], [rest, 0.0], atol=1e-4)


def test_each_state_has_one_message_between_the_regions():
    trials = simulate_double_well(3, 60, neurons_per_region=1)
    size = np.linalg.norm(trials.messages, axis=-1)[:, 1:]
    back = trials.z[:, 1:] == 1
    assert (size[back][:, 1, 0] == 0).all()
    assert (size[~back][:, 0, 1] == 0).all()
    assert size[~back][:, 1, 0].mean() > 0.005
    assert size[back][:, 0, 1].mean() > 0.005


def test_states_follow_their_law_given_the_latents_before():
    trials = simulate_double_well(4, 800, neurons_per_region=1)
    assert (trials.z[:, 0] == 0).all()
    before, after = trials.z[:, :-1].ravel(), trials.z[:, 1:].ravel()
    c1 = trials.x[:, :-1, 2].astype(float).ravel()
    for state, toward in ((0, c1), (1, -c1)):
        expected = 1 / (1 + np.exp(-40 * (toward - 0.6)))
        from_here = before == state
        np.testing.assert_allclose(
            switch_probability(before, trials.x[:, :-1].reshape(-1, 4).astype(float))[from_here], expected[from_here]
        )
        for low, high in ((0.0, 0.2), (0.2, 0.6), (0.6, 1.0)):
            some = from_here & (expected >= low) & (expected < high)
            count = (after[some] != state).sum()
            spread = np.sqrt((expected[some] * (1 - expected[some])).sum())
            assert abs(count - expected[some].sum()) < 4 * spread + 1e-9


def test_the_regions_go_out_come_back_and_start_again():
    trials = simulate_double_well(5, 200, neurons_per_region=1)
    switches = (np.diff(trials.z, axis=1) != 0).sum(1)
    assert (switches >= 2).mean() > 0.8
    ends = np.flatnonzero(switches >= 2)
    for trial in ends:
        out, back = np.flatnonzero(np.diff(trials.z[trial]))[:2]
        assert trials.x[trial, out, 2] > 0.3
        assert trials.x[trial, back, 2] < -0.3
    outs = np.array([trials.x[i, np.argmax(trials.z[i])] for i in ends])
    homes = np.array([trials.x[i, np.flatnonzero(np.diff(trials.z[i]))[1]] for i in ends])
    assert np.median(np.abs(outs[:, 0])) > 0.8
    assert np.median(np.abs(homes[:, 0])) < 0.25
    assert np.median(outs[:, 1]) < 0.15
    assert np.median(homes[:, 1]) == pytest.approx(0.5, abs=0.1)
    # Enough ground of each fixed point of the accumulator is visited to find it.
    gathering = trials.x[trials.z == 0]
    for point in (-1, 0, 1):
        assert (np.hypot(gathering[:, 0] - point, gathering[:, 1]) < 0.2).sum() > 300


def test_evidence_is_pulses_of_one_size_that_favour_the_labelled_side_and_decide():
    trials = simulate_double_well(6, 1000, neurons_per_region=1)
    assert trials.u.shape == (1000, 75, 1)
    pulses = trials.u[..., 0].astype(float) / 0.55
    np.testing.assert_allclose(pulses, np.round(pulses), atol=1e-5)
    assert (pulses[:, :3] == 0).all()
    assert (pulses[:, 20:] == 0).all()
    assert (np.abs(pulses[:, 3:20]).sum(0) > 0).all()
    sign = np.where(trials.labels == "right", 1, -1)
    assert set(trials.labels) == {"left", "right"}
    # Share uniform on 0.5 to 0.8: 25 (2 * 0.65 - 1) pulses more on the own side; standard deviation sqrt(25 + 19).
    assert abs((pulses.sum(1) * sign).mean() - 7.5) < 5 * 6.6 / np.sqrt(1000)
    decided = np.sign(trials.x[:, 25, 0]) == np.sign(pulses.sum(1))
    assert decided[np.abs(pulses.sum(1)) > 4].mean() > 0.95


def test_regions_see_only_their_own_latents_with_independent_noise():
    quiet = simulate_double_well(7, 3, neurons_per_region=300, observation_noise=0.0)
    assert quiet.region_names == ["accumulator", "controller"]
    x, y = quiet.x.reshape(-1, 4), quiet.y.reshape(-1, 600)
    weights = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(weights[2:, :300], 0.0, atol=1e-4)
    np.testing.assert_allclose(weights[:2, 300:], 0.0, atol=1e-4)
    assert stats.kstest(np.concatenate([weights[:2, :300], weights[2:, 300:]]).ravel(), "norm").pvalue > 1e-3
    noise = simulate_double_well(7, 3, neurons_per_region=300, observation_noise=0.5).y - quiet.y
    assert noise.std() == pytest.approx(0.5, rel=0.02)
    for axis in range(3):
        shared = noise.mean(axis=tuple(a for a in range(3) if a != axis))
        assert np.abs(shared).max() < 5 * 0.5 / np.sqrt(noise.size / noise.shape[axis])


def test_published_sizes_are_the_defaults():
    defaults = {n: p.default for n, p in inspect.signature(simulate_double_well).parameters.items()}
    assert (defaults["num_trials"], defaults["num_bins"], defaults["neurons_per_region"]) == (450, 75, 50)
    assert defaults["cue"] is False
    trials = simulate_double_well(0, 2)
    assert trials.y.shape == (2, 75, 100)
    assert trials.messages.shape == (2, 75, 2, 2, 2)
    assert trials.bin_width == pytest.approx(0.1)
    trials.validate(counts=False)


def test_cue_adds_the_beginnings_of_states_and_changes_nothing_else():
    plain, cued = (simulate_double_well(8, 20, neurons_per_region=1, cue=cue) for cue in (False, True))
    np.testing.assert_array_equal(plain.y, cued.y)
    np.testing.assert_array_equal(plain.u[..., 0], cued.u[..., 0])
    begins = np.zeros(cued.z.shape)
    begins[:, 1:] = cued.z[:, 1:] != cued.z[:, :-1]
    np.testing.assert_array_equal(cued.u[..., 1], begins)


def test_evidence_is_ignored_on_the_way_back():
    effect = input_effect(np.array([0, 1]), np.array([2.0, 2.0]))
    np.testing.assert_allclose(effect, [[0.2, 0, 0, 0], [0, 0, 0, 0]])


def test_seed_alone_decides():
    first, again, other = (simulate_double_well(s, 2) for s in (0, 0, 1))
    assert first.dataset.identical(again.dataset)
    assert not np.array_equal(first.y, other.y)


@pytest.mark.parametrize("state_noise", [0.0, 0.5])
def test_latents_stay_finite_with_the_largest_noise_allowed(state_noise):
    x = simulate_double_well(9, 300, neurons_per_region=1, state_noise=state_noise, start_noise=0.5).x
    assert np.isfinite(x).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_trials": 0}, "num_trials: found 0, need a whole number of at least 1"),
        ({"num_bins": 5}, "num_bins: found 5, need a whole number of at least 20 to hold the evidence"),
        ({"neurons_per_region": -1}, "neurons_per_region: found -1"),
        ({"observation_noise": -0.5}, "observation_noise: found -0.5"),
        ({"observation_noise": float("inf")}, "observation_noise: found inf"),
        ({"state_noise": float("nan")}, "state_noise: found nan"),
        ({"state_noise": 2.0}, "state_noise: found 2.0, need a number of at least 0 and at most 0.5"),
        ({"start_noise": -1.0}, "start_noise: found -1.0"),
        ({"seed": -1}, "seed: found -1"),
    ],
)
def test_bad_options_are_named(options, said):
    with pytest.raises(ConfigError, match=said):
        simulate_double_well(**{"seed": 0, **options})


def test_simulator_is_registered_under_its_own_and_the_published_names():
    assert SIMULATORS["double-well"] is simulate_double_well
    for name in ("double-well", "double-well-2smoothnew", "double-well-2smoothnew2b"):
        assert DataConfig(data_source=name).data_source == "double-well"
