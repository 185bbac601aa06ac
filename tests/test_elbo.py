"""The bound against the exact marginal of a linear-Gaussian model and the sum over all paths of a switching one."""

from types import SimpleNamespace

import by_hand
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from jax import random
from numpyro import handlers
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoDelta, AutoNormal
from scipy import stats

from mrsds_ppl.guides import GaussianChain, GaussianMarkov, MeanField
from mrsds_ppl.models import DynamicsOptions, EmissionOptions, InitialOptions, ModelOptions
from mrsds_ppl.nn.encoders import EncoderOptions
from mrsds_ppl.ppl.elbo import MarkovELBO, importance_weighted_bound, log_terms, log_weights
from mrsds_ppl.ppl.markov import summed_out

LENGTHS, BINS = [6, 4, 1], 6
OTHER = dist.Normal(0.3, 0.8)
SMALL = EncoderOptions(embedding_layers=(3,), channels=4, dilations=(1, 2))


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def make_model(num_states=1, num_trials=None):
    """Two regions of 3 and 2 neurons with 2 and 1 latents, affine networks, every number drawn."""
    linear = DynamicsOptions(layers=(), activations=(None,), triangular_cov=True, noise_scale=0.5)
    form = ModelOptions(
        dynamics=linear,
        emissions=EmissionOptions(triangular_cov=True),
        initial=InitialOptions(triangular_cov=True),
    )
    return by_hand.filled_model([3, 2], [2, 1], num_states, num_inputs=1, options=form, num_trials=num_trials)


def kalman(networks, batch, trial):
    """log p(y) of one trial by the Kalman filter over its observed entries."""
    a, gain, offset = by_hand.affine_form(networks.dynamics, 0)
    first, noise, s = (f @ f.T for f in by_hand.factors(networks))
    c, d = by_hand.readout_matrix(networks.emissions.readout), np.asarray(networks.emissions.readout.bias)
    y, u, observed = (np.asarray(v[trial]) for v in (batch.y, batch.u, batch.observed))
    m, p, total = np.asarray(networks.initial.means)[0], first, 0.0
    for t in range(LENGTHS[trial]):
        if t:
            m, p = a @ m + gain @ u[t] + offset, a @ p @ a.T + noise
        seen = observed[t]
        h, r = c[seen], s[np.ix_(seen, seen)]
        e, v = y[t][seen] - h @ m - d[seen], h @ p @ h.T + r
        total -= 0.5 * (e @ np.linalg.solve(v, e) + np.linalg.slogdet(v)[1] + seen.sum() * np.log(2 * np.pi))
        k = np.linalg.solve(v, h @ p).T
        m, p = m + k @ e, p - k @ h @ p
    return total


def exact_posterior(networks, batch, trial):
    """Mean (bin, latent) and covariance (bin, latent, bin, latent) of the path, by one dense linear system."""
    a, gain, offset = by_hand.affine_form(networks.dynamics, 0)
    length, d = LENGTHS[trial], a.shape[0]
    first, noise, s = (np.linalg.inv(f @ f.T) if f.shape[0] == d else f @ f.T for f in by_hand.factors(networks))
    c, bias = by_hand.readout_matrix(networks.emissions.readout), np.asarray(networks.emissions.readout.bias)
    y, u, observed = (np.asarray(v[trial]) for v in (batch.y, batch.u, batch.observed))
    precision, potential = np.zeros((length, d, length, d)), np.zeros((length, d))
    precision[0, :, 0], potential[0] = first, first @ np.asarray(networks.initial.means)[0]
    for t in range(length):
        if t:
            shift = gain @ u[t] + offset
            precision[t, :, t] += noise
            precision[t - 1, :, t - 1] += a.T @ noise @ a
            precision[t, :, t - 1] -= noise @ a
            precision[t - 1, :, t] -= a.T @ noise
            potential[t] += noise @ shift
            potential[t - 1] -= a.T @ noise @ shift
        seen = observed[t]
        weighted = c[seen].T @ np.linalg.inv(s[np.ix_(seen, seen)])
        precision[t, :, t] += weighted @ c[seen]
        potential[t] += weighted @ (y[t] - bias)[seen]
    covariance = np.linalg.inv(precision.reshape(length * d, -1))
    return (covariance @ potential.ravel()).reshape(length, d), covariance.reshape(length, d, length, d)


def chain_form(mean, covariance):
    """m_t, A_t, L_t of the chain with this mean and this covariance, standard normal in the padding."""
    length, d = mean.shape
    m, a, l = np.zeros((BINS, d)), np.zeros((BINS, d, d)), np.tile(np.eye(d), (BINS, 1, 1))
    m[:length] = mean
    for t in range(length):
        rest = covariance[t, :, t]
        if t:
            a[t] = covariance[t, :, t - 1] @ np.linalg.inv(covariance[t - 1, :, t - 1])
            rest = rest - a[t] @ covariance[t - 1, :, t]
        l[t] = np.linalg.cholesky(rest)
    return m, a, l


