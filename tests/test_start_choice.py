"""What a run chooses from its configuration and its recording together, and the line that says so."""

import re

import numpy as np
import pytest

from mrsds_ppl.config.choice import choose_start, most_bins_without_encoder
from mrsds_ppl.config.loading import RunConfig, load_config, resolved_yaml
from mrsds_ppl.config.names import PATH_GUIDES
from mrsds_ppl.data.trials import Trials

COUNTS = {"model.num_states": 3, "model.latent_sizes": 2, "model.emissions.dist": "poisson"}


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
    choice = choose_start(load(tmp_path, COUNTS | guide), recording)
    assert (choice.method, choice.encoder) == ("smoothing", "none")
    config = choice.applied_to(load(tmp_path, COUNTS | guide))
    assert config.inference.encoder == "none"
    assert config.training.start.method == "smoothing"
    # The resolved file names both, and so decides by itself.
    (tmp_path / "again.yaml").write_text(resolved_yaml(config, {}))
    again = load_config(tmp_path / "again.yaml")
    assert again == config
    assert choose_start(again, recording).applied_to(again) == config


@pytest.mark.parametrize(
    ("values", "method", "encoder", "reason"),
    [
        ({"model.num_states": 1}, "none", "convolution", "there is one state"),
        (
            {"model.num_states": 1, "model.emissions.dist": "gaussian"},
            "smoothing",
            "none",
            "Gaussian signals with one state are fitted better so",
        ),
        ({"model.num_states": 1, "model.emissions.dist": "zero_inflated_gamma"}, "none", "convolution", "no counts"),
        ({"model.emissions.dist": "gaussian"}, "staged", "convolution", "emissions are gaussian"),
        ({"model.weight_prior.scale": 0.5}, "none", "convolution", "weights have a prior"),
        ({"model.latent_sizes": [6, 6, 5]}, "smoothing", "none", "counts with several states are fitted better so"),
        ({"inference.guide": "mean_field"}, "staged", "convolution", "mean_field reads an encoder"),
        ({"inference.encoder": "convolution"}, "staged", "convolution", "inference.encoder is convolution"),
        ({"inference.transformer": True}, "staged", "transformer", "inference.encoder is transformer"),
        ({"inference.convolution_params.channels": 64}, "staged", "convolution", "gives an encoder's sizes"),
        ({"inference.embedding.layers": [8]}, "staged", "convolution", "gives an encoder's sizes"),
        ({"training.restarts": 4}, "staged", "convolution", "4 restarts"),
        ({"training.switch_init_steps": 0}, "none", "convolution", "training.start is none"),
        ({"training.start": "none"}, "none", "convolution", "training.start is none"),
        ({"training.start": "staged"}, "staged", "convolution", "training.start is staged"),
        ({"training.start": "staged", "model.num_states": 1}, "none", "convolution", "one state"),
        ({"inference.encoder": "none"}, "smoothing", "none", "every trial has a posterior of its own"),
        (
            {"inference.encoder": "none", "model.emissions.dist": "gaussian", "model.num_states": 1},
            "smoothing",
            "none",
            "every trial has a posterior of its own",
        ),
        (
            {"training.start": "smoothing", "inference.guide": "mean_field"},
            "smoothing",
            "convolution",
            "training.start is smoothing",
        ),
        (
            {"training.start": "smoothing", "inference.guide": "auto_normal", "model.emissions.dist": "gaussian"},
            "smoothing",
            "none",
            "training.start is smoothing",
        ),
    ],
    ids=str,
)
def test_every_choice_has_its_reason(tmp_path, recording, values, method, encoder, reason):
    choice = choose_start(load(tmp_path, COUNTS | values), recording)
    assert (choice.method, choice.encoder) == (method, encoder)
    assert choice.line.startswith("start: ")
    assert reason in choice.line
    assert "\n" not in choice.line
    words = {"none": "no encoder"}.get(encoder, f"{encoder} encoder")
    assert words in choice.line


def test_a_guide_that_reads_no_encoder_is_not_said_to_have_one(tmp_path, recording):
    values = COUNTS | {"inference.guide": "auto_normal", "model.emissions.dist": "gaussian"}
    line = choose_start(load(tmp_path, values), recording).line
    assert re.match(r"start: in stages .*, no encoder: .*not by smoothing, since emissions are gaussian", line)


def test_long_recordings_keep_their_encoder(tmp_path):
    config = load(tmp_path, COUNTS)
    long = Trials.from_arrays(np.zeros((61, 1000, 3)), region_sizes=[1, 1, 1])
    assert "61,000 bins with 6 latents are more than 60,000" in choose_start(config, long).line
    assert choose_start(config, long.select(slice(0, 60))).encoder == "none"


def test_many_latents_are_smoothed_up_to_fewer_bins_and_the_log_says_what_to_type(tmp_path):
    config = load(tmp_path, COUNTS | {"model.latent_sizes": 3})
    many = Trials.from_arrays(np.zeros((120, 100, 12)), region_sizes=[1] * 12)
    assert most_bins_without_encoder(36) == 5267
    assert choose_start(config, many.select(slice(0, 52))).encoder == "none"
    line = choose_start(config, many).line
    assert "12,000 bins with 36 latents are more than 5,267" in line
    assert "inference.encoder: none brings it all the same, in about 2.3 times as long" in line


def test_a_pooled_latent_has_those_of_all_regions(tmp_path):
    pooled = COUNTS | {"model.dynamics.single_region_latent": True}
    long = Trials.from_arrays(np.zeros((60, 1000, 3)), region_sizes=[1, 1, 1])
    assert choose_start(load(tmp_path, pooled | {"model.latent_sizes": 5}), long).encoder == "none"
    assert "18 latents" in choose_start(load(tmp_path, pooled | {"model.latent_sizes": 6}), long).line
    assert RunConfig().inference.encoder == "auto"
