"""Guides with parameters of each trial, a user's own guides, and the names by which all are chosen."""

import by_hand
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import random
from numpyro.infer import SVI
from numpyro.infer.autoguide import AutoNormal
from scipy import stats

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.posterior import PosteriorSampler
from mrsds_ppl.build import initial_parameters, make_guide, make_model, needs_every_trial
from mrsds_ppl.config.loading import ignored_keys, load_config
from mrsds_ppl.config.names import GUIDE_NAMES, PATH_GUIDES
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import ConfigError, RunError
from mrsds_ppl.guides import GUIDES, AutoPathNormal, PathGuide
from mrsds_ppl.guides.path_guide import START_SCALE
from mrsds_ppl.models import DynamicsOptions, ModelOptions
from mrsds_ppl.ppl.elbo import MarkovELBO, log_terms
from mrsds_ppl.ppl.markov import summed_out

pytestmark = [pytest.mark.slow, pytest.mark.compiling]

LENGTHS, BINS, LATENTS = [5, 3, 4], 5, 3
LINEAR = ModelOptions(dynamics=DynamicsOptions(layers=(), activations=(None,)))
OWN = """
from mrsds_ppl.guides import MeanField
from numpyro.infer.autoguide import AutoNormal
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

class Mine(MeanField):
    pass

class Misnamed(MeanField):
    def __call__(self, batch):
        numpyro.sample("xx", dist.Normal(0.0, 1.0))

class Short(MeanField):
    def __call__(self, batch):
        numpyro.sample("x", dist.Normal(jnp.zeros(3), 1.0).to_event(1))

class NoMedian(AutoNormal):
    pass

class Broken(MeanField):
    def __init__(self, model, *, key):
        raise RuntimeError("no such thing")

something = 3
"""


def make_batch(lengths=LENGTHS, seed=0, first=0):
    return by_hand.make_batch(lengths, BINS, 5, seed=seed, first=first)


def model_of(num_states=2, weight_prior=None):
    options = ModelOptions(dynamics=LINEAR.dynamics, weight_prior=weight_prior)
    return by_hand.filled_model([3, 2], [2, 1], num_states, num_inputs=1, options=options)


def started(name, batch, model=None, **kwargs):
    """A guide that has seen the batch, and its parameters."""
    guide = GUIDES[name](model or model_of(), **kwargs)
    return guide, initial_parameters(random.key(0), guide.model, guide, batch).params


def test_names_of_the_configuration_are_those_of_the_guides():
    assert tuple(GUIDES) == GUIDE_NAMES


@pytest.mark.parametrize(
    ("name", "prior"),
    [
        ("auto_delta", None),
        *(pytest.param(name, None, marks=pytest.mark.nightly) for name in PATH_GUIDES if name != "auto_delta"),
        pytest.param("auto_normal", 0.5, marks=pytest.mark.nightly),
    ],
)
def test_plain_numpyro_script_trains_it(name, prior):
    batch = make_batch()
    guide = GUIDES[name](model_of(weight_prior=prior))
    params = by_hand.params_of_plain_script(guide, batch, 60)
    draws = guide.sample_posterior(random.key(2), params, batch, sample_shape=(4,))
    assert draws["x"].shape == (4, 3, BINS, LATENTS)
    median = guide.median(params, batch)
    assert median["x"].shape == (3, BINS, LATENTS)
    np.testing.assert_array_equal(median["x"][1, 3:], 0.0)
    assert (set(draws) != {"x"}) == (prior is not None)


@pytest.mark.parametrize("name", PATH_GUIDES)
def test_trials_are_found_in_any_order_and_number(name):
    batch = make_batch()
    guide, params = started(name, batch)
    params["auto_path_loc"] = jnp.asarray(np.random.default_rng(0).normal(size=(3, BINS, LATENTS)), jnp.float32)
    whole = jax.jit(lambda b: guide.median(params, b)["x"])(batch)
    some = jax.tree.map(lambda leaf: leaf[np.array([2, 0])], batch)
    np.testing.assert_array_equal(jax.jit(lambda b: guide.median(params, b)["x"])(some), whole[np.array([2, 0])])
    assert len(np.unique(np.asarray(whole)[:, 0, 0])) == 3


