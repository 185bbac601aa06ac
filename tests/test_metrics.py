from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from posterior_of import posterior_of, two_region_trials
from scipy.stats import poisson

from mrsds_ppl.analysis.metrics import (
    bits_per_spike,
    evaluate,
    mse,
    noise_ceiling,
    r2_across_neurons,
    r2_by_neuron,
)
from mrsds_ppl.analysis.summary import fallen_sentence, not_finite_sentence
from mrsds_ppl.commands import fit as fit_command
from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.errors import ScoreError


def recording(counts: bool = False):
    """Noisy data, a fair prediction, and a mask with a short trial and scattered gaps."""
    rng = np.random.default_rng(0)
    rate = np.exp(0.5 * rng.normal(size=(6, 20, 5)))
    y = rng.poisson(rate).astype(np.float32) if counts else (rate + rng.normal(size=rate.shape)).astype(np.float32)
    observed = rng.random(y.shape) < 0.8
    observed[0, 12:] = False
    return y, observed, rate.astype(np.float32)


def test_mse_is_the_mean_over_observed_values():
    y, observed, rate = recording()
    errors = [(y[i] - rate[i]) ** 2 for i in zip(*np.nonzero(observed), strict=True)]
    assert mse(y, observed, rate) == pytest.approx(np.mean(errors))


def test_r2_by_neuron_equals_a_loop_over_neurons():
    y, observed, rate = recording()
    for neuron, value in enumerate(r2_by_neuron(y, observed, rate)):
        seen = observed[:, :, neuron]
        truth, guess = y[:, :, neuron][seen].astype(float), rate[:, :, neuron][seen]
        assert value == pytest.approx(1 - np.sum((truth - guess) ** 2) / np.sum((truth - truth.mean()) ** 2))


@pytest.mark.parametrize("counts", [True, False])
def test_the_noise_ceiling_is_the_r2_of_the_true_mean(counts):
    rng = np.random.default_rng(0)
    rate = np.exp(0.7 * rng.normal(size=(50, 200, 3)))
    y = rng.poisson(rate).astype(np.float64) if counts else rate + 0.8 * rng.normal(size=rate.shape)
    observed, variance = rng.random(y.shape) < 0.8, rate if counts else np.full(rate.shape, 0.64)
    y[~observed] = np.nan
    of_each = r2_by_neuron(y, observed, rate)
    assert noise_ceiling(y, observed, variance) == pytest.approx(of_each.mean(), abs=0.02)
    assert noise_ceiling(y, observed, variance, np.array([1])) == pytest.approx(of_each[1], abs=0.02)
    assert noise_ceiling(y, observed, 100.0 * variance) == 0.0


def test_published_r2_equals_a_loop_over_bins_and_trials():
    y, observed, rate = recording()
    by_trial = []
    for b in range(y.shape[0]):
        by_bin = []
        for t in range(y.shape[1]):
            seen = observed[b, t]
            if seen.sum() >= 2:
                truth, guess = y[b, t, seen].astype(float), rate[b, t, seen]
                by_bin.append(1 - np.sum((truth - guess) ** 2) / np.sum((truth - truth.mean()) ** 2))
        by_trial.append(np.mean(by_bin))
    assert r2_across_neurons(y, observed, rate) == pytest.approx(np.mean(by_trial))


def test_the_two_conventions_differ_on_constant_rates():
    rng = np.random.default_rng(1)
    rates = np.array([0.0, 10.0, 20.0])
    y = rates + 0.1 * rng.normal(size=(4, 30, 3))
    observed, constant = np.ones(y.shape, dtype=bool), np.broadcast_to(rates, y.shape).copy()
    assert r2_across_neurons(y, observed, constant) > 0.99
    assert np.all(np.abs(r2_by_neuron(y, observed, constant)) < 0.2)


def test_bits_per_spike_equals_the_difference_of_poisson_log_likelihoods():
    y, observed, rate = recording(counts=True)
    gain = 0.0
    for neuron in range(y.shape[2]):
        seen = observed[:, :, neuron]
        spikes = y[:, :, neuron][seen]
        gain += poisson.logpmf(spikes, rate[:, :, neuron][seen]).sum() - poisson.logpmf(spikes, spikes.mean()).sum()
    assert bits_per_spike(y, observed, rate) == pytest.approx(gain / y[observed].sum() / np.log(2), rel=1e-5)


def test_the_neurons_own_mean_rate_gains_no_bits():
    y, observed, _ = recording(counts=True)
    mean = np.where(observed, y, 0).sum((0, 1)) / observed.sum((0, 1))
    assert bits_per_spike(y, observed, np.broadcast_to(mean, y.shape).copy()) == pytest.approx(0.0, abs=1e-6)


def test_a_rate_of_zero_under_a_spike_costs_a_finite_number_of_bits():
    y = np.array([[[1.0], [1.0]]])
    observed = np.ones(y.shape, dtype=bool)
    assert bits_per_spike(y, observed, np.zeros(y.shape)) == pytest.approx((2 * np.log(1e-9) + 2) / (2 * np.log(2)))


