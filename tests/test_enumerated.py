"""The program in NumPyro's own idiom against the fast one, in float64: values, gradients, draws, what runs on it."""

import itertools
import subprocess
import sys
from functools import partial

import by_hand
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro import handlers
from numpyro.contrib.funsor import config_enumerate, enum, infer_discrete
from numpyro.contrib.funsor.infer_util import log_density as enumerated_log_density
from numpyro.infer import (
    NUTS,
    Predictive,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.util import initialize_model, log_density, potential_energy
from scipy import stats
from scipy.special import softmax

from mrsds_ppl.errors import RunError
from mrsds_ppl.models import DynamicsOptions, EmissionOptions, InitialOptions, ModelOptions
from mrsds_ppl.ppl import TraceMarkovEnum_ELBO
from mrsds_ppl.ppl.elbo import MarkovELBO
from mrsds_ppl.ppl.markov import summed_out

LENGTHS, BINS = [6, 4, 1], 6
LINEAR = DynamicsOptions(layers=(), activations=(None,), triangular_cov=True)
DEEP = DynamicsOptions(communication_type="conditional", layers=(3,), activations=("tanh", None))


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def make_case(num_states, lengths=LENGTHS, num_trials=None):
    """2 states: linear, full covariances. 3: counts; inputs and stages switch. 5: one network for all states."""
    options = {
        2: ModelOptions(
            dynamics=LINEAR,
            initial=InitialOptions(triangular_cov=True),
            emissions=EmissionOptions(triangular_cov=True),
        ),
        3: ModelOptions(dynamics=DEEP, uz=True, sz=True, emissions=EmissionOptions(dist="poisson")),
        5: ModelOptions(
            dynamics=DynamicsOptions(zcond=True, layers=(3,), activations=("tanh", None)), xz=False, ux=False
        ),
    }[num_states]
    sizes = {"num_inputs": 1, "num_stages": 2 if options.sz else 0}
    model = by_hand.filled_model([3, 2], [2, 1], num_states, options=options, num_trials=num_trials, **sizes)
    batch = by_hand.make_batch(lengths, max(lengths), 5, counts=options.emissions.dist == "poisson", **sizes)
    path = jnp.asarray(np.random.default_rng(5).normal(size=(len(lengths), max(lengths), 3)))
    return model, batch, path


def parameters(program, batch):
    def values(batch):
        sites = handlers.trace(handlers.seed(program, 0)).get_trace(batch)
        return {name: site["value"] for name, site in sites.items() if site["type"] == "param"}

    return jax.jit(values)(batch)


def traced(function):
    """Called without a program being compiled, which is enough to see what it refuses."""
    return jax.eval_shape(function)


def fast_density(model, params, path, batch):
    return log_density(summed_out(model), (batch,), {}, {**params, "x": path})[0]


def enumerated_density(model, params, path, batch, first_available_dim=-3):
    program = enum(config_enumerate(model.enumerated), first_available_dim)
    return enumerated_log_density(program, (batch,), {}, {**params, "x": path})[0]


def agree(found, expected, rtol=1e-10):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(float(jnp.abs(b).max(initial=0.0)), 1e-3))


@pytest.mark.parametrize("num_states", [pytest.param(2, marks=pytest.mark.nightly), 3, 5])
def test_value_and_gradient_equal_those_of_the_fast_program(num_states):
    model, batch, path = make_case(num_states)
    params = parameters(model, batch)
    assert set(params) == set(parameters(model.enumerated, batch))

    @jax.jit
    def both(params, path):
        return [
            jax.value_and_grad(density, argnums=(1, 2))(model, params, path, batch)
            for density in (enumerated_density, fast_density)
        ]

    (value, gradient), (expected, expected_gradient) = both(params, path)
    np.testing.assert_allclose(value, expected, rtol=1e-10)
    agree(gradient, expected_gradient)


def linear_means(model):
    """f_k(x, u) of the linear case."""
    forms = [by_hand.affine_form(model.networks.dynamics, k) for k in range(2)]
    return lambda k, x, u: forms[k][0] @ x + forms[k][1] @ u + forms[k][2]


@pytest.mark.parametrize(("lengths", "first_available_dim"), [([1, 1], -3), ([4, 2], -5)])
def test_one_bin_more_dimensions_and_garbage_in_the_padding(lengths, first_available_dim):
    model, batch, path = make_case(2, lengths=lengths)
    padded = np.arange(path.shape[1])[:, None] >= np.asarray(lengths)[:, None, None]
    path = jnp.where(padded, 30.0, path)
    outside = padded.sum() * path.shape[2] * stats.norm.logpdf(30.0)
    found = jax.jit(lambda p, b: enumerated_density(model, {}, p, b, first_available_dim))(path, batch)
    expected = by_hand.log_density(model.networks, batch, path, linear_means(model)).sum()
    np.testing.assert_allclose(found, expected + outside, rtol=1e-10)


