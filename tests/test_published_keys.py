"""Published keys and values, and earlier spellings of our own: how each is read, and what is said about it."""

import pytest

from mrsds_ppl.config.loading import RunConfig, load_config, resolved_yaml
from mrsds_ppl.config.messages import known_paths
from mrsds_ppl.config.published import IGNORED_KEYS, RENAMED, read_published
from mrsds_ppl.errors import ConfigError

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


def write(folder, text):
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def mapping(path, value):
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def at(config, path):
    for name in path.split("."):
        config = config[name] if isinstance(config, dict) else getattr(config, name)
    return config


def refusal(*sources):
    with pytest.raises(ConfigError) as caught:
        read_published(*sources)
    return str(caught.value)


def test_a_published_file_is_read(tmp_path):
    config = load_config(write(tmp_path, PUBLISHED))
    assert config.data.data_source == "lotka-volterra"
    assert config.data.simulation == {"num_trials": 500, "cue": True}
    model, training = config.model, config.training
    assert (model.uz, model.sz, model.xz, model.ux) == (True, False, False, False)
    assert (model.initial.trainable_cov, model.transitions.layer_mult) == (False, 1)
    dynamics = model.dynamics
    assert (dynamics.triangular_cov, dynamics.single_region_latent) == (True, True)
    assert (dynamics.input_func_type, dynamics.layers, dynamics.activations) == ("separate", (32, 32), ("relu", "relu"))
    assert (config.inference.encoder, config.inference.encoder_options.embedding_layers) == ("transformer", (6,))
    assert config.inference.encoder_options.head_size == 50
    assert (training.optimiser.num_particles, training.optimiser.num_steps) == (3, 20001)
    assert (training.regimen.beta_max, training.regimen.temperature.steps) == (100.0, 100)
    assert (training.split.drop_perc, training.optimiser.dropout_trial_perc) == (0.0, 0.5)
    again = load_config(write(tmp_path, resolved_yaml(config, {})))
    assert (again, again.notes) == (config, ())


def test_what_a_published_file_says_otherwise_is_noted(tmp_path):
    notes = "\n".join(load_config(write(tmp_path, PUBLISHED)).notes)
    for words in (
        "data.data_source: lv-multiswitch2 is read as lotka-volterra",
        "data.num_trials is read as data.simulation.num_trials",
        "data.uz is read as data.simulation.cue",
        "model.xtransition.dynamics.input_func_type: seperate is read as separate",
        "model.xtransition.no_us_input: true is read as model.ux: false",
        "inference.transformer: true is read as inference.encoder: transformer",
        "training.num_samples is read as training.optimiser.num_particles",
        "training.xent_rate",
        "inference.xic_inf",
        "have no effect on this run",
    ):
        assert words in notes
    assert "training.mode" not in notes  # known, but not in the file


@pytest.mark.parametrize("key", IGNORED_KEYS)
def test_a_key_without_effect_leaves_the_schema_and_is_noted(key):
    assert key not in known_paths(RunConfig)
    for value in (True, 3, "x", {"a": 1}):
        reading = read_published(mapping(key, value))
        assert (reading.values, reading.notes) == ({}, (f"{key}: has no effect on this run",))
    assert read_published(mapping(key, None)).notes == ()


SECTIONS = [old for old, new in RENAMED.items() if any(p.startswith(f"{new}.") for p in known_paths(RunConfig))]


@pytest.mark.parametrize(("old", "new"), [item for item in RENAMED.items() if item[0] not in SECTIONS])
def test_every_other_spelling_is_a_key_of_today(old, new):
    assert new in known_paths(RunConfig) or new.startswith("data.simulation.")
    assert old not in known_paths(RunConfig)
    on = {"training": {"temperature_annealing": True}} if "temperature" in new else {}
    assert at(read_published(on, mapping(old, 3)).values, new) == 3
    assert read_published(mapping(old, None)).values == {}
    if "temperature" not in new and not old.startswith(new):
        message = refusal({**_merged(mapping(old, 3), mapping(new, 4))})
        assert f"{min(old, new)} and {max(old, new)}: found both, which are one key" in message
    # A later source wins in whatever spelling.
    assert at(read_published(on, mapping(old, 3), mapping(new, 4)).values, new) == 4
    assert at(read_published(on, mapping(new, 4), mapping(old, 3)).values, new) == 3


def _merged(first, second):
    return {
        key: _merged(first[key], second[key]) if key in first and key in second else {**second, **first}[key]
        for key in {**first, **second}
    }


@pytest.mark.parametrize("old", SECTIONS)
def test_every_section_of_another_name_is_one_of_today(old):
    for key in (path for path in known_paths(RunConfig) if path.startswith(f"{RENAMED[old]}.")):
        name = key.rpartition(".")[2]
        assert at(read_published(mapping(f"{old}.{name}", 3)).values, key) == 3
    for empty in (None, {}):
        assert read_published(mapping(old, empty)).values == {}


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("data.data_source", "lv-multiswitch2", "lotka-volterra"),
        ("data.data_source", "double-well-2smoothnew", "double-well"),
        ("data.data_source", "double-well-2smoothnew2b", "double-well"),
        ("inference.guide", "mrsds", "mean_field"),
        ("inference.guide", "svae", "structured"),
        ("inference.guide", "s-svae", "switching_structured"),
        ("model.dynamics.input_func_type", "seperate", "separate"),
    ],
)
def test_published_names_are_read_as_ours(path, old, new):
    reading = read_published(mapping(path, old))
    assert at(reading.values, path) == new
    assert reading.notes == (f"{path}: {old} is read as {new}",)


