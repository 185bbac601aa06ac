"""Trials in parts: nothing lost, nothing counted twice, the same numbers as all trials at once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from mrsds_ppl.backend.trials_at_once import Parts, in_even_parts, in_parts, over_parts, put_together
from mrsds_ppl.data.batch import Batch
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.models import MRSDS, DynamicsOptions, ModelOptions, filtering
from mrsds_ppl.models.linearised import linearised, shared_terms, with_dynamics
from mrsds_ppl.statespace.gaussian_sum import expected_transitions, state_posterior
from mrsds_ppl.statespace.smoothing import smooth_path


def _trials(num_trials: int) -> Trials:
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 8, num_trials)
    return Trials.from_arrays([rng.normal(size=(n, 6)) for n in lengths], region_sizes=[3, 3])


def _program() -> MRSDS:
    options = ModelOptions(ux=False, xz=False, dynamics=DynamicsOptions(layers=(4,), activations=("tanh", None)))
    return MRSDS([3, 3], 1, 2, key=random.key(0), options=options)


@pytest.mark.parametrize(
    ("num_trials", "divided", "each"),
    [(3, in_parts, 16), (16, in_parts, 16), (41, in_parts, 16), (3, in_even_parts, 3), (41, in_even_parts, 14)],
)
def test_results_are_of_all_trials_in_order_and_sums_count_each_once(
    num_trials: int, divided: Callable[[Batch], Parts], each: int
) -> None:
    batch = _trials(num_trials).batch()
    parts, traced = divided(batch), []
    assert {len(rows) for rows in parts.rows} == {each}

    @jax.jit
    def found_of(batch, x):
        traced.append(x.dtype)
        return {"mean": batch.y.mean((1, 2)) + x, "bins": jnp.asarray(batch.lengths)}

    x = np.arange(float(num_trials))
    results = over_parts(found_of, parts, x)
    found = put_together(parts, results)
    np.testing.assert_allclose(found["mean"], batch.y.mean((1, 2)) + x, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["bins"], batch.lengths)
    # What fills up the last part has no bins.
    assert sum(part["bins"].sum() for part in results) == batch.lengths.sum()
    assert len(traced) == 1


def test_calls_side_by_side_compute_in_the_precision_of_the_caller() -> None:
    with jax.enable_x64(True):
        parts, traced = in_parts(_trials(41).batch()), []

        @jax.jit
        def found_of(batch, x):
            traced.append(x.dtype)
            return x + 1e-12

        found = put_together(parts, over_parts(found_of, parts, np.ones(41)))
        assert traced == [np.float64]
        np.testing.assert_array_equal(found, 1.0 + 1e-12)


def test_an_error_in_any_part_is_raised() -> None:
    parts = in_parts(_trials(41).batch())

    def refused(batch, x):
        if x[0] > 20:
            raise ValueError("the part of trial 32")
        return x

    with pytest.raises(ValueError, match="the part of trial 32"):
        over_parts(refused, parts, np.arange(41.0))


@pytest.mark.slow
@pytest.mark.compiling
def test_parts_are_smoothed_and_filtered_as_all_trials_at_once() -> None:
    with jax.enable_x64(True):
        model, batch = _program(), jax.tree.map(jnp.asarray, _trials(21).batch())
        networks, parts = model.networks, in_parts(batch)
        rng = np.random.default_rng(1)
        x = jnp.asarray(rng.normal(size=(21, batch.y.shape[1], 2)))
        states = jnp.asarray(np.eye(2)[rng.integers(0, 2, x.shape[:2])])
        shared = shared_terms(networks)

        @jax.jit
        def at_once(x, states):
            once = smooth_path(shared, linearised(networks, model, batch, x), states)
            path = smooth_path(shared, linearised(networks, model, batch, once.mean), states)
            around = linearised(networks, model, batch, path.mean)
            return path, state_posterior(shared, around), expected_transitions(shared, around)

        expected, posterior, counted = at_once(x, states)
        paths, likeliest = filtering.smooth_and_find_states(networks, model, parts, x, states)
        valid = np.arange(x.shape[1]) < np.asarray(batch.lengths)[:, None]
        for a, b in zip(paths, expected, strict=True):
            np.testing.assert_allclose(np.asarray(a)[valid], np.asarray(b)[valid], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(likeliest.log_evidence, posterior.log_evidence, rtol=1e-6)
        np.testing.assert_array_equal(
            np.asarray(likeliest.states).argmax(-1)[valid], np.asarray(posterior.probabilities).argmax(-1)[valid]
        )
        found = filtering.count_transitions(networks, model, parts, paths.mean)
        np.testing.assert_allclose(found.log_evidence, counted.log_evidence, rtol=1e-6)
        np.testing.assert_allclose(found.transitions, counted.transitions, rtol=1e-5, atol=1e-9)


@pytest.mark.slow
@pytest.mark.compiling
def test_filters_are_compiled_once_for_every_kind_of_dynamics(monkeypatch: pytest.MonkeyPatch) -> None:
    from mrsds_ppl.start.ascent.cubic_dynamics import CubicDynamics
    from mrsds_ppl.start.ascent.polynomials import num_features

    model, batch = _program(), _trials(5).batch()
    parts = in_parts(batch)
    weights = jnp.zeros((2, 2, num_features((1, 1), 0))).at[:, 0, 1].set(0.5).at[:, 1, 4].set(0.5)
    cubic = CubicDynamics(weights, model.networks.dynamics.noise, (1, 1))
    x, states = jnp.zeros((5, batch.y.shape[1], 2)), jnp.full((5, batch.y.shape[1], 2), 0.5)
    traced: list[str] = []

    def counted(name: str) -> None:
        inner = getattr(filtering, name)
        monkeypatch.setattr(filtering, name, lambda *args, **kwargs: [traced.append(name), inner(*args, **kwargs)][1])

    counted("smooth_path")
    counted("state_posterior")
    for dynamics in (model.networks.dynamics, cubic):
        networks = with_dynamics(model.networks, dynamics)
        filtering.smooth_and_find_states(networks, model, parts, x, states)
    assert sorted(traced) == ["smooth_path", "state_posterior"]
