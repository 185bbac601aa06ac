"""The configuration file: what is accepted, and what every refusal names."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from mrsds_ppl.config.loading import (
    GUIDE_NAMES,
    RunConfig,
    ignored_keys,
    load_config,
    parse_assignment,
    reject_unknown,
    resolved_yaml,
)
from mrsds_ppl.config.messages import known_paths
from mrsds_ppl.config.sections import IGNORED_KEYS
from mrsds_ppl.errors import ConfigError

CONFIGS = Path(__file__).parents[1] / "configs"

# The keys and spellings of the published configuration files, all in one.
PUBLISHED = """
data: {data_source: lv-multiswitch2, trials: all, tlim: null, inputs: 2, stages: false, history: false, hist_tlen: 0,
       num_trials: 500, random_zic: false, uz: true, nle: false, history_effect: false}
model:
  uz: True
  sz: False
  xz: False
  ux: False
  xic: {layers: [2], activations: [relu, null], triangular_cov: False, trainable_cov: False}
  ztransition: {layer_mult: 1}
  xtransition:
    triangular_cov: True
    trainable_cov: True
    zcond: False
    no_us_input: True
    dynamics: {single_region_latent: True, communication_type: additive, input_type: additive,
               input_func_type: 'seperate', layers: [32, 32], activations: [relu, relu, null]}
    inputs: {layers: [], activations: [null]}
  emissions: {triangular_cov: False, trainable_cov: False, dist: gaussian, layers: [], activations: [null],
              final_activation: null}
inference:
  triangular_cov: False
  trainable_cov: True
  transformer: True
  embedding: {layers: [6], activations: [relu]}
  transformer_params: {head_size: 50, num_heads: 3, ff_dim: 4, num_transformer_blocks: 1, mlp_units: [32]}
  xic_inf: {layers: [8, null], activations: [relu, null], xic_input_type: hs, xic_input_len: -1}
  num_samples: 1
training: {use_true_x: False, use_true_z: False, dynamics_only: False, batch_size: 64, xent: False, xent_init: 0,
           xent_rate: 0.99, xent_steps: 50, xent_kickin_steps: 0, xentropy_annealing: True, flat_learning_rate: False,
           use_inverse_annealing_lr: False, num_steps: 20001, num_steps_do: 0, learning_rate: 1.e-2,
           lr_warmup_steps: 1500, lr_warmup_steps_do: 0, beta_max: 100.0, beta_warmup_steps: 1000,
           temperature_annealing: True, t_init: 0, t_min: 1.0, annealing_rate: 0.99, annealing_steps: 100,
           annealing_kickin_steps: 0, log_steps: 500, save_steps: 500, dropout: False, test_perc: 0.1, drop_perc: 0.0,
           dropout_trial_perc: 0.5, num_samples: 3}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def refusal(folder: Path, text: str, **overrides: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, text), {key.replace("__", "."): value for key, value in overrides.items()})
    return str(caught.value)


@pytest.mark.parametrize("name", ["toy-config", "large-config"])
def test_shipped_files_have_an_effect_key_by_key(name):
    config = load_config(CONFIGS / f"{name}.yaml")
    published = {"model.xic.layers", "model.xic.activations"}
    published |= {f"training.{key}" for key in ("num_steps_do", "lr_warmup_steps_do", "beta_max", "beta_warmup_steps")}
    published |= {f"training.{key}" for key in ("smooth_coef", "dynamics_only", "temperature_annealing", "t_init")}
    published |= {f"training.{key}" for key in ("t_min", "annealing_rate", "annealing_steps", "annealing_kickin_steps")}
    assert set(ignored_keys(config)) <= published


def test_v1v2_file_names_its_loader_from_its_own_folder(tmp_path, monkeypatch):
    (tmp_path / "tests").mkdir()
    (tmp_path / "configs").mkdir()
    loader = tmp_path / "tests" / "v1v2_loader.py"
    loader.write_text("")
    copy = tmp_path / "configs" / "v1v2.yaml"
    copy.write_text((CONFIGS / "v1v2.yaml").read_text())
    monkeypatch.chdir(tmp_path / "tests")
    config = load_config(copy)
    assert config.data.data_source == f"{loader.resolve()}:load"
    assert config.model.emissions.dist == "poisson"
    assert config.model.latent_dims == 6
    loader.unlink()
    with pytest.raises(ConfigError, match=r"data\.data_source.*no file \.\./tests/v1v2_loader\.py"):
        load_config(copy)


