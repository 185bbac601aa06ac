"""The start by smoothing against dense algebra and sums over every path of states."""

from functools import cache, partial
from itertools import product
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy.special import logsumexp, softmax

from mrsds_ppl.analysis.recovery.alignment import align_latents, match_states
from mrsds_ppl.data.batch import Batch
from mrsds_ppl.data.simulate import SIMULATORS
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.guides import GUIDES, GaussianMarkovPaths, gaussian_markov_paths, path_guide
from mrsds_ppl.models import MRSDS, DynamicsOptions, EmissionOptions, ModelOptions
from mrsds_ppl.models.covariance import Covariance
from mrsds_ppl.models.dynamics import with_scaled_noise
from mrsds_ppl.models.filtering import SmoothedPaths, smooth_anew, smooth_new_trials
from mrsds_ppl.models.linearised import linearised_with, path_log_density, shared_terms
from mrsds_ppl.start.laplace_em import LaplaceEM, SmoothedFit
from mrsds_ppl.start.linear_program import LinearDynamics, improved, linear_program
from mrsds_ppl.start.pca import initialize
from mrsds_ppl.start.refit.path_refit import Refit, noise_factor, refit_networks
from mrsds_ppl.statespace.gaussian_sum import expected_transitions, state_posterior
from mrsds_ppl.statespace.smoothing import PathMoments, chain_of, smooth_path, uphill
from mrsds_ppl.train import stages


def _small(num_bins: int, num_states: int, emission: str = "gaussian"):
    """A switching linear program of two regions with one latent each, its batch of two trials, and its networks."""
    rng = np.random.default_rng(3)
    y = rng.poisson(1.0, size=(2, num_bins, 6)).astype(float)
    paths = [y[0], y[1, : num_bins - 1]]
    if emission == "gaussian":
        paths[0][1, 2] = np.nan
    trials = Trials.from_arrays(paths, region_sizes=[3, 3])
    options = ModelOptions(
        ux=False, xz=False, emissions=EmissionOptions(dist=emission),
        dynamics=DynamicsOptions(layers=(4,), activations=("tanh", None)),
    )  # fmt: skip
    model = MRSDS([3, 3], 1, num_states, key=random.key(0), options=options)
    networks = model.networks
    weights = jnp.asarray(rng.normal(scale=0.5, size=(num_states, 2, 3)))
    dynamics = LinearDynamics(weights, networks.dynamics.noise)
    return trials.batch(), model, networks._replace(dynamics=dynamics)


def _moments(networks, batch, states):
    return jax.jit(lambda x: smooth_path(shared_terms(networks), _around(networks, batch, x), states))(
        jnp.zeros((*batch.y.shape[:2], 2))
    )


def _around(networks, batch, x, moves=None):
    """The program linearised around paths; without transitions where nothing reads them."""
    trials, bins = x.shape[:2]
    moves = jnp.zeros((1, 1)) if moves is None else moves
    every_move = jnp.broadcast_to(moves, (trials, bins - 1, *moves.shape))
    return linearised_with(networks, batch, x, jnp.zeros((trials, bins, 0)), every_move)


def _dense(networks, batch, trial, path):
    """log p(y, x | z) of one trial as a function of the flat path of its valid bins."""
    length = len(path)
    y, seen = jnp.asarray(batch.y)[trial, :length], jnp.asarray(batch.observed)[trial, :length]

    def log_joint(flat):
        x = flat.reshape(length, 2)
        total = networks.initial.noise.around(networks.initial.means[path[0]]).log_prob(x[0])
        means = networks.dynamics.means(x[:-1], jnp.zeros((length - 1, 0)))
        chosen = means[jnp.asarray(path[1:], int), jnp.arange(length - 1)]
        total = total + networks.dynamics.noise.around(chosen).log_prob(x[1:]).sum()
        return total + networks.emissions.law(x[None], seen[None]).log_prob(y[None])[0]

    return log_joint, 2 * length


