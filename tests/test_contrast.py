"""Contrasts of conditions and epochs: against SciPy and exact enumeration, and how often they claim what is not so."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from mrsds_ppl.analysis.contrast import contrast_conditions, contrast_epochs, trial_norms
from mrsds_ppl.analysis.contrast.designs import TwoConditions, TwoEpochs
from mrsds_ppl.analysis.contrast.permutation import compare
from mrsds_ppl.errors import DataError

REGIONS = ["a", "b", "c"]


def norms_of(values):
    """Of trials, three regions and an input; one draw."""
    coords = {"target": REGIONS, "source": [*REGIONS, "input 0"]}
    return xr.DataArray(values[None], coords, ("draw", "trial", "target", "source"))


def random_norms(rng, trials, regions=3):
    """Skewed, of one size for each trial and one for each message, so that messages go together."""
    shared = rng.normal(size=(trials, 1, 1))
    return norms_of(np.exp(0.3 * shared + 0.3 * rng.normal(size=(trials, regions, regions + 1))))


def welch(first, second, axis=-1):
    error = np.sqrt(first.var(axis, ddof=1) / first.shape[axis] + second.var(axis, ddof=1) / second.shape[axis])
    return np.abs(second.mean(axis) - first.mean(axis)) / error


@pytest.mark.parametrize(("of_first", "of_second"), [(4, 4), (5, 7)])
def test_p_values_over_all_orders_are_those_of_scipy(of_first, of_second):
    values = random_norms(np.random.default_rng(0), of_first + of_second)
    labels = np.repeat(["x", "y"], [of_first, of_second])
    found = contrast_conditions(values, labels)
    parts = values.values[0, :of_first], values.values[0, of_first:]
    expected = stats.permutation_test(
        parts, lambda a, b, axis: welch(a, b, axis), axis=0, vectorized=True, n_resamples=np.inf, alternative="greater"
    )
    np.testing.assert_allclose(found["p_value"], expected.pvalue, rtol=1e-12)
    np.testing.assert_allclose(found["difference"], parts[1].mean(0) - parts[0].mean(0))
    np.testing.assert_allclose(found["mean_second"] - found["mean_first"], found["difference"])
    assert found.attrs["orders"] == len(expected.null_distribution)
    alike = 2 if of_first == of_second else 1
    assert found.attrs["smallest_p"] == pytest.approx(alike / found.attrs["orders"])
    assert found["p_value"].min() >= found.attrs["smallest_p"]


def test_p_values_of_random_orders_come_close_to_those_of_all():
    values = random_norms(np.random.default_rng(1), 14)
    labels = np.tile(["x", "y"], 7)
    exact = contrast_conditions(values, labels, permutations=4_000)
    drawn = contrast_conditions(values, labels, permutations=3_000)
    assert (exact.attrs["orders"], drawn.attrs["orders"]) == (3432, 3000)
    np.testing.assert_allclose(drawn["p_value"], exact["p_value"], atol=0.03)
    # The observed order is one of those counted: no p-value is zero.
    more, labels = random_norms(np.random.default_rng(1), 40), np.tile(["x", "y"], 20)
    more[:, labels == "y"] += 10
    assert contrast_conditions(more, labels, permutations=999)["p_value"].max() == pytest.approx(1 / 1_000)


def test_signs_of_epochs_are_those_of_scipy():
    rng = np.random.default_rng(2)
    values = rng.exponential(size=(9, 5)) - 0.6
    expected = stats.permutation_test(
        (values,),
        lambda d, axis: np.abs(d.mean(axis)) / d.std(axis, ddof=1),
        axis=0,
        vectorized=True,
        permutation_type="samples",
        n_resamples=np.inf,
        alternative="greater",
    )
    found = compare(TwoEpochs(values), level=0.9, permutations=1_000, rng=rng)
    np.testing.assert_allclose(found.p_value, expected.pvalue, rtol=1e-12)
    np.testing.assert_allclose(found.difference, values.mean(0))


def test_error_is_that_of_welch_and_of_a_regression_with_sessions():
    """The difference over sessions is the coefficient of the condition beside one constant for each session."""
    rng = np.random.default_rng(3)
    values, second, session = rng.normal(size=(30, 2)), rng.random(30) < 0.4, np.repeat([0, 1, 2], 10)
    alone = TwoConditions(values, second, np.zeros(30, int))
    difference, error = alone.estimate(alone.observed)
    expected = stats.ttest_ind(values[second], values[~second], equal_var=False)
    np.testing.assert_allclose((difference / error)[0], expected.statistic)
    blocked = TwoConditions(values, second, session)
    features = np.column_stack([second, session[:, None] == np.arange(3)]).astype(float)
    np.testing.assert_allclose(
        blocked.estimate(blocked.observed).difference[0], np.linalg.lstsq(features, values)[0][0]
    )


def test_orders_and_resamples_stay_in_their_session():
    rng = np.random.default_rng(4)
    session, second = rng.integers(0, 3, size=40), rng.random(40) < 0.5
    design = TwoConditions(rng.normal(size=(40, 1)), second, session)
    orders, resamples = design.orders(rng, 200), design.resamples(rng, 200)
    assert (orders.sum(1) == 1).all()
    assert len(np.unique(orders[:, 1], axis=0)) == 200
    for number in range(3):
        here = session == number
        assert (orders[:, 1, here].sum(1) == second[here].sum()).all()
        for side in (0, 1):
            own = here & (second == bool(side))
            assert (resamples[:, side, own].sum(1) == own.sum()).all()
            assert (resamples[:, side, here & ~own] == 0).all()
    small = TwoConditions(np.zeros((7, 1)), np.array([1, 0, 0, 1, 1, 0, 0], bool), np.array([0, 0, 0, 1, 1, 1, 1]))
    every = small.every_order()
    assert len(every) == small.num_orders == 3 * 6 == len(np.unique(every, axis=0))
    assert {tuple(some) for some in every[:, 1, :3].tolist()} == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}


def test_sessions_that_differ_are_no_difference_between_conditions():
    """One session has larger messages and more trials of one condition."""
    rng = np.random.default_rng(5)
    sessions = np.repeat(["mouse1", "mouse2", "mouse3"], [30, 30, 5])
    labels = np.concatenate([np.repeat(["x", "y"], [24, 6]), np.repeat(["x", "y"], [6, 24]), np.repeat("x", 5)])
    values = random_norms(rng, 65)
    values[:, sessions == "mouse2"] += 1.0
    values[:, sessions == "mouse3"] -= 0.5
    blocked = contrast_conditions(values, labels, sessions=sessions, permutations=1_999)
    assert (contrast_conditions(values, labels, permutations=1_999)["q_value"] < 0.05).any()
    assert not (blocked["q_value"] < 0.05).any()
    assert (blocked.attrs["num_first"], blocked.attrs["num_second"]) == (30, 30)
    with pytest.raises(DataError, match="cannot be told from the session"):
        contrast_conditions(values, np.where(sessions == "mouse2", "x", "y"), sessions=sessions)


def test_q_values_are_of_messages_and_leave_local_changes_out():
    rng = np.random.default_rng(6)
    values, labels = random_norms(rng, 40), np.tile(["x", "y"], 20)
    values[:, labels == "y", 1] += 0.8
    found = contrast_conditions(values, labels, permutations=1_999)
    own = np.eye(3, 4, dtype=bool)
    assert np.isnan(found["q_value"].values[own]).all()
    expected = stats.false_discovery_control(found["p_value"].values[~own], method="by")
    np.testing.assert_allclose(found["q_value"].values[~own], expected)
    assert np.isfinite(found["p_value"]).all()
    assert (found["q_value"].sel(target="b", source=["a", "c", "input 0"]) < 0.05).all()
    assert (found.attrs["first"], found.attrs["second"], found.attrs["units"]) == ("x", "y", "latent units per bin")


@pytest.mark.parametrize("shuffles", [60, pytest.param(200, marks=pytest.mark.nightly)])
def test_with_shuffled_labels_hardly_anything_is_claimed(shuffles):
    """Nothing differs, so that any claim is false, and the rate of false discoveries is that of tables with a claim."""
    rng = np.random.default_rng(7)
    values, labels = random_norms(rng, 40), np.repeat(["x", "y"], [12, 28])
    claims = [
        (contrast_conditions(values, rng.permutation(labels), permutations=999, seed=i)["q_value"] < 0.05).any()
        for i in range(shuffles)
    ]
    assert sum(claims) <= 0.05 * shuffles


def test_intervals_hold_the_difference():
    """Skewed values, unequal spreads, ten and twenty trials: nine of ten intervals at a nominal 0.9."""
    rng, held = np.random.default_rng(8), []
    for _ in range(40):
        values = np.concatenate([rng.gamma(4.0, 0.25, size=(10, 20)), 0.5 + rng.gamma(4.0, 0.5, size=(20, 20))])
        design = TwoConditions(values, np.arange(30) >= 10, np.zeros(30, int))
        found = compare(design, level=0.9, permutations=1, rng=rng)
        held.append((found.low <= 1.5) & (found.high >= 1.5))
    assert np.mean(held) == pytest.approx(0.9, abs=0.03)


def messages_of(trials=8, bins=6, draws=2):
    rng = np.random.default_rng(9)
    values = rng.normal(size=(draws, trials, bins, 2, 2, 2)).astype(np.float32)
    values[:, :, 0] = 0.0
    values[:, 0, 4:] = np.nan
    values[..., 1, :, 1] = np.nan
    dims = ("draw", "trial", "time", "target", "source", "latent")
    coords = {"time": np.arange(bins) * 0.1, "target": ["a", "b"], "source": ["a", "b"]}
    return xr.DataArray(values, coords, dims)


def test_a_trial_counts_once_and_by_its_own_bins():
    messages = messages_of()
    found, values = trial_norms(messages), messages.values
    assert found.dims == ("draw", "trial", "target", "source")
    by_hand = [np.linalg.norm(values[1, 0, t, 0, 1]) for t in (1, 2, 3)]
    assert found.values[1, 0, 0, 1] == pytest.approx(np.mean(by_hand), rel=1e-5)
    assert found.values[0, 3, 1, 0] == pytest.approx(np.abs(values[0, 3, 1:, 1, 0, 0]).mean(), rel=1e-5)


def test_intervals_have_the_spread_of_draws_that_all_trials_share():
    rng = np.random.default_rng(12)
    norms, labels = random_norms(rng, 40), np.tile(["x", "y"], 20)
    draws = xr.concat([norms] * 200, "draw")
    shared = rng.normal(size=200)
    draws[:, labels == "y", 0, 1] += shared[:, None]
    found = contrast_conditions(draws, labels, permutations=99)
    width = (found["high"] - found["low"]).values
    alone = contrast_conditions(norms, labels, permutations=99)
    expected = (alone["high"] - alone["low"]).values
    np.testing.assert_allclose(np.delete(width, 1), np.delete(expected, 1), rtol=0.05)
    assert width[0, 1] == pytest.approx(2 * 1.645, rel=0.15)
    np.testing.assert_allclose(found["difference"][0, 1], alone["difference"][0, 1] + shared.mean())


def test_intervals_have_nothing_of_draws_that_are_independent_from_trial_to_trial():
    rng = np.random.default_rng(13)
    norms, labels = random_norms(rng, 40), np.tile(["x", "y"], 20)
    draws = xr.concat([norms] * 100, "draw") + rng.normal(size=(100, *norms.shape[1:]))
    draws = draws - draws.mean("draw") + norms[0]
    found, alone = (contrast_conditions(some, labels, permutations=99) for some in (draws, norms))
    np.testing.assert_allclose(found["difference"], alone["difference"])
    ratio = (found["high"] - found["low"]) / (alone["high"] - alone["low"])
    # Draws of one trial have twice the spread of trials.
    assert float(ratio.mean()) < 1.2


def test_epochs_of_the_same_trials():
    messages = messages_of()
    messages[:, :, 3:] *= 2
    found = contrast_epochs(messages, {"early": (0.0, 0.25), "late": (0.25, 1.0)}, level=0.5)
    expected = trial_norms(messages, 0.25) - trial_norms(messages, 0.0, 0.25)
    np.testing.assert_allclose(found["difference"], expected.mean(("draw", "trial")))
    assert (found.attrs["first"], found.attrs["num_second"], found.attrs["orders"]) == ("early", 8, 2**8)
    assert (found["p_value"] <= 0.05).any()
    # The first trial has ended by then.
    assert contrast_epochs(messages, {"a": (0.0, 0.2), "b": (0.4, 1.0)}).attrs["num_first"] == 7
    with pytest.raises(DataError, match=r"0 trials with bins in both of .*; need 6"):
        contrast_epochs(messages, {"a": (0.0, 0.2), "b": (4.0, 5.0)})
    with pytest.raises(DataError, match="found 1, and a contrast is between two"):
        contrast_epochs(messages, {"a": (0.0, 0.2)})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["x"] * 8, r"found 1 different label \(x\)"),
        (
            ["x", "y", "z", "x"] * 2,
            r"found 3 different labels \(x, y, z\).*None in place of a label leaves a trial out",
        ),
        (["x"] * 3 + ["y"] * 5, "found 3 trials of 'x' and 5 of 'y'; need at least 4 of each"),
        (["x", "y"], "need one for each of 8 trials"),
    ],
)
def test_labels_that_allow_no_contrast_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        contrast_conditions(random_norms(np.random.default_rng(0), 8), labels)


def test_trials_without_a_label_are_left_out():
    values = random_norms(np.random.default_rng(10), 20)
    labels = np.array(["x", "y", "", "x"] * 5)
    found = contrast_conditions(values, labels)
    xr.testing.assert_identical(found, contrast_conditions(values[:, labels != ""], labels[labels != ""]))
    assert (found.attrs["num_first"], found.attrs["num_second"]) == (10, 5)


def test_a_message_that_is_always_the_same_has_no_interval_and_is_no_difference():
    values = random_norms(np.random.default_rng(11), 12)
    values[:, :, 0, 1] = 0.1
    values[:, :, 0, 2] = 0.0
    found = contrast_conditions(values, np.tile(["x", "y"], 6)).isel(target=0, source=[1, 2])
    np.testing.assert_array_equal(found["p_value"], 1.0)
    np.testing.assert_allclose(found["difference"], 0.0, atol=1e-15)
    assert np.isnan(found["low"]).all()
    assert np.isnan(found["high"]).all()