def test_loader_is_found_from_the_current_folder_next(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "mine.py").write_text("")
    path = write(tmp_path / "configs", "data: {data_source: 'mine.py:load', data_path: mine.py}")
    monkeypatch.chdir(tmp_path)
    data = load_config(path).data
    assert data.data_source == f"{tmp_path.resolve() / 'mine.py'}:load"
    assert data.data_path == str(tmp_path.resolve() / "mine.py")


def test_large_file_holds_the_published_hyperparameters():
    config = load_config(CONFIGS / "large-config.yaml")
    assert config.model.xtransition.zcond
    assert config.model.xtransition.inputs.layers == (4,)
    assert config.model.emissions.layers == (128, 128)
    assert config.inference.encoder == "transformer"
    assert config.inference.transformer_params.head_size == 50
    assert (config.training.num_steps, config.training.learning_rate) == (15001, 3e-3)
    assert (config.training.beta_max, config.training.smooth_coef) == (3000.0, 0.1)


def test_published_keys_are_accepted_and_read(tmp_path):
    config = load_config(write(tmp_path, PUBLISHED))
    assert config.data.data_source == "lotka-volterra"
    assert config.data.simulation_arguments() == {"num_trials": 500, "cue": True}
    assert config.model.xtransition.dynamics.input_func_type == "separate"
    assert config.inference.encoder == "transformer"
    assert config.training.num_particles == 3
    assert config.inference.xic_inf.layers == (8,)


def test_ignored_keys_are_those_the_file_set(tmp_path):
    ignored = ignored_keys(load_config(write(tmp_path, PUBLISHED)))
    assert "training.xent_rate" in ignored
    assert "inference.xic_inf" in ignored
    assert "training.mode" not in ignored  # known, but not in the file
    assert "data.num_trials" not in ignored  # the simulator takes it
    recording = load_config(write(tmp_path, PUBLISHED), {"data.data_source": "mydata"})
    assert {"data.num_trials", "data.uz"} <= set(ignored_keys(recording))
    assert ignored_keys(RunConfig()) == []


def test_keys_of_other_guides_and_sources_are_named(tmp_path):
    text = "{data: {bin_width: 0.1}, inference: {triangular_cov: true, covariance: per_bin}}"
    found = set(ignored_keys(load_config(write(tmp_path, text))))
    assert found == {"data.bin_width", "inference.triangular_cov", "inference.covariance"}
    other = {"inference.guide": "mean_field", "data.data_source": "mydata"}
    assert ignored_keys(load_config(write(tmp_path, text), other)) == []


def test_ignored_keys_exist():
    assert set(IGNORED_KEYS) <= set(known_paths(RunConfig))


def test_simulation_section_wins_over_published_spellings(tmp_path):
    config = load_config(write(tmp_path, "data: {num_trials: 500, simulation: {num_trials: 20, observation_noise: 1}}"))
    assert config.data.simulation_arguments() == {"num_trials": 20, "observation_noise": 1}


@pytest.mark.parametrize(
    "text", [PUBLISHED, "model: {latent_dims: [2, 3], weight_prior: {scale: 1}}", "data: {inputs: 2}"]
)
def test_resolved_file_reads_back_to_the_same_run(tmp_path, text):
    config = load_config(write(tmp_path, text))
    resolved = resolved_yaml(config, {"jax": "0.10.2"})
    assert yaml.safe_load(resolved)["versions"] == {"jax": "0.10.2"}
    again = load_config(write(tmp_path, resolved))
    assert again.model_dump() == config.model_dump()
    assert again.data.simulation_arguments() == config.data.simulation_arguments()
    assert ignored_keys(again) == ignored_keys(config)
    assert resolved_yaml(again, {"jax": "0.10.2"}) == resolved


def test_resolved_file_names_every_key_that_matters():
    written = yaml.safe_load(resolved_yaml(RunConfig(), {}))
    flat = [
        path for path in known_paths(RunConfig) if path not in {*IGNORED_KEYS, "data.uz", "model.weight_prior.scale"}
    ]
    for path in flat:
        if path.startswith("inference.xic_inf."):
            continue
        value = written
        for key in path.split("."):
            value = value[key]


def test_numbers_written_as_text_are_numbers(tmp_path):
    config = load_config(write(tmp_path, "training: {learning_rate: 1e-2, num_steps: 1e3, smooth_coef: '0.1'}"))
    assert (config.training.learning_rate, config.training.num_steps, config.training.smooth_coef) == (0.01, 1000, 0.1)


def test_empty_section_is_its_defaults(tmp_path):
    assert load_config(write(tmp_path, "inference:\nmodel:\n  xic:\n")) == RunConfig()


