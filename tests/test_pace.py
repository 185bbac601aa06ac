"""Where training ends by itself, at which rate it goes, and that a resumed run does the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.autoguide import AutoGuide

import mrsds_ppl as mrsds
from mrsds_ppl.analysis.recovery.alignment import match_states
from mrsds_ppl.data.batch import Batch
from mrsds_ppl.models import MRSDS
from mrsds_ppl.start.step_size import largest_rate
from mrsds_ppl.train.schedules import OBSERVED_SHARE, Pace, learning_rate_schedule, pace_of
from mrsds_ppl.train.training import History, TrainingSettings, initial_state, train

SETTINGS = TrainingSettings(num_steps=2000, batch_size=8, learning_rate=1e-2, lr_warmup_steps=200, chunk_steps=50)
NOISE = 0.02


def history_of(bound, share=None):
    """A history whose steps had these bounds."""
    bound = np.asarray(bound, np.float32)
    counts, metrics = np.arange(len(bound)), {} if share is None else {OBSERVED_SHARE: np.asarray(share, np.float32)}
    nothing = np.zeros(bound.shape, np.float32)
    return History(counts, -bound, nothing, nothing, nothing.astype(bool), counts - 1, metrics)


def noisy(trend, seed=0):
    return trend + NOISE * np.random.default_rng(seed).normal(size=np.shape(trend))


def end_of(bound, **more):
    return int(pace_of(history_of(bound, **more), SETTINGS).end)


def test_a_bound_that_rises_to_its_limit_ends_training_once_it_is_there():
    steps = np.arange(1500)
    for seed in range(20):
        found = pace_of(history_of(noisy(-np.exp(-steps / 60), seed)), SETTINGS)
        # After some eight time constants the rise of a quarter is lost in its error of 0.02 sqrt(2 / 125).
        assert 400 <= found.cooling <= 800
        assert found.end == found.cooling + found.cooling // 4


@pytest.mark.parametrize("slope", [0.0, -1e-4])
def test_a_bound_that_stands_or_falls_ends_training_as_soon_as_the_ramp_is_over(slope):
    ends = [end_of(noisy(slope * np.arange(1000), seed)) for seed in range(40)]
    # A quarter of 100 steps that differs by two errors upwards, one time in 40, is judged once more.
    assert np.mean(np.array(ends) == 500) >= 0.85
    assert max(ends) < 1000


def test_a_bound_that_rises_all_the_time_takes_all_steps():
    for seed in range(20):
        assert end_of(noisy(2e-4 * np.arange(1999), seed)) == SETTINGS.num_steps


def test_a_bound_that_rises_below_where_it_began_ends_training():
    fallen = np.where(np.arange(1000) < 200, 0.0, -0.5 + 2e-4 * np.arange(1000))
    assert end_of(noisy(fallen)) == 500
    assert end_of(noisy(fallen + 0.5 * (np.arange(1000) >= 200))) == SETTINGS.num_steps


def test_batches_with_more_observed_values_do_not_hide_a_rise():
    rng = np.random.default_rng(0)
    share = 1 + 0.2 * rng.normal(size=1000)
    bound = noisy(-1 + 2e-4 * np.arange(1000)) * share
    assert end_of(bound) < SETTINGS.num_steps
    assert end_of(bound, share=share) == SETTINGS.num_steps


def test_steps_that_were_skipped_say_nothing():
    bound = noisy(1e-4 * np.arange(1000))
    bound[::7] = np.nan
    assert end_of(bound) == SETTINGS.num_steps
    assert end_of(np.full(1000, np.nan)) == SETTINGS.num_steps


def test_the_rate_comes_down_to_the_end_of_the_schedule_without_a_jump():
    schedule = learning_rate_schedule(1e-2, 200, 2000)
    assert np.isclose(Pace.scheduled(2000).rate(schedule, jnp.asarray(700), 2000), schedule(700), rtol=1e-5)
    pace = Pace(np.float32(0.5), np.int32(600), np.int32(750))
    rates = np.array([pace.rate(schedule, jnp.asarray(step), 2000) for step in range(500, 751)])
    assert np.all(np.diff(rates) < 0)
    np.testing.assert_allclose(rates[:101], [0.5 * schedule(step) for step in range(500, 601)], rtol=1e-5)
    np.testing.assert_allclose(rates[-1], 0.5 * 0.01 * 1e-2, rtol=1e-3)


def test_a_run_ends_by_itself_and_a_resumed_one_ends_in_the_same_bits():
    settings, data = SETTINGS, one_trial_each(16)

    def objective(params, key, batch, step):
        noise = NOISE * jax.random.normal(key)
        return jnp.sum((params["w"] - 0.05) ** 2) + noise, {"elbo": noise}

    begun = initial_state({"w": jnp.zeros(3)}, jax.random.key(0), settings)
    whole = train(objective, begun, data, settings, before=History.empty())
    assert not whole.stopped
    assert 500 <= whole.step < settings.num_steps
    # The first call is of one step.
    for calls in (1, 6):
        asked = iter([False] * calls)
        first = train(
            objective, begun, data, settings, before=History.empty(), should_stop=lambda asked=asked: next(asked, True)
        )
        assert first.stopped
        rest = train(objective, first.state, data, settings, before=first.history)
        assert rest.step == whole.step
        np.testing.assert_array_equal(rest.params["w"], whole.params["w"])
        rates = np.concatenate([first.history.learning_rate, rest.history.learning_rate])
        np.testing.assert_array_equal(rates, whole.history.learning_rate)


def one_trial_each(count):
    y = np.zeros((count, 2, 1), np.float32)
    nothing, seen = np.zeros((count, 2, 0), np.float32), np.ones(y.shape, bool)
    return Batch(y, nothing, seen, seen, np.full(count, 2, np.int32), nothing, np.arange(count, dtype=np.int32))


class Paths(AutoGuide):
    """Stands for a guide: paths that are known."""

    def __init__(self, x):
        self.x = x

    def __call__(self, *args):
        raise NotImplementedError

    def sample_posterior(self, *args):
        raise NotImplementedError

    def median(self, values, data):
        return {"x": self.x}


def test_a_step_at_the_largest_rate_moves_means_as_far_as_the_noise():
    sizes, rng = [3, 3], np.random.default_rng(0)
    model = MRSDS(sizes, 2, 2, key=jax.random.key(0))
    y = np.zeros((4, 6, 6), np.float32)
    nothing, seen = np.zeros((4, 6, 0), np.float32), np.ones(y.shape, bool)
    data = Batch(y, nothing, seen, seen, np.array([6, 6, 6, 3]), nothing, np.arange(4))
    x = jnp.asarray(rng.normal(size=(4, 6, 4)), jnp.float32)
    values = {f"{name}$params": part for name, part in zip(model.networks._fields, model.networks, strict=True)}
    rate = largest_rate(values, model, Paths(x), data)
    dynamics = model.networks.dynamics
    # By hand: each weight moves by a small alpha to where one latent's mean is larger.
    moved, alpha = [], 1e-4 * rate
    rows = [(trial, bin_) for trial in range(4) for bin_ in range(data.lengths[trial] - 1)]
    for trial, bin_ in [rows[i] for i in np.linspace(0, len(rows) - 1, 16).astype(int)]:
        for state, latent in np.ndindex(2, 4):

            def mean(part, trial=trial, bin_=bin_, state=state, latent=latent):
                return part.means(x[trial, bin_][None], jnp.zeros((1, 0)))[state, 0, latent]

            slope = jax.grad(mean, allow_int=True)(dynamics)
            stepped = jax.tree.map(
                lambda leaf, s: leaf + alpha * jnp.sign(s) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
                dynamics,
                slope,
            )
            moved.append((mean(stepped) - mean(dynamics)) / dynamics.noise.scale[latent])
    np.testing.assert_allclose(np.mean(moved) / alpha * rate, 1.0, rtol=0.05)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(3))
def test_a_default_fit_of_counts_ends_by_itself_with_its_states(seed):
    trials = mrsds.simulate("wells", seed=seed)
    fit = mrsds.fit(trials, 2, 2, seed=seed, progress=False)
    assert fit.trained.step < fit.config.training.optimiser.num_steps
    test = fit.split.test
    assert match_states(test.z, fit.test.z_prob, test.lengths).accuracy > 0.94
