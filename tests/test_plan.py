"""What a run decides from its configuration and its recording together."""

import numpy as np
import pytest
from jax.random import key

from mrsds_ppl.config.loading import RunConfig, load_config, resolved_yaml
from mrsds_ppl.config.names import PATH_GUIDES
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.models import MRSDS, ModelOptions
from mrsds_ppl.plan import with_encoder

COUNTS = {"model.num_states": 3, "model.latent_dims": 2, "model.emissions.dist": "poisson"}


@pytest.fixture
def recording():
    return Trials.from_arrays(np.zeros((4, 50, 6)), region_sizes=[2, 2, 2])


def load(tmp_path, values):
    (tmp_path / "run.yaml").write_text("data: {data_source: mydata}")
    return load_config(tmp_path / "run.yaml", values)


@pytest.mark.parametrize(
    "guide",
    [
        {},
        {"inference.guide": "gaussian_markov", "inference.transformer": False},
        *({"inference.guide": name} for name in PATH_GUIDES),
    ],
    ids=str,
)
def test_counts_with_states_are_fitted_without_an_encoder_where_none_is_named(tmp_path, recording, guide):
    config = with_encoder(load(tmp_path, COUNTS | guide), recording)
    assert config.inference.encoder == "none"
    assert config.starts_by_smoothing
    # The resolved file names it, and so decides by itself.
    (tmp_path / "again.yaml").write_text(resolved_yaml(config, {}))
    again = load_config(tmp_path / "again.yaml")
    assert with_encoder(again, recording).inference == config.inference


@pytest.mark.parametrize(
    "values",
    [
        {"model.num_states": 1},
        {"model.emissions.dist": "gaussian"},
        {"model.weight_prior.scale": 0.5},
        {"model.latent_dims": [6, 6, 5]},
        {"inference.guide": "mean_field"},
        {"inference.encoder": "convolution"},
        {"inference.transformer": True},
        {"inference.convolution_params.channels": 64},
        {"inference.embedding.layers": [8]},
        {"training.restarts": 4},
        {"training.switch_init_steps": 0},
        {"training.start": "staged"},
    ],
    ids=str,
)
def test_every_other_configuration_stays_as_it_is(tmp_path, recording, values):
    config = load(tmp_path, COUNTS | values)
    assert with_encoder(config, recording) is config


def test_long_recordings_keep_their_encoder(tmp_path):
    config = load(tmp_path, COUNTS)
    long = Trials.from_arrays(np.zeros((61, 1000, 3)), region_sizes=[1, 1, 1])
    assert with_encoder(config, long) is config
    assert with_encoder(config, long.select(slice(0, 60))).inference.encoder == "none"


def test_a_pooled_latent_has_those_of_all_regions(tmp_path, recording):
    pooled = {"model.xtransition.dynamics.single_region_latent": True}
    assert (
        with_encoder(load(tmp_path, COUNTS | pooled | {"model.latent_dims": 5}), recording).inference.encoder == "none"
    )
    large = load(tmp_path, COUNTS | pooled | {"model.latent_dims": 6})
    assert with_encoder(large, recording) is large
    assert MRSDS([2, 2, 2], 6, 3, options=ModelOptions(single_region_latent=True), key=key(0)).num_latents == 18
    assert RunConfig().inference.encoder == "convolution"
