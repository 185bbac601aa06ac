"""The configuration of a fit that is asked for in Python: what is accepted, and messages that name the arguments."""

import pytest

from mrsds_ppl.config import RunConfig, config_for, load_config, resolved_yaml
from mrsds_ppl.errors import ConfigError


def refusal(*sizes, **arguments):
    with pytest.raises(ConfigError) as caught:
        config_for(*(sizes or (2, 1)), **{"emission": "gaussian"} | arguments)
    return str(caught.value)


def test_arguments_are_the_sections_of_a_configuration():
    config = config_for(
        3,
        [2, 4],
        model={"xz": False, "dynamics": {"layers": [8]}},
        guide="mean_field",
        start="smoothing",
        training={"num_steps": 50, "regimen.smooth_coef": 0.5, "split": {"drop_perc": 0.5}},
        test=0.25,
        seed=4,
        emission="poisson",
    )
    assert (config.model.num_states, config.model.latent_sizes) == (3, (2, 4))
    assert (config.model.xz, config.model.dynamics.layers, config.model.emissions.dist) == (False, (8,), "poisson")
    assert config.inference.guide == "mean_field"
    training = config.training
    assert (training.optimiser.num_steps, training.regimen.smooth_coef) == (50, 0.5)
    assert (training.split.test_perc, training.split.drop_perc) == (0.25, 0.5)
    assert training.start.method == "smoothing"
    assert (training.seeds.data, training.seeds.model, training.seeds.train) == (4, 4, 4)


def test_defaults_are_those_of_a_configuration(tmp_path):
    config = config_for(2, 1, emission="gaussian")
    assert config == RunConfig.model_validate({"data": {"data_source": "mydata"}})
    (tmp_path / "run.yaml").write_text(resolved_yaml(config, {}))
    assert load_config(tmp_path / "run.yaml") == config


def test_published_names_are_read_and_noted():
    config = config_for(2, 1, guide="mrsds", training={"num_samples": 3}, emission="gaussian")
    assert (config.inference.guide, config.training.optimiser.num_particles) == ("mean_field", 3)
    assert any('training["num_samples"] is read as' in note for note in config.notes)


def test_the_model_may_name_its_emission():
    config = config_for(2, 1, model={"emissions": {"dist": "gaussian"}}, emission="poisson")
    assert config.model.emissions.dist == "gaussian"
    config = config_for(2, 1, model={"emissions": {"dist": {"V1": "gaussian"}}}, emission="poisson")
    assert config.model.emissions.phrase == "V1 gaussian"


def test_a_default_gives_way_to_a_key():
    training = {"test_perc": 0.3, "start": "staged", "seeds": {"train": 2}}
    found = config_for(2, 1, training=training, emission="gaussian").training
    assert (found.split.test_perc, found.start.method) == (0.3, "staged")
    assert (found.seeds.data, found.seeds.model, found.seeds.train) == (0, 0, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"training": {"num_stepz": 5}}, 'training["num_stepz"]: unknown key; did you mean num_steps?'),
        ({"training": {"optimiser": {"num_step": 5}}}, 'training["optimiser"]["num_step"]: unknown key; did you mean'),
        ({"training": {"num_steps": -1}}, 'training["num_steps"]: found -1; allowed: at least 1'),
        ({"training": {"optimiser.num_steps": -1}}, 'training["optimiser"]["num_steps"]: found -1'),
        ({"model": {"xzz": True}}, 'model["xzz"]: unknown key; did you mean xz?'),
        ({"model": {"xtransition": {"zcon": True}}}, 'model["xtransition"]["zcon"]: unknown key; did you mean zcond?'),
        ({"test": 2.0}, "test: found 2.0; allowed: less than 1"),
        ({"seed": -1}, "seed: found -1; allowed: at least 0"),
        ({"start": "smooth"}, 'start: found "smooth"; allowed: auto, staged, smoothing, none; did you mean smoothing?'),
        ({"guide": "meanfield"}, 'guide: found "meanfield"; unknown guide'),
        (
            {"emission": "poison"},
            'emission: found "poison"; allowed: gaussian, poisson, negative_binomial, '
            "bernoulli, zero_inflated_gamma; did you mean poisson?",
        ),
        ({"model": {"num_states": 3}}, 'num_states and model["num_states"]: found both'),
        ({"model": {"latent_dims": 3}}, 'latent_sizes and model["latent_dims"]: found both'),
        ({"seed": 3, "training": {"data_seed": 1}}, 'seed and training["data_seed"]: found both'),
        ({"test": 0.2, "training": {"test_perc": 0.3}}, 'test and training["test_perc"]: found both'),
        ({"start": "staged", "training": {"start": {"method": "none"}}}, 'start and training["start"]["method"]'),
        (
            {"training": {"num_steps": 5, "optimiser": {"num_steps": 6}}},
            'training["num_steps"] and training["optimiser"]["num_steps"]: found both',
        ),
    ],
    ids=str,
)
def test_refusal_names_the_argument(arguments, words):
    assert words in refusal(**arguments)


def test_sizes_are_refused_by_their_arguments():
    message = refusal(0, [1, 0])
    assert "num_states: found 0" in message
    assert "latent_sizes: found [1, 0]" in message