def test_smoothed_moments_are_those_of_the_dense_gaussian() -> None:
    with jax.enable_x64(True):
        batch, _, networks = _small(5, 2)
        path = [0, 1, 1, 0, 1]
        states = jax.nn.one_hot(jnp.asarray([path, path]), 2, dtype=jnp.float64)
        moments = _moments(networks, jax.tree.map(jnp.asarray, batch), states)
        for trial in range(2):
            length = int(batch.lengths[trial])
            log_joint, size = _dense(networks, batch, trial, path[:length])
            precision = -jax.jit(jax.hessian(log_joint))(jnp.zeros(size))
            mean = jnp.linalg.solve(precision, jax.jit(jax.grad(log_joint))(jnp.zeros(size)))
            covariance = jnp.linalg.inv(precision)
            np.testing.assert_allclose(moments.mean[trial, :length].ravel(), mean, rtol=1e-5, atol=1e-6)
            blocks = covariance.reshape(length, 2, length, 2)
            for t in range(length):
                np.testing.assert_allclose(moments.covariance[trial, t], blocks[t, :, t], rtol=1e-5, atol=1e-7)
            for t in range(length - 1):
                np.testing.assert_allclose(moments.lagged[trial, t], blocks[t, :, t + 1], rtol=1e-5, atol=1e-7)


def test_the_density_of_paths_is_that_of_each_trial_written_out() -> None:
    with jax.enable_x64(True):
        batch, _, networks = _small(5, 2)
        batch, path = jax.tree.map(jnp.asarray, batch), [0, 1, 1, 0, 1]
        states, x = jax.nn.one_hot(jnp.asarray([path, path]), 2), random.normal(random.key(0), (2, 5, 2))
        density = partial(path_log_density, networks, shared_terms(networks), batch, jnp.zeros((2, 5, 0)), states)
        found, slopes = density(x) - density(0 * x), jax.grad(lambda x: density(x).sum())(x)
        for trial in range(2):
            length = int(batch.lengths[trial])
            log_joint, _ = _dense(networks, batch, trial, path[:length])
            value, slope = jax.value_and_grad(log_joint)(x[trial, :length].ravel())
            np.testing.assert_allclose(found[trial], value - log_joint(jnp.zeros(2 * length)))
            np.testing.assert_allclose(slopes[trial, :length].ravel(), slope, atol=1e-9)
            assert not np.asarray(slopes[trial, length:]).any()


