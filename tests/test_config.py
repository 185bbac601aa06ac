"""The configuration file: what is accepted, and what every refusal names."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from mrsds_ppl.build import make_model
from mrsds_ppl.config.loading import (
    RunConfig,
    ignored_keys,
    load_config,
    parse_assignment,
    reject_unknown,
    resolved_yaml,
)
from mrsds_ppl.config.messages import known_paths
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import ConfigError

CONFIGS = Path(__file__).parents[1] / "configs"


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def refusal(folder: Path, text: str, **overrides: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, text), {key.replace("__", "."): value for key, value in overrides.items()})
    return str(caught.value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_files_hold_keys_of_today_that_are_read(path):
    config = load_config(path)
    assert (config.notes, ignored_keys(config)) == ((), [])
    written = [found for found, _ in _leaves(yaml.safe_load(path.read_text()))]
    free = "data.simulation"
    assert [found for found in written if found not in known_paths(RunConfig) and not found.startswith(free)] == []


def _leaves(values, above=""):
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


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
    assert config.model.latent_sizes == 6
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
    assert config.model.dynamics.zcond
    assert config.model.dynamics.input_layers == (4,)
    assert config.model.emissions.layers == (128, 128)
    assert config.inference.encoder == "transformer"
    assert config.inference.encoder_options.head_size == 50
    optimiser, regimen = config.training.optimiser, config.training.regimen
    assert (optimiser.num_steps, optimiser.learning_rate) == (15001, 3e-3)
    assert (regimen.beta_max, regimen.smooth_coef) == (3000.0, 0.1)


def test_keys_of_other_guides_and_sources_are_named(tmp_path):
    text = "{data: {bin_width: 0.1}, inference: {triangular_cov: true, covariance: per_bin}}"
    found = set(ignored_keys(load_config(write(tmp_path, text))))
    assert found == {"data.bin_width", "inference.triangular_cov", "inference.covariance"}
    other = {"inference.guide": "mean_field", "data.data_source": "mydata"}
    assert ignored_keys(load_config(write(tmp_path, text), other)) == []
    recording = {"data.data_source": "mydata", "data.num_trials": 5}
    assert "data.simulation" in ignored_keys(load_config(write(tmp_path, text), recording))
    assert ignored_keys(RunConfig()) == []


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "model: {latent_sizes: [2, 3], weight_prior: 1}",
        "data: {inputs: 2}",
        "training: {regimen: {temperature: {t_init: 3}, overshoot: [1, 0.5]}, start: {method: smoothing, steps: 3}}",
        *(path.read_text() for path in sorted(CONFIGS.glob("*.yaml")) if path.stem != "v1v2"),
    ],
)
def test_resolved_file_reads_back_to_an_equal_configuration(tmp_path, text):
    config = load_config(write(tmp_path, text))
    resolved = resolved_yaml(config, {"jax": "0.10.2"})
    assert yaml.safe_load(resolved)["versions"] == {"jax": "0.10.2"}
    again = load_config(write(tmp_path, resolved))
    assert again == config
    assert again.notes == ()
    assert resolved_yaml(again, {"jax": "0.10.2"}) == resolved


def test_resolved_file_names_every_key():
    written = yaml.safe_load(resolved_yaml(RunConfig(), {}))
    for path in known_paths(RunConfig):
        if path.startswith("training.regimen.temperature."):
            continue  # off, as a whole
        value = written
        for key in path.split("."):
            value = value[key]


def test_numbers_written_as_text_are_numbers(tmp_path):
    config = load_config(write(tmp_path, "training: {learning_rate: 1e-2, num_steps: 1e3, smooth_coef: '0.1'}"))
    optimiser = config.training.optimiser
    assert (optimiser.learning_rate, optimiser.num_steps, config.training.regimen.smooth_coef) == (0.01, 1000, 0.1)


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
    config = load_config(write(tmp_path, f"model: {{dynamics: {section}}}"))
    assert config.model.dynamics.activations == expected


def test_activations_default_to_relu_for_the_layers_given(tmp_path):
    config = load_config(write(tmp_path, "model: {emissions: {layers: [64, 64, 64]}}"))
    assert config.model.emissions.activations == ("relu",) * 3


@pytest.mark.parametrize("activations", ["[]", "[relu, relu, relu]", "[relu, relu]", "[relu, null, null]"])
def test_activations_of_another_length_are_refused(tmp_path, activations):
    message = refusal(tmp_path, f"model: {{emissions: {{layers: [8], activations: {activations}}}}}")
    assert "model.emissions.activations: found" in message
    assert "for 1 layers" in message


@pytest.mark.parametrize("final", ["null", "softplus", "exp"])
def test_poisson_always_has_a_positive_rate(tmp_path, final):
    path = write(tmp_path, f"model: {{emissions: {{dist: poisson, final_activation: {final}}}}}")
    trials = Trials.from_arrays(np.zeros((2, 3, 2)), region_sizes=[1, 1])
    emissions = make_model(load_config(path), trials, 2).networks.emissions
    assert emissions.laws[0].rate.name == ("softplus" if final == "null" else final)


@pytest.mark.parametrize("dist", ["{S1: gaussian, V1: poisson}", "[poisson, gaussian]"])
def test_regions_have_laws_of_their_own(tmp_path, dist):
    trials = Trials.from_arrays(np.zeros((2, 3, 3)), region_sizes=[1, 2], region_names=["V1", "S1"])
    config = load_config(write(tmp_path, f"model: {{emissions: {{dist: {dist}}}}}"))
    emissions = make_model(config, trials, 2).networks.emissions
    np.testing.assert_array_equal(emissions.counts, [True, False, False])
    (tmp_path / "resolved.yaml").write_text(resolved_yaml(config, {}))
    assert load_config(tmp_path / "resolved.yaml") == config
    one = load_config(tmp_path / "resolved.yaml", {"model.emissions.dist": "poisson"})
    assert one.model.emissions.of_regions(trials.region_names) == ("poisson", "poisson")


@pytest.mark.parametrize(
    ("dist", "words"),
    [
        ("{V1: poisson}", ["model.emissions.dist: found laws of V1", "each of V1, S1"]),
        ("{V1: poisson, V2: poisson}", ["found laws of V1, V2", "each of V1, S1"]),
        ("[poisson, poisson, poisson]", ["found 3 laws", "each of V1, S1"]),
    ],
)
def test_laws_of_other_regions_are_refused(tmp_path, dist, words):
    trials = Trials.from_arrays(np.zeros((2, 3, 3)), region_sizes=[1, 2], region_names=["V1", "S1"])
    config = load_config(write(tmp_path, f"model: {{emissions: {{dist: {dist}}}}}"))
    with pytest.raises(ConfigError) as error:
        make_model(config, trials, 2)
    assert all(word in str(error.value) for word in words)


def test_overrides_win_and_make_sections(tmp_path):
    config = load_config(
        write(tmp_path, "training: {num_steps: 5, optimiser: {batch_size: 3}}"),
        {"training.optimiser.num_steps": 500, "model.dynamics.zcond": True, "model.latent_sizes": [1, 2]},
    )
    assert (config.training.optimiser.num_steps, config.training.optimiser.batch_size) == (500, 3)
    assert config.model.dynamics.zcond
    assert config.model.latent_sizes == (1, 2)


def test_an_empty_mapping_clears_arguments_of_the_simulator(tmp_path):
    path = write(tmp_path, "data: {simulation: {num_trials: 5, cue: true}}")
    assert load_config(path, {"data.simulation.num_trials": 6}).data.simulation == {"num_trials": 6, "cue": True}
    assert load_config(path, {"data.simulation": {}}).data.simulation == {}


def test_config_is_frozen():
    with pytest.raises(ValidationError):
        RunConfig().training = None
    with pytest.raises(FrozenInstanceError):
        RunConfig().training.optimiser.num_steps = 3


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
        ("model: {zcond: true}", ["model.zcond", "did you mean model.dynamics.zcond?"]),
        ("dynamics: {communication_type: additive}", ["did you mean model.dynamics?"]),
        (
            "model: {dynamics: {comunication_type: additive}}",
            ["did you mean model.dynamics.communication_type?", "Keys allowed in model.dynamics: communication_type"],
        ),
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
        ("model: {latent_sizes: 0}", ["model.latent_sizes: found 0", "for each region"]),
        ("model: {latent_sizes: []}", ["model.latent_sizes: found []", "for each region"]),
        ("model: {latent_sizes: [2, -1]}", ["model.latent_sizes: found [2, -1]", "for each region"]),
        ("model: {latent_sizes: 1.5}", ["model.latent_sizes: found 1.5"]),
        ("model: {emissions: {dist: poison}}", ['found "poison"', "gaussian, poisson", "did you mean poisson?"]),
        ("model: {emissions: {dist: [gaussian, poison]}}", ['model.emissions.dist: found "poison"', "did you mean"]),
        ("model: {emissions: {dist: {V1: poison}}}", ['found "poison"', "gaussian, poisson", "did you mean poisson?"]),
        ("model: {emissions: {dist: 3}}", ["model.emissions.dist: found 3; allowed: a name, a list"]),
        ("model: {emissions: {dist: []}}", ["model.emissions.dist: found []; allowed: a name, a list"]),
        (
            "model: {emissions: {layers: [8], activations: [rellu]}}",
            ["model.emissions.activations[0]", "did you mean relu?", "null"],
        ),
        ("model: {emissions: {final_activation: relu}}", ["exp, softplus, null"]),
        ("model: {weight_prior: 0}", ["model.weight_prior: found 0", "more than 0"]),
        (
            "inference: {guide: gausian_markov}",
            ["inference.guide: found", "unknown guide", "did you mean gaussian_markov?", "mean_field"],
        ),
        ("inference: {convolution_params: {kernel_size: 4}}", ["kernel_size: found 4", "odd"]),
        ("inference: {embedding: {layers: []}}", ["inference.embedding.layers: found none", "at least 1 entries"]),
        (
            "data: {data_source: lotka-voltera}",
            ["data.data_source: found", "did you mean lotka-volterra?", "file.py:function"],
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
        load_config(path).data.recordings()
    assert load_config(path, {"data.data_path": "a.mat"}).data.recordings() == ["a.mat"]


def test_a_recording_among_the_overrides_is_read_in_place_of_a_simulation(tmp_path):
    path = write(tmp_path, "data: {data_source: oscillators, simulation: {num_trials: 5}, tlim: 9}")
    config = load_config(path, {"data.data_path": "a.mat"})
    assert (config.data.recordings(), config.data.data_source, config.data.tlim) == (["a.mat"], "mydata", 9)
    assert config.notes == ("the trials are those of a.mat, in place of the simulation oscillators",)
    assert ignored_keys(config) == []
    # A file that names no simulation has none to replace.
    assert load_config(write(tmp_path, "model: {}"), {"data.data_path": "a.mat"}).notes == ()
    own = write(tmp_path, f"data: {{data_source: '{__file__}:load'}}")
    assert load_config(own, {"data.data_path": "a.mat"}).data.data_source == f"{__file__}:load"


def test_unknown_argument_of_a_simulator_is_refused():
    reject_unknown("data.simulation", ["num_trials"], ["num_trials", "cue"])
    with pytest.raises(
        ConfigError, match=r"data\.simulation\.num_trial: .*did you mean data\.simulation\.num_trials\?"
    ):
        reject_unknown("data.simulation", ["num_trial"], ["num_trials", "cue"])
