"""The lower rooms against others: HMM and smoother of dynamax, a particle filter, the Neural Latents Benchmark."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mrsds_ppl.analysis.metrics import bits_per_spike
from mrsds_ppl.statespace.chain import Chain, most_likely_path, smooth
from mrsds_ppl.statespace.gaussian_sum import state_posterior
from mrsds_ppl.statespace.linear_gaussian import LinearSteps, SharedTerms, SignalTerms, TrialTerms
from mrsds_ppl.statespace.smoothing import smooth_path

pytestmark = pytest.mark.nightly
BINS, LATENTS, NEURONS = 30, 3, 5


@pytest.fixture(scope="module")
def dynamax():
    """The two modules, whose import warns of what other packages of theirs will lose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import dynamax.hidden_markov_model as hmm
        import dynamax.linear_gaussian_ssm.inference as lgssm
    return hmm, lgssm


def test_the_chain_is_the_hidden_markov_model_of_dynamax(dynamax):
    rng, count = np.random.default_rng(0), 3
    first, moves = rng.dirichlet(np.ones(count)), rng.dirichlet(np.ones(count), size=count)
    evidence = rng.normal(scale=2.0, size=(BINS, count))
    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = dynamax[0].hmm_two_filter_smoother(*map(jnp.asarray, (first, moves, evidence)))
        likeliest = dynamax[0].hmm_posterior_mode(*map(jnp.asarray, (first, moves, evidence)))
        chain = Chain(
            jnp.asarray(np.log(first) + evidence[0]),
            jnp.asarray(np.tile(np.log(moves), (BINS - 1, 1, 1))),
            jnp.asarray(evidence[1:]),
        )
        ours = smooth(chain)
        np.testing.assert_allclose(ours.log_normalizer, found.marginal_loglik, rtol=1e-10)
        np.testing.assert_allclose(ours.marginals, found.smoothed_probs, atol=1e-10)
        np.testing.assert_array_equal(most_likely_path(chain), likeliest)


def linear_program(num_states: int) -> dict[str, np.ndarray]:
    """Latents that turn, otherwise in each state, and neurons that see all of them."""
    rng = np.random.default_rng(1)
    turns = np.linalg.qr(rng.normal(size=(num_states, LATENTS, LATENTS)))[0]
    moves = np.full((num_states, num_states), 0.1 / max(num_states - 1, 1))
    np.fill_diagonal(moves, 0.9 if num_states > 1 else 1.0)
    return {
        "gain": 0.9 * turns,
        "offset": rng.normal(scale=0.5, size=(num_states, LATENTS)),
        "noise": 0.1 * np.eye(LATENTS) + 0.02,
        "first_means": rng.normal(size=(num_states, LATENTS)),
        "first_covariance": np.eye(LATENTS) + 0.3,
        "moves": moves,
        "loadings": rng.normal(size=(NEURONS, LATENTS)),
        "bias": rng.normal(size=NEURONS),
        "variance": rng.uniform(0.3, 0.6, NEURONS),
    }


def drawn(program: dict[str, np.ndarray], seed: int) -> np.ndarray:
    """Signals of one trial."""
    rng, num_states = np.random.default_rng(seed), len(program["gain"])
    state, rows = 0, []
    x = rng.multivariate_normal(program["first_means"][0], program["first_covariance"])
    for t in range(BINS):
        if t:
            state = rng.choice(num_states, p=program["moves"][state])
            mean = program["gain"][state] @ x + program["offset"][state]
            x = rng.multivariate_normal(mean, program["noise"])
        rows.append(program["loadings"] @ x + program["bias"] + np.sqrt(program["variance"]) * rng.normal(size=NEURONS))
    return np.stack(rows)


def as_arrays(program: dict[str, np.ndarray], y: np.ndarray) -> tuple[SharedTerms, TrialTerms]:
    """The same program of one trial as smoother and filter take it."""
    num_states, weighted = len(program["gain"]), program["loadings"] / program["variance"][:, None]
    residual = y - program["bias"]
    constant = stats.norm.logpdf(residual, scale=np.sqrt(program["variance"])).sum()
    shared = SharedTerms(
        jnp.log(jnp.full(num_states, 1.0 / num_states)),
        *(jnp.asarray(program[name]) for name in ("first_means", "first_covariance", "noise")),
    )
    steps = LinearSteps(
        *(jnp.asarray(np.tile(a, (1, BINS - 1, *[1] * a.ndim))) for a in (program["gain"], program["offset"]))
    )
    signals = SignalTerms(
        jnp.asarray(np.tile(weighted.T @ program["loadings"], (1, BINS, 1, 1))),
        jnp.asarray((residual @ weighted)[None]),
        jnp.asarray([constant]),
    )
    moves = jnp.asarray(np.tile(np.log(program["moves"]), (1, BINS - 1, 1, 1)))
    return shared, TrialTerms(steps, signals, moves, jnp.asarray([BINS]))