def path_law(model, batch, path, trial):
    """All paths of states of a trial of the linear case, and p(z | x) of each."""
    scores = by_hand.log_joint_paths(model.networks, batch, path, trial, linear_means(model))
    return np.array(list(itertools.product(range(2), repeat=int(batch.lengths[trial])))), softmax(scores)


def test_states_without_enumeration_are_draws_given_the_path():
    model, batch, path = make_case(2, lengths=[4, 2])
    draws = 4000
    samples = {"x": jnp.broadcast_to(path, (draws, *path.shape))}
    found = jax.jit(lambda key: Predictive(model.enumerated, samples, parallel=True)(key, batch))(random.key(1))
    states = np.concatenate([found["_PREV_z"][:, None], found["z"]], axis=1)
    assert states.shape == (draws, 4, 2)
    for trial, length in enumerate(batch.lengths):
        paths, expected = path_law(model, batch, path, trial)
        seen = (states[:, None, :length, trial] == paths).all(-1).mean(0)
        assert np.abs(seen - expected).max() < 4 * np.sqrt(0.25 / draws)
        assert (states[:, length:, trial] == states[:, length - 1 : length, trial]).all()


@pytest.mark.slow
@pytest.mark.compiling
def test_infer_discrete_finds_the_states_of_two_bins_and_says_so_of_more():
    """NumPyro takes no longer chain apart, whoever writes it; two bins show that the sites are what it expects."""
    model, batch, path = make_case(2, lengths=[2, 2])

    def decode(temperature, key):
        program = config_enumerate(handlers.substitute(model.enumerated, data={"x": path}))
        found = handlers.seed(infer_discrete(program, temperature=temperature, rng_key=key), 0)
        return handlers.trace(found).get_trace(batch)["z"]["value"]

    draws = np.asarray(jax.jit(jax.vmap(lambda key: decode(1, key)))(random.split(random.key(2), 2000)))
    best = jax.jit(lambda key: decode(0, key))(random.key(0))
    for trial in range(2):
        paths, expected = path_law(model, batch, path, trial)
        seen = (draws[:, None, :, trial] == paths).all(-1).mean(0)
        assert np.abs(seen - expected).max() < 4 * np.sqrt(0.25 / 2000)
        np.testing.assert_array_equal(best[:, trial], paths[expected.argmax()])
    model, batch, path = make_case(2, lengths=[3, 2])
    with pytest.raises(RunError, match=r"Predictive\(model.enumerated, \{'x': x\}\) draws z"):
        traced(lambda: decode(0, random.key(0)))


def test_density_of_given_states_is_that_of_the_fast_program():
    model, batch, path = make_case(2)
    states = jnp.asarray(np.random.default_rng(2).integers(0, 2, (3, BINS)))
    states = jnp.where(
        jnp.arange(BINS) < batch.lengths[:, None], states, states[jnp.arange(3), batch.lengths - 1, None]
    )
    given = {"x": path, "_PREV_z": states[:, 0], "z": states[:, 1:].T}

    @jax.jit
    def both(batch):
        fast, _ = log_density(model, (batch,), {}, {"x": path, "z": states})
        return log_density(model.enumerated, (batch,), {}, given)[0], fast

    np.testing.assert_allclose(*both(batch), rtol=1e-10)


def test_prior_draws_have_the_form_of_the_fast_program():
    model, batch, _ = make_case(2)
    shapes = jax.eval_shape(lambda key: Predictive(model.enumerated, num_samples=2)(key, batch), random.key(0))
    assert shapes["x"].shape == (2, 3, BINS, 3)
    assert shapes["_PREV_z"].shape == (2, 3)
    assert shapes["z"].shape == (2, BINS - 1, 3)
    unseen = handlers.seed(lambda b: model.enumerated(b._replace(y=None)), 0)
    assert traced(lambda: handlers.trace(unseen).get_trace(batch)["y"]["value"]).shape == batch.y.shape


def potential(program, batch):
    return initialize_model(random.key(0), program, model_args=(batch,), validate_grad=False).potential_fn


@pytest.mark.slow
@pytest.mark.compiling
def test_nuts_runs_and_has_the_energy_of_the_fast_program():
    model, batch, path = make_case(2)

    summed = enum(config_enumerate(model.enumerated), -3)

    def energy(program, enumerates, path):
        return potential_energy(program, (batch,), {}, {"x": path}, enum=enumerates)

    @jax.jit
    def energies(path):
        pair = ((summed, True), (summed_out(model), False))
        return [jax.value_and_grad(partial(energy, *program))(path) for program in pair]

    agree(*energies(path))
    kernel = NUTS(model.enumerated, max_tree_depth=3)

    @jax.jit
    def chain(key):
        state = kernel.init(key, 3, None, (batch,), {})
        return jax.lax.scan(lambda state, _: (kernel.sample(state, (batch,), {}),) * 2, state, None, length=6)[1].z["x"]

    x = chain(random.key(0))[3:]
    assert x.shape == (3, *path.shape)
    assert np.isfinite(x).all()