@pytest.mark.slow
@pytest.mark.parametrize("burst", [False, True])
def test_smoothing_again_and_again_around_its_mean_ends_at_the_mode_of_counts(burst) -> None:
    with jax.enable_x64(True):
        batch, _, networks = _small(4, 1, "negative_binomial" if burst else "poisson")
        if burst:
            batch.y[0, 1, :2] = 200.0
            dispersed = jnp.full(6, np.log(2.0))
            networks = eqx.tree_at(lambda n: n.emissions.laws[0].log_dispersion, networks, dispersed)
        batch, states, x = jax.tree.map(jnp.asarray, batch), jnp.ones((2, 4, 1)), jnp.zeros((2, 4, 2))
        shared = shared_terms(networks)
        density = partial(path_log_density, networks, shared, batch, jnp.zeros((2, 4, 0)), states)

        @jax.jit
        def again(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            around = _around(networks, batch, x)
            found = smooth_path(shared, around, states).mean
            return uphill(density, shared, around, states, x, found), found

        lost = []
        for _ in range(30):
            before = density(x)
            x, found = again(x)
            lost.append((before - density(found)).max())
            assert (density(x) >= before - 1e-12 * abs(before)).all()
        # A whole step loses where there is a burst, so that halving it is what got there.
        assert (max(lost) > 1.0) == burst
        log_joint, size = _dense(networks, batch, 0, [0] * 4)
        # Where halving stops a step, the density is known to a hundred roundings only.
        assert np.abs(jax.jit(jax.grad(log_joint))(x[0].reshape(size))).max() < (1e-4 if burst else 1e-5)


def test_the_chain_of_moments_has_these_moments() -> None:
    with jax.enable_x64(True):
        batch, _, networks = _small(5, 2)
        states = jnp.full((2, 5, 2), 0.5)
        moments = _moments(networks, jax.tree.map(jnp.asarray, batch), states)
        _, gain, cholesky = chain_of(moments)
        covariance = moments.covariance[:, 0]
        for t in range(1, 5):
            np.testing.assert_allclose(gain[:, t] @ covariance, jnp.swapaxes(moments.lagged[:, t - 1], 1, 2), atol=1e-6)
            step = cholesky[:, t] @ jnp.swapaxes(cholesky[:, t], 1, 2)
            covariance = gain[:, t] @ covariance @ jnp.swapaxes(gain[:, t], 1, 2) + step
            np.testing.assert_allclose(covariance, moments.covariance[:, t], atol=1e-6)


@pytest.mark.slow
@pytest.mark.compiling
@pytest.mark.parametrize("lag", [2, 5])
def test_state_probabilities_and_evidence_are_sums_over_every_path(lag: int) -> None:
    with jax.enable_x64(True):
        batch, _, networks = _small(5, 2)
        batch = jax.tree.map(jnp.asarray, batch)
        moves = jnp.log(jnp.asarray([[0.8, 0.2], [0.3, 0.7]]))
        around = jax.jit(lambda x: _around(networks, batch, x, moves))(jnp.zeros((2, 5, 2)))
        program = shared_terms(networks), around
        found = jax.jit(lambda p: state_posterior(*p, num_kept=32, lag=lag))(program)
        counted = jax.jit(lambda p: expected_transitions(*p, order=5))(program)
        start = jax.nn.log_softmax(networks.initial.state_logits)
        for trial in range(2):
            length = int(batch.lengths[trial])

            @cache
            def by_enumeration(until: int, trial: int = trial) -> tuple[np.ndarray, float, np.ndarray]:
                """Given y_1 ... y_until: p(z_t) of every bin, log p(y), expected number of each transition."""
                cut = batch._replace(
                    lengths=jnp.full(2, until), y=batch.y[:, :until], observed=batch.observed[:, :until]
                )
                paths = np.array(list(product(range(2), repeat=until)))

                def log_weight(path: jax.Array) -> jax.Array:
                    log_joint, size = _dense(networks, cut, trial, path)
                    at = jnp.zeros(size)
                    precision, slope = -jax.hessian(log_joint)(at), jax.grad(log_joint)(at)
                    integral = log_joint(at) + 0.5 * slope @ jnp.linalg.solve(precision, slope)
                    prior = start[path[0]] + moves[path[:-1], path[1:]].sum()
                    return prior + integral - 0.5 * jnp.linalg.slogdet(precision / (2 * jnp.pi))[1]

                weights = np.asarray(jax.jit(jax.vmap(log_weight))(paths))
                which, share = np.eye(2)[paths], softmax(weights)
                moved = np.einsum("p,ptj,ptk->jk", share, which[:, :-1], which[:, 1:])
                return np.tensordot(share, which, 1), float(logsumexp(weights)), moved

            for t in range(length):
                judged = by_enumeration(min(t + lag, length))[0]
                np.testing.assert_allclose(found.probabilities[trial, t], judged[t], atol=1e-6)
            _, log_evidence, moved = by_enumeration(length)
            for evidence in (found.log_evidence, counted.log_evidence):
                np.testing.assert_allclose(evidence[trial], log_evidence, rtol=1e-6)
            np.testing.assert_allclose(counted.transitions[trial], moved, atol=1e-6)


def test_updates_of_gaussian_emissions_are_the_least_squares_solution() -> None:
    with jax.enable_x64(True):
        batch, _, networks = _small(6, 1)
        batch = jax.tree.map(jnp.asarray, batch)
        program = linear_program(networks, batch, num_states=1, num_inputs=0)
        x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 2)))
        moments = _moments(networks, batch, jnp.ones((2, 6, 1)))
        known = moments._replace(mean=x, covariance=0 * moments.covariance, lagged=0 * moments.lagged)
        after = jax.jit(lambda known: improved(program, batch, jnp.zeros((2, 6, 0)), known, step=1.0))(known).networks
        valid = np.arange(6) < np.asarray(batch.lengths)[:, None]
        for neuron, region in ((0, 0), (2, 0), (5, 1)):
            seen = np.asarray(batch.observed[..., neuron]) & valid
            features = np.stack([np.asarray(x)[seen][:, region], np.ones(seen.sum())], axis=1)
            scale = float(networks.emissions.laws[0].noise.scale[neuron]) ** 2
            # The ridge that keeps unseen neurons in place, in units of the signal's variance.
            gram = features.T @ features + 1e-2 * scale * np.eye(2)
            start = np.array([float(networks.emissions.readout.weight[neuron, 0]), 0.0])
            start[1] = float(networks.emissions.readout.bias[neuron])
            left = np.asarray(batch.y[..., neuron])[seen] - features @ start
            wanted = start + np.linalg.solve(gram, features.T @ left)
            np.testing.assert_allclose(after.emissions.readout.weight[neuron, 0], wanted[0], rtol=1e-5)
            np.testing.assert_allclose(after.emissions.readout.bias[neuron], wanted[1], rtol=1e-5)
        valid_pairs = valid[:, 1:]
        features = np.concatenate([np.asarray(x)[:, :-1], np.ones((2, 5, 1))], axis=-1)[valid_pairs]
        wanted = np.linalg.solve(
            features.T @ features + 1e-2 * np.eye(3), features.T @ np.asarray(x)[:, 1:][valid_pairs]
        )
        np.testing.assert_allclose(after.dynamics.weights[0], wanted.T, rtol=1e-6)


