"""Whether a message is there: against the likelihood ratio of a linear program, and by how often it errs."""

from itertools import product

import by_hand
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy import stats

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.edges import score_test, training_steps
from mrsds_ppl.analysis.weights import WeightPosterior, weight_posterior
from mrsds_ppl.analysis.weights.tangents import Tangents
from mrsds_ppl.models import DynamicsOptions, ModelOptions
from mrsds_ppl.models.linearised import linearised, shared_terms
from mrsds_ppl.statespace.gaussian_sum import expected_transitions

STATES, REGIONS, DIRECTIONS, TRIALS = 2, 3, 4, 40


def known_by_chance(rng: np.random.Generator, present: np.ndarray, shrunk: float) -> WeightPosterior:
    """A fit, shrunk towards zero, of a regression on scores whose law is that of true coefficients."""
    shape = (STATES, REGIONS, REGIONS, DIRECTIONS)
    size = int(np.prod(shape))
    root = rng.normal(size=(size, size)) / np.sqrt(size) + np.diag(rng.uniform(0.3, 1.0, size))
    each = root @ root.T
    truth = np.where(present[..., None], 2.0, 0.0) * rng.normal(size=shape)
    noise = rng.normal(size=(TRIALS, size)) @ root.T
    prior = np.full(size, 1e-2)
    whole = TRIALS * each
    # Slopes of log p at a point c are noise - each (c - truth); the fit is the ridge estimate, shrunk further.
    fitted = shrunk * np.linalg.solve(whole + np.diag(prior), noise.sum(0) + whole @ truth.reshape(-1))
    slopes = noise - (each @ (fitted - truth.reshape(-1)))[None]
    covariance = np.linalg.inv(whole + np.diag(prior))
    means = np.zeros((DIRECTIONS, STATES, REGIONS, REGIONS, 1), np.float32)
    tangents = Tangents(None, means, np.ones(shape, np.float32))  # type: ignore[arg-type] # directions are not read
    return WeightPosterior(
        tangents, fitted.reshape(shape), slopes, whole, prior, np.linalg.cholesky(covariance), np.zeros(len(prior))
    )


@pytest.mark.parametrize("shrunk", [1.0, 0.7])
def test_absent_messages_are_claimed_as_often_as_is_said_and_present_ones_are_found(shrunk: float) -> None:
    """Also where the fit is not at the largest evidence, as a fit with priors and penalties is not."""
    rng, absent, found = np.random.default_rng(0), [], []
    own = np.eye(REGIONS, dtype=bool)
    for number in range(40):
        present = rng.random((STATES, REGIONS, REGIONS)) < 0.5
        known = known_by_chance(rng, present, shrunk)
        p = score_test(known, np.full(TRIALS, 50), seed=number)
        absent.append(p[:-1][~present & ~own])
        found.append(p[:-1][present & ~own])
        found.append(p[-1][present.any(0) & ~own])
        assert np.isnan(p[:, own]).all()
    values = np.concatenate(absent)
    assert len(values) > 200
    for level in (0.05, 0.1, 0.5):
        assert (values < level).mean() == pytest.approx(level, abs=3 * np.sqrt(level * (1 - level) / len(values)))
    assert (np.concatenate(found) < 0.05).mean() > 0.9


def test_others_settle_where_log_p_is_largest_without_a_message() -> None:
    """Of a quadratic around the fit, whose curvature is that of the signals and the prior."""
    known = known_by_chance(np.random.default_rng(1), np.ones((STATES, REGIONS, REGIONS), bool), 1.0)
    some = np.zeros(known.fitted.shape, bool)
    some[1, 0, 2] = True
    gone, c = some.reshape(-1), known.fitted.reshape(-1)
    curvature = known.information + np.diag(known.prior)
    d = known.without(gone)
    np.testing.assert_allclose(d[gone], -c[gone], rtol=1e-8)
    others = np.linalg.solve(curvature[np.ix_(~gone, ~gone)], curvature[np.ix_(~gone, gone)] @ c[gone])
    np.testing.assert_allclose(d[~gone], others, rtol=1e-6, atol=1e-9)


