"""Scoring of the networks' weights: what a change writes, the maximum it goes to, and where it stands in a fit."""

from itertools import islice

import by_hand
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize
from test_weights import KINDS, made

import mrsds_ppl as mrsds
from mrsds_ppl.analysis.communication import path_messages
from mrsds_ppl.analysis.posterior_paths import posterior_paths
from mrsds_ppl.analysis.recovery.alignment import align_latents
from mrsds_ppl.analysis.recovery.message_scores import message_scores
from mrsds_ppl.analysis.weights import Scoring
from mrsds_ppl.analysis.weights.ascent import moved_weights, scoring, why_no_scoring
from mrsds_ppl.analysis.weights.tangents import changes, tangents
from mrsds_ppl.models import DynamicsOptions, ModelOptions
from mrsds_ppl.models.dynamics import every_message
from mrsds_ppl.models.linearised import linearised, shared_terms
from mrsds_ppl.statespace.gaussian_sum import expected_transitions


@pytest.mark.slow
@pytest.mark.compiling
@pytest.mark.parametrize("options", KINDS)
def test_networks_take_a_small_change_as_messages_linear_in_their_weights_do(options: dict) -> None:
    with jax.enable_x64(True):
        dynamics, rows = made(options)
        found = tangents(random.key(1), dynamics, rows, count=3)
        change = jax.jit(changes)(found, 1e-4 * random.normal(random.key(2), found.scales.shape))
        told = jax.jit(every_message)
        expected = np.asarray(jax.jit(lambda: change.messages(dynamics, rows.x, rows.u))())
        before, moved = (np.asarray(told(d, rows.x, rows.u)) for d in (dynamics, moved_weights(dynamics, change)))
    step = np.abs(expected - before).max()
    assert step > 1e-5
    # Curvature, the square of the change, is all that differs.
    np.testing.assert_allclose(moved, expected, atol=1e-3 * step)


@pytest.mark.slow
@pytest.mark.compiling
def test_scoring_goes_to_the_maximum_of_the_exact_evidence() -> None:
    """A linear program of one state, whose log p(y) the filter gives; its maximum is sought by BFGS."""
    maps, loading = np.array([[0.8, 0.0], [0.4, 0.6]]), np.random.default_rng(0).normal(size=(6, 1))
    said: list[str] = []
    with jax.enable_x64(True):
        dynamics = DynamicsOptions(layers=(), activations=(None,), trainable_cov=False)
        model = by_hand.filled_model([3, 3], [1, 1], 1, options=ModelOptions(ux=False, xz=False, dynamics=dynamics))
        trials = by_hand.linear_recording(np.random.default_rng(1), maps, loading, (20, 40), 0.6)
        batch, given = jax.device_put(trials.batch()), np.array([[0.5, 0.3], [0.1, 0.4]])
        networks = by_hand.with_values(
            model.networks, given[None], np.zeros((1, 2)), loading, np.zeros(6),
            noise=0.5, first_noise=0.5, emission_noise=0.6, first_means=np.zeros((1, 2)),
        )  # fmt: skip
        assert trials.x is not None
        x = jnp.asarray(trials.x, float)
        start, build = ravel_pytree(networks.dynamics.pairs)

        @jax.jit
        def loss(weights: jax.Array) -> tuple[jax.Array, jax.Array]:
            def negative(weights: jax.Array) -> jax.Array:
                moved = eqx.tree_at(lambda n: n.dynamics.pairs, networks, build(weights))
                found = expected_transitions(shared_terms(moved), linearised(moved, model, batch, x))
                return -found.log_evidence.sum()

            return jax.value_and_grad(negative)(weights)

        def both(weights: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope = loss(jnp.asarray(weights))
            return float(value), np.asarray(slope)

        most = -minimize(both, np.asarray(start), jac=True, method="BFGS").fun
        found = [now.log_evidence for now in islice(scoring(random.key(0), networks, model, batch, x), 6)]
        values = {f"{name}$params": part for name, part in networks._asdict().items()}
        moved, _ = Scoring(model, batch, 2, say=said.append)(random.key(0), values, x)
        after = -both(np.asarray(ravel_pytree(moved["dynamics$params"].pairs)[0]))[0]
        np.testing.assert_allclose(found[0], -both(np.asarray(start))[0], rtol=1e-6)
    assert most > found[0] + 20.0
    assert np.all(np.diff(found)[:2] > 0)
    # The prior of two messages holds each less than half a nat below the maximum.
    assert most - 1.0 < found[-1] < most + 1e-3
    # Two rounds, and no more.
    np.testing.assert_allclose(after, found[2], rtol=1e-6)
    assert said == [f"scoring: log p(y) {found[0]:.1f} nats, {found[2]:.1f} after 2 of 2 rounds"]


def test_messages_that_share_hidden_layers_are_left_out() -> None:
    options = ModelOptions(dynamics=DynamicsOptions(communication_type="additive-shared"))
    model, said = by_hand.filled_model([3, 3], [1, 1], 2, options=options), []
    batch = by_hand.make_batch([4], 4, 6)
    values, _ = Scoring(model, batch, 2, say=said.append)(random.key(0), {"a": 1}, jnp.zeros((1, 4, 2)))
    assert values == {"a": 1}
    assert len(said) == 1
    assert "hidden layers" in said[0]
    assert why_no_scoring(by_hand.filled_model([3, 3], [1, 1], 2, options=ModelOptions())) is None


@pytest.mark.slow
@pytest.mark.nightly
def test_present_messages_of_wells_have_their_size_after_scoring() -> None:
    """Without scoring they come out a fifth too small."""
    before, after = (_sizes(rounds) for rounds in (0, 1))
    assert before.mean() < 0.85
    assert before.mean() + 0.05 < after.mean() < 1.05
    assert (np.abs(np.log(after)) < np.abs(np.log(before))).all()


def _sizes(rounds: int) -> np.ndarray:
    """Estimated over true mean norms of the messages that are there."""
    trials = mrsds.simulate("wells", seed=0)
    fit = mrsds.fit(trials, 2, 2, training={"start": {"scoring_rounds": rounds}}, progress=False)
    test = fit.split.test
    paths = posterior_paths(random.key(0), fit.program, test, draws=10)
    aligned = align_latents(test.x, paths.x.mean(0), test.lengths, fit.model.latent_sizes)
    found = message_scores(test.messages, path_messages(fit.program, test, paths), aligned, test.z)
    there = ~np.eye(len(found.true_matrix[0]), dtype=bool) & (found.true_matrix > 1e-9)
    return found.estimated_matrix[there] / found.true_matrix[there]