@pytest.mark.parametrize(
    ("layers", "activations", "expected"),
    [
        ("[8]", "[tanh]", ("tanh",)),
        ("[8]", "[tanh, null]", ("tanh",)),
        ("[8]", "[tanh, 'null']", ("tanh",)),
        ("[8, 4]", "[null, relu]", (None, "relu")),
        ("[]", "[]", ()),
        ("[]", "[null]", ()),
    ],
)
def test_activations_are_one_per_hidden_layer(tmp_path, layers, activations, expected):
    section = f"{{layers: {layers}, activations: {activations}}}"
    config = load_config(write(tmp_path, f"model: {{xtransition: {{dynamics: {section}}}}}"))
    dynamics = config.model.xtransition.dynamics
    assert dynamics.activations == expected
    assert dynamics.activations_with_output == (*expected, None)


def test_activations_default_to_relu_for_the_layers_given(tmp_path):
    config = load_config(write(tmp_path, "model: {emissions: {layers: [64, 64, 64]}}"))
    assert config.model.emissions.activations == ("relu",) * 3


@pytest.mark.parametrize("activations", ["[]", "[relu, relu, relu]", "[relu, relu]", "[relu, null, null]"])
def test_activations_of_another_length_are_refused(tmp_path, activations):
    message = refusal(tmp_path, f"model: {{emissions: {{layers: [8], activations: {activations}}}}}")
    assert "model.emissions.activations: found" in message
    assert "for 1 layers" in message


def test_poisson_always_has_a_positive_rate(tmp_path):
    path = write(tmp_path, "model: {emissions: {dist: poisson, final_activation: null}}")
    assert load_config(path).model.emissions.final_activation == "softplus"
    path = write(tmp_path, "model: {emissions: {dist: poisson, final_activation: exp}}")
    assert load_config(path).model.emissions.final_activation == "exp"


@pytest.mark.parametrize(
    ("inference", "encoder"),
    [
        ("{}", "convolution"),
        ("{transformer: true}", "transformer"),
        ("{transformer: false}", "convolution"),
        ("{encoder: convolution, transformer: true}", "convolution"),
    ],
)
def test_encoder_follows_the_published_switch_unless_named(tmp_path, inference, encoder):
    assert load_config(write(tmp_path, f"inference: {inference}")).inference.encoder == encoder


def test_published_guide_name_is_translated(tmp_path):
    assert load_config(write(tmp_path, "inference: {guide: mrsds}")).inference.guide == "mean_field"
    assert RunConfig().inference.guide == GUIDE_NAMES[0]


def test_input_free_transition_turns_ux_off(tmp_path):
    assert not load_config(write(tmp_path, "model: {xtransition: {no_us_input: true}}")).model.ux
    assert "model.ux: found true" in refusal(tmp_path, "model: {ux: true, xtransition: {no_us_input: true}}")


def test_overrides_win_and_make_sections(tmp_path):
    config = load_config(
        write(tmp_path, "training: {num_steps: 5}"),
        {"training.num_steps": 500, "model.xtransition.zcond": True, "model.latent_dims": [1, 2]},
    )
    assert config.training.num_steps == 500
    assert config.model.xtransition.zcond
    assert config.model.latent_dims == (1, 2)


