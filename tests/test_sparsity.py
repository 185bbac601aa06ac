"""The penalty on messages between regions: its size by loops, what it leaves free, and what it takes away."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.communication import path_messages
from mrsds_ppl.analysis.posterior_paths import PosteriorPaths
from mrsds_ppl.analysis.recovery.alignment import align_latents
from mrsds_ppl.analysis.recovery.message_scores import message_scores
from mrsds_ppl.data.simulate import SIMULATORS
from mrsds_ppl.models import MRSDS, DynamicsOptions, EmissionOptions, ModelOptions
from mrsds_ppl.models.dynamics import Dynamics, Rows, with_scaled_noise
from mrsds_ppl.models.filtering import SmoothedPaths
from mrsds_ppl.start.refit.path_refit import Refit, refit_networks
from mrsds_ppl.statespace.smoothing import PathMoments
from mrsds_ppl.train.regimen.bending import message_bends
from mrsds_ppl.train.regimen.sparsity import message_sizes


def rows(sizes=(2, 1), num_states=2, num_inputs=1, count=50):
    rng = np.random.default_rng(0)
    dynamics = Dynamics(
        num_states, sizes, num_inputs, DynamicsOptions(layers=(4,), activations=("tanh", None)), key=random.key(0)
    )
    x, u = rng.normal(size=(count, sum(sizes))), rng.normal(size=(count, num_inputs))
    weights = rng.dirichlet(np.ones(num_states), size=count)
    weights[-5:] = 0.0
    return dynamics, *(jnp.asarray(a, jnp.float32) for a in (x, u, weights))


def test_sizes_equal_weighted_deviations_by_loops() -> None:
    dynamics, x, u, weights = rows()
    found = jax.jit(lambda x: message_sizes(dynamics, Rows(x, u, weights)))(x)
    told, noise = np.asarray(dynamics.messages(x, u).cross), np.asarray(dynamics.noise.scale)
    ends = [(0, 2), (2, 3)]
    for state in range(2):
        w = np.asarray(weights[:, state]) / weights[:, state].sum()
        for target, source in ((0, 1), (1, 0)):
            start, stop = ends[target]
            m = told[state, target, source][:, : stop - start] / noise[start:stop]
            expected = np.sqrt((w[:, None] * (m - w @ m) ** 2).sum())
            np.testing.assert_allclose(found[state, target, source], expected, rtol=2e-3)
        np.testing.assert_array_equal(np.diag(found[state]), 0.0)


def test_constants_of_messages_and_the_scale_of_latents_cost_nothing() -> None:
    dynamics, x, u, weights = rows()
    plain = message_sizes(dynamics, Rows(x, u, weights))
    moved = eqx.tree_at(lambda d: d.pairs.biases[-1], dynamics, dynamics.pairs.biases[-1] + 3.0)
    np.testing.assert_allclose(message_sizes(moved, Rows(x, u, weights)), plain, rtol=1e-3, atol=1e-4)
    noisier = with_scaled_noise(dynamics, 2.0)
    larger = eqx.tree_at(lambda d: d.pairs.weights[-1], noisier, dynamics.pairs.weights[-1] * 2.0)
    np.testing.assert_allclose(message_sizes(larger, Rows(x, u, weights)), plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("measure", [message_sizes, message_bends])
def test_gradient_is_finite_where_there_are_no_messages_and_leaves_the_noise_alone(measure) -> None:
    dynamics, x, u, weights = rows()
    silent = eqx.tree_at(lambda d: d.pairs.weights[-1], dynamics, dynamics.pairs.weights[-1] * 0.0)
    gradient = jax.grad(lambda d: measure(d, Rows(x, u, weights)).sum())(silent)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    slope = jax.grad(lambda d: measure(d, Rows(x, u, weights)).sum())(dynamics)
    assert np.abs(slope.pairs.weights[-1]).max() > 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(slope.noise))


@pytest.mark.slow
@pytest.mark.nightly
def test_absent_messages_of_known_paths_shrink_and_present_ones_stay() -> None:
    num_trials, num_steps = 60, 800
    trials = SIMULATORS["oscillators"](0, num_trials=num_trials, neurons_per_region=4)
    options = ModelOptions(ux=False, xz=False, emissions=EmissionOptions(dist="poisson"))
    model = MRSDS(trials.region_sizes, 2, 3, key=random.key(0), options=options, num_trials=num_trials)
    params = {f"{name}$params": part for name, part in model.networks._asdict().items()}
    params["dynamics$params"] = with_scaled_noise(params["dynamics$params"], 0.05 / 0.3)
    batch = jax.device_put(trials.batch())
    x = jnp.nan_to_num(jnp.asarray(trials.x, jnp.float32))
    tiny = 1e-8 * jnp.broadcast_to(jnp.eye(6), (*x.shape, 6))
    states = jax.nn.one_hot(trials.z, 3)

    @jax.jit(static_argnames="sparsity")
    def fit(sparsity):
        paths = SmoothedPaths(PathMoments(x, tiny, 0 * tiny), states)
        return refit_networks(random.key(1), params, model, batch, paths, Refit(num_steps=num_steps, sparsity=sparsity))

    aligned = align_latents(trials.x, np.asarray(x), trials.lengths, [2] * 3, [2] * 3)
    paths = PosteriorPaths(np.asarray(x)[None], np.asarray(states)[None])

    def scored(sparsity):
        messages = path_messages(FittedProgram(model, fit(sparsity)), trials, paths)
        return message_scores(trials.messages, messages, aligned, trials.z)

    scores = {sparsity: scored(sparsity) for sparsity in (0.0, 0.01)}
    plain, sparse = scores[0.0], scores[0.01]
    assert sparse.absent_ratio < 0.5 * plain.absent_ratio, (plain.absent_ratio, sparse.absent_ratio)
    assert sparse.r2_cross > 0.9
    assert (sparse.cosine > 0.98).all(), sparse.cosine