def test_graph_of_the_program():
    pytest.importorskip("graphviz")
    model, batch, _ = make_case(2)
    source = numpyro.render_model(model.enumerated, (batch,), render_distributions=True).source
    for edge in ("x -> y", "_PREV_z -> x_first", "_PREV_z -> z", "z -> x_next", "x -> z", "x -> x_next"):
        assert edge in source
    assert "_time" in source


def normal_guide(path, size=None):
    def guide(batch):
        with numpyro.plate("trials", size or path.shape[0], subsample_size=path.shape[0]):
            numpyro.sample("x", dist.Normal(numpyro.param("loc", path), 0.3).to_event(2))

    return guide


@pytest.mark.parametrize(("num_trials", "particles"), [(None, 1), (12, 2)])
def test_bound_is_that_of_the_fast_program(num_trials, particles):
    model, batch, path = make_case(3, num_trials=num_trials)
    params = {**parameters(model, batch), "loc": path}

    def loss(params, elbo, program):
        return elbo(num_particles=particles).loss(random.key(3), params, program, normal_guide(path, num_trials), batch)

    @jax.jit
    def both(params):
        return (
            jax.value_and_grad(loss)(params, TraceMarkovEnum_ELBO, model.enumerated),
            jax.value_and_grad(loss)(params, MarkovELBO, model),
        )

    (found, gradient), (expected, expected_gradient) = both(params)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    agree(gradient, expected_gradient)


OTHERS = [Trace_ELBO(), TraceMeanField_ELBO(), TraceGraph_ELBO(), RenyiELBO()]
OTHERS += [TraceEnum_ELBO(), TraceEnum_ELBO(max_plate_nesting=2)]


@pytest.mark.parametrize("loss", [*OTHERS, TraceMarkovEnum_ELBO()], ids=lambda loss: type(loss).__name__)
def test_losses_that_cannot_sum_the_states_say_which_can(loss):
    model, batch, path = make_case(2)
    with pytest.raises(RunError, match=r"MarkovELBO\(\) sums z on this program.*TraceMarkovEnum_ELBO\(\) and funsor"):
        traced(lambda: loss.loss(random.key(0), {}, model, normal_guide(path), batch))


@pytest.mark.parametrize("loss", OTHERS, ids=lambda loss: type(loss).__name__)
def test_losses_that_cannot_sum_the_enumerated_states_say_which_can(loss):
    model, batch, path = make_case(2)
    with pytest.raises(RunError, match=r"TraceMarkovEnum_ELBO\(\) and funsor's log_density sum z on this program"):
        traced(lambda: loss.loss(random.key(0), {}, model.enumerated, normal_guide(path), batch))


def test_everything_else_that_cannot_sum_the_states_says_what_can():
    model, batch, path = make_case(2)
    with pytest.raises(RunError, match=r"'_PREV_z'.*TraceMarkovEnum_ELBO\(\) sums those"):
        traced(lambda: MarkovELBO().loss(random.key(0), {}, model.enumerated, normal_guide(path), batch))
    cannot_enumerate = {
        "funsor": lambda: enumerated_log_density(enum(config_enumerate(model), -2), (batch,), {}, {"x": path})[0],
        "NUTS": lambda: potential(model, batch)({"x": path}),
        "AutoNormal": lambda: handlers.seed(AutoNormal(model), 0)(batch),
    }
    for run in cannot_enumerate.values():
        with pytest.raises(RunError, match=r"too many to enumerate. MarkovELBO\(\) sums z on this program"):
            traced(run)
    for program in (model, model.enumerated):
        with pytest.raises(RunError, match="The states z were drawn, not summed, beside a given path x"):
            traced(lambda program=program: log_density(handlers.seed(program, 0), (batch,), {}, {"x": path})[0])
    scaled, _, _ = make_case(2, num_trials=12)
    program = enum(config_enumerate(handlers.seed(scaled.enumerated, 0)), -3)
    with pytest.raises(RunError, match=r"under a scale of 4.*TraceMarkovEnum_ELBO\(\) scales after the sum"):
        traced(lambda: enumerated_log_density(program, (batch,), {}, {"x": path})[0])
    with pytest.raises(RunError, match="one is enumerated and the other given"):
        traced(lambda: enumerated_density(model, {"z": jnp.zeros((BINS - 1, 3), int)}, path, batch))


def test_density_of_a_draw_of_both_is_not_refused():
    model, batch, _ = make_case(2)

    def score(program):
        sites = handlers.trace(handlers.seed(program, 0)).get_trace(batch)
        return sum(s["fn"].log_prob(s["value"]).sum() for s in sites.values() if s["type"] == "sample")

    assert np.isfinite(jax.jit(lambda: [score(program) for program in (model, model.enumerated)])()).all()


def test_models_do_not_import_funsor():
    code = "import sys, mrsds_ppl.models, mrsds_ppl.ppl; sys.exit('funsor' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