def test_config_is_frozen():
    with pytest.raises(ValidationError):
        RunConfig().training.num_steps = 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training.num_steps=500", ("training.num_steps", 500)),
        ("a.b=[1, 2]", ("a.b", [1, 2])),
        ("a=", ("a", None)),
        ("a=x=y", ("a", "x=y")),
    ],
)
def test_assignments_are_yaml(text, expected):
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["training.num_steps", "=3", "a=[1"])
def test_bad_assignments_are_refused(text):
    with pytest.raises(ConfigError, match="--set"):
        parse_assignment(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "training: {num_step: 5}",
            ["training.num_step: unknown key", "did you mean training.num_steps?", "test_perc"],
        ),
        ("trainin: {}", ["trainin: unknown key", "did you mean training?", "at the top: data, model"]),
        ("model: {zcond: true}", ["model.zcond", "did you mean model.xtransition.zcond?"]),
        ("model: {dynamics: {layers: [3]}}", ["model.dynamics", "did you mean model.xtransition.dynamics?"]),
        ("dynamics: {communication_type: additive}", ["did you mean model.xtransition.dynamics?"]),
        (
            "model: {xtransition: {dynamics: {comunication_type: additive}}}",
            [
                "did you mean model.xtransition.dynamics.communication_type?",
                "Keys allowed in model.xtransition.dynamics",
            ],
        ),
        ("zzzqqq: 1", ["zzzqqq: unknown key. Keys allowed"]),
        ("training: {num_steps: -5}", ["training.num_steps: found -5", "at least 1"]),
        ("training: {num_steps: 2.5}", ["training.num_steps: found 2.5", "a whole number"]),
        ("training: {num_steps: many}", ['found "many"', "a number"]),
        ("training: {batch_size: true}", ["training.batch_size: found true", "a number"]),
        ("training: {learning_rate: .nan}", ["training.learning_rate", "a finite number"]),
        ("training: {learning_rate: 0}", ["training.learning_rate: found 0", "more than 0"]),
        ("training: {test_perc: 1}", ["training.test_perc: found 1", "less than 1"]),
        ("training: {dropout: maybe}", ['training.dropout: found "maybe"', "true or false"]),
        ("training: {overshoot: 0.5}", ["training.overshoot: found 0.5", "a list"]),
        ("training: {overshoot: [0.5, -1]}", ["training.overshoot[1]: found -1", "at least 0"]),
        ("training: {dynamics_only: true}", ["training.dynamics_only: found true", "num_steps_do"]),
        ("training: 7", ["training: found 7", "a mapping"]),
        ("model: {num_states: 0}", ["model.num_states: found 0", "at least 1"]),
        ("model: {latent_dims: 0}", ["model.latent_dims: found 0", "for each region"]),
        ("model: {latent_dims: []}", ["model.latent_dims: found []", "for each region"]),
        ("model: {latent_dims: [2, -1]}", ["model.latent_dims: found [2, -1]", "for each region"]),
        ("model: {latent_dims: 1.5}", ["model.latent_dims: found 1.5"]),
        ("model: {emissions: {dist: poison}}", ['found "poison"', "gaussian, poisson", "did you mean poisson?"]),
        ("model: {emissions: {layers: [8], activations: [rellu]}}", ["activations[0]", "did you mean relu?", "null"]),
        ("model: {emissions: {final_activation: relu}}", ["exp, softplus, null"]),
        ("model: {weight_prior: {}}", ["model.weight_prior.scale: this key is required"]),
        ("inference: {guide: gausian_markov}", ["unknown guide", "did you mean gaussian_markov?", "mean_field"]),
        ("inference: {convolution_params: {kernel_size: 4}}", ["kernel_size: found 4", "odd"]),
        ("inference: {embedding: {layers: []}}", ["inference.embedding.layers", "at least 1 entries"]),
        (
            "data: {data_source: lotka-voltera}",
            ["data.data_source", "did you mean lotka-volterra?", "file.py:function"],
        ),
        ("output: {trials: none}", ["output.trials", "test, all"]),
    ],
)
def test_refusal_names_the_key_what_was_found_and_what_is_allowed(tmp_path, text, parts):
    message = refusal(tmp_path, text)
    assert "run.yaml" in message
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_all_problems_are_named_at_once(tmp_path):
    message = refusal(tmp_path, "training: {num_steps: -5, lr: 3}", model__num_states=0)
    assert "3 problems" in message
    for part in ("training.num_steps", "training.lr", "model.num_states"):
        assert part in message


def test_override_below_a_value_is_refused(tmp_path):
    message = refusal(tmp_path, "training: {num_steps: 5}", training__num_steps__x=1)
    assert "training.num_steps is a value" in message


def test_misspelt_override_is_refused_like_a_key(tmp_path):
    assert "did you mean training.num_steps?" in refusal(tmp_path, "model: {}", training__num_stps=1)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"model:\n  ux: [1, 2\ntraining: 3\n", ["line 3", "not valid YAML"]),
        (b"model:\n\tux: true\n", ["line 2", "not valid YAML"]),
        (b"- 1\n- 2\n", ["found list", "a mapping with the sections data, model"]),
        (b"", ["found nothing", "a mapping"]),
        (b"\xff\xfe\x00", ["UTF-8"]),
        (b"a: \x07", ["not valid YAML"]),
    ],
)
def test_unreadable_file_is_refused(tmp_path, content, parts):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    for part in ["bad.yaml", *parts]:
        assert part in str(caught.value)


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml: no such configuration file"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


def test_recording_without_a_file_is_refused(tmp_path):
    path = write(tmp_path, "data: {data_source: mydata}")
    with pytest.raises(ConfigError, match=r"data\.data_path.*--data-path FILE"):
        load_config(path).data.recording()
    assert load_config(path, {"data.data_path": "a.mat"}).data.recording() == "a.mat"


def test_unknown_argument_of_a_simulator_is_refused():
    reject_unknown("data.simulation", ["num_trials"], ["num_trials", "cue"])
    with pytest.raises(
        ConfigError, match=r"data\.simulation\.num_trial: .*did you mean data\.simulation\.num_trials\?"
    ):
        reject_unknown("data.simulation", ["num_trial"], ["num_trials", "cue"])
