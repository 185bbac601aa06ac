"""How well weights are known: directions against a dense Jacobian, information against dense Gaussians."""

import by_hand
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from jax.flatten_util import ravel_pytree
from numpyro.infer import MCMC, NUTS

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.edges import training_steps
from mrsds_ppl.analysis.weights import weight_posterior
from mrsds_ppl.analysis.weights.information import filter_information, information
from mrsds_ppl.analysis.weights.tangents import changes, features, tangents
from mrsds_ppl.models import DynamicsOptions, ModelOptions
from mrsds_ppl.models.dynamics import Dynamics, Rows, every_message
from mrsds_ppl.models.linearised import linearised, shared_terms
from mrsds_ppl.statespace.gaussian_sum import expected_transitions
from mrsds_ppl.statespace.linear_gaussian import LinearSteps, SharedTerms, SignalTerms, TrialTerms

KINDS = [
    {},
    {"communication_type": "additive-linear"},
    {"communication_type": "conditional", "input_type": "conditional"},
    {"zcond": True},
]


def made(options: dict) -> tuple[Dynamics, Rows]:
    chosen = DynamicsOptions(
        layers=(3,), activations=("tanh",), input_layers=(2,), input_activations=("tanh",), **options
    )
    dynamics = by_hand.filled(lambda: Dynamics(2, (2, 1), 1, chosen, key=random.key(0)))
    rng = np.random.default_rng(0)
    return dynamics, Rows(
        *(jnp.asarray(a) for a in (rng.normal(size=(40, 3)), rng.normal(size=(40, 1)), rng.dirichlet([1, 1], 40)))
    )


@pytest.mark.slow
@pytest.mark.compiling
@pytest.mark.parametrize("options", KINDS)
def test_directions_are_the_singular_vectors_of_the_jacobian_of_each_message(options: dict) -> None:
    with jax.enable_x64(True):
        dynamics, rows = made(options)
        count = 3
        found = tangents(random.key(1), dynamics, rows, count=count)
        flat, build = ravel_pytree(dynamics)
        dense = jax.jit(jax.jacobian(lambda w: every_message(build(w), rows.x, rows.u)))(flat)
        unit = jax.jit(lambda: features(dynamics, found, rows.x, rows.u))()
        scale, share = np.asarray(dynamics.noise.scale), np.asarray(rows.weights)
    share = share / share.sum(0)
    spread = np.array([[scale[0], scale[1]], [scale[2], np.inf]])
    dense = np.array(dense)
    if not options or options.get("zcond"):
        means = np.einsum("nk,krsndw->krsdw", share, dense[:, :, :2])
        dense[:, :, :2] -= means[:, :, :, None]
    dense = np.sqrt(share.T)[:, None, None, :, None, None] * dense / spread[:, None, None, :, None]
    unit = np.sqrt(share.T)[:, None, None, :, None] * np.asarray(unit) / spread[:, None, None]
    groups = [slice(0, 2)] if options.get("zcond") else [0, 1]
    for g, group in enumerate(groups):
        for target in range(2):
            for source in range(3):
                jacobian = dense[group, target, source].reshape(-1, flat.size)
                exact = np.linalg.svd(jacobian, compute_uv=False)[:count]
                np.testing.assert_allclose(found.scales[g, target, source], exact, rtol=5e-3, atol=1e-8)
                said = unit[:, group, target, source].reshape(count, -1)
                np.testing.assert_allclose(said @ said.T, np.diag(exact**2), rtol=1e-2, atol=2e-4 * exact[0] ** 2)


@pytest.mark.compiling
def test_a_change_of_weights_is_the_sum_of_its_directions() -> None:
    with jax.enable_x64(True):
        dynamics, rows = made({})
        found = tangents(random.key(1), dynamics, rows, count=3)
        c = jnp.asarray(np.random.default_rng(2).normal(size=found.scales.shape))
        said = jax.jit(
            lambda: changes(found, c).messages(dynamics, rows.x, rows.u) - every_message(dynamics, rows.x, rows.u)
        )()
        each = jax.jit(lambda: features(dynamics, found, rows.x, rows.u))()
    np.testing.assert_allclose(said, np.einsum("mkrsnd,krsm->krsnd", each, c), rtol=1e-8, atol=1e-10)


