"""Laws of the rollout guides against a change of variables with a dense Jacobian, in float64."""

import by_hand
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from numpyro import handlers
from scipy import stats

from mrsds_ppl.errors import ConfigError
from mrsds_ppl.guides import Structured, SwitchingStructured
from mrsds_ppl.guides.rollout import Drive, Rollout
from mrsds_ppl.models import DynamicsOptions, ModelOptions
from mrsds_ppl.models.dynamics import Dynamics
from mrsds_ppl.nn.encoders import EncoderOptions
from mrsds_ppl.ppl.elbo import traced_terms

pytestmark = [pytest.mark.slow, pytest.mark.compiling]

LENGTHS, BINS, LATENTS = [5, 3], 5, 3
SMALL = EncoderOptions(embedding_layers=(3,), channels=4, dilations=(1, 2))


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def make_guide(kind=SwitchingStructured, num_states=2, *, weight_prior=None, **kwargs):
    """A guide of a model of 3 + 2 neurons and 2 + 1 latents with curved dynamics, and parameters, all numbers drawn."""
    curved = DynamicsOptions(layers=(4,), activations=("tanh", None))
    options = ModelOptions(dynamics=curved, weight_prior=weight_prior)
    model = by_hand.filled_model([3, 2], [2, 1], num_states, num_inputs=1, options=options)
    guide = by_hand.filled_guide(kind, model, SMALL, **kwargs)
    params = {f"{name}$params": network for name, network in model.networks._asdict().items()}
    params = {name: eqx.filter(network, eqx.is_inexact_array) for name, network in params.items()}
    return guide, params | {"recognition$params": eqx.filter(guide.recognition, eqx.is_inexact_array)}


def encoder_numbers(guide, batch):
    """h, L, g and w of every bin from the encoder's raw outputs."""
    outputs = [np.asarray(a) for a in jax.jit(lambda b: guide.recognition(b))(batch)]
    seen, raw, gate = outputs[0], outputs[1], 1 / (1 + np.exp(-outputs[2]))
    factor = (np.log1p(np.exp(raw - 1.05)) + 1e-3)[..., None] * np.eye(LATENTS)
    if guide.triangular:
        rows, columns = np.tril_indices(LATENTS, -1)
        factor[..., rows, columns] = outputs[3]
    weights = np.ones((*seen.shape[:2], 1))
    if guide.model.num_states > 1:
        weights = np.exp(outputs[4])
        weights /= weights.sum(-1, keepdims=True)
    return seen, factor, gate, weights


def rolled(guide, trial, length, batch, numbers, psi):
    """x of one trial from the corrections psi (bin, latent), bin by bin and state by state."""
    seen, _, gate, weights = (jnp.asarray(a[trial]) for a in numbers)
    dynamics = guide.model.networks.dynamics

    def mixed(t, x):
        return sum(weights[t, k] * by_hand.mean(dynamics, k, x, batch.u[trial, t]) for k in range(weights.shape[1]))

    path = [seen[0] + psi[0]]
    for t in range(1, BINS):
        if t >= length:
            path.append(psi[t])
        elif not guide.gated:
            path.append(mixed(t, path[-1]) + seen[t] - mixed(t, seen[t - 1]) + psi[t])
        elif guide.psi_add:
            path.append(gate[t] * mixed(t, path[-1]) + (1 - gate[t]) * seen[t] + psi[t])
        else:
            path.append(mixed(t, gate[t] * path[-1] + (1 - gate[t]) * seen[t]) + psi[t])
    return jnp.stack(path)


CASES = {
    "structured": (Structured, 1, {"triangular": True}),
    "switching": (SwitchingStructured, 2, {"triangular": True}),
    "diagonal": (SwitchingStructured, 2, {}),
    "before": (SwitchingStructured, 2, {"psi_add": False}),
    "published": (SwitchingStructured, 2, {"gated": False}),
}


def slowly(name):
    return pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("case", [slowly(name) if name in ("diagonal", "published") else name for name in CASES])
