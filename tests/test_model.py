"""The program and its parts against their equations written out plainly, in float64."""

import by_hand
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import random
from numpyro import handlers
from numpyro.infer import SVI
from scipy import stats

from mrsds_ppl.build import initial_parameters
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.guides import AutoPathDelta, AutoPathNormal, GaussianMarkov
from mrsds_ppl.models import (
    EMISSIONS,
    Dynamics,
    DynamicsOptions,
    EmissionOptions,
    InitialOptions,
    ModelOptions,
    TransitionOptions,
)
from mrsds_ppl.models.covariance import Covariance
from mrsds_ppl.models.emissions.emissions import Emissions
from mrsds_ppl.models.readout import Readout
from mrsds_ppl.models.transitions import Transitions
from mrsds_ppl.nn.encoders import EncoderOptions
from mrsds_ppl.ppl.elbo import MarkovELBO
from mrsds_ppl.ppl.markov import PathLaw, ancestral, potentials
from mrsds_ppl.start.pca import start_by_components
from mrsds_ppl.statespace.principal_components import principal_components

SMALL = EncoderOptions(embedding_layers=(3,), channels=4, dilations=(1,))


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def make_dynamics(latent_sizes=(2, 1), num_states=2, num_inputs=2, **options):
    form = DynamicsOptions(
        **{
            "layers": (3,),
            "activations": ("tanh", None),
            "input_layers": (3,),
            "input_activations": ("tanh", None),
            **options,
        }
    )
    return by_hand.filled(lambda: Dynamics(num_states, latent_sizes, num_inputs, form, key=random.key(0)))


def rows(dynamics, count=4, seed=2):
    rng, widths = np.random.default_rng(seed), (sum(dynamics.latent_sizes), dynamics.num_inputs)
    return tuple(jnp.asarray(rng.normal(size=(count, width))) for width in widths)


def gathered(dynamics, told):
    """The sum of messages, target regions side by side: (state, row, latent)."""
    total = told.local + told.cross.sum(2) + told.inputs.sum(2)
    return jnp.concatenate([total[:, r, :, :n] for r, n in enumerate(dynamics.latent_sizes)], axis=-1)