def chain_guide(mean, gain, cholesky, size=None):
    def guide(batch):
        with numpyro.plate("trials", size or mean.shape[0], subsample_size=mean.shape[0]):
            numpyro.sample("x", GaussianChain(mean, gain, cholesky))

    return guide


@pytest.fixture(scope="module")
def linear():
    """A linear-Gaussian model, its exact log marginals and the chain form of its exact posterior."""
    with jax.enable_x64(True):
        model = make_model()
        batch = by_hand.make_batch(LENGTHS, BINS, 5)
        # One bin of the first trial is missing altogether.
        batch = batch._replace(observed=batch.observed.at[0, 2].set(False))
        batch = batch._replace(y=jnp.where(batch.observed, batch.y, 0.0))
        marginal = np.array([kalman(model.networks, batch, i) for i in range(3)])
        dense = [exact_posterior(model.networks, batch, i) for i in range(3)]
        parts = [jnp.asarray(np.stack(p)) for p in zip(*(chain_form(*d) for d in dense), strict=True)]
        yield SimpleNamespace(model=model, batch=batch, marginal=marginal, parts=parts, dense=dense)


def draw_weights(model, guide, batch, num_samples, key=0):
    return np.asarray(
        jax.jit(lambda b: log_weights(random.key(key), {}, model, guide, b, num_samples=num_samples))(batch)
    )


def test_every_draw_of_the_exact_guide_weighs_the_exact_marginal(linear):
    weights = draw_weights(linear.model, chain_guide(*linear.parts), linear.batch, 20)
    np.testing.assert_allclose(weights, np.broadcast_to(linear.marginal, (20, 3)), rtol=1e-8)


@pytest.mark.slow
@pytest.mark.compiling
def test_loss_of_the_exact_guide_is_the_negative_log_marginal_for_any_number_of_particles(linear):
    guide = chain_guide(*linear.parts)
    for particles in (1, 3):
        elbo = MarkovELBO(num_particles=particles)
        loss = jax.jit(lambda b, elbo=elbo: elbo.loss(random.key(1), {}, linear.model, guide, b))(linear.batch)
        np.testing.assert_allclose(loss, -linear.marginal.sum(), rtol=1e-8)


@pytest.mark.slow
@pytest.mark.compiling
def test_other_guides_lie_below_by_their_divergence_and_rise_with_samples(linear):
    mean, gain, cholesky = linear.parts
    valid = (np.arange(BINS) < np.array(LENGTHS)[:, None])[..., None]
    off = (mean + 0.1 * valid, gain, jnp.where(valid[..., None], 1.2 * cholesky, cholesky))
    draws = 4000
    weights = draw_weights(linear.model, chain_guide(*off), linear.batch, draws)
    # KL(q || p) of two Gaussians whose deviations from their means differ by the factor 1.2.
    divergence = []
    for length, (_, covariance) in zip(LENGTHS, linear.dense, strict=True):
        size = length * covariance.shape[1]
        distance = np.full(size, 0.1) @ np.linalg.solve(covariance.reshape(size, size), np.full(size, 0.1))
        divergence.append(0.5 * (size * (1.2**2 - 1) - 2 * size * np.log(1.2) + distance))
    error = weights.std(0) / np.sqrt(draws)
    assert (np.abs(weights.mean(0) - linear.marginal + divergence) < 5 * error).all()
    assert (weights.mean(0) < linear.marginal).all()
    bounds = []
    for samples in (1, 10, 100):
        groups = jnp.asarray(weights.reshape(-1, samples, 3))
        bounds.append(np.asarray(jax.vmap(importance_weighted_bound)(groups)))
    one, ten, hundred = (b.mean(0) for b in bounds)
    assert (one < ten).all()
    assert (ten < hundred).all()
    assert (hundred < linear.marginal + 5 * bounds[2].std(0) / np.sqrt(draws / 100)).all()


def weigh(model, batch, path):
    """Log weights of a given path, as if drawn from independent normals."""

    def guide(batch):
        with numpyro.plate("trials", path.shape[0]):
            numpyro.sample("x", OTHER.expand(path.shape).to_event(2))

    return log_terms(random.key(0), {}, model, handlers.substitute(guide, data={"x": path}), batch).log_weights