def test_states_that_share_every_bin_alike_are_one_state() -> None:
    with jax.enable_x64(True):
        batch, _, networks = _small(6, 1)
        batch = jax.tree.map(jnp.asarray, batch)
        u = jnp.zeros((2, 6, 0))

        @jax.jit(static_argnames="num_states")
        def stepped(num_states: int):
            program, x = linear_program(networks, batch, num_states=num_states, num_inputs=0), jnp.zeros((2, 6, 2))
            around = _around(program.networks, batch, x)
            paths = smooth_path(shared_terms(program.networks), around, program.states)
            return paths, improved(program, batch, u, paths).networks

        (of_one, one), (of_three, three) = stepped(1), stepped(3)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10), of_one, of_three)
        # The ridge of the dynamics counts once for each state.
        np.testing.assert_allclose(three.dynamics.weights, np.tile(one.dynamics.weights, (3, 1, 1)), atol=1e-2)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8), three.emissions, one.emissions)


def test_normalised_latents_give_the_same_signals_and_steps() -> None:
    with jax.enable_x64(True):
        batch, _, networks = _small(6, 1)
        batch = jax.tree.map(jnp.asarray, batch)
        program = linear_program(networks, batch, num_states=1, num_inputs=0)
        moments = _moments(program.networks, batch, jnp.ones((2, 6, 1)))
        after, scaled = program.normalised(batch, moments)
        valid = np.arange(6) < np.asarray(batch.lengths)[:, None]
        square = scaled.mean**2 + jnp.diagonal(scaled.covariance, axis1=-2, axis2=-1)
        np.testing.assert_allclose(np.asarray(square)[valid].mean(0), 1.0, rtol=1e-6)
        np.testing.assert_allclose(
            after.networks.emissions.readout(scaled.mean), program.networks.emissions.readout(moments.mean), rtol=1e-6
        )
        u = jnp.zeros((2, 6, 0))
        scale = (moments.mean / scaled.mean)[0, 0]
        np.testing.assert_allclose(
            after.networks.dynamics.means(scaled.mean, u) * scale,
            program.networks.dynamics.means(moments.mean, u),
            rtol=1e-6,
        )