@pytest.mark.parametrize("zcond", [False, True])
@pytest.mark.parametrize("form", ["additive", "conditional"])
@pytest.mark.parametrize("communication", ["additive", "additive-shared", "additive-linear", "conditional"])
def test_messages_add_up_to_the_means(communication, form, zcond):
    # Together and apart, equal and unequal sizes and a pooled latent take turns over the forms.
    sizes = {"additive": (2, 1, 3), "additive-shared": (2, 1, 3), "additive-linear": (2, 2), "conditional": (1, 3)}
    sizes = sizes[communication]
    sizes = (3,) if communication == "additive" and form == "conditional" else sizes
    dynamics = make_dynamics(
        sizes,
        communication_type=communication,
        input_type=form,
        zcond=zcond,
        input_func_type="together" if zcond else "separate",
    )
    told, means = jax.jit(lambda x, u: (dynamics.messages(x, u), dynamics.means(x, u)))(*rows(dynamics))
    np.testing.assert_allclose(gathered(dynamics, told), means, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(dynamics.summed(told), means, rtol=1e-13, atol=1e-14)
    assert told.inputs.shape[2] == (1 if zcond else 2)
    for region, size in enumerate(sizes):
        assert not np.any(told.cross[:, region, region])
        assert not np.any(told.local[:, region, :, size:])
        assert not np.any(told.cross[:, region, ..., size:])
        assert not np.any(told.inputs[:, region, ..., size:])


CASES = {
    "additive": {},
    "shared": {"communication_type": "additive-shared", "layers": (3, 2), "activations": ("tanh", "tanh")},
    "shared, given z": {"communication_type": "additive-shared", "zcond": True},
    "linear cross, inputs with the target": {"communication_type": "additive-linear", "input_type": "conditional"},
    "conditional, given z": {"communication_type": "conditional", "input_type": "conditional", "zcond": True},
    "conditional, inputs together": {"communication_type": "conditional", "input_func_type": "together"},
    "linear cross, given z": {"communication_type": "additive-linear", "zcond": True, "input_func_type": "together"},
}


@pytest.mark.slow
@pytest.mark.compiling
@pytest.mark.parametrize("name", CASES)
def test_stacked_networks_equal_a_plain_loop_in_value_and_gradient(name):
    dynamics = make_dynamics(**CASES[name])
    arrays, rest = eqx.partition(dynamics, eqx.is_inexact_array)
    x, u = rows(dynamics, count=2)
    mark = random.normal(random.key(5), (2, 2, 3))

    def stacked(arrays, x, u):
        means = eqx.combine(arrays, rest).means(x, u)
        return (means * mark).sum(), means

    def looped(arrays, x, u):
        whole = eqx.combine(arrays, rest)
        means = jnp.stack([jnp.stack([by_hand.mean(whole, k, x[i], u[i]) for i in range(2)]) for k in range(2)])
        return (means * mark).sum(), means

    (_, found), found_grad = jax.jit(jax.value_and_grad(stacked, argnums=(0, 1, 2), has_aux=True))(arrays, x, u)
    (_, expected), grad = jax.jit(jax.value_and_grad(looped, argnums=(0, 1, 2), has_aux=True))(arrays, x, u)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)
    for a, b in zip(jax.tree.leaves(found_grad), jax.tree.leaves(grad), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def test_each_message_stands_at_its_state_target_and_source():
    dynamics = make_dynamics((2, 1, 2), communication_type="conditional", input_type="conditional")
    x, u = rows(dynamics, count=1)
    told = jax.jit(lambda x, u: dynamics.messages(x, u))(x, u)
    spoken = jax.jit(lambda x, u: [by_hand.messages(dynamics, k, x, u) for k in range(2)])(x[0], u[0])
    for k, (local, cross, inputs) in enumerate(spoken):
        for target, size in enumerate(dynamics.latent_sizes):
            np.testing.assert_allclose(told.local[k, target, 0, :size], local[target][:size], rtol=1e-12)
            for source in range(3):
                np.testing.assert_allclose(
                    told.cross[k, target, source, 0, :size], cross[target][source][:size], rtol=1e-11, atol=1e-15
                )
            for channel in range(2):
                np.testing.assert_allclose(
                    told.inputs[k, target, channel, 0, :size], inputs[target][channel][:size], rtol=1e-11
                )


@pytest.mark.parametrize("zcond", [False, True])
def test_silence_sends_no_message(zcond):
    dynamics = make_dynamics((2, 1), communication_type="conditional", input_type="conditional", zcond=zcond)
    x, u = rows(dynamics)
    speak = jax.jit(lambda x, u: dynamics.messages(x, u))
    quiet = speak(x.at[:, 2].set(0.0), u.at[:, 1].set(0.0))
    assert not np.any(quiet.cross[:, 0, 1])
    assert np.all(quiet.cross[:, 1, 0, :, :1] != 0)
    assert not np.any(quiet.inputs[:, :, 1])
    assert np.all(quiet.inputs[:, 0, 0] != 0)


def test_inputs_that_do_not_enter_change_no_mean():
    options = ModelOptions(ux=False, xz=False)
    model = by_hand.filled_model([2, 2], 1, 2, num_inputs=2, options=options)
    batch = by_hand.make_batch([4], 4, 4, num_inputs=2)
    x = random.normal(random.key(1), (1, 4, 2))
    density = jax.jit(lambda b: PathLaw(model.switching(model.networks, b)).log_prob(x))
    np.testing.assert_array_equal(density(batch), density(batch._replace(u=batch.u + 3.0)))


def test_pooled_latent_is_seen_by_every_neuron():
    options = ModelOptions(dynamics=DynamicsOptions(single_region_latent=True))
    model = by_hand.filled_model([2, 3], [2, 1], 2, options=options)
    assert (model.latent_sizes, model.num_latents) == ((3,), 3)
    jacobian = jax.jacobian(model.networks.emissions.activity)(jnp.zeros(3))
    assert jacobian.shape == (5, 3)
    assert np.all(jacobian != 0)
    apart = by_hand.filled_model([2, 3], [2, 1], 2)
    jacobian = jax.jacobian(apart.networks.emissions.activity)(jnp.zeros(3))
    np.testing.assert_array_equal(jacobian != 0, np.repeat([[1, 1, 0], [0, 0, 1]], [2, 3], axis=0))


def test_linear_networks_make_a_switching_linear_system():
    linear = DynamicsOptions(layers=(), activations=(None,))
    model = by_hand.filled_model([2, 3], [1, 2], 2, num_inputs=2, options=ModelOptions(dynamics=linear))
    networks = model.networks
    batch = by_hand.make_batch([4, 3], 4, 5, num_inputs=2, missing=0.0)
    x = random.normal(random.key(2), (2, 4, 3))
    forms = [by_hand.affine_form(networks.dynamics, k) for k in range(2)]

    def means(k, x, u):
        a, gain, offset = forms[k]
        return a @ x + gain @ u + offset

    def density(batch):
        law = PathLaw(model.switching(networks, batch))
        return law.log_prob(x) + networks.emissions.law(x, batch.observed).log_prob(batch.y)

    padding = np.array([0.0, stats.norm.logpdf(np.asarray(x)[1, 3]).sum()])
    expected = by_hand.log_density(networks, batch, x, means) + padding
    np.testing.assert_allclose(jax.jit(density)(batch), expected, rtol=1e-10)


@pytest.mark.parametrize("triangular", [False, True])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_gaussian_emissions_are_the_normal_density_of_the_observed_block(triangular, missing):
    def build():
        readout = Readout([3, 2], [1, 2], (), (), key=random.key(0))
        return Emissions(readout, [EMISSIONS["gaussian"]] * 2, triangular=triangular)

    emissions = by_hand.filled(build)
    batch = by_hand.make_batch([4, 3], 4, 5, missing=missing)
    x = np.asarray(random.normal(random.key(2), (2, 4, 3)))
    score = jax.jit(lambda x, y: emissions.law(x, batch.observed).log_prob(y))
    y, seen = np.asarray(batch.y), np.asarray(batch.observed)
    expected = [
        sum(by_hand.gaussian_emission(emissions, x[i, t], y[i, t], seen[i, t]) for t in range(4)) for i in range(2)
    ]
    np.testing.assert_allclose(score(x, batch.y), expected, rtol=1e-10)
    # What stands where nothing was observed, padding included, scores nothing.
    np.testing.assert_array_equal(score(x, jnp.where(seen, y, 77.0)), score(x, batch.y))


@pytest.mark.parametrize("rate", ["softplus", "exp"])
def test_poisson_emissions_are_the_counts_probability(rate):
    readout = by_hand.filled(lambda: Readout([3, 2], [1, 1], (4,), ("tanh",), key=random.key(0)))
    emissions = Emissions(readout, [EMISSIONS["poisson"]] * 2, final_activation=rate)
    batch = by_hand.make_batch([4, 3], 4, 5, missing=0.3, counts=True)
    x = random.normal(random.key(2), (2, 4, 2))

    def total(x):
        scores = emissions.law(x, batch.observed).log_prob(batch.y)
        return scores.sum(), scores

    gradient, score = jax.jit(jax.grad(total, has_aux=True))(x)
    owner = np.repeat([0, 1], [3, 2])
    hidden = [by_hand.perceptron(readout.hidden, (r,), x[..., r : r + 1]) for r in range(2)]
    drive = np.stack([hidden[r] @ w + b for r, w, b in zip(owner, readout.weight, readout.bias, strict=True)], -1)
    mean = (np.log1p(np.exp(drive)) if rate == "softplus" else np.exp(drive)) + 1e-6
    expected = (stats.poisson.logpmf(np.asarray(batch.y), mean) * np.asarray(batch.observed)).sum((1, 2))
    np.testing.assert_allclose(score, expected, rtol=1e-10)
    np.testing.assert_array_equal(gradient[1, 3], 0.0)


@pytest.mark.parametrize(("name", "triangular"), [("gaussian", False), ("gaussian", True), ("poisson", False)])
def test_signals_drawn_on_the_host_have_the_mean_and_covariance_of_the_law(name, triangular):
    def build():
        readout = Readout([3, 2], [1, 1], (), (), key=random.key(0))
        return Emissions(readout, [EMISSIONS[name]] * 2, triangular=triangular)

    emissions = by_hand.filled(build)
    activity = np.asarray(emissions.activity(jnp.asarray([[0.3, -0.2]])))
    y = emissions.draw(np.random.default_rng(0), np.tile(activity, (200_000, 1)))
    covariance = np.diag(activity[0])
    if name == "gaussian":
        covariance = np.asarray(emissions.laws[0].noise.cholesky @ emissions.laws[0].noise.cholesky.T)
    np.testing.assert_allclose(1 / np.diag(covariance), emissions.information(jnp.asarray(activity))[0], rtol=1e-5)
    error = 5 * np.sqrt(covariance.max() / len(y))
    np.testing.assert_allclose(y.mean(0), activity[0], atol=error)
    np.testing.assert_allclose(np.cov(y.T), covariance, atol=0.02 * covariance.max())


def test_counts_are_drawn_where_nothing_finite_is_expected():
    readout = by_hand.filled(lambda: Readout([4], [1], (), (), key=random.key(0)))
    emissions = Emissions(readout, [EMISSIONS["poisson"]], final_activation="exp")
    counts = emissions.draw(np.random.default_rng(0), np.array([np.nan, np.inf, 1e30, 3.0], np.float32))
    assert counts.dtype == np.int32
    assert counts[0] == -1
    assert (counts[1:3] > 9e8).all()
    assert 0 <= counts[3] < 30


def test_transitions_go_from_rows_to_columns():
    transitions = Transitions(3, 1, key=random.key(0))
    cycle = jnp.log(jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]) + 1e-9)
    transitions = eqx.tree_at(
        lambda t: (t.bias, t.weight), transitions, (cycle, jnp.zeros((3, 3, 1)).at[0, 2].set(7.0))
    )
    logits = transitions.logits(jnp.array([[0.0], [1.0]]))
    assert logits.shape == (3, 2, 3)
    np.testing.assert_allclose(logits[0, 0], cycle[0])
    np.testing.assert_allclose(logits[0, 1] - cycle[0], [0.0, 0.0, 7.0])
    np.testing.assert_allclose(logits[2, 1], cycle[2])
    model = by_hand.filled_model([2], 1, 3, options=ModelOptions(xz=False))
    networks = model.networks._replace(transitions=eqx.tree_at(lambda t: t.bias, model.networks.transitions, cycle))
    switching = model.switching(networks, by_hand.make_batch([7, 7], 7, 2, num_inputs=0))
    start = (jnp.array([0, 2]), jnp.zeros((2, 1)))
    z, x = jax.jit(lambda k: ancestral(switching, k, start))(random.key(0))
    np.testing.assert_array_equal(z, [[0, 1, 2, 0, 1, 2, 0], [2, 0, 1, 2, 0, 1, 2]])
    chain = jax.jit(lambda x: potentials(switching, x))(x)
    np.testing.assert_allclose(chain.transition[3, 0, :, 1], jax.nn.log_softmax(cycle[0]), rtol=1e-12)


