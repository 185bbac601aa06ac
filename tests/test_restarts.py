"""Restarts side by side against the same seeds one by one, the second stage, and states that are not used."""

import itertools
from types import SimpleNamespace

import by_hand
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from mrsds_ppl.build import initial_parameters
from mrsds_ppl.data.simulate import simulate_lotka_volterra
from mrsds_ppl.errors import RunError
from mrsds_ppl.guides import MeanField
from mrsds_ppl.models import MRSDS, DynamicsOptions, ModelOptions
from mrsds_ppl.nn.encoders import EncoderOptions
from mrsds_ppl.ppl.elbo import log_weights
from mrsds_ppl.ppl.markov import potentials
from mrsds_ppl.start.staged import Staged
from mrsds_ppl.start.unused import revived, share_of_bins, unused_sentence, unused_states
from mrsds_ppl.storage.paths import RunPaths
from mrsds_ppl.storage.stores import in_files
from mrsds_ppl.train import training
from mrsds_ppl.train.history import stack
from mrsds_ppl.train.objective import make_objective
from mrsds_ppl.train.restarts import best_restart, held_out_bounds, hold_out
from mrsds_ppl.train.stage import Stages
from mrsds_ppl.train.stages import fit_stages
from mrsds_ppl.train.training import TrainingSettings, initial_state, make_run_chunk, train

pytestmark = [pytest.mark.slow, pytest.mark.compiling]

SEEDS, BINS, STATES = (0, 1, 2), 6, 2
SETTINGS = TrainingSettings(num_steps=8, batch_size=3, learning_rate=1e-2, lr_warmup_steps=2, chunk_steps=4)
ALONE = TrainingSettings(num_steps=6, batch_size=3, learning_rate=1e-2, lr_warmup_steps=0, chunk_steps=2)


@pytest.fixture(scope="module")
def case():
    """A small program and its guide, their parameters by seed, and an objective that counts how often it is traced."""
    form = ModelOptions(dynamics=DynamicsOptions(layers=(), activations=(None,)))
    small = EncoderOptions(embedding_layers=(3,), channels=4, dilations=(1,))
    data = by_hand.make_batch([BINS] * 8, BINS, 5)

    def build(seed):
        model = MRSDS([3, 2], [1, 1], STATES, key=random.key(seed), num_inputs=1, options=form, num_trials=6)
        guide = MeanField(model, key=random.key(100 + seed), options=small)
        return model, guide, initial_parameters(random.key(0), model, guide, data).params

    built = [build(seed) for seed in SEEDS]
    model, guide, _ = built[0]
    traces = []
    plain = make_objective(model, guide, 10.0)

    def objective(*args):
        traces.append(None)
        return plain(*args)

    return SimpleNamespace(
        model=model,
        guide=guide,
        params=[params for _, _, params in built],
        keys=jnp.stack([random.key(seed) for seed in SEEDS]),
        objective=objective,
        traces=traces,
        data=jax.device_put(jax.tree.map(lambda leaf: np.asarray(leaf)[:6], data)),
        held_out=jax.device_put(jax.tree.map(lambda leaf: np.asarray(leaf)[6:], data)),
    )


def fit(
    case,
    folder,
    *,
    restarts=False,
    resume=False,
    seed=0,
    should_stop=lambda: False,
    said=None,
    start=None,
    run_chunk=None,
    **options,
):
    key, params = (case.keys, stack(case.params)) if restarts else (case.keys[seed], case.params[seed])
    stages = Stages(
        case.model,
        case.guide,
        case.objective,
        case.data,
        in_files(RunPaths(folder, "run")),
        save_steps=4,
        should_stop=should_stop,
        say=(lambda line: None) if said is None else said.append,
        held_out=case.held_out if restarts else None,
        start=start,
        run_chunk=run_chunk,
    )
    return fit_stages(key, params, stages, SETTINGS, **{"resume": resume, **options})


def same(left, right):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), left, right)


def near(left, right):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), left, right)


@pytest.mark.slow
@pytest.mark.parametrize("cores", [True, False], ids=["on-cores", "batched"])
def test_restarts_equal_the_same_seeds_one_by_one_with_one_trace(case, monkeypatch, cores):
    monkeypatch.setattr(training, "on_cores", lambda: cores)
    before = len(case.traces)
    start = initial_state(stack(case.params), case.keys, SETTINGS, stacked=True)
    run_chunk = make_run_chunk(case.objective, SETTINGS, stacked=True)
    together = train(case.objective, start, case.data, SETTINGS, run_chunk=run_chunk)
    assert len(case.traces) - before == 1
    assert together.history.loss.shape == (8, 3)
    assert together.history.step.shape == (8,)
    alone_chunk = make_run_chunk(case.objective, SETTINGS)
    for number, params in enumerate(case.params):
        alone = train(
            case.objective,
            initial_state(params, case.keys[number], SETTINGS),
            case.data,
            SETTINGS,
            run_chunk=alone_chunk,
        )
        near(together.state.restart(number).params, alone.state.params)
        near(together.history.restart(number).loss, alone.history.loss)
    assert not np.allclose(together.history.loss[:, 0], together.history.loss[:, 1])