def test_entries_of_a_table_give_the_chain_they_were_made_for() -> None:
    with jax.enable_x64(True):
        batch, model, networks = _small(5, 2)
        batch = jax.tree.map(jnp.asarray, batch)
        moments = _moments(networks, batch, jnp.full((2, 5, 2), 0.5))
        guide = GaussianMarkovPaths(model)
        law = guide.law(guide.at(moments), batch)
        valid = np.arange(5) < np.asarray(batch.lengths)[:, None]
        np.testing.assert_allclose(np.asarray(law.mean)[valid], np.asarray(moments.mean)[valid], rtol=1e-6)
        np.testing.assert_allclose(np.asarray(law.covariances)[valid], np.asarray(moments.covariance)[valid], rtol=1e-4)


@pytest.mark.parametrize("name", ["auto_normal", "auto_lowrank", "auto_delta"])
def test_entries_of_an_automatic_guide_are_the_independent_normals_nearest_to_the_chain(name: str) -> None:
    with jax.enable_x64(True):
        batch, model, networks = _small(5, 1)
        batch = jax.tree.map(jnp.asarray, batch)
        moments = _moments(networks, batch, jnp.ones((2, 5, 1)))
        law = GUIDES[name](model).law(GUIDES[name](model).at(moments), batch)
        base = getattr(law, "base_dist", law)
        mean, variance = np.reshape(base.mean, (2, 5, 2)), np.reshape(base.variance, (2, 5, 2))
        # The second trial ends before its last bin, which is padding.
        np.testing.assert_allclose(mean[0], moments.mean[0], rtol=1e-9)
        np.testing.assert_array_equal(mean[1, 4], 0.0)
        log_joint, size = _dense(networks, batch, 0, [0] * 5)
        precision = -jax.jit(jax.hessian(log_joint))(jnp.zeros(size))
        scale = np.diag(precision).reshape(5, 2) ** -0.5
        wanted = np.zeros_like(scale) if name == "auto_delta" else scale
        # Of low rank, hardly more: directions that a fit can turn.
        tolerance = 0.03 if name == "auto_lowrank" else 1e-4
        np.testing.assert_allclose(np.sqrt(variance[0]), wanted, rtol=tolerance)


def test_entries_are_compiled_once_however_many_guides_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[PathMoments] = []

    def counted(moments: PathMoments) -> tuple[jax.Array, jax.Array, jax.Array]:
        traced.append(moments)
        return chain_of(moments)

    monkeypatch.setattr(gaussian_markov_paths, "chain_of", counted)
    _, model, _ = _small(5, 2)
    eye = jnp.broadcast_to(jnp.eye(2), (2, 23, 2, 2))  # of a length that no other test has
    for _ in range(3):
        GaussianMarkovPaths(model).at(PathMoments(jnp.zeros((2, 23, 2)), eye, jnp.zeros_like(eye)))
    assert len(traced) == 1


def test_a_stretched_refit_moves_further_and_by_the_mean_of_the_steps() -> None:
    # One latent whose steps are 0.5 on average, from dynamics that stay: stretched by 3 they are 1.5.
    rng = np.random.default_rng(0)
    trials = Trials.from_arrays([rng.normal(size=(40, 4)) for _ in range(8)], region_sizes=[4])
    options = ModelOptions(ux=False, xz=False, dynamics=DynamicsOptions(layers=(8,), activations=("tanh", None)))
    model = MRSDS([4], 1, 1, key=random.key(0), options=options)
    params = {f"{name}$params": part for name, part in model.networks._asdict().items()}
    batch = jax.device_put(trials.batch())
    x = jnp.tile(jnp.asarray([0.0, 0.5]), (8, 20))[..., None]
    tiny = jnp.full((8, 40, 1, 1), 1e-4)
    paths = SmoothedPaths(PathMoments(x, tiny, jnp.zeros_like(tiny)), jnp.ones((8, 40, 1)))
    # Messages of zero leave latents where they are.
    params["dynamics$params"] = eqx.tree_at(
        lambda d: d.pairs.weights[-1], model.networks.dynamics, 0 * model.networks.dynamics.pairs.weights[-1]
    )

    @jax.jit
    def refitted(stretch):
        refit = Refit(num_steps=300, stretch=stretch)
        found = refit_networks(random.key(1), params, model, batch, paths, refit)["dynamics$params"]
        return found.means(jnp.zeros((1, 1)), jnp.zeros((1, 0)))[0, 0, 0], found.noise.scale

    for stretch in (1.0, 3.0):
        mean, scale = refitted(stretch)
        np.testing.assert_allclose(mean, 0.5 * stretch, atol=0.05)
        np.testing.assert_array_equal(scale, model.networks.dynamics.noise.scale)


