"""Programs and guides of joined sessions: they begin as those of one session, and every guide takes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

import mrsds_ppl as mrsds
from mrsds_ppl.build import initial_parameters
from mrsds_ppl.guides import GUIDES, AmortizedGuide
from mrsds_ppl.models import MRSDS, ModelOptions
from mrsds_ppl.nn.encoders import EncoderOptions
from mrsds_ppl.start.pca import initialize
from mrsds_ppl.train.objective import make_objective

SIZES = (2, 1)


def recording(seed: int, sizes: tuple[int, int], num_trials: int) -> mrsds.Trials:
    rng = np.random.default_rng(seed)
    ys = rng.poisson(1.0, (num_trials, 10, sum(sizes))).astype(float)
    return mrsds.Trials.from_arrays(ys, rng.normal(size=(num_trials, 10, 1)), list(sizes))


def begun(trials: mrsds.Trials, guide: str) -> tuple[MRSDS, object]:
    model = MRSDS(
        trials.region_sizes,
        SIZES,
        2,
        key=random.key(0),
        num_inputs=1,
        options=ModelOptions(),
        num_sessions=trials.num_sessions,
        num_trials=trials.num_trials,
    )
    options = EncoderOptions(embedding_layers=(4,), channels=6, dilations=(1,))
    if issubclass(GUIDES[guide], AmortizedGuide):
        return model, GUIDES[guide](model, key=random.key(1), options=options)
    return model, GUIDES[guide](model)


LARGER, SMALLER = recording(0, (5, 3), 9), recording(1, (4, 6), 6)
JOINED = mrsds.join([SMALLER, LARGER])


def test_the_session_with_the_most_trials_begins_as_it_would_alone():
    found = []
    for trials in (JOINED, LARGER):
        model, guide = begun(trials, "gaussian_markov")
        params = {"emissions$params": model.networks.emissions, "recognition$params": guide.recognition}
        found.append(initialize(params, trials, SIZES))
    joined, alone = found
    own = JOINED.own_neurons[1] != ""
    emissions, before = joined["emissions$params"].parts.of(1), alone["emissions$params"]
    np.testing.assert_allclose(emissions.readout.weight[own], before.readout.weight, rtol=1e-5)
    np.testing.assert_allclose(emissions.readout.bias[own], before.readout.bias, rtol=1e-5)
    recognition, single = joined["recognition$params"].parts.of(1), alone["recognition$params"]
    np.testing.assert_allclose(recognition.direct[own], single.direct, rtol=1e-5)
    hidden = LARGER.batch(hidden_neurons=[1])
    batch = JOINED.select(slice(6, None)).batch(hidden_neurons=np.flatnonzero(own)[[1]])
    signals = recognition.standardizer(jax.tree.map(jnp.asarray, batch))
    np.testing.assert_allclose(signals[..., own], single.standardizer(jax.tree.map(jnp.asarray, hidden)), rtol=1e-5)
    assert not np.asarray(signals[..., ~own]).any()


@pytest.mark.parametrize("name", ["gaussian_markov", "switching_structured", "auto_normal"])
def test_every_guide_has_a_gradient_for_each_session(name):
    model, guide = begun(JOINED, name)
    data = JOINED.batch()
    begin = getattr(guide, "begin", None)
    if begin is not None:
        begin(data)
    params = jax.eval_shape(lambda key: initial_parameters(key, model, guide, data).params, random.key(0))
    objective = make_objective(model, guide, float(JOINED.observed.sum()))

    def loss(params: dict[str, object], key: jax.Array) -> jax.Array:
        return objective(params, key, data, jnp.zeros((), int))[0]

    slope = jax.eval_shape(jax.grad(loss), params, random.key(1))
    assert slope["emissions$params"].readout.bias.shape == (2, JOINED.num_neurons)