def test_normal_guide_is_that_of_numpyro():
    batch = make_batch([BINS] * 3)
    guide, params = started("auto_normal", batch)
    other = AutoNormal(summed_out(guide.model))
    svi = SVI(guide.model, other, optax.adam(1e-2), loss=MarkovELBO())
    state = jax.jit(svi.init)(random.key(0), batch)
    theirs = {
        **svi.get_params(state),
        "x_auto_loc": params["auto_path_loc"],
        "x_auto_scale": jax.nn.softplus(params["auto_path_scale"] - 1.05) + 1e-3,
    }
    ours = jax.jit(lambda params: log_terms(random.key(5), params, guide.model, guide, batch))(params)
    moments = np.asarray(params["auto_path_loc"]), np.asarray(theirs["x_auto_scale"])
    found = jax.jit(lambda params: other.quantiles(params, [0.5, 0.975])["x"])(theirs)
    np.testing.assert_allclose(found[0], moments[0], rtol=1e-5)
    np.testing.assert_allclose(found[1], moments[0] + stats.norm.ppf(0.975) * moments[1], rtol=1e-4)
    assert ours.guide["x"].shape == (3,)


def test_low_rank_law_is_the_dense_gaussian_of_a_path():
    batch = make_batch()
    guide, params = started("auto_lowrank", batch, rank=2)
    rng = np.random.default_rng(0)
    params["auto_path_factor"] = jnp.asarray(rng.normal(size=(3, BINS, LATENTS, 2)), jnp.float32)
    x = jnp.asarray(rng.normal(size=(3, BINS, LATENTS)), jnp.float32)
    found = jax.jit(lambda x: guide.path_law(params, batch).log_prob(x))(x)
    for trial, length in enumerate(LENGTHS):
        valid = np.repeat(np.arange(BINS) < length, LATENTS)
        factor = np.asarray(params["auto_path_factor"], float)[trial].reshape(-1, 2) * valid[:, None]
        scale = np.log1p(np.exp(np.asarray(params["auto_path_scale"], float)[trial].ravel() - 1.05)) + 1e-3
        dense = factor @ factor.T + np.diag(np.where(valid, scale, 1.0) ** 2)
        center = np.asarray(params["auto_path_loc"], float)[trial].ravel() * valid
        expected = stats.multivariate_normal(center, dense).logpdf(np.asarray(x[trial], float).ravel())
        np.testing.assert_allclose(found[trial], expected, rtol=2e-4)


def test_a_trial_that_was_not_trained_on_has_no_path_rather_than_that_of_another():
    batch = make_batch()
    guide, params = started("auto_normal", batch)
    each = jax.device_get((batch, make_batch(seed=7, first=3)))
    mixed = jax.device_put(jax.tree.map(lambda a, b: np.stack([a[0], b[0]]), *each))
    known, unknown = np.asarray(guide.median(params, mixed)["x"])
    np.testing.assert_array_equal(known, np.asarray(guide.median(params, batch)["x"])[0])
    length = int(mixed.lengths[1])
    assert np.isnan(unknown[:length]).all()
    adapted = guide.adapt(random.key(1), params, mixed, steps=1)
    assert np.isfinite(guide.median(adapted, mixed)["x"]).all()


def test_a_trial_shown_otherwise_replaces_its_own_entry_and_no_other():
    batch = make_batch()
    guide, params = started("auto_normal", batch)
    hidden = jax.device_put(jax.tree.map(lambda leaf: np.asarray(leaf)[1:2], batch))
    hidden = hidden._replace(visible=jnp.zeros_like(hidden.visible))
    adapted = guide.adapt(random.key(1), params, hidden, steps=0)
    assert adapted["auto_path_loc"].shape == params["auto_path_loc"].shape
    before, after = (np.asarray(guide.median(p, batch)["x"]) for p in (params, adapted))
    np.testing.assert_array_equal(after[np.array([0, 2])], before[np.array([0, 2])])
    assert np.any(after[1] != before[1])


def test_training_trials_of_one_number_are_refused():
    batch = make_batch()
    with pytest.raises(RunError, match=r"found 2 of number 7; each needs a number of its own"):
        GUIDES["auto_normal"](model_of()).begin(batch._replace(number=np.array([7, 3, 7])))


