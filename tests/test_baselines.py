"""Plain predictions: against numbers worked out by hand and relations that they must find."""

import numpy as np

from mrsds_ppl.analysis.baselines import hidden_from_visible, next_from_last, regress, trial_average


def test_trial_average_is_over_what_was_observed():
    y = np.array([[[1.0], [4.0], [9.0]], [[3.0], [np.nan], [np.nan]]])
    found = trial_average(y, np.isfinite(y), 3)
    np.testing.assert_allclose(found[:, 0], [2.0, 4.0, 9.0])


def test_trial_average_beyond_the_training_bins_is_the_mean_of_the_neuron():
    y = np.array([[[1.0], [np.nan]], [[3.0], [np.nan]]])
    np.testing.assert_allclose(trial_average(y, np.isfinite(y), 4)[:, 0], [2.0, 2.0, 2.0, 2.0])
    assert trial_average(y, np.isfinite(y), 1).shape == (1, 1)


def test_regression_finds_a_linear_relation_and_ignores_noise():
    rng = np.random.default_rng(0)
    x, x_test = rng.normal(size=(400, 6)), rng.normal(size=(50, 6))
    weights = np.zeros((6, 2))
    weights[0] = [2.0, -1.0]
    found = regress(x, x @ weights + 3.0, x_test)
    np.testing.assert_allclose(found, x_test @ weights + 3.0, atol=0.02)
    noise = regress(x, rng.normal(size=(400, 1)), x_test)
    assert np.abs(noise).max() < 0.5


def test_missing_values_count_as_the_mean_of_their_column():
    rng = np.random.default_rng(1)
    x = rng.normal(5.0, 1.0, size=(300, 2))
    y = x[:, :1] * 2.0
    gone = np.array([[np.nan, 5.0]])
    assert abs(regress(x, y, gone).item() - y.mean()) < 0.3


def test_hidden_neurons_are_predicted_from_the_visible_and_never_from_themselves():
    rng = np.random.default_rng(2)
    y = rng.normal(size=(20, 15, 4))
    y[..., 3] = y[..., 0] - y[..., 1]
    y[5, 10:] = np.nan
    test = rng.normal(size=(3, 15, 4))
    expected = test[..., 0] - test[..., 1]
    found = hidden_from_visible(y, test, np.array([3]))
    np.testing.assert_allclose(found[..., 3], expected, atol=0.05)
    assert np.isnan(found[..., :3]).all()


def test_next_bin_is_predicted_from_the_last_one():
    rng = np.random.default_rng(3)
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    paths = [rng.normal(size=(30, 2))]
    for _ in range(9):
        paths.append(paths[-1] @ turn.T)
    y = np.stack(paths, axis=1)
    found = next_from_last(y[:20], y[20:])
    assert np.isnan(found[:, 0]).all()
    np.testing.assert_allclose(found[:, 1:], y[20:, 1:], atol=0.01)
