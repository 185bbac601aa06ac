"""Each law of signals through start, bound, smoother and a whole fit, and what it finds that another law does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from five_laws import LAWS, five_regions
from jax import random

import mrsds_ppl as mrsds
from mrsds_ppl.backend.trials_at_once import in_parts
from mrsds_ppl.build import initial_parameters
from mrsds_ppl.guides import GaussianMarkov
from mrsds_ppl.models import MRSDS, DynamicsOptions, EmissionOptions, ModelOptions
from mrsds_ppl.models.filtering import smooth_paths
from mrsds_ppl.nn.encoders import EncoderOptions
from mrsds_ppl.ppl.elbo import MarkovELBO
from mrsds_ppl.start.linear_program import improved, linear_program
from mrsds_ppl.start.pca import initialize
from mrsds_ppl.statespace.smoothing import PathMoments

pytestmark = [pytest.mark.slow, pytest.mark.compiling]


@pytest.fixture(scope="module")
def trials() -> mrsds.Trials:
    return five_regions(8, 12)


@pytest.fixture(scope="module")
def model() -> MRSDS:
    options = ModelOptions(emissions=EmissionOptions(dist=LAWS), dynamics=DynamicsOptions(layers=()))
    return MRSDS([2] * 5, 1, 1, key=random.key(0), options=options)


def test_the_bound_has_slopes_for_what_each_law_learns(model, trials):
    options = EncoderOptions(embedding_layers=(3,), channels=4, dilations=(1,))
    guide, batch = GaussianMarkov(model, key=random.key(1), options=options), trials.batch()
    params = initialize(initial_parameters(random.key(0), model, guide, batch).params, trials, model.latent_sizes)
    slopes = jax.jit(jax.grad(lambda p: MarkovELBO().loss(random.key(2), p, model, guide, batch)))(params)
    for law in (slopes["emissions$params"].readout, *slopes["emissions$params"].laws):
        for slope in jax.tree.leaves(law):
            assert np.isfinite(slope).all()
            assert (np.asarray(slope) != 0).all()


def test_linear_start_and_smoother_raise_what_each_law_gives_the_signals(model, trials):
    """Newton's method on the readout takes mean and information from the law, and the smoother its slope as well."""
    params = {f"{name}$params": part for name, part in model.networks._asdict().items()}
    networks = model.networks_from(initialize(params, trials, model.latent_sizes))
    batch = jax.device_put(trials.batch())
    program = linear_program(networks, batch, num_states=1, num_inputs=0)
    x = 0.1 * random.normal(random.key(0), (8, 12, 5))
    tiny = 1e-6 * jnp.broadcast_to(jnp.eye(5), (8, 12, 5, 5))
    found = jax.jit(improved)(program, batch, batch.u, PathMoments(x, tiny, 0 * tiny)).networks.emissions

    @jax.jit
    def score(emissions, x):
        """Log probability of each region's signals."""
        own = [jnp.zeros(batch.y.shape, bool).at[..., 2 * r : 2 * r + 2].set(True) for r in range(5)]
        return jnp.stack([emissions.law(x, batch.observed & some).log_prob(batch.y).sum() for some in own])

    assert (score(found, x) > score(networks.emissions, x)).all()
    smoothed = smooth_paths(networks, model, in_parts(batch), x, jnp.ones((8, 12, 1)))
    assert (score(networks.emissions, smoothed.mean) > score(networks.emissions, x)).all()