@pytest.mark.parametrize("name", ["auto_normal", "auto_delta"])
def test_new_trials_begin_at_smoothed_paths_and_steps_raise_their_bound_and_leave_the_old_ones(name):
    batch, new = make_batch(), make_batch([4, 5], seed=7, first=3)
    guide, params = started(name, batch)
    adapted = guide.adapt(random.key(1), params, new, steps=200)
    for other in ("dynamics$params", "emissions$params"):
        jax.tree.map(np.testing.assert_array_equal, adapted[other], params[other])
    before, after = (guide.median(p, batch)["x"] for p in (params, adapted))
    np.testing.assert_array_equal(before, after)

    @jax.jit
    def log_weights(key, params):
        return log_terms(key, params, guide.model, guide, new).log_weights

    def bound(params):
        return np.mean([log_weights(random.key(i), params) for i in range(20)])

    start = guide.adapt(random.key(1), params, new, steps=0)
    rows = guide.first_entries(params, new)["auto_path_loc"]
    np.testing.assert_array_equal(start["auto_path_loc"][-len(rows) :], rows)
    at_zero = jax.tree.map(jnp.asarray, guide.entries(np.zeros(start["auto_path_loc"].shape, np.float32)))
    assert bound(start) > bound({**start, **at_zero}) + 1.0
    assert bound(adapted) > bound(start)  # of the same draws; smoothed paths are nearly the best


def test_new_trials_are_smoothed_under_the_medians_of_weights_with_a_prior():
    batch, new = make_batch(), make_batch([4, 5], seed=7, first=3)
    guide, params = started("auto_normal", batch, model_of(weight_prior=0.5))
    medians = {name: value for name, value in guide.median(params, batch).items() if name != "x"}
    found, expected = (guide.adapt(random.key(1), p, new) for p in (params, params | medians))
    assert medians
    assert np.isfinite(found["auto_path_loc"]).all()
    np.testing.assert_array_equal(found["auto_path_loc"], expected["auto_path_loc"])
    shrunk = {name: 0.1 * value if name.endswith("_auto_loc") else value for name, value in params.items()}
    assert np.any(guide.adapt(random.key(1), shrunk, new)["auto_path_loc"] != found["auto_path_loc"])


def test_a_table_of_ones_own_begins_new_trials_at_smoothed_paths():
    class Same(PathGuide):
        """Independent normals that leave `at` as it is."""

        entries, law = AutoPathNormal.entries, AutoPathNormal.law

    batch, new = make_batch(), make_batch([4, 5], seed=7, first=3)
    tables = []
    for kind in (Same, AutoPathNormal):
        guide = kind(model_of())
        params = initial_parameters(random.key(0), guide.model, guide, batch).params
        tables.append(guide.adapt(random.key(1), params, new, steps=0))
    np.testing.assert_array_equal(tables[0]["auto_path_loc"], tables[1]["auto_path_loc"])
    np.testing.assert_array_equal(tables[0]["auto_path_scale"], np.full_like(tables[0]["auto_path_loc"], START_SCALE))


def test_adapting_does_not_see_hidden_neurons():
    batch, new = make_batch(), make_batch([4, 5], seed=7, first=3)
    guide, params = started("auto_delta", batch)
    hidden = new._replace(visible=new.visible.at[..., 1].set(False))
    shifted = hidden._replace(y=hidden.y.at[..., 1].add(3.0))
    found = [guide.median(guide.adapt(random.key(1), params, b, steps=20), b)["x"] for b in (hidden, shifted, new)]
    np.testing.assert_array_equal(found[0], found[1])
    assert np.any(found[0] != found[2])


def test_cosmoothing_without_an_encoder_does_not_see_hidden_neurons():
    batch, rng = make_batch(), np.random.default_rng(7)
    guide, params = started("auto_normal", batch)
    y, hidden = rng.normal(size=(2, BINS, 5)), np.array([1, 4])
    shifted = y + 3.0 * np.isin(np.arange(5), hidden)
    us = rng.normal(size=(2, BINS, 1))

    def reconstructed(y, hidden):
        trials = Trials.from_arrays(y, us, region_sizes=[3, 2])
        fitted = FittedProgram(guide.model, params, guide).adapted(random.key(1), trials.batch())
        return PosteriorSampler(fitted).reconstruct(random.key(2), trials, hidden_neurons=hidden).y_mean

    np.testing.assert_array_equal(reconstructed(y, hidden), reconstructed(shifted, hidden))
    assert np.any(reconstructed(y, None) != reconstructed(shifted, None))