@pytest.mark.parametrize("counts", [False, True])
def test_what_is_not_observed_changes_no_score(counts: bool):
    y, observed, rate = recording(counts)
    before = evaluate(y, observed, rate, counts)
    spoilt_y, spoilt_rate = np.where(observed, y, np.nan), np.where(observed, rate, np.inf)
    after = evaluate(spoilt_y, observed, spoilt_rate, counts)
    np.testing.assert_array_equal(before.r2_by_neuron, after.r2_by_neuron)
    assert before[:4] == after[:4]
    # A padded trial and a neuron that was never seen change nothing either.
    wide = [np.pad(a, ((0, 1), (0, 3), (0, 1))) for a in (y, observed, rate)]
    padded = evaluate(*wide, counts)
    assert padded[:3] == pytest.approx(before[:3])
    assert padded.bits_per_spike == pytest.approx(before.bits_per_spike)
    assert np.isnan(padded.r2_by_neuron[-1])


def test_a_neuron_that_never_changes_is_left_out_of_the_mean():
    y, observed, rate = recording()
    y[:, :, 2] = 0.1  # whose float32 mean is not exactly 0.1
    scores = evaluate(y, observed, rate, counts=False)
    assert np.isnan(scores.r2_by_neuron[2])
    assert scores.r2 == pytest.approx(np.mean(np.delete(scores.r2_by_neuron, 2)))
    assert scores.bits_per_spike is None


def test_chosen_neurons_are_scored_as_if_alone():
    y, observed, rate = recording(counts=True)
    chosen = np.array([3, 1])
    scores = evaluate(y, observed, rate, True, chosen)
    alone = evaluate(y[..., chosen], observed[..., chosen], rate[..., chosen], True)
    np.testing.assert_allclose(scores.r2_by_neuron, r2_by_neuron(y, observed, rate)[chosen], rtol=1e-12)
    assert scores[:4] == alone[:4]


def test_a_prediction_that_is_not_a_number_shows_in_every_score():
    y, observed, rate = recording(counts=True)
    observed[3, 4, 0] = True
    rate[3, 4, 0] = np.nan
    scores = evaluate(y, observed, rate, counts=True)
    assert np.isnan([scores.mse, scores.r2_by_neuron[0], scores.bits_per_spike]).all()


def test_scores_of_nothing_are_not_a_number():
    y, observed, rate = recording(counts=True)
    scores = evaluate(y, np.zeros_like(observed), rate, counts=True)
    assert np.isnan(scores[:4]).all()
    assert np.isnan(bits_per_spike(np.zeros_like(y), observed, rate))


def test_sessions_are_scored_as_if_each_of_their_neurons_had_a_column_of_its_own():
    y, observed, rate = recording(counts=True)
    sessions = np.repeat(["a", "b"], [2, len(y) - 2])
    wide = [np.zeros((*y.shape[:2], 2 * y.shape[2]), values.dtype) for values in (y, observed, rate)]
    for place, name in enumerate("ab"):
        own, columns = sessions == name, place * y.shape[2] + np.arange(y.shape[2])
        for values, given in zip(wide, (y, observed, rate), strict=True):
            values[np.ix_(own, np.arange(y.shape[1]), columns)] = given[own]
    apart, together = evaluate(*wide, True), evaluate(y, observed, rate, True, sessions=sessions)
    np.testing.assert_allclose(together[:4], apart[:4], rtol=1e-6)
    np.testing.assert_allclose(together.r2_by_neuron, apart.r2_by_neuron, rtol=1e-6)
    ceilings = noise_ceiling(*wide), noise_ceiling(y, observed, rate, sessions=sessions)
    assert ceilings[1] == pytest.approx(ceilings[0], rel=1e-6)


def posterior(last_bound):
    found = posterior_of(two_region_trials())
    return replace(found, elbo=np.append(found.elbo[:-1], np.float32(last_bound)))


def test_scores_that_are_not_finite_are_named_and_those_without_a_value_are_not():
    scores = {"test_mses": [0.5], "test_r2s": [np.nan], "cosmooth_mses": [np.nan]}
    good, bad = posterior(-3.0), posterior(np.nan)
    assert not_finite_sentence(scores, train=good, test=good) is None
    assert "(bounds of 1 of 7 test trials)" in not_finite_sentence(scores, train=good, test=bad)
    assert "(test_mses)" in not_finite_sentence({**scores, "test_mses": [np.inf]}, train=good, test=good)


def test_a_fit_whose_scores_are_not_finite_is_no_success(monkeypatch, tmp_path):
    found = SimpleNamespace(scores={}, train=posterior(-3.0), test=posterior(-np.inf))
    monkeypatch.setattr(fit_command, "make_trials", lambda config: two_region_trials())
    monkeypatch.setattr(fit_command, "fit_into_files", lambda *args, **options: found)
    with pytest.raises(ScoreError, match=r"one: scores are not finite .*learning_rate\.$"):
        fit_command.fit(RunConfig(), name="one", result_path=tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_a_bound_that_fell_is_said_and_one_that_rose_or_only_wavers_is_not(seed):
    noise = 0.02 * np.random.default_rng(seed).normal(size=300)
    risen = -1.0 - np.exp(-np.arange(300) / 40) + noise
    fallen = risen - np.maximum(np.arange(300) - 200, 0) * 0.01
    assert fallen_sentence(risen) is None
    assert fallen_sentence(-1.0 + noise) is None
    assert fallen_sentence(fallen[:15]) is None
    assert "fell in training, from -1." in str(fallen_sentence(fallen))