def test_new_model_stays_in_its_state():
    logits = Transitions(3, 2, key=random.key(0)).logits(jnp.zeros((1, 2)))[:, 0]
    np.testing.assert_allclose(jax.nn.softmax(logits), np.full((3, 3), 0.025) + 0.925 * np.eye(3), rtol=1e-12)


def test_forward_sampling_follows_the_dynamics_from_the_given_state():
    """With next to no noise the path is that of f_k, k given by the drawn z, from the first latents on."""
    quiet = DynamicsOptions(layers=(3,), activations=("tanh", None))
    model = by_hand.filled_model([2, 2], [2, 1], 2, num_inputs=1, options=ModelOptions(dynamics=quiet, uz=True))
    noise = Covariance((3,), 2e-4, triangular=False, trainable=True)
    networks = model.networks._replace(dynamics=eqx.tree_at(lambda d: d.noise, model.networks.dynamics, noise))
    batch = by_hand.make_batch([5, 5, 5], 5, 4)
    start = (jnp.array([0, 1, 1]), random.normal(random.key(2), (3, 3)))
    switching = model.switching(networks, batch)
    z, x = jax.jit(lambda k: ancestral(switching, k, start))(random.key(3))
    np.testing.assert_array_equal(z[:, 0], start[0])
    np.testing.assert_array_equal(x[:, 0], start[1])
    f = jax.jit(lambda x, u: jnp.stack([by_hand.mean(networks.dynamics, k, x, u) for k in range(2)]))
    for trial in range(3):
        for t in range(1, 5):
            np.testing.assert_allclose(x[trial, t], f(x[trial, t - 1], batch.u[trial, t])[z[trial, t]], atol=1e-3)


