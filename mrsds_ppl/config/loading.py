"""RunConfig: the YAML file of a run, validated before anything is loaded or compiled.

Its sections are in :mod:`mrsds_ppl.config.sections` and :mod:`mrsds_ppl.config.model`. Nothing here imports JAX: sizes
and options stay plain values.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError, model_validator

from mrsds_ppl.config.messages import explain, reject_unknown
from mrsds_ppl.config.model import InferenceConfig, ModelConfig
from mrsds_ppl.config.names import GUIDE_NAMES, PATH_GUIDES, ROLLOUT_GUIDES, SIMULATORS, TRIANGULAR_GUIDES, is_own_guide
from mrsds_ppl.config.sections import IGNORED_KEYS, DataConfig, OutputConfig, Section, TrainingConfig
from mrsds_ppl.errors import ConfigError

__all__ = [
    "GUIDE_NAMES",
    "SIMULATORS",
    "RunConfig",
    "ignored_keys",
    "load_config",
    "parse_assignment",
    "reject_unknown",
    "resolved_yaml",
]

VERSIONS = "versions"


class RunConfig(Section):
    """Everything that decides a run, beside the data and where its files go."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    inference: InferenceConfig = InferenceConfig()
    training: TrainingConfig = TrainingConfig()
    output: OutputConfig = OutputConfig()

    @property
    def starts_by_smoothing(self) -> bool:
        """Whether the fit starts by Laplace EM: it asks for that, or every trial has a posterior of its own."""
        on = self.training.switch_init_steps != 0 and self.model.weight_prior is None
        return on and (self.inference.posterior_per_trial or self.training.start == "smoothing")

    @model_validator(mode="after")
    def _can_start_so(self) -> "RunConfig":
        found = f"training.start: found {self.training.start} with"
        if self.training.start == "staged" and self.inference.posterior_per_trial:
            raise ValueError(f"{found} inference.encoder none; allowed: smoothing, or staged with an encoder")
        if self.training.start == "smoothing":
            if self.inference.guide in PATH_GUIDES and self.inference.encoder != "none":
                raise ValueError(
                    f"{found} {self.inference.guide}; allowed: staged, or smoothing with inference.encoder none"
                )
            if self.training.restarts > 1:
                raise ValueError(f"{found} training.restarts {self.training.restarts}; allowed: staged, or 1 restart")
            if self.model.weight_prior is not None:
                raise ValueError(f"{found} model.weight_prior; allowed: staged, or weights without a prior")
            if self.training.switch_init_steps == 0:
                raise ValueError(
                    f"{found} training.switch_init_steps 0, which leaves a start out; allowed: at least 1, the steps "
                    "of the guide alone"
                )
        return self

    @property
    def weighs_paths(self) -> bool:
        """Whether log p(x) counts more than once in what is trained, as ``beta_max`` has it with structured guides."""
        return self.inference.guide in ROLLOUT_GUIDES and (self.training.beta_max or 0.0) > 1.0


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Read and validate a configuration file.

    Args:
        path: YAML file. A relative ``file.py`` or ``data_path`` in it is looked for in the file's own folder, then in
            the current one. A ``versions`` block, as a run writes it, is skipped.
        overrides: values by dotted path, such as ``{"training.num_steps": 500}``; they win over the file.

    Raises:
        ConfigError: the file cannot be read, or a key or value is wrong; all problems are named.
    """
    path = Path(path)
    values = _read(path)
    values.pop(VERSIONS, None)
    for key, value in (overrides or {}).items():
        _override(values, key, value)
    data = values.get("data")
    if isinstance(data, dict):
        values["data"] = _locate_files(data, path.parent)
    inference = values.get("inference")
    if isinstance(inference, dict):
        values["inference"] = _locate_guide(inference, path.parent)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        problems = explain(error, RunConfig)
    if len(problems) == 1:
        raise ConfigError(f"{path}: {problems[0]}")
    raise ConfigError(f"{path}: {len(problems)} problems\n" + "\n".join(f"  {problem}" for problem in problems))


def parse_assignment(text: str) -> tuple[str, Any]:
    """``training.num_steps=500`` as its dotted path and its value, read as YAML. Raises ConfigError."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text}: allowed: KEY=VALUE, such as training.num_steps=500")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {text}: found {value!r}, which is not YAML; quote it or close its brackets") from None