def small_trials():
    rng = np.random.default_rng(0)
    return Trials.from_arrays(rng.normal(size=(6, 8, 5)), region_sizes=[3, 2])


def build(tmp_path, guide, extra=""):
    path = tmp_path / "run.yaml"
    path.write_text(f"model: {{num_states: 2, latent_dims: 1}}\ninference: {{guide: {guide}{extra}}}\n")
    config, trials = load_config(path), small_trials()
    model = make_model(config, trials, trials.num_trials)
    return config, model, make_guide(config, model), trials.batch()


@pytest.mark.parametrize("name", [n for n in GUIDE_NAMES if n != "structured"])
def test_guide_is_made_by_its_name_and_starts(tmp_path, name):
    _, model, guide, batch = build(tmp_path, name)
    params = initial_parameters(random.key(0), model, guide, batch).params
    assert "dynamics$params" in params
    assert needs_every_trial(guide) == (name in PATH_GUIDES)


def test_own_guide_is_found_beside_its_configuration(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    config, model, guide, batch = build(tmp_path, "mine.py:Mine")
    assert type(guide).__name__ == "Mine"
    assert config.inference.guide == f"{tmp_path.resolve()}/mine.py:Mine"
    assert "recognition$params" in initial_parameters(random.key(0), model, guide, batch).params


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mine.py:Other", ["has no class 'Other'", "Mine"]),
        ("other.py:Mine", ["there is no file other.py"]),
        ("mine.py:something", ["is not a guide", "AutoGuide"]),
        ("mine.py:Broken", ["RuntimeError: no such thing"]),
        ("mine.py:NoMedian", ["median(params, batch)"]),
        ("mine.py:Misnamed", ["does not sample the program's site 'x'", "['xx']"]),
        ("mine.py:Short", ["site 'x' with shape (3,)", "(6, 8, 2)"]),
    ],
)
def test_own_guide_that_does_not_fit_is_named(tmp_path, name, words):
    (tmp_path / "mine.py").write_text(OWN)
    with pytest.raises(ConfigError) as error:  # noqa: PT012 - making and checking are two steps of one start
        _, model, guide, batch = build(tmp_path, name)
        initial_parameters(random.key(0), model, guide, batch)
    assert all(word in str(error.value) for word in words)


PUBLISHED = """
model:
  uz: True
  xz: False
  ux: False
  xtransition:
    no_us_input: True
    zcond: True
    dynamics:
      single_region_latent: True
      input_func_type: 'seperate'
      layers: [32, 16]
      activations: ["relu", "relu", null]
    inputs: {layers: [], activations: [null]}
  emissions: {dist: "gaussian", layers: [], activations: [null], final_activation: null}
inference:
  transformer: True
  embedding: {layers: [6], activations: ["relu"]}
  transformer_params: {head_size: 50, num_heads: 3, ff_dim: 4, num_transformer_blocks: 1, mlp_units: [32]}
  xic_inf: {layers: [32, null], activations: ["relu", null], xic_input_type: "hs", xic_input_len: -1}
  num_samples: 1
"""


@pytest.mark.parametrize(
    ("published", "states", "name"),
    [("mrsds", 2, "mean_field"), ("svae", 1, "structured"), ("s-svae", 2, "switching_structured")],
)
def test_published_files_load_with_each_published_inference_type(tmp_path, published, states, name):
    path = tmp_path / "published.yaml"
    path.write_text(PUBLISHED)
    config = load_config(path, {"inference.guide": published, "model.num_states": states})
    trials = small_trials()
    guide = make_guide(config, make_model(config, trials, trials.num_trials))
    assert config.inference.guide == name
    assert type(guide) is GUIDES[name]


def test_structured_guide_of_a_switching_program_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.num_states is 2; use switching_structured"):
        build(tmp_path, "svae")


def test_keys_that_a_guide_does_not_read_are_named(tmp_path):
    config, *_ = build(tmp_path, "auto_normal", ", encoder: transformer, psi_add: false")
    assert {"inference.encoder", "inference.psi_add"} <= set(ignored_keys(config))
    config, *_ = build(tmp_path, "s-svae", ", psi_add: false, triangular_cov: true")
    assert not [key for key in ignored_keys(config) if key.startswith("inference")]