@pytest.mark.slow
@pytest.mark.compiling
@pytest.mark.parametrize("emission", ["gaussian", "poisson"])
def test_prior_samples_have_the_shapes_of_the_data(emission):
    options = ModelOptions(
        emissions=EmissionOptions(dist=emission, triangular_cov=True),
        transitions=TransitionOptions(layer_mult=1),
        sz=True,
        uz=True,
    )
    model = by_hand.filled_model([3, 2], [2, 1], 2, num_inputs=1, num_stages=2, options=options)
    batch = by_hand.make_batch([6, 4], 6, 5, num_stages=2)._replace(y=None)

    @jax.jit
    def draw(key, batch):
        sites = handlers.trace(handlers.seed(model, key)).get_trace(batch)
        return {name: sites[name]["value"] for name in "xyz"}

    sites = draw(random.key(0), batch)
    assert {n: v.shape for n, v in sites.items()} == {"x": (2, 6, 3), "z": (2, 6), "y": (2, 6, 5)}
    assert all(np.isfinite(v).all() for v in sites.values())
    assert set(np.unique(sites["z"])) <= {0, 1}
    if emission == "poisson":
        np.testing.assert_array_equal(sites["y"], np.round(sites["y"]))
        assert sites["y"].min() >= 0
    assert np.any(draw(random.key(1), batch)["y"] != sites["y"])