@pytest.mark.parametrize("triangular", [False, True])
def test_scaled_noise_scales_the_whole_covariance(triangular: bool) -> None:
    model = MRSDS([3, 3], 1, 2, key=random.key(0), options=ModelOptions(ux=False, xz=False))
    params = {f"{name}$params": part for name, part in model.networks._asdict().items()}
    before = Covariance((2,), 0.3, triangular=triangular, trainable=True)
    if triangular:
        before = eqx.tree_at(lambda n: n.lower, before, before.lower + 0.1)
    params["dynamics$params"] = eqx.tree_at(lambda d: d.noise, params["dynamics$params"], before)
    after = with_scaled_noise(params["dynamics$params"], 0.5).noise
    np.testing.assert_allclose(after.cholesky, 0.5 * before.cholesky, rtol=1e-5)


class Started(NamedTuple):
    trials: Trials
    model: MRSDS
    batch: Batch
    found: SmoothedFit


@pytest.fixture(scope="module")
def few_oscillators() -> Started:
    trials = SIMULATORS["oscillators"](0, num_trials=16, num_regions=2, num_states=2, mean_count=2.0)
    options = ModelOptions(ux=False, xz=False, emissions=EmissionOptions(dist="poisson"))
    model = MRSDS(trials.region_sizes, 2, 2, key=random.key(0), options=options, num_trials=16)
    params = {f"{name}$params": part for name, part in model.networks._asdict().items()}
    params = initialize(params, trials, model.latent_sizes)
    batch = jax.device_put(trials.batch())
    return Started(trials, model, batch, LaplaceEM(num_refit_steps=100)(random.key(1), params, model, batch))


@pytest.mark.slow
@pytest.mark.nightly
def test_the_start_finds_latents_and_states_of_a_few_oscillators(few_oscillators: Started) -> None:
    trials, model, batch, found = few_oscillators
    again = smooth_new_trials(found.params, model, batch)
    for paths, states in (found.paths.moments, found.paths.states), (again.moments, again.states):
        r2 = align_latents(trials.x, np.asarray(paths.mean), trials.lengths, [2, 2], [2, 2]).r2
        assert r2.min() > 0.9, r2
        assert match_states(trials.z, np.asarray(states), trials.lengths).accuracy > 0.9


@pytest.mark.slow
@pytest.mark.nightly
def test_a_noise_three_times_as_large_as_what_was_fitted_comes_down_again(few_oscillators: Started) -> None:
    _, model, batch, found = few_oscillators
    best = jax.jit(lambda params: noise_factor(model.networks_from(params), model, batch, found.paths))
    wrong = with_scaled_noise(found.params["dynamics$params"], 3.0)
    for _ in range(4):
        wrong = with_scaled_noise(wrong, best({**found.params, "dynamics$params": wrong}))
    ratio = np.asarray(wrong.noise.scale / found.params["dynamics$params"].noise.scale)
    assert (np.abs(np.log(ratio)) < 0.35).all(), ratio


