"""RunConfig: what decides a run, validated before anything is loaded or compiled, and its YAML file.

Its sections are in :mod:`mrsds_ppl.config.sections`. Nothing here imports JAX.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError, model_validator

from mrsds_ppl.config.messages import Spelling, explain, reject_unknown, without_empty_sections
from mrsds_ppl.config.names import (
    GUIDE_NAMES,
    PATH_GUIDES,
    RECORDING,
    ROLLOUT_GUIDES,
    SIMULATORS,
    TRIANGULAR_GUIDES,
    is_own_guide,
)
from mrsds_ppl.config.published import Reading, read_published
from mrsds_ppl.config.sections import NWB_KEYS, DataConfig, InferenceConfig, ModelConfig, OutputConfig, TrainingConfig
from mrsds_ppl.errors import ConfigError

__all__ = [
    "GUIDE_NAMES",
    "SIMULATORS",
    "RunConfig",
    "config_of",
    "ignored_keys",
    "load_config",
    "parse_assignment",
    "problems_of",
    "reject_unknown",
    "resolved_yaml",
]

VERSIONS = "versions"


class RunConfig(BaseModel):
    """Everything that decides a run, beside the data and where its files go."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    inference: InferenceConfig = InferenceConfig()
    training: TrainingConfig = TrainingConfig()
    output: OutputConfig = OutputConfig()
    _notes: tuple[str, ...] = PrivateAttr(())

    @property
    def notes(self) -> tuple[str, ...]:
        """What was read as something else than it says, or has no effect, a line each."""
        return self._notes

    def noting(self, note: str) -> "RunConfig":
        """The same configuration with one note more."""
        noted = self.model_copy()
        noted._notes = (*self._notes, note)
        return noted

    @property
    def weighs_paths(self) -> bool:
        """Whether log p(x) counts more than once in what is trained, as ``beta_max`` has it with structured guides."""
        return self.inference.guide in ROLLOUT_GUIDES and (self.training.regimen.beta_max or 0.0) > 1.0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunConfig) and self.model_dump() == other.model_dump()

    @model_validator(mode="after")
    def _can_start_so(self) -> "RunConfig":
        method, restarts = self.training.start.method, self.training.optimiser.restarts
        found = f"training.start.method: found {method} with"
        if method == "staged" and self.inference.posterior_per_trial:
            raise ValueError(f"{found} inference.encoder none; allowed: smoothing, or staged with an encoder")
        if method == "smoothing":
            if self.inference.guide in PATH_GUIDES and self.inference.encoder not in ("none", "auto"):
                raise ValueError(
                    f"{found} {self.inference.guide}; allowed: staged, or smoothing with inference.encoder none"
                )
            if restarts > 1:
                raise ValueError(f"{found} training.optimiser.restarts {restarts}; allowed: staged, or 1 restart")
            if self.model.weight_prior is not None:
                raise ValueError(f"{found} model.weight_prior; allowed: staged, or weights without a prior")
        return self


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Read and validate a configuration file.

    Args:
        path: YAML file. A relative ``file.py`` or ``data_path`` in it is looked for in the file's own folder, then in
            the current one. A ``versions`` block, as a run writes it, is skipped.
        overrides: values by dotted path, such as ``{"training.num_steps": 500}``; they win over the file. A recording
            among them (``data.data_path``) is what is read, whatever simulation the file names.

    Raises:
        ConfigError: the file cannot be read, or a key or value is wrong; all problems are named.
    """
    path = Path(path)
    values = _read(path)
    values.pop(VERSIONS, None)
    try:
        return config_of(values, overrides, folder=path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def config_of(
    values: Mapping[str, Any], overrides: Mapping[str, Any] | None = None, *, folder: Path | None = None
) -> RunConfig:
    """Validate the sections of a configuration, as :func:`load_config` does those of a file.

    Args:
        values: the sections, as YAML has them.
        overrides: as of :func:`load_config`.
        folder: where relative paths are looked for first; default the current one.

    Raises:
        ConfigError: a key or value is wrong; all problems are named.
    """
    folder, overrides = folder or Path(), overrides or {}
    reading = read_published(values, _nested(overrides))
    found = reading.values
    if isinstance(found.get("data"), dict):
        found["data"] = _locate_files(found["data"], folder)
    if isinstance(found.get("inference"), dict):
        found["inference"] = _locate_guide(found["inference"], folder)
    config = problems_of(reading, Spelling(reading.written))
    if isinstance(config, RunConfig):
        return _of_recording(config, reading) if overrides.get("data.data_path") is not None else config
    if len(config) == 1:
        raise ConfigError(config[0])
    raise ConfigError(f"{len(config)} problems\n" + "\n".join(f"  {problem}" for problem in config))


def _of_recording(config: RunConfig, reading: Reading) -> RunConfig:
    """The configuration with its recording in place of a simulation."""
    data = config.data
    if not data.is_simulation:
        return config
    read = config.model_copy(update={"data": replace(data, data_source=RECORDING, simulation={})})
    if ("data", "data_source") not in reading.written and not data.simulation:
        return read
    return read.noting(f"the trials are those of {data.data_path}, in place of the simulation {data.data_source}")


def problems_of(reading: Reading, spelling: Spelling) -> RunConfig | Sequence[str]:
    """The configuration with the notes of its reading, or what is wrong with it."""
    try:
        config = RunConfig.model_validate(without_empty_sections(reading.values, RunConfig))
    except ValidationError as error:
        return explain(error, RunConfig, spelling)
    config._notes = reading.notes
    return config


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
    """Dotted paths of keys with another value than their default that this run does not read, though others do."""
    data, model, training = config.data, config.model, config.training
    unread = ["data.data_path", "data.bin_width", "data.region_names"] if data.is_simulation else ["data.simulation"]
    unread += [f"data.{key}" for key in NWB_KEYS if data.data_source != RECORDING]
    unread += [f"inference.{key}" for key in _unread_by(config.inference.guide, config.inference.encoder)]
    by_smoothing = training.start.method == "smoothing" or (
        training.start.method == "auto" and config.inference.encoder in ("auto", "none")
    )
    if not by_smoothing or model.weight_prior is not None:
        unread += ["training.start.evidence_steps", "training.start.scoring_rounds"]
    if model.num_states == 1:
        unread.append("training.start.transition_rounds")
    plain = RunConfig()
    return [path for path in unread if _value(config, path) != _value(plain, path)]


def _unread_by(guide: str, encoder: str) -> list[str]:
    """Keys of ``inference`` that a guide does not read; those of a user's own guide are unknown."""
    if is_own_guide(guide):
        return ["triangular_cov", "covariance", "psi_add"]
    unread = [] if guide in TRIANGULAR_GUIDES else ["triangular_cov"]
    unread += [] if guide == "mean_field" else ["covariance"]
    unread += [] if guide in ROLLOUT_GUIDES else ["psi_add"]
    if guide in PATH_GUIDES and encoder not in ("auto", "none"):
        unread += ["encoder"]
    if guide in PATH_GUIDES or encoder == "none":
        unread += ["encoder_options", "trainable_cov"]
    return unread


