"""The sections of a run's configuration as frozen dataclasses, those that the program itself reads wherever it has one.

``model`` is :class:`mrsds_ppl.models.ModelOptions` with its sizes, ``training`` the classes of
:mod:`mrsds_ppl.train.settings`. Nothing here imports JAX. Other spellings: :mod:`mrsds_ppl.config.published`.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from mrsds_ppl.config.names import (
    GUIDE_NAMES,
    PATH_GUIDES,
    RECORDING,
    SIMULATORS,
    TRIALWISE_GUIDES,
    hint,
    is_own_guide,
)
from mrsds_ppl.errors import ConfigError
from mrsds_ppl.models.emissions import EMISSION_NAMES
from mrsds_ppl.models.options import ModelOptions
from mrsds_ppl.nn.options import EncoderOptions, section
from mrsds_ppl.quantities import Count, Float, Positive, whole_number
from mrsds_ppl.train.settings import Optimiser, Regimen, Seeds, Split, StartOptions

__all__ = ["DataConfig", "InferenceConfig", "ModelConfig", "OutputConfig", "TrainingConfig"]


# What is asked of an NWB file, beside its inputs.
NWB_KEYS = ("align", "window", "regions", "labels", "units", "signals")


def _inputs(value: object) -> object:
    if value is None or (isinstance(value, list | tuple) and value and all(isinstance(name, str) for name in value)):
        return value
    width = None if isinstance(value, list | tuple) else whole_number(value)
    if not isinstance(width, int) or width < 0:
        raise ValueError("allowed: a width, at least 0, or a list of names in an NWB file")
    return width


@section
@dataclass(frozen=True)
class DataConfig:
    """Where the trials come from.

    ``data_source`` is a simulator's name, ``mydata`` (a recording in ``data_path``, or several sessions,
    which are joined), or ``file.py:function``.
    ``simulation`` holds arguments of the simulator. ``tlim`` leaves out trials with more bins, ``piece`` is the length
    of those into which a recording of one trial is cut, ``inputs`` pads the inputs with zeros to that width,
    ``drop_silent_neurons`` leaves out neurons that never vary in training; ``bin_width`` and ``piece`` in seconds.
    ``align`` to ``signals``, and ``inputs`` that are names, say what to read of an NWB file: see
    :func:`mrsds_ppl.data.nwb.read.read_nwb`.
    """

    data_source: str = SIMULATORS[0]
    data_path: str | tuple[str, ...] | None = None
    bin_width: Positive | None = None
    region_names: tuple[str, ...] | None = None
    tlim: Count | None = None
    piece: Positive | None = None
    drop_silent_neurons: bool = False
    inputs: Annotated[int | tuple[str, ...] | None, BeforeValidator(_inputs)] = None
    align: str | None = None
    window: tuple[Float, Float] | None = None
    regions: str | None = None
    labels: str | None = None
    units: str | None = None
    signals: str | None = None
    simulation: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        source = self.data_source
        names = (*SIMULATORS, RECORDING)
        if source not in names and ".py:" not in source:
            raise ValueError(
                f'data_source: found "{source}"; allowed: {", ".join(names)} (with --data-path FILE), or '
                f"file.py:function for a loader of your own{hint(source, names)}"
            )

    @property
    def is_simulation(self) -> bool:
        """Whether the trials are simulated by this package."""
        return self.data_source in SIMULATORS

    @property
    def input_width(self) -> int | None:
        """Width to which inputs are padded."""
        return self.inputs if isinstance(self.inputs, int) else None

    def reading(self) -> dict[str, Any]:
        """What was asked of the file of a recording, for :func:`mrsds_ppl.data.load_recording`."""
        asked = {name: getattr(self, name) for name in ("bin_width", "region_names", *NWB_KEYS)}
        if self.input_width is None:
            asked["inputs"] = self.inputs
        return {name: value for name, value in asked.items() if value is not None}

    def recordings(self) -> list[str]:
        """Paths of the sessions that ``mydata`` stands for, mostly one. Raises ConfigError where none was given."""
        if not self.data_path:
            raise ConfigError(
                f"data.data_path: found nothing, but data.data_source is {self.data_source!r}; give the recording with "
                "--data-path FILE or as data.data_path in the configuration"
            )
        return [self.data_path] if isinstance(self.data_path, str) else list(self.data_path)


def _sizes(value: object) -> int | tuple[int, ...]:
    given = [whole_number(size) for size in (value if isinstance(value, list | tuple) else [value])]
    sizes = [size for size in given if isinstance(size, int) and size >= 1]
    if not sizes or len(sizes) < len(given):
        raise ValueError("allowed: a whole number of at least 1, or a list with one for each region")
    return tuple(sizes) if isinstance(value, list | tuple) else sizes[0]


@section
@dataclass(frozen=True)
class ModelConfig(ModelOptions):
    """The generative program: K, latent dimensions of each region (or one number for all), and its form."""

    num_states: Count = 2
    latent_sizes: Annotated[int | tuple[int, ...], BeforeValidator(_sizes)] = 1

    def __post_init__(self) -> None:
        for law in self.emissions.laws:
            if law not in EMISSION_NAMES:
                allowed = ", ".join(EMISSION_NAMES)
                raise ValueError(f'emissions.dist: found "{law}"; allowed: {allowed}{hint(law, EMISSION_NAMES)}')


@section
@dataclass(frozen=True)
class InferenceConfig:
    """The guide and its encoder.

    ``guide`` is a name, or a class of one's own, ``path/to/file.py:ClassName``. ``encoder: none`` gives every trial a
    posterior of its own, found by smoothing; ``auto`` leaves the choice to
    :func:`mrsds_ppl.config.choice.choose_start`. ``triangular_cov`` (mean_field and the structured guides),
    ``covariance`` (mean_field: shared by all bins, or of each bin) and ``trainable_cov`` are of the posterior;
    ``psi_add``: the corrections of the structured guides enter after the dynamics networks, or (false) before them.
    """

    guide: str = GUIDE_NAMES[0]
    encoder: Literal["auto", "convolution", "transformer", "none"] = "auto"
    encoder_options: EncoderOptions = field(default_factory=EncoderOptions)
    triangular_cov: bool = False
    trainable_cov: bool = True
    covariance: Literal["shared", "per_bin"] = "shared"
    psi_add: bool = True

    def __post_init__(self) -> None:
        if self.guide not in GUIDE_NAMES and not is_own_guide(self.guide):
            raise ValueError(
                f'guide: found "{self.guide}"; unknown guide; allowed: {", ".join(GUIDE_NAMES)}, or '
                f"path/to/file.py:ClassName{hint(self.guide, GUIDE_NAMES)}"
            )
        if self.encoder == "none" and self.guide not in TRIALWISE_GUIDES:
            raise ValueError(
                f"encoder: found none with {self.guide}, which reads its posterior off an encoder; allowed: "
                f"convolution, transformer, or none with {', '.join(TRIALWISE_GUIDES)}"
            )

    @property
    def posterior_per_trial(self) -> bool:
        """Whether every trial has a posterior of its own that is found by smoothing."""
        return self.guide in TRIALWISE_GUIDES and self.encoder == "none"

    @property
    def chain_per_trial(self) -> bool:
        """Whether every trial has a Gaussian chain of its own instead of an encoder's."""
        return self.guide == "gaussian_markov" and self.encoder == "none"

    @property
    def encoder_phrase(self) -> str:
        """The encoder, in words; guides with a posterior for each trial have none."""
        return "no encoder" if self.encoder == "none" or self.guide in PATH_GUIDES else f"{self.encoder} encoder"


@section
@dataclass(frozen=True)
class TrainingConfig:
    """Optimisation, where it starts, the terms that temper it, what is kept for the test, and the seeds."""

    optimiser: Optimiser = field(default_factory=Optimiser)
    start: StartOptions = field(default_factory=StartOptions)
    regimen: Regimen = field(default_factory=Regimen)
    split: Split = field(default_factory=Split)
    seeds: Seeds = field(default_factory=Seeds)


@section
@dataclass(frozen=True)
class OutputConfig:
    """Size of the posterior file: draws of each trial, and of which trials."""

    draws: Count = 100
    trials: Literal["test", "all"] = "test"
