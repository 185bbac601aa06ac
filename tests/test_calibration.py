"""Recordings simulated from a fit, refits against their truth, and intervals that allow for what these get wrong."""

from concurrent.futures import ThreadPoolExecutor

import by_hand
import numpy as np
import pytest
from jax import random

import mrsds_ppl as mrsds
from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.calibration import Recovered, calibration, recovered, replicate
from mrsds_ppl.analysis.edges import score_test, training_steps
from mrsds_ppl.analysis.weights import weight_posterior
from mrsds_ppl.build import initial_parameters
from mrsds_ppl.data import Trials
from mrsds_ppl.guides import GaussianMarkovPaths
from mrsds_ppl.models import DynamicsOptions, ModelOptions
from mrsds_ppl.models.filtering import smooth_new_trials

REGIONS = ["a", "b"]


def found_by_chance(rng: np.random.Generator, true: np.ndarray) -> Recovered:
    """A procedure that makes messages a fifth smaller, and adds some noise."""
    true = true * rng.uniform(0.95, 1.05, true.shape)
    estimated = 0.8 * true * np.exp(0.08 * rng.normal(size=true.shape))
    reach = np.array([0.1, 0.2])[:, None, None, None]
    levels = np.array([0.4, 0.8]), np.array([0.6, 1.0])
    return Recovered(true, estimated, estimated - reach, estimated + reach, *levels)


def test_intervals_hold_the_truth_of_a_procedure_that_makes_messages_smaller() -> None:
    rng, held = np.random.default_rng(0), []
    true = rng.uniform(0.01, 0.4, (2, 6, 6))
    for _ in range(8):
        fit = found_by_chance(rng, true)
        # Replicates are simulated from the fit, whose messages are already smaller than the true ones.
        told = calibration([found_by_chance(rng, fit.estimated) for _ in range(20)], list("abcdef"))
        interval = told.interval(told.true.isel(replicate=0).copy(data=fit.estimated), 0.9)
        held.append(((fit.true >= interval["low"]) & (fit.true <= interval["high"])).values)
    assert np.mean(held) == pytest.approx(0.9, abs=0.03)
    assert told.coverage.sel(quantity="latents").values == pytest.approx([0.4, 0.8])
    assert float(told.coverage.sel(quantity="communication", level=0.9)) == pytest.approx(0.9, abs=0.1)


def linear_fit() -> tuple[FittedProgram, Trials]:
    """A linear program with a guide, and trials whose inputs and signals it is driven by, some of them missing."""
    options = ModelOptions(ux=False, xz=False, dynamics=DynamicsOptions(layers=(), activations=(None,)))
    model = by_hand.filled_model([5, 5], [1, 1], 1, options=options)
    maps, loading = np.array([[0.8, 0.0], [0.5, 0.6]]), np.random.default_rng(0).normal(size=(10, 1))
    networks = by_hand.with_values(
        model.networks, maps[None], np.zeros((1, 2)), loading, np.zeros(10),
        noise=0.5, first_noise=1.0, emission_noise=0.5, first_means=np.zeros((1, 2)),
    )  # fmt: skip
    rng = np.random.default_rng(1)
    ys = [rng.normal(size=(length, 10)) for length in (30, 25, 30, 28) * 5]
    ys[1][4:9, 2] = np.nan
    return FittedProgram(model, {f"{n}$params": part for n, part in networks._asdict().items()}), Trials.from_arrays(
        ys, region_sizes=[5, 5], region_names=REGIONS
    )


@pytest.mark.slow
@pytest.mark.compiling
def test_replicates_follow_the_program_and_a_fit_that_is_the_truth_recovers_them() -> None:
    fitted, trials = linear_fit()
    made = replicate(random.key(0), fitted, trials)
    np.testing.assert_array_equal(made.lengths, trials.lengths)
    np.testing.assert_array_equal(made.observed, trials.observed)
    assert made.region_names == trials.region_names
    valid = (np.arange(1, trials.num_bins) < trials.lengths[:, None]) & np.isfinite(made.x).all(-1)[:, 1:]
    noise = (made.x[:, 1:] - made.x[:, :-1] - made.messages[:, 1:, ..., 0].sum(-1))[valid]
    assert noise.std(0) == pytest.approx([0.5, 0.5], rel=0.1)
    assert np.abs(np.nanmean(noise, 0)).max() < 0.1
    np.testing.assert_array_equal(replicate(random.key(0), fitted, trials).y, made.y)
    guide, batch = GaussianMarkovPaths(fitted.model, key=random.key(1)), made.batch()
    begun = initial_parameters(random.key(2), fitted.model, guide, batch).params
    smoothed = guide.at(smooth_new_trials(fitted.params, fitted.model, batch).moments)
    known = FittedProgram(fitted.model, {**begun, **smoothed, **fitted.params}, guide)
    ones = np.ones((*made.x.shape[:2], 1), np.float32)
    x = np.nan_to_num(made.x).astype(np.float32)
    weights = weight_posterior(random.key(2), known, made, x, ones, training_steps(known.model, made, x, ones))
    found = recovered(random.key(3), known, made, weights)
    assert found.latents == pytest.approx([0.5, 0.9], abs=0.06)
    np.testing.assert_allclose(found.estimated, found.true, rtol=0.15, atol=0.02)
    assert 1.0 >= found.messages[1] > max(found.messages[0], 0.8)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.compiling
def test_a_fit_is_calibrated_by_fits_of_its_own_simulations() -> None:
    trials = mrsds.simulate("lotka-volterra", seed=0, num_trials=12, num_bins=20, neurons_per_region=4)
    model = {"dynamics": {"layers": [4], "activations": ["tanh"]}}
    fit = mrsds.fit(trials, 2, 1, model=model, start="none", training={"num_steps": 20}, test=0.25, progress=False)
    with pytest.raises(mrsds.RunError, match="found 2, need at least 3"):
        fit.calibrate(2)
    with ThreadPoolExecutor(1) as executor:
        told = fit.calibrate(3, executor=executor, progress=False)
    assert told.true.sizes == {"replicate": 3, "state": 2, "target": 2, "source": 2}
    interval = fit.communication(calibration=told)
    assert set(interval) == {"mean", "low", "high"}
    assert ((interval["low"] >= 0) & (interval["high"] > interval["low"])).all()
    asked_for = score_test(fit.weights, fit.split.train.lengths)[:2] <= 0.05
    between = ~np.eye(2, dtype=bool)
    assert ((interval["low"] > 0).values == asked_for)[:, between].all()
    assert (told.coverage >= 0).all()