@pytest.mark.slow
def test_a_request_to_stop_ends_the_start_between_rounds() -> None:
    trials = SIMULATORS["oscillators"](0, num_trials=4, num_regions=2, num_states=2, min_bins=10, num_bins=12)
    options = ModelOptions(ux=False, xz=False, emissions=EmissionOptions(dist="poisson"))
    model = MRSDS(trials.region_sizes, 2, 2, key=random.key(0), options=options, num_trials=4)
    params = {f"{name}$params": part for name, part in model.networks._asdict().items()}
    params = initialize(params, trials, model.latent_sizes)
    start = LaplaceEM(should_stop=lambda: True)
    stopped = start(random.key(1), params, model, jax.device_put(trials.batch()))
    before, after = (p["dynamics$params"].pairs for p in (params, stopped.params))
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.isfinite(stopped.paths.moments.mean).all()


@pytest.mark.slow
@pytest.mark.compiling
@pytest.mark.nightly
@pytest.mark.parametrize("guide", ["gaussian_markov", "auto_normal"])
def test_a_run_without_an_encoder_is_fitted_resumed_from_its_files_and_asked_about_new_trials(
    guide, tmp_path, monkeypatch
) -> None:
    from mrsds_ppl.commands.fit import fit
    from mrsds_ppl.config.loading import load_config, parse_assignment
    from mrsds_ppl.data.simulate import simulate_oscillators
    from mrsds_ppl.fitted import load

    small = [
        "data.simulation.num_trials=12", "data.simulation.num_regions=2", "data.simulation.num_states=2",
        "data.simulation.min_bins=20", "data.simulation.num_bins=30", "model.num_states=2",
        "model.xtransition.dynamics.layers=[8, 8]", "training.num_steps=20", "training.log_steps=10",
        "training.test_perc=0.25", "output.draws=8", f"inference.guide={guide}",
    ]  # fmt: skip
    config = load_config("configs/oscillators.yaml", dict(parse_assignment(text) for text in small))
    lines: list[str] = []
    smoothed: list[PathMoments] = []

    def remembered(*args):
        smoothed.append(smooth_anew(*args))
        return smoothed[-1]

    monkeypatch.setattr(stages, "smooth_anew", remembered)
    result = fit(config, name="small", result_path=tmp_path, log=lines.append)
    assert any(line.startswith("smoothing: dynamics networks") for line in lines)
    # The paths of the training trials are those of the program as it is in the end, and are so once.
    count = len(smoothed[0].mean)
    np.testing.assert_array_equal(result.params["auto_path_loc"][:count], smoothed[0].mean)
    again = fit(config, name="small", result_path=tmp_path, resume=True, log=lines.append)
    assert len(smoothed) == 1
    np.testing.assert_array_equal(again.params["auto_path_loc"], result.params["auto_path_loc"])
    run = load(tmp_path / "small")
    before, after = (p["dynamics$params"].noise.raw_diagonal for p in (result.params, run.params))
    np.testing.assert_array_equal(before, after)
    fresh = simulate_oscillators(1, num_trials=3, num_regions=2, num_states=2, min_bins=20, num_bins=30)
    found = run.infer_set(fresh, draws=8)
    assert found.x_mean.shape == (*fresh.y.shape[:2], 4)
    assert np.isfinite(found.elbo).all()


def test_paths_of_new_trials_that_are_not_finite_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from mrsds_ppl.errors import RunError

    batch, model, _ = _small(5, 2)
    guide, eye = GaussianMarkovPaths(model), jnp.broadcast_to(jnp.eye(2), (2, 5, 2, 2))
    guide.begin(batch)
    broken = PathMoments(jnp.full((2, 5, 2), jnp.nan), eye, jnp.zeros_like(eye))
    monkeypatch.setattr(path_guide, "smooth_new_trials", lambda *args: (broken, None))
    with pytest.raises(RunError, match="the paths of 2 new trials are not finite"):
        guide.adapt(random.key(0), {}, batch)


def test_no_encoder_is_refused_with_a_guide_that_needs_one() -> None:
    from mrsds_ppl.config.loading import load_config
    from mrsds_ppl.errors import ConfigError

    words = r"oscillators.yaml: inference\.encoder: found none with mean_field.*allowed: convolution, transformer"
    with pytest.raises(ConfigError, match=words):
        load_config("configs/oscillators.yaml", {"inference.guide": "mean_field"})