PRIOR_SITES = {
    "transitions/hidden_weight",
    "transitions/weight",
    "dynamics/pairs.weights[0]",
    "dynamics/pairs.weights[1]",
    "dynamics/inputs.weights[0]",
    "emissions/readout.weight",
    "emissions/readout.hidden.weights[0]",
}


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.compiling
def test_weights_with_a_prior_are_sites_and_are_inferred():
    dynamics = DynamicsOptions(layers=(3,), activations=("tanh", None))
    emissions = EmissionOptions(layers=(3,), activations=("tanh",))
    hidden = TransitionOptions(layer_mult=1)
    options = ModelOptions(dynamics=dynamics, transitions=hidden, emissions=emissions, weight_prior=0.7)
    model = by_hand.filled_model([3, 2], [1, 1], 2, num_inputs=1, options=options, num_trials=6)
    batch = by_hand.make_batch([5, 3], 5, 5)
    guide = GaussianMarkov(model, key=random.key(1), options=SMALL)
    svi = SVI(model, guide, optax.adam(1e-2), loss=MarkovELBO())

    @jax.jit
    def first_step(key, batch):
        state = svi.init(key, batch)
        before = svi.get_params(state)
        state, loss = svi.update(state, batch)
        return before, svi.get_params(state), loss

    before, after, loss = first_step(random.key(2), batch)
    assert np.isfinite(loss)
    assert {name.removesuffix("_auto_loc") for name in after if name.endswith("_auto_loc")} == PRIOR_SITES
    for name in PRIOR_SITES:
        assert np.all(after[f"{name}_auto_loc"] != before[f"{name}_auto_loc"])
    draw = jax.jit(lambda k, p, b: guide.sample_posterior(k, p, b, sample_shape=(4,)))
    draws = draw(random.key(3), after, batch)
    assert set(draws) == PRIOR_SITES | {"x"}
    assert draws["x"].shape == (4, 2, 5, 2)
    assert draws["dynamics/pairs.weights[0]"].shape == (4, 2, 2, 2, 1, 3)
    medians = guide.median(after, batch)
    assert set(medians) == PRIOR_SITES | {"x"}
    np.testing.assert_array_equal(medians["transitions/weight"], after["transitions/weight_auto_loc"])