def test_weights_of_a_given_path_equal_the_sum_over_all_state_paths():
    model, batch = make_model(num_states=2), by_hand.make_batch([5, 3, 1], BINS, 5)
    path = random.normal(random.key(4), (3, BINS, 3))
    forms = [by_hand.affine_form(model.networks.dynamics, k) for k in range(2)]

    def means(k, x, u):
        a, gain, offset = forms[k]
        return a @ x + gain @ u + offset

    padded = np.arange(BINS) >= np.asarray(batch.lengths)[:, None]
    outside = np.where(padded, stats.norm.logpdf(path).sum(-1), 0.0).sum(-1)
    log_q = stats.norm(0.3, 0.8).logpdf(path).sum((1, 2))
    expected = by_hand.log_density(model.networks, batch, path, means) + outside - log_q
    found = jax.jit(lambda b, x: weigh(model, b, x))(batch, path)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    # Nor do the order of the trials and more padding change them.
    order = np.array([2, 0, 1])
    longer = jax.tree.map(lambda a: jnp.pad(a, ((0, 0), (0, 2), (0, 0))) if a.ndim == 3 else a, batch)
    further = random.normal(random.key(9), (3, 2, 3))
    added = (stats.norm.logpdf(further) - stats.norm(0.3, 0.8).logpdf(further)).sum((1, 2))
    again = jax.jit(lambda b, x: weigh(model, b, x))(
        jax.tree.map(lambda a: a[order], longer), jnp.concatenate([path, further], 1)[order]
    )
    np.testing.assert_allclose(again, (found + added)[order], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.compiling
def test_numpy_arrays_will_do():
    model, batch = make_model(num_states=2), by_hand.make_batch([5, 3, 1], BINS, 5)
    path = random.normal(random.key(4), (3, BINS, 3))
    given = jax.jit(lambda x: weigh(model, jax.tree.map(np.asarray, batch), x))(path)
    np.testing.assert_allclose(jax.jit(lambda b, x: weigh(model, b, x))(batch, path), given, rtol=1e-12)


def test_minibatch_is_scaled_to_the_data_set(linear):
    model = make_model(num_trials=12)
    loss = jax.jit(lambda b: MarkovELBO().loss(random.key(1), {}, model, chain_guide(*linear.parts, size=12), b))(
        linear.batch
    )
    np.testing.assert_allclose(loss, -linear.marginal.sum() * 12 / 3, rtol=1e-8)


def test_bound_equals_that_of_numpyro_where_z_is_summed_by_the_handler(linear):
    """Weights with a prior are in no plate of trials, so scaling must leave them alone; numpyro does it by itself."""
    model = make_model(num_states=2, num_trials=12)

    def program(batch):
        numpyro.sample("global", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        return model(batch)

    def guide(batch):
        numpyro.sample("global", dist.Normal(jnp.ones(2), 0.5).to_event(1))
        chain_guide(*linear.parts, size=12)(batch)

    def both(batch):
        ours = MarkovELBO().loss(random.key(2), {}, program, guide, batch)
        return ours, Trace_ELBO().loss(random.key(2), {}, summed_out(program), guide, batch)

    ours, theirs = jax.jit(both)(linear.batch)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_site_that_the_guide_lacks_is_named(linear):
    def guide(batch):
        numpyro.sample("w", dist.Normal())

    with pytest.raises(ValueError, match=r"site 'x' is not sampled by the guide, which has \['w'\]"):
        MarkovELBO().loss(random.key(0), {}, linear.model, guide, linear.batch)


# Slow, since numpyro initialises outside of jit.
@pytest.mark.slow
@pytest.mark.compiling
@pytest.mark.parametrize(
    "name",
    [
        "gaussian_markov",
        *(pytest.param(name, marks=pytest.mark.nightly) for name in ("mean_field", "auto_normal", "auto_delta")),
    ],
)
def test_plain_numpyro_script_runs_with_any_guide(name):
    model, batch = make_model(num_states=2), by_hand.make_batch(LENGTHS, BINS, 5)
    guide = {
        "gaussian_markov": lambda: GaussianMarkov(model, key=random.key(2), options=SMALL),
        "mean_field": lambda: MeanField(model, key=random.key(2), options=SMALL),
        "auto_normal": lambda: AutoNormal(summed_out(model)),
        "auto_delta": lambda: AutoDelta(summed_out(model)),
    }[name]()
    svi = SVI(model, guide, optax.adam(1e-2), loss=MarkovELBO())
    result = svi.run(random.key(0), 5, batch, progress_bar=False)
    assert result.losses.shape == (5,)
    assert np.isfinite(result.losses).all()
    assert "dynamics$params" in result.params


@pytest.mark.slow
@pytest.mark.compiling
def test_steps_share_one_trace_and_descend():
    model, batch = make_model(num_states=2), by_hand.make_batch(LENGTHS, BINS, 5)
    traces = 0

    def counted(batch):
        nonlocal traces
        traces += 1
        return model(batch)

    svi = SVI(
        counted,
        GaussianMarkov(model, key=random.key(2), options=SMALL),
        optax.adam(3e-2),
        loss=MarkovELBO(num_particles=3),
    )
    state, losses = jax.jit(svi.init)(random.key(0), batch), []
    before, step = traces, jax.jit(svi.update)
    for index in range(30):
        state, loss = step(state, batch)
        losses.append(float(loss))
        if index == 0:
            first = traces
    assert before < first == traces
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