def test_published_ways_to_write_nothing():
    read = read_published(
        {
            "model": {"emissions": {"layers": [8, None], "activations": ["relu", "null"], "final_activation": "null"}},
            "inference": {"transformer_params": {"positional": None}, "encoder": None},
        }
    ).values
    assert read["model"]["emissions"] == {"layers": [8], "activations": ["relu", None], "final_activation": None}
    assert read["inference"] == {"encoder_options": {"positional": "none"}}


@pytest.mark.parametrize(
    ("inference", "encoder"),
    [
        ("{}", "auto"),
        ("{transformer: true}", "transformer"),
        ("{transformer: false}", "auto"),
        ("{encoder: convolution, transformer: false}", "convolution"),
        ("{encoder: transformer, transformer: true}", "transformer"),
    ],
)
def test_encoder_follows_the_published_switch(tmp_path, inference, encoder):
    path = write(tmp_path, f"inference: {inference}")
    assert load_config(path).inference.encoder == encoder
    assert load_config(path, {"inference.encoder": "convolution"}).inference.encoder == "convolution"


def test_switches_that_contradict_a_key_are_refused(tmp_path):
    message = refusal({"inference": {"encoder": "convolution", "transformer": True}})
    assert "inference.encoder and inference.transformer: found convolution and true" in message
    message = refusal({"model": {"ux": True, "xtransition": {"no_us_input": True}}})
    assert "model.ux: found true, but model.xtransition.no_us_input is true too" in message
    assert "training.temperature_annealing: found 'maybe'" in refusal({"training": {"temperature_annealing": "maybe"}})
    both = {"training": {"temperature_annealing": True, "regimen": {"temperature": {"t_init": 3}}}}
    assert "training.regimen.temperature.t_init and training.temperature_annealing: found both" in refusal(both)


def test_numbers_of_the_temperature_have_an_effect_with_their_switch_alone(tmp_path):
    text = "training: {temperature_annealing: %s, t_init: 3, annealing_steps: 7}"
    on, off = write(tmp_path, text % "true"), "training.temperature_annealing"
    found = load_config(on).training.regimen.temperature
    assert (found.t_init, found.t_min, found.rate, found.steps, found.kickin_steps) == (3.0, 1.0, 0.99, 7, 0)
    assert load_config(on, {"training.t_init": 5}).training.regimen.temperature.t_init == 5
    assert load_config(on, {off: False}).training.regimen.temperature is None
    config = load_config(write(tmp_path, text % "false"))
    assert config.training.regimen.temperature is None
    assert "training.t_init, training.annealing_steps: no effect on this run without" in config.notes[0]
    assert load_config(tmp_path / "run.yaml", {off: True}).training.regimen.temperature.steps == 7
    late = load_config(tmp_path / "run.yaml", {"training.regimen.temperature": {"t_init": 2}})
    assert late.training.regimen.temperature.t_init == 2
    new = write(tmp_path, "training: {regimen: {temperature: {t_init: 3}}}")
    assert load_config(new, {off: False}).training.regimen.temperature is None
    assert load_config(write(tmp_path, f"{{training: {{{off.split('.')[1]}: true}}}}")).training.regimen.temperature


def test_no_steps_of_a_start_were_no_start(tmp_path):
    none = load_config(write(tmp_path, "training: {switch_init_steps: 0}")).training.start
    assert (none.method, none.steps) == ("none", None)
    some = load_config(write(tmp_path, "training: {start: smoothing, switch_init_steps: 50, evidence_steps: 3}"))
    assert (some.training.start.method, some.training.start.steps) == ("smoothing", 50)
    message = refusal({"training": {"start": "smoothing", "switch_init_steps": 0}})
    assert "training.start: found smoothing with training.switch_init_steps 0, which leaves a start out" in message
    assert load_config(tmp_path / "run.yaml", {"training.switch_init_steps": 0}).training.start.method == "none"


def test_refusals_name_the_key_as_it_was_written(tmp_path):
    for text, words in (
        ("training: {num_steps: -1}", "training.num_steps: found -1"),
        ("training: {optimiser: {num_steps: -1}}", "training.optimiser.num_steps: found -1"),
        ("training: {dynamics_only: true}", "training.dynamics_only: found true"),
        ("training: {switch_init_steps: -1}", "training.switch_init_steps: found -1"),
        ("model: {latent_dims: 0}", "model.latent_dims: found 0"),
        ("model: {weight_prior: {scale: 0}}", "model.weight_prior.scale: found 0"),
        ("model: {xtransition: {zcond: maybe}}", "model.xtransition.zcond: found"),
        ("model: {xtransition: {dynamics: {layers: [4], activations: []}}}", "model.xtransition.dynamics.activations:"),
        ("inference: {embedding: {layers: []}}", "inference.embedding.layers: found none"),
        ("inference: {convolution_params: {kernel_size: 4}}", "inference.convolution_params.kernel_size: found 4"),
        (
            "model: {xtransition: {dynamics: {comunication_type: additive}}}",
            "did you mean model.xtransition.dynamics.communication_type? Keys allowed in model.xtransition.dynamics",
        ),
        ("inference: {transformer_params: {num_head: 3}}", "did you mean inference.transformer_params.num_heads?"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_config(write(tmp_path, text))
        assert words in str(caught.value)


def test_both_spellings_in_a_file_are_refused_and_the_command_line_wins_over_either(tmp_path):
    path = write(tmp_path, "training: {num_steps: 5, optimiser: {num_steps: 6}}")
    with pytest.raises(ConfigError, match=r"training\.num_steps and training\.optimiser\.num_steps: found both"):
        load_config(path)
    for file, override in (("num_steps: 5", "optimiser.num_steps"), ("optimiser: {num_steps: 5}", "num_steps")):
        path = write(tmp_path, f"training: {{{file}}}")
        assert load_config(path, {f"training.{override}": 7}).training.optimiser.num_steps == 7