@pytest.mark.slow
@pytest.mark.compiling
@pytest.mark.parametrize("kind", [GaussianMarkov, AutoPathNormal, AutoPathDelta])
def test_posterior_of_weights_starts_at_the_networks_own_and_loadings_at_the_components(kind):
    dynamics = DynamicsOptions(layers=(3,), activations=("tanh", None))
    model = by_hand.filled_model([3, 2], [2, 1], 2, options=ModelOptions(dynamics=dynamics, weight_prior=0.7))
    rng = np.random.default_rng(1)
    trials = Trials.from_arrays(rng.normal(size=(4, 12, 5)) @ rng.normal(size=(5, 5)), region_sizes=[3, 2])
    guide = kind(model, key=random.key(1))
    params = initial_parameters(random.key(0), model, guide, trials.batch()).params
    own = model.networks.dynamics.pairs.weights[1]
    np.testing.assert_array_equal(params["dynamics/pairs.weights[1]_auto_loc"], own)
    params = start_by_components(random.key(2), params, model, guide, jax.device_put(trials.batch()))
    loadings = params["emissions/readout.weight_auto_loc"]
    np.testing.assert_array_equal(loadings, params["emissions$params"].readout.weight)
    components = principal_components(trials, model.latent_sizes).loadings
    np.testing.assert_allclose(loadings[:3], components[:3, :2], rtol=1e-5)
    np.testing.assert_allclose(loadings[3:, 0], components[3:, 2], rtol=1e-5)


def test_weights_of_features_that_there_are_none_of_have_no_prior():
    """Without inputs or latents that drive the states, their weight is empty, and draws of it would have no shape."""
    options = ModelOptions(dynamics=DynamicsOptions(layers=(), activations=(None,)), xz=False, weight_prior=0.7)
    model = by_hand.filled_model([2, 2], 1, 2, options=options)
    batch = by_hand.make_batch([4, 3], 4, 4, num_inputs=0)
    guide = GaussianMarkov(model, key=random.key(1), options=SMALL)
    svi = SVI(model, guide, optax.sgd(1.0), loss=MarkovELBO())
    params = svi.get_params(jax.jit(svi.init)(random.key(0), batch))
    draws = jax.jit(lambda k: guide.sample_posterior(k, params, batch, sample_shape=(4,)))(random.key(3))
    assert set(draws) == {"dynamics/pairs.weights[0]", "emissions/readout.weight", "x"}


@pytest.mark.slow
@pytest.mark.compiling
def test_fixed_covariances_get_no_gradient():
    dynamics = DynamicsOptions(layers=(), activations=(None,), trainable_cov=False, triangular_cov=True)
    options = ModelOptions(
        dynamics=dynamics,
        emissions=EmissionOptions(trainable_cov=False),
        initial=InitialOptions(trainable_cov=False),
    )
    model = by_hand.filled_model([2, 2], 1, 2, num_inputs=1, options=options)
    batch = by_hand.make_batch([4, 3], 4, 4)
    guide = GaussianMarkov(model, key=random.key(1), options=SMALL)
    svi = SVI(model, guide, optax.sgd(1.0), loss=MarkovELBO())
    params = svi.get_params(jax.jit(svi.init)(random.key(0), batch))
    grads = jax.jit(jax.grad(lambda p: MarkovELBO().loss(random.key(2), p, model, guide, batch)))(params)
    law = grads["emissions$params"].laws[0]
    for part in (grads["initial$params"], grads["dynamics$params"], law):
        assert all(not np.any(g) for g in jax.tree.leaves(part.noise))
    assert np.any(grads["initial$params"].means)
    assert np.any(grads["dynamics$params"].pairs.weights[0])


def test_covariance_starts_at_its_scale_and_matches_its_raw_numbers():
    start = Covariance((3,), jnp.array([0.1, 1.0, 3.0]), triangular=True, trainable=True)
    np.testing.assert_allclose(start.cholesky, np.diag([0.1, 1.0, 3.0]), rtol=1e-10)
    moved = by_hand.filled(lambda: start)
    np.testing.assert_allclose(moved.cholesky, by_hand.cholesky(moved), rtol=1e-12)
    x = random.normal(random.key(1), (4, 3))
    factor = by_hand.cholesky(moved)
    expected = stats.multivariate_normal(np.ones(3), factor @ factor.T).logpdf(x)
    np.testing.assert_allclose(moved.around(jnp.ones(3)).log_prob(x), expected, rtol=1e-10)
    for factor in (2.0, jnp.array([1.0, 2.0, 0.5])):
        rows = np.diag(np.broadcast_to(factor, 3))
        np.testing.assert_allclose(moved.scaled(factor).cholesky, rows @ np.asarray(moved.cholesky), rtol=1e-10)
