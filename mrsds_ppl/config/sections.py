"""Sections ``data``, ``training`` and ``output`` of a run's YAML file as typed, frozen objects.

Keys keep their published names and places. A key of the published files that changes nothing here is still accepted;
:data:`IGNORED_KEYS` lists those, of all sections.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from mrsds_ppl.config.names import PUBLISHED_SIMULATORS, RECORDING, SIMULATORS, hint
from mrsds_ppl.errors import ConfigError

IGNORED_KEYS = (
    "data.trials",
    "data.stages",
    "data.history",
    "data.hist_tlen",
    "data.random_zic",
    "data.nle",
    "data.nle_type",
    "data.regime",
    "data.accum_only",
    "data.history_effect",
    "data.split_obs",
    "data.region",
    "model.xic.layers",
    "model.xic.activations",
    "inference.num_samples",
    "inference.xic_inf",
    "training.xent",
    "training.xent_init",
    "training.xent_rate",
    "training.xent_steps",
    "training.xent_kickin_steps",
    "training.xentropy_annealing",
    "training.flat_learning_rate",
    "training.use_inverse_annealing_lr",
    "training.use_true_x",
    "training.use_true_z",
    "training.mode",
    "training.save_training_path",
)


def whole_number(value: Any) -> Any:
    # YAML 1.1 reads 1e3 as text, and Python counts true as 1.
    number = _number(value)
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("allowed: a number")
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError("allowed: a number") from None
    return value


Int = Annotated[int, BeforeValidator(whole_number)]
Float = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Count = Annotated[Int, Field(ge=1)]
Steps = Annotated[Int, Field(ge=0)]
Weight = Annotated[Float, Field(ge=0)]
Fraction = Annotated[Float, Field(ge=0, le=1)]
SplitFraction = Annotated[Float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A mapping of the file: frozen, and a key that it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _empty_section(cls, values: Any) -> Any:
        # `inference:` with nothing under it is YAML's null.
        return {} if values is None else values


class DataConfig(Section):
    """Where the trials come from.

    ``data_source`` is a simulator's name, ``mydata`` (a recording in ``data_path``), or ``file.py:function``.
    """

    data_source: str = SIMULATORS[0]
    data_path: str | None = None
    bin_width: Annotated[Float, Field(gt=0)] = 1.0
    region_names: tuple[str, ...] | None = None
    tlim: Count | None = None
    inputs: Steps | None = None
    simulation: dict[str, Any] = {}
    # Published keys.
    num_trials: Count | None = None
    uz: bool = False
    trials: str | None = None
    stages: bool = False
    history: bool = False
    hist_tlen: Int = 0
    random_zic: bool = False
    nle: bool = False
    nle_type: str | None = None
    regime: Int | None = None
    accum_only: bool = False
    history_effect: bool = False
    split_obs: bool = False
    region: Int | None = None

    @field_validator("data_source")
    @classmethod
    def _known_source(cls, source: str) -> str:
        source = PUBLISHED_SIMULATORS.get(source, source)
        if source in (*SIMULATORS, RECORDING) or ".py:" in source:
            return source
        raise ValueError(
            f"allowed: {', '.join(SIMULATORS)}, {RECORDING} (with --data-path FILE), or file.py:function for a loader "
            f"of your own" + hint(source, (*SIMULATORS, *PUBLISHED_SIMULATORS, RECORDING))
        )

    @property
    def is_simulation(self) -> bool:
        """Whether the trials are simulated by this package."""
        return self.data_source in SIMULATORS

    def recording(self) -> str:
        """Path of the recording that ``mydata`` stands for. Raises ConfigError where none was given."""
        if self.data_path is None:
            raise ConfigError(
                f"data.data_path: found nothing, but data.data_source is {self.data_source!r}; give the recording with "
                "--data-path FILE or as data.data_path in the configuration"
            )
        return self.data_path

    def simulation_arguments(self) -> dict[str, Any]:
        """Arguments of the simulator: ``simulation``, and the published ``num_trials`` and ``uz`` (the switch cue)."""
        published: dict[str, Any] = {} if self.num_trials is None else {"num_trials": self.num_trials}
        if "uz" in self.model_fields_set:
            published["cue"] = self.uz
        return {**published, **self.simulation}


class TrainingConfig(Section):
    """Optimisation, its regimen terms (None: off), the split into training and test, and the seeds.

    ``restarts``: seeds that are trained side by side, of which the best is kept. ``dynamics_only``: a second stage of
    ``num_steps_do`` steps with the guide as it is. ``overshoot``: a weight for each horizon, horizon 0 first.
    ``temperature_annealing`` turns the temperature of ``t_init`` to ``annealing_kickin_steps`` on.
    ``message_sparsity``: nats a bin that a message between regions costs which is as large as the noise of the latents.
    ``message_bending``: the same for what is not linear in a message, local ones too.
    ``start``: ``staged`` (warm-up, states of an AR-HMM, refit) or ``smoothing`` (Laplace EM); None for smoothing where
    every trial has a posterior of its own, else staged. ``switch_init_steps``: of the warm-up, or, twice, of a guide
    with an encoder alone after smoothing; 0 for no start. ``evidence_steps``: Gauss-Newton steps on log p(y), states
    and paths summed out, in the start by smoothing, instead of rounds of networks. ``transition_rounds``: rounds of
    expectation-maximisation of the transitions after training, latents summed out, where neither latents nor inputs
    switch the states.
    """

    batch_size: Count = 64
    num_steps: Count = 2000
    learning_rate: Annotated[Float, Field(gt=0)] = 1e-2
    lr_warmup_steps: Steps = 200
    gradient_clip: Annotated[Float, Field(gt=0)] = 10.0
    log_steps: Count = 100
    save_steps: Count = 500
    num_particles: Count = 1
    restarts: Count = 1
    start: Literal["staged", "smoothing"] | None = None
    switch_init_steps: Steps | None = None
    test_perc: SplitFraction = 0.1
    dropout: bool = False
    drop_perc: SplitFraction = 0.25
    dropout_trial_perc: Fraction = 0.5
    dynamics_only: bool = False
    num_steps_do: Steps = 0
    lr_warmup_steps_do: Steps = 0
    beta_max: Weight | None = None
    beta_warmup_steps: Steps | None = None
    x0_weight: Weight | None = None
    overshoot: tuple[Weight, ...] | None = None
    kl_z_scale: Weight | None = None
    smooth_coef: Weight | None = None
    message_sparsity: Weight | None = None
    message_bending: Weight | None = None
    evidence_steps: Steps = 0
    transition_rounds: Steps = 0
    temperature_annealing: bool = False
    t_init: Weight = 0.0
    t_min: Annotated[Float, Field(gt=0)] = 1.0
    annealing_rate: Annotated[Float, Field(gt=0, le=1)] = 0.99
    annealing_steps: Count = 100
    annealing_kickin_steps: Steps = 0
    data_seed: Steps = 0
    model_seed: Steps = 0
    train_seed: Steps = 0
    # Published keys.
    num_samples: Count | None = None
    mode: str | None = None
    save_training_path: bool = False
    use_true_x: bool = False
    use_true_z: bool = False
    flat_learning_rate: bool = False
    use_inverse_annealing_lr: bool = False
    xent: bool = False
    xent_init: Float = 0.0
    xent_rate: Float = 0.99
    xent_steps: Steps = 0
    xent_kickin_steps: Steps = 0
    xentropy_annealing: bool = False

    @model_validator(mode="before")
    @classmethod
    def _published_particles(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("num_samples") is not None and "num_particles" not in values:
            values = {**values, "num_particles": values["num_samples"]}
        return values

    @model_validator(mode="after")
    def _second_stage_has_steps(self) -> "TrainingConfig":
        if self.dynamics_only and self.num_steps_do == 0:
            raise ValueError(".dynamics_only: found true, but num_steps_do is 0; set that to at least 1")
        return self


class OutputConfig(Section):
    """Size of the posterior file: draws of each trial, and of which trials."""

    draws: Count = 100
    trials: Literal["test", "all"] = "test"