def ignored_keys(config: RunConfig) -> list[str]:
    """Dotted paths that the file set but that change nothing in this run."""
    unused = list(IGNORED_KEYS)
    if config.data.is_simulation:
        unused.append("data.data_path")
    else:
        unused += ["data.num_trials", "data.uz", "data.simulation"]
    # Ordinary keys of other runs: written out at their defaults by a resolved file, they say nothing.
    elsewhere = ["data.bin_width", "data.region_names"] if config.data.is_simulation else []
    elsewhere += [f"inference.{key}" for key in _unread_by(config.inference.guide, config.inference.encoder)]
    if not config.starts_by_smoothing:
        elsewhere.append("training.evidence_steps")
    model = config.model
    if model.num_states == 1 or model.xz or model.uz or model.sz:
        elsewhere.append("training.transition_rounds")
    plain = RunConfig()
    changed = [path for path in elsewhere if _value(config, path) != _value(plain, path)]
    return [path for path in unused if _is_set(config, path)] + changed


def _unread_by(guide: str, encoder: str) -> list[str]:
    """Keys of ``inference`` that a guide does not read; those of a user's own guide are unknown."""
    if is_own_guide(guide):
        return ["triangular_cov", "covariance", "psi_add"]
    unread = [] if guide in TRIANGULAR_GUIDES else ["triangular_cov"]
    unread += [] if guide == "mean_field" else ["covariance"]
    unread += [] if guide in ROLLOUT_GUIDES else ["psi_add"]
    if guide in PATH_GUIDES and encoder != "none":
        unread += ["encoder"]
    if guide in PATH_GUIDES or encoder == "none":
        unread += ["embedding", "transformer_params", "convolution_params", "trainable_cov"]
    return unread


def resolved_yaml(config: RunConfig, extra: Mapping[str, Any]) -> str:
    """The whole configuration with every default written out, and ``extra`` as its ``versions`` block.

    :func:`load_config` reads it back to an equal configuration. Keys without effect appear only where they were set.
    """
    values = config.model_dump(mode="json")
    for path in IGNORED_KEYS:
        if not _is_set(config, path):
            *sections, key = path.split(".")
            holder = values
            for section in sections:
                holder = holder[section]
            del holder[key]
    # data.uz stands for the cue only where somebody wrote it.
    if not _is_set(config, "data.uz"):
        del values["data"]["uz"]
    return yaml.safe_dump({**values, VERSIONS: dict(extra)}, sort_keys=False, allow_unicode=True)


def _value(config: RunConfig, path: str) -> Any:
    section, key = path.split(".")
    return getattr(getattr(config, section), key)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8; a configuration is a YAML file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        found = "nothing" if values is None else type(values).__name__
        sections = ", ".join(RunConfig.model_fields)
        raise ConfigError(f"{path}: found {found}; allowed: a mapping with the sections {sections}")
    return values


def _override(values: dict[str, Any], path: str, value: Any) -> None:
    *sections, key = path.split(".")
    holder = values
    for depth, section in enumerate(sections):
        if holder.get(section) is None:
            holder[section] = {}
        holder = holder[section]
        if not isinstance(holder, dict):
            above = ".".join(sections[: depth + 1])
            raise ConfigError(f"{path}: cannot be set, since {above} is a value and not a section")
    holder[key] = value


def _locate_files(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The section with its relative paths made absolute, so that a resolved file can be read from anywhere."""
    located = dict(data)
    source = data.get("data_source")
    if isinstance(source, str) and ".py:" in source:
        located["data_source"] = _located("data.data_source", source, folder)
    path = data.get("data_path")
    if isinstance(path, str):
        located["data_path"] = str(_find(path, folder) or path)
    return located


def _locate_guide(inference: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The section with the file of a user's own guide made absolute."""
    guide = inference.get("guide")
    if not isinstance(guide, str) or not is_own_guide(guide):
        return inference
    return {**inference, "guide": _located("inference.guide", guide, folder)}


def _located(key: str, source: str, folder: Path) -> str:
    """``file.py:NAME`` with the file's absolute path."""
    file, _, name = source.rpartition(":")
    found = _find(file, folder)
    if found is None:
        where = f"{folder.absolute()} or {Path.cwd()}"
        raise ConfigError(f"{key}: found {source!r}, but there is no file {file} in {where}")
    return f"{found}:{name}"


def _find(file: str, folder: Path) -> Path | None:
    for start in (folder, Path.cwd()):
        candidate = start / Path(file).expanduser()
        if candidate.exists():
            return candidate.resolve()
    return None


def _is_set(config: RunConfig, path: str) -> bool:
    holder: Any = config
    for name in path.split("."):
        if name not in holder.model_fields_set:
            return False
        holder = getattr(holder, name)
    return holder is not None and holder != {}