def test_density_is_that_of_the_change_of_variables_with_a_dense_jacobian(case):
    kind, num_states, options = CASES[case]
    guide, params = make_guide(kind, num_states, **options)
    batch = by_hand.make_batch(LENGTHS, BINS, 5)
    numbers = encoder_numbers(guide, batch)

    def evaluate(params, key):
        law = guide.path_law(params, batch)
        x, noise = law.sample_with_intermediates(key)
        return x, noise[0], law.log_prob(x, noise), law.log_prob(x), law.mean

    x, eps, quick, plain, mean = jax.jit(evaluate)(params, random.key(1))
    np.testing.assert_allclose(quick, plain, rtol=1e-11)
    for trial, length in enumerate(LENGTHS):
        factor = np.where(np.arange(BINS)[:, None, None] < length, numbers[1][trial], np.eye(LATENTS))
        psi = jnp.einsum("tij,tj->ti", factor, eps[trial])

        def path(flat, trial=trial, length=length):
            return rolled(guide, trial, length, batch, numbers, flat.reshape(BINS, LATENTS)).ravel()

        found, jacobian = jax.jit(lambda flat, path=path: (path(flat), jax.jacfwd(path)(flat)))(psi.ravel())
        np.testing.assert_allclose(x[trial].ravel(), found, rtol=1e-10, atol=1e-12)
        sign, log_det = np.linalg.slogdet(jacobian)
        base = stats.norm.logpdf(np.linalg.solve(factor, np.asarray(psi)[..., None])).sum()
        base -= sum(np.linalg.slogdet(f)[1] for f in factor)
        assert sign == 1.0
        np.testing.assert_allclose(quick[trial], base - log_det, rtol=1e-10)
        np.testing.assert_allclose(mean[trial].ravel(), path(jnp.zeros(BINS * LATENTS)), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_several_draws_at_once_have_the_density_of_their_values(shape):
    guide, params = make_guide()
    batch = by_hand.make_batch(LENGTHS, BINS, 5)

    def both(key):
        law = guide.path_law(params, batch)
        x, noise = law.sample_with_intermediates(key, shape)
        return x, law.log_prob(x, noise), law.log_prob(x)

    x, quick, plain = jax.jit(both)(random.key(2))
    assert (x.shape, plain.shape) == ((*shape, 2, BINS, LATENTS), (*shape, 2))
    np.testing.assert_allclose(quick, plain, rtol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["switching", "before"])
def test_gradients_through_a_draw_equal_those_of_the_plain_recursion(case):
    kind, num_states, options = CASES[case]
    guide, params = make_guide(kind, num_states, **options)
    batch = by_hand.make_batch(LENGTHS, BINS, 5)
    numbers = encoder_numbers(guide, batch)
    target = jnp.asarray(np.random.default_rng(0).normal(size=(2, BINS, LATENTS)))
    dynamics = params["dynamics$params"]

    def ours(dynamics):
        x = guide.path_law({**params, "dynamics$params": dynamics}, batch).sample(random.key(1))
        return (x * target).sum()

    eps = random.normal(random.key(1), (2, BINS, LATENTS), jnp.float64)
    network = guide.model.networks.dynamics

    def plain(dynamics):
        filled = eqx.combine(dynamics, eqx.filter(network, eqx.is_inexact_array, inverse=True))
        guide.model.networks = guide.model.networks._replace(dynamics=filled)
        total = 0.0
        for trial, length in enumerate(LENGTHS):
            factor = np.where(np.arange(BINS)[:, None, None] < length, numbers[1][trial], np.eye(LATENTS))
            psi = jnp.einsum("tij,tj->ti", factor, eps[trial])
            total += (rolled(guide, trial, length, batch, numbers, psi) * target[trial]).sum()
        return total

    expected = jax.jit(jax.grad(plain))(dynamics)
    guide.model.networks = guide.model.networks._replace(dynamics=network)
    found = jax.jit(jax.grad(ours))(dynamics)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "shared"), [("switching", True), ("published", True), ("before", False)])