@pytest.mark.parametrize("cores", [True, False], ids=["on-cores", "batched"])
def test_a_restart_that_goes_wrong_does_not_stop_the_others(monkeypatch, cores):
    monkeypatch.setattr(training, "on_cores", lambda: cores)

    def objective(params, key, batch, step):
        loss = jnp.sum((params["a"] - 1.0) ** 2)
        return jnp.where(params["a"] > 5.0, jnp.nan, loss), {"a": params["a"]}

    settings = TrainingSettings(
        num_steps=40, batch_size=1, learning_rate=0.1, lr_warmup_steps=0, chunk_steps=20, max_skipped_in_row=5
    )
    data = jax.tree.map(jnp.asarray, by_hand.make_batch([2], 2, 1))
    keys = jnp.stack([random.key(0), random.key(1)])
    state = initial_state({"a": jnp.asarray([9.0, 0.0])}, keys, settings, stacked=True)
    run_chunk = make_run_chunk(objective, settings, stacked=True)
    result = train(objective, state, data, settings, run_chunk=run_chunk)
    assert result.state.skipped.tolist() == [40, 0]
    assert result.state.params["a"][0] == 9.0
    assert abs(result.state.params["a"][1] - 1.0) < 0.3
    both = initial_state({"a": jnp.asarray([9.0, 8.0])}, keys, settings, stacked=True)
    with pytest.raises(RunError, match="20 steps in a row"):
        train(objective, both, data, settings, run_chunk=run_chunk)


@pytest.mark.slow
def test_best_restart_is_kept_and_all_bounds_are_told(case, tmp_path):
    said = []
    found = fit(case, tmp_path, restarts=True, said=said)
    assert found.restart_bounds.shape == (3,)
    assert found.restart == int(np.argmax(found.restart_bounds))
    assert found.history.loss.shape == (8,)
    (line,) = [line for line in said if line.startswith("restarts: bound of 2 held-out training trials")]
    assert all(f"{bound:.5f}" in line for bound in found.restart_bounds)
    assert f"restart {found.restart} is kept" in line
    # Bounds written out: the mean log weight of the same draws, one restart after another.
    state, _ = _checkpoint(case, tmp_path / "run-models-restarts")
    key = random.fold_in(case.keys[0], 5)
    for number, bound in enumerate(found.restart_bounds):
        weights = log_weights(key, state.restart(number).params, case.model, case.guide, case.held_out, num_samples=20)
        assert bound == pytest.approx(float(weights.mean(0).sum() / case.held_out.observed.sum()), rel=1e-4)
    # What later commands read is the best restart's state alone.
    same(found.params, state.restart(found.restart).params)
    again = fit(case, tmp_path, restarts=True, resume=True)
    same(again.params, found.params)
    np.testing.assert_array_equal(again.restart_bounds, found.restart_bounds)


def _checkpoint(case, folder):
    from mrsds_ppl.storage.checkpoints import Checkpoints

    return Checkpoints(folder).restore(None, initial_state(stack(case.params), case.keys, SETTINGS, stacked=True))


def stop_after(times):
    """False as often as given, then True."""
    asked = itertools.count()
    return lambda: next(asked) >= times


@pytest.mark.slow
@pytest.mark.nightly
def test_restarts_and_second_stage_resume_bit_for_bit(case, tmp_path):
    whole = fit(case, tmp_path / "whole", restarts=True, dynamics_only=ALONE)
    for in_second_stage in (False, True):
        folder = tmp_path / str(in_second_stage)
        should_stop = (folder / "run-models-do").is_dir if in_second_stage else stop_after(3)
        part = fit(case, folder, restarts=True, dynamics_only=ALONE, should_stop=should_stop)
        assert part.stopped
        assert (folder / "run-models-do").is_dir() == in_second_stage
        rest = fit(case, folder, restarts=True, dynamics_only=ALONE, resume=True)
        same(rest.params, whole.params)
        same(rest.history, whole.history)


@pytest.mark.slow
def test_second_stage_trains_the_program_and_leaves_the_guide(case, tmp_path):
    first, said = fit(case, tmp_path / "first"), []
    both = fit(case, tmp_path / "both", dynamics_only=ALONE, said=said)
    same(both.params["recognition$params"], first.params["recognition$params"])
    moved = [
        not np.array_equal(a, b)
        for a, b in zip(
            jax.tree.leaves(both.params["dynamics$params"]),
            jax.tree.leaves(first.params["dynamics$params"]),
            strict=True,
        )
    ]
    assert any(moved)
    assert both.history.step.tolist() == [*range(8), *range(6)]
    assert both.history.learning_rate[8] == pytest.approx(ALONE.learning_rate, rel=1e-5)
    assert (tmp_path / "both" / "run-models-do" / "6").is_dir()
    assert any("dynamics-only: step 6 of 6" in line for line in said)