def test_a_state_that_no_bin_is_in_says_nothing() -> None:
    known = known_by_chance(np.random.default_rng(0), np.ones((STATES, REGIONS, REGIONS), bool), 1.0)
    information, slopes = known.information.reshape(STATES, -1, STATES, known.fitted[0].size), known.slopes.copy()
    information, slopes = information.copy(), slopes.reshape(TRIALS, STATES, -1)
    information[1], information[:, :, 1], slopes[:, 1] = 0.0, 0.0, 0.0
    size = known.fitted.size
    told = information.reshape(size, size)
    root = np.linalg.cholesky(np.linalg.inv(told + np.diag(known.prior)))
    p = score_test(known._replace(information=told, slopes=slopes.reshape(TRIALS, size), root=root), np.full(TRIALS, 5))
    assert (p[1][~np.eye(REGIONS, dtype=bool)] == 1.0).all()


@pytest.mark.slow
@pytest.mark.compiling
def test_p_values_are_those_of_the_likelihood_ratio() -> None:
    """Four weights of a linear program of one state, one of them zero; the fit is near the largest evidence."""
    maps, rng = np.array([[0.7, 0.1], [0.0, 0.6]]), np.random.default_rng(3)
    loading = rng.normal(size=(6, 1))
    trials = by_hand.linear_recording(rng, maps, loading, (60, 25), 0.3)
    with jax.enable_x64(True):
        options = ModelOptions(ux=False, xz=False, dynamics=DynamicsOptions(layers=(), activations=(None,)))
        model = by_hand.filled_model([3, 3], [1, 1], 1, options=options)
        networks = by_hand.with_values(
            model.networks, (maps + 0.02)[None], np.zeros((1, 2)), loading, np.zeros(6),
            noise=0.5, first_noise=0.5, emission_noise=0.3, first_means=np.zeros((1, 2)),
        )  # fmt: skip
        batch, x = jax.device_put(trials.batch()), jnp.asarray(trials.x, float)
        given = networks.dynamics.pairs.weights[0]

        @jax.jit
        def log_evidence(weights: jax.Array) -> jax.Array:
            moved = eqx.tree_at(lambda n: n.dynamics.pairs.weights[0], networks, weights.reshape(given.shape))
            return expected_transitions(shared_terms(moved), linearised(moved, model, batch, x)).log_evidence.sum()

        slope, curve = jax.jit(jax.grad(log_evidence)), jax.jit(jax.hessian(log_evidence))

        def largest(free: np.ndarray) -> float:
            weights = np.where(free, np.asarray(given).reshape(-1), 0.0)
            for _ in range(5):
                step = np.linalg.solve(
                    -np.asarray(curve(weights))[np.ix_(free, free)], np.asarray(slope(weights))[free]
                )
                weights[free] += step
            return float(log_evidence(weights))

        fitted = FittedProgram(model, {f"{name}$params": part for name, part in networks._asdict().items()})
        ones = np.ones((*trials.x.shape[:2], 1))
        steps = training_steps(model, trials, trials.x.astype(float), ones)
        known = weight_posterior(random.key(1), fitted, trials, trials.x, ones, steps)
        found = score_test(known, trials.lengths)
        # Of what training has left to gain, one step of scoring gains most.
        step = np.asarray(known.change(known.mode).weights.pairs.weights[0]).reshape(-1)
        most, start = largest(np.ones(4, bool)), np.asarray(given).reshape(-1)
        assert most - float(log_evidence(start + step)) < 0.1 * (most - float(log_evidence(start)))
        for target, source in ((0, 1), (1, 0)):
            free = np.array([(r, s) != (target, source) for r, s in product(range(2), repeat=2)])
            ratio = 2 * (most - largest(free))
            exact = stats.chi2.sf(ratio, 1)
            assert found[0, target, source] == pytest.approx(exact, abs=0.02, rel=0.25)
            assert found[1, target, source] == found[0, target, source]