def test_program_takes_over_the_dynamics_that_a_draw_evaluated(case, shared):
    """The density from f_k of the rollout equals the one that evaluates the networks anew, in value and gradient."""
    kind, num_states, options = CASES[case]
    guide, params = make_guide(kind, num_states, **options)
    batch = by_hand.make_batch(LENGTHS, BINS, 5)

    def terms(params, take_over):
        site = traced_terms(random.key(3), params, guide.model, guide, batch).model["x"]
        assert len(site["intermediates"]) == shared
        return site["fn"].log_prob(site["value"], site["intermediates"] if take_over else None)

    def both(params):
        return [jax.value_and_grad(lambda p, t=t: terms(p, t) @ jnp.array([1.0, -0.4]))(params) for t in (True, False)]

    (found, slopes), (expected, others) = jax.jit(both)(params)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(slopes["dynamics$params"])) > 0.1
    for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(others), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_padded_bins_are_standard_normal_and_independent():
    guide, params = make_guide(triangular=True)
    batch = by_hand.make_batch(LENGTHS, BINS, 5)
    x = random.normal(random.key(0), (2, BINS, LATENTS))
    other = x.at[1, 3:].set(random.normal(random.key(1), (2, LATENTS)))
    law = jax.jit(lambda x: guide.path_law(params, batch).log_prob(x))
    change = stats.norm.logpdf(other[1, 3:]).sum() - stats.norm.logpdf(x[1, 3:]).sum()
    np.testing.assert_allclose(law(other) - law(x), [0.0, change], rtol=1e-9, atol=1e-9 * np.abs(law(x)).max())


def test_switching_guide_with_one_state_equals_the_structured_one():
    batch = by_hand.make_batch(LENGTHS, BINS, 5)
    draws = []
    for kind in (Structured, SwitchingStructured):
        guide, params = make_guide(kind, 1)
        draws.append(jax.jit(lambda b, g=guide, p=params: g.sample_posterior(random.key(4), p, b)["x"])(batch))
    np.testing.assert_array_equal(*draws)


def test_structured_guide_of_several_states_is_an_error_that_names_the_other_one():
    with pytest.raises(ConfigError, match="switching_structured"):
        make_guide(Structured, 2)


def test_guide_records_its_state_weights_beside_the_path():
    guide, params = make_guide()
    batch = by_hand.make_batch(LENGTHS, BINS, 5)
    sites = handlers.trace(handlers.seed(handlers.substitute(guide, data=params), random.key(0))).get_trace(batch)
    np.testing.assert_allclose(sites["state_weights"]["value"], encoder_numbers(guide, batch)[3], rtol=1e-10)
    assert sites["dynamics$params"]["type"] == "param"


@pytest.mark.nightly
@pytest.mark.parametrize(("case", "prior"), [("switching", None), ("structured", 0.5)])
def test_plain_numpyro_script_trains_it(case, prior):
    kind, num_states, options = CASES[case]
    guide, _ = make_guide(kind, num_states, weight_prior=prior, **options)
    batch = by_hand.make_batch(LENGTHS, BINS, 5)
    params = by_hand.params_of_plain_script(guide, batch, 40)
    draws = guide.sample_posterior(random.key(2), params, batch, sample_shape=(3,))
    assert draws["x"].shape == (3, 2, BINS, LATENTS)
    assert guide.median(params, batch)["x"].shape == (2, BINS, LATENTS)


@pytest.mark.parametrize("psi_add", [True, False])
def test_paths_of_dynamics_that_push_apart_stay_finite_in_value_and_slope(psi_add):
    """Linear dynamics that grow twentyfold a bin, over more bins than a float could hold."""
    grows = DynamicsOptions(layers=(), activations=(None,))
    dynamics = Dynamics(1, (1,), 0, grows, key=random.key(0))
    dynamics = eqx.tree_at(lambda part: part.pairs.weights[0], dynamics, jnp.full((1, 1, 1, 1, 1), 20.0))
    trials, bins = 3, 400
    ones = jnp.ones((trials, bins, 1))
    valid = jnp.ones((trials, bins), bool)

    def path(dynamics):
        drive = Drive(dynamics, jnp.zeros((trials, bins, 0)), ones)
        law = Rollout(drive, 0.9 * ones, 0.1 * ones, 0.3 * ones[..., None], valid, psi_add=psi_add)
        x, intermediates = law.sample_with_intermediates(random.key(1))
        return law.log_prob(x).sum(), (x, law.log_prob(x, intermediates).sum())

    (found, (x, expected)), slope = jax.jit(jax.value_and_grad(path, has_aux=True))(dynamics)
    assert np.abs(x).max() < 102
    assert np.abs(x).max() > 50
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert np.isfinite(slope.pairs.weights[0]).all()