@pytest.mark.slow
def test_gradient_of_frozen_guide_parameters_is_zero(case):
    trainable = {name: name != "recognition$params" for name in case.params[0]}
    state = initial_state(case.params[0], case.keys[0], ALONE)
    free = make_run_chunk(case.objective, ALONE)(initial_state(case.params[0], case.keys[0], ALONE), case.data)[1]
    run_chunk = make_run_chunk(case.objective, ALONE, trainable)
    after, history = run_chunk(state, case.data)
    same(after.params["recognition$params"], case.params[0]["recognition$params"])
    assert float(history.gradient_norm[0]) < float(free.gradient_norm[0])
    # Adam's averages of what is frozen are exactly zero.
    from jax.flatten_util import ravel_pytree

    frozen = (
        ravel_pytree(
            {
                n: jax.tree.map(lambda a, n=n: np.full(a.shape, float(trainable[n]), np.float32), p)
                for n, p in case.params[0].items()
            }
        )[0]
        == 0
    )
    assert frozen.any()
    assert np.all(np.asarray(after.opt_state.mu)[np.asarray(frozen)] == 0)


@pytest.mark.slow
@pytest.mark.nightly
def test_start_of_the_states_is_found_for_all_restarts_at_once(case, tmp_path):
    said = []
    before = len(case.traces)
    run_chunk = make_run_chunk(case.objective, SETTINGS, stacked=True)
    start = Staged(case.objective, SETTINGS, run_chunk, 4, stacked=True, say=said.append)
    found = fit(case, tmp_path, restarts=True, start=start, said=said, run_chunk=run_chunk)
    assert len(case.traces) - before == 1
    assert [line.split(":")[1] for line in said if line.startswith("states: ")] == [f" restart {n}" for n in range(3)]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found.params))


def test_trials_that_choose_are_training_trials():
    trials = simulate_lotka_volterra(0, num_trials=20, num_bins=20, neurons_per_region=2, steps_per_bin=10, step=0.01)
    train, chooses = hold_out(trials, 0)
    assert (train.num_trials, chooses.num_trials) == (18, 2)
    assert set(train.ids) | set(chooses.ids) == set(trials.ids)


def test_restart_without_a_finite_bound_is_never_the_best():
    assert best_restart(np.array([np.nan, -2.0, -1.0, -np.inf])) == 2


def test_held_out_bounds_compile_once_for_all_restarts(case):
    traces = []

    def guide(batch):
        traces.append(None)
        return case.guide(batch)

    held_out_bounds(random.key(0), stack(case.params), case.model, guide, case.held_out)
    assert len(traces) == 1


def test_unused_states_are_named_in_a_sentence():
    shares = np.array([0.9, 0.02, 0.08])
    assert unused_states(shares) == [1]
    assert unused_sentence(np.array([0.5, 0.5]), revived=False) is None
    sentence = unused_sentence(shares, revived=True)
    assert sentence.startswith("warning: state 1 holds 2% of the bins, less than a tenth of an even share (3.3%)")
    assert "beside state 0" in sentence
    assert "fewer than 3 states" in unused_sentence(shares, revived=False)


def test_share_of_bins_leaves_padding_out():
    states = np.zeros((2, 3, 2), np.float32)
    states[0, :, 0] = states[1, :1, 1] = 1.0
    states[1, 1:, 0] = 7.0
    np.testing.assert_allclose(share_of_bins(states, np.array([3, 1])), [0.75, 0.25])


def test_a_dead_state_takes_the_place_of_the_most_used_one_and_is_used():
    form = ModelOptions(dynamics=DynamicsOptions(layers=(), activations=(None,), communication_type="additive-linear"))
    model = by_hand.filled_model([3, 2], [2, 1], 3, num_inputs=1, options=form)
    params = {f"{name}$params": part for name, part in zip(model.networks._fields, model.networks, strict=True)}
    found = revived(random.key(0), params, jnp.asarray([0.3, 0.01, 0.69]))
    old, new = model.networks_from(params), model.networks_from(found)
    x, u = random.normal(random.key(1), (50, 3)), jnp.ones((50, 1))
    means = jax.jit(lambda networks: networks.dynamics.means(x, u))
    before, after = np.asarray(means(old)), np.asarray(means(new))
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[2], before[2])
    assert 0 < np.abs(after[1] - before[2]).mean() < 0.5 * np.abs(before[1] - before[2]).mean()
    moves = np.asarray(jax.jit(lambda x: jax.nn.softmax(new.transitions.logits(x), axis=-1))(x))
    np.testing.assert_allclose(moves[0, :, 1], moves[0, :, 2], rtol=1e-5)
    np.testing.assert_allclose(moves[1, :, 2] / moves[1, :, 1], 0.05 / 0.95, rtol=1e-4)
    same(revived(random.key(0), params, jnp.asarray([0.3, 0.3, 0.4])), params)
    batch = by_hand.make_batch([4], 4, 5)
    chain = jax.eval_shape(lambda x: potentials(model.switching(new, batch), x), np.zeros((1, 4, 3)))
    assert chain.transition.shape == (3, 3, 3, 1)