def test_information_and_slope_are_those_of_the_joint_law_of_all_signals() -> None:
    """Signals of one trial have a joint Gaussian law, whose mean moves with the coefficients."""
    bins, size, coefficients = 5, 2, 3
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(bins + 2, size, size))
    first, noise, *precision = roots @ np.swapaxes(roots, -1, -2) + 0.3 * np.eye(size)
    gain, added = 0.5 * rng.normal(size=(bins - 1, size, size)), rng.normal(size=(bins - 1, size, coefficients))
    lower = np.eye(bins * size)
    spread = np.kron(np.eye(bins), noise)
    spread[:size, :size] = first
    forced = np.zeros((bins * size, coefficients))
    for t in range(1, bins):
        lower[t * size : (t + 1) * size, (t - 1) * size : t * size] = -gain[t - 1]
        forced[t * size : (t + 1) * size] = added[t - 1]
    moved, inverse = np.linalg.solve(lower, forced), np.linalg.inv(lower)
    covariance = inverse @ spread @ inverse.T
    for t in range(bins):
        covariance[t * size : (t + 1) * size, t * size : (t + 1) * size] += np.linalg.inv(precision[t])
    exact = moved.T @ np.linalg.solve(covariance, moved)
    shift = rng.normal(size=(bins, size))
    seen = np.concatenate([np.linalg.solve(one, h) for one, h in zip(precision, shift, strict=True)])
    slope = moved.T @ np.linalg.solve(covariance, seen)
    with jax.enable_x64(True):
        one = [jnp.asarray(a) for a in (first, noise, np.stack(precision), gain, added)]
        shared = SharedTerms(jnp.zeros(1), jnp.zeros((1, size)), one[0], one[1])
        signals = SignalTerms(one[2][None], jnp.asarray(shift)[None], jnp.zeros(1))
        steps = LinearSteps(one[3][None, :, None], jnp.zeros((1, bins - 1, 1, size)))
        trials = TrialTerms(steps, signals, jnp.zeros((1, bins - 1, 1, 1)), jnp.array([bins]))
        found = jax.jit(lambda: filter_information(shared, trials, jnp.ones((1, bins, 1)), lambda _: one[4][None]))()
    np.testing.assert_allclose(found.information, exact, rtol=1e-4)
    np.testing.assert_allclose(found.slope[0], slope, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.compiling
def test_padded_bins_tell_nothing_whatever_state_they_are_given() -> None:
    """With dynamics that grow a thousandfold a bin, a filter that went on there would overflow."""
    options = ModelOptions(ux=False, xz=False, dynamics=DynamicsOptions(layers=(), activations=(None,)))
    model = by_hand.filled_model([3, 3], [1, 1], 1, options=options)
    networks = by_hand.with_values(
        model.networks, np.full((1, 2, 2), 1e3), np.zeros((1, 2)), np.ones((6, 1)), np.zeros(6),
        noise=0.5, first_noise=0.5, emission_noise=0.6, first_means=np.zeros((1, 2)),
    )  # fmt: skip
    batch = by_hand.make_batch([5], 40, 6, num_inputs=0, missing=0.0)
    x, inside = jnp.zeros((1, 40, 2)), jnp.ones((1, 40, 1)).at[:, 5:].set(0.0)
    steps = jnp.asarray(np.random.default_rng(0).normal(size=(20, 2)), jnp.float32)
    rows = Rows(steps, jnp.zeros((20, 0)), jnp.ones((20, 1)))
    found = tangents(random.key(0), networks.dynamics, rows, count=2)
    some, expected = (information(networks, found, model, batch, x, z) for z in (jnp.ones((1, 40, 1)), inside))
    assert np.isfinite(some.information).all()
    np.testing.assert_array_equal(some.information, expected.information)
    np.testing.assert_array_equal(some.slope, expected.slope)
    assert np.abs(some.information).max() > 0


@pytest.mark.slow
@pytest.mark.nightly
def test_posterior_of_a_linear_program_is_that_of_nuts() -> None:
    """Weights of four messages of one state, signals with noise; NUTS on log p(y), which is exact here."""
    maps, loading = np.array([[0.8, 0.15], [0.3, 0.6]]), np.random.default_rng(0).normal(size=(6, 1))
    with jax.enable_x64(True):
        options = ModelOptions(ux=False, xz=False, dynamics=DynamicsOptions(layers=(), activations=(None,)))
        model = by_hand.filled_model([3, 3], [1, 1], 1, options=options)
        networks = by_hand.with_values(
            model.networks, maps[None], np.zeros((1, 2)), loading, np.zeros(6),
            noise=0.5, first_noise=0.5, emission_noise=0.6, first_means=np.zeros((1, 2)),
        )  # fmt: skip
        trials = by_hand.linear_recording(np.random.default_rng(1), maps, loading, (20, 40), 0.6)
        batch, x = jax.device_put(trials.batch()), jnp.asarray(trials.x, float)

        def log_evidence(change: jax.Array) -> jax.Array:
            moved = eqx.tree_at(lambda n: n.dynamics.pairs.weights[0], networks, given + change.reshape(given.shape))
            found = expected_transitions(shared_terms(moved), linearised(moved, model, batch, x))
            return found.log_evidence.sum()

        given = networks.dynamics.pairs.weights[0]
        for _ in range(6):
            step = jnp.linalg.solve(-jax.hessian(log_evidence)(jnp.zeros(4)), jax.grad(log_evidence)(jnp.zeros(4)))
            given = given + step.reshape(given.shape)
        networks = eqx.tree_at(lambda n: n.dynamics.pairs.weights[0], networks, given)
        sampler = MCMC(
            NUTS(potential_fn=lambda c: -log_evidence(c)), num_warmup=300, num_samples=1500, progress_bar=False
        )
        sampler.run(random.key(0), init_params=jnp.zeros(4))
        long = np.asarray(sampler.get_samples())
        params = {f"{name}$params": part for name, part in networks._asdict().items()}
        ones = np.ones((*trials.x.shape[:2], 1))
        fitted = FittedProgram(model, params)
        steps = training_steps(model, trials, trials.x.astype(float), ones)
        found = weight_posterior(random.key(1), fitted, trials, trials.x, ones, steps)
        drawn = np.asarray(found.draws(random.key(2), 20_000).weights.pairs.weights[0]).reshape(20_000, 4)
    np.testing.assert_allclose(drawn.std(0), long.std(0), rtol=0.1)
    mode = np.asarray(given).reshape(4)
    np.testing.assert_allclose(mode + drawn.mean(0), mode + long.mean(0), rtol=0.1)
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.corrcoef(long.T), atol=0.1)