def test_the_smoother_of_one_state_is_that_of_dynamax(dynamax):
    lgssm, program = dynamax[1], linear_program(1)
    y = drawn(program, 0)
    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        params = lgssm.ParamsLGSSM(
            lgssm.ParamsLGSSMInitial(jnp.asarray(program["first_means"][0]), jnp.asarray(program["first_covariance"])),
            lgssm.ParamsLGSSMDynamics(
                jnp.asarray(program["gain"][0]),
                jnp.asarray(program["offset"][0]),
                jnp.zeros((LATENTS, 0)),
                jnp.asarray(program["noise"]),
            ),
            lgssm.ParamsLGSSMEmissions(
                jnp.asarray(program["loadings"]),
                jnp.asarray(program["bias"]),
                jnp.zeros((NEURONS, 0)),
                jnp.diag(jnp.asarray(program["variance"])),
            ),
        )
        found = lgssm.lgssm_smoother(params, jnp.asarray(y))
        shared, trials = as_arrays(program, y)
        ours = smooth_path(shared, trials, jnp.ones((1, BINS, 1)))
        np.testing.assert_allclose(ours.mean[0], found.smoothed_means, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(ours.covariance[0], found.smoothed_covariances, rtol=1e-8, atol=1e-9)
        together = found.smoothed_cross_covariances - jnp.einsum(
            "ti,tj->tij", found.smoothed_means[:-1], found.smoothed_means[1:]
        )
        np.testing.assert_allclose(ours.lagged[0, :-1], together, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(state_posterior(shared, trials).log_evidence, [found.marginal_loglik], rtol=1e-9)


def test_the_evidence_of_two_states_is_that_of_a_particle_filter():
    program, particles, repeats = linear_program(2), 20_000, 8
    y = drawn(program, 1)
    with jax.enable_x64(True):
        shared, trials = as_arrays(program, y)
        evidence = float(state_posterior(shared, trials, num_kept=64).log_evidence[0])
    rng, found = np.random.default_rng(2), []
    noise, first = (np.linalg.cholesky(program[name]) for name in ("noise", "first_covariance"))
    for _ in range(repeats):
        state, total = rng.integers(2, size=particles), 0.0
        x = program["first_means"][state] + rng.normal(size=(particles, LATENTS)) @ first.T
        for t in range(BINS):
            if t:
                state = np.where(rng.uniform(size=particles) < 0.9, state, 1 - state)
                moved = np.einsum("pij,pj->pi", program["gain"][state], x) + program["offset"][state]
                x = moved + rng.normal(size=x.shape) @ noise.T
            weight = stats.norm.logpdf(
                y[t], x @ program["loadings"].T + program["bias"], np.sqrt(program["variance"])
            ).sum(1)
            total += np.log(np.exp(weight - weight.max()).mean()) + weight.max()
            share = np.exp(weight - weight.max())
            chosen = rng.choice(particles, particles, p=share / share.sum())
            x, state = x[chosen], state[chosen]
        found.append(total)
    assert np.std(found) < 0.3
    assert abs(np.mean(found) - evidence) < 4 * np.std(found) / np.sqrt(repeats) + np.var(found)


def test_bits_per_spike_are_those_of_the_neural_latents_benchmark():
    # Its metadata ask for a pandas of 2021, with which nothing else here installs: pip install --no-deps nlb_tools
    theirs = pytest.importorskip("nlb_tools.evaluation").bits_per_spike
    rng = np.random.default_rng(0)
    rate = rng.gamma(1.0, 1.0, size=(6, 20, 5))
    y, guess = rng.poisson(rate).astype(float), rate * rng.uniform(0.8, 1.2, rate.shape)
    for seen in (np.ones(y.shape, bool), rng.uniform(size=y.shape) < 0.8):
        assert bits_per_spike(y, seen, guess) == pytest.approx(theirs(guess, np.where(seen, y, np.nan)), rel=1e-10)