def resolved_yaml(config: RunConfig, extra: Mapping[str, Any]) -> str:
    """The whole configuration with every default written out, and ``extra`` as its ``versions`` block.

    :func:`load_config` reads it back to an equal configuration.
    """
    values = config.model_dump(mode="json")
    return yaml.safe_dump({**values, VERSIONS: dict(extra)}, sort_keys=False, allow_unicode=True)


def _value(config: RunConfig, path: str) -> object:
    found: object = config
    for name in path.split("."):
        found = getattr(found, name)
    return found


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


def _nested(overrides: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for path, value in overrides.items():
        *sections, key = path.split(".")
        holder = values
        for depth, section in enumerate(sections):
            holder = holder.setdefault(section, {})
            if not isinstance(holder, dict):
                above = ".".join(sections[: depth + 1])
                raise ConfigError(f"{path}: cannot be set, since {above} is a value and not a section")
        holder[key] = dict(value) if isinstance(value, Mapping) else value
    return values


def _locate_files(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The section with its relative paths made absolute, so that a resolved file can be read from anywhere."""
    located = dict(data)
    source = data.get("data_source")
    if isinstance(source, str) and ".py:" in source:
        located["data_source"] = _located("data.data_source", source, folder)
    path = data.get("data_path")
    if isinstance(path, str):
        located["data_path"] = str(_find(path, folder) or path)
    elif isinstance(path, list):
        located["data_path"] = [str(_find(one, folder) or one) if isinstance(one, str) else one for one in path]
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
