"""An emission of a user's own: one class and one line in EMISSIONS take it through start, fit and scores."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from jax import random
from jaxtyping import Array, Float
from numpyro.infer import SVI

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.metrics import evaluate
from mrsds_ppl.analysis.posterior import PosteriorSampler
from mrsds_ppl.build import initial_parameters
from mrsds_ppl.data import Trials
from mrsds_ppl.data.signals import NOT_COUNTS, Refused
from mrsds_ppl.errors import DataError
from mrsds_ppl.guides import GaussianMarkov
from mrsds_ppl.models import EMISSIONS, MRSDS, DynamicsOptions, EmissionOptions, ModelOptions
from mrsds_ppl.models.protocols import LawStart
from mrsds_ppl.nn.encoders import EncoderOptions
from mrsds_ppl.ppl.elbo import MarkovELBO
from mrsds_ppl.start.linear_program import improved, linear_program
from mrsds_ppl.start.pca import initialize
from mrsds_ppl.statespace.smoothing import PathMoments

pytestmark = [pytest.mark.slow, pytest.mark.compiling]


class NegativeBinomial(eqx.Module):
    """Counts with mean m = exp(C(x)) and variance m + m^2 / r."""

    log_r: Float[Array, " neuron"]
    counts: ClassVar[bool] = True
    refused: ClassVar[tuple[Refused, ...]] = NOT_COUNTS

    def __init__(self, num_neurons, *, final_activation, triangular, trainable):
        self.log_r = jnp.full(num_neurons, 1.0)

    def mean(self, eta):
        return jnp.exp(eta)

    def information(self, mean):
        return 1.0 / (mean + mean**2 / jnp.exp(self.log_r))

    def distribution(self, eta, observed):
        return dist.NegativeBinomial2(self.mean(eta), jnp.exp(self.log_r)).mask(observed).to_event(2)

    def draw(self, rng, mean):
        r = np.exp(np.asarray(self.log_r, float))
        return rng.negative_binomial(r, r / (r + mean)).astype(np.int32)

    def at_components(self, found):
        rate = np.maximum(found.center, 1e-3)
        excess = np.maximum(found.residual - rate, 0.01 * rate**2)
        law = eqx.tree_at(lambda e: e.log_r, self, jnp.asarray(np.log(rate**2 / excess)))
        return LawStart(law, np.log(rate), found.loadings / rate[:, None])

    def with_residual(self, square):
        return self


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setitem(EMISSIONS, "negative_binomial", NegativeBinomial)
    options = ModelOptions(emissions=EmissionOptions(dist="negative_binomial"), dynamics=DynamicsOptions(layers=()))
    return MRSDS([4, 3], 2, 2, key=random.key(0), options=options)


@pytest.fixture
def trials():
    rng = np.random.default_rng(0)
    x = np.cumsum(0.3 * rng.normal(size=(8, 30, 2)), axis=1)
    rate = np.exp(0.5 + 0.5 * x @ rng.normal(size=(2, 7)))
    return Trials.from_arrays(rng.negative_binomial(4.0, 4.0 / (4.0 + rate)), region_sizes=[4, 3])


def test_it_starts_fits_and_is_scored(model, trials):
    options = EncoderOptions(embedding_layers=(3,), channels=4, dilations=(1,))
    guide, batch = GaussianMarkov(model, key=random.key(1), options=options), trials.batch()
    params = initialize(initial_parameters(random.key(0), model, guide, batch).params, trials, model.latent_sizes)
    mean = np.where(trials.observed, trials.y, 0.0).mean((0, 1))
    np.testing.assert_allclose(params["emissions$params"].readout.bias, np.log(mean), rtol=1e-5)
    svi = SVI(model, guide, optax.adam(1e-2), loss=MarkovELBO())
    state = jax.jit(svi.init)(random.key(2), batch, init_params=params)
    result = svi.run(random.key(2), 60, batch, progress_bar=False, init_state=state)
    assert result.losses[-10:].mean() < result.losses[:10].mean()
    assert np.any(result.params["emissions$params"].laws[0].log_r != params["emissions$params"].laws[0].log_r)
    fitted = FittedProgram(model, result.params, guide)
    found = PosteriorSampler(fitted).infer(random.key(3), trials, draws=20)
    assert found.y_draws.dtype == np.int32
    assert np.isfinite(found.elbo).all()
    scores = evaluate(trials.y, trials.observed, found.y_mean, fitted.networks.emissions.counts)
    assert scores.r2 > 0.1
    assert scores.bits_per_spike > 0


def test_the_linear_start_finds_its_loadings(model, trials):
    """Newton's method on the readout takes mean and variance from the emission."""
    params = {f"{name}$params": part for name, part in model.networks._asdict().items()}
    networks = model.networks_from(initialize(params, trials, model.latent_sizes))
    batch = jax.device_put(trials.batch())
    program = linear_program(networks, batch, num_states=1, num_inputs=0)
    x = 0.1 * random.normal(random.key(0), (8, 30, 4))
    tiny = 1e-6 * jnp.broadcast_to(jnp.eye(4), (8, 30, 4, 4))
    found = jax.jit(improved)(program, batch, batch.u, PathMoments(x, tiny, 0 * tiny))

    def score(emissions):
        return emissions.law(x, batch.observed).log_prob(batch.y).sum()

    assert score(found.networks.emissions) > score(networks.emissions)


def test_its_data_are_checked_to_be_counts(trials):
    negative = Trials(trials.dataset.assign(y=-1.0 - trials.dataset["y"]))
    with pytest.raises(DataError, match="a negative count"):
        negative.validate(refused=[NegativeBinomial.refused] * 7)
