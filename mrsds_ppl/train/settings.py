"""How a run is trained, as plain options: optimiser, start, regimen, split and seeds.

No JAX here: the sections of ``training`` in a configuration are these classes.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from mrsds_ppl.nn.options import section
from mrsds_ppl.quantities import Count, Fraction, Positive, SplitFraction, Steps, Weight

__all__ = [
    "START_STEPS",
    "Adam",
    "Optimiser",
    "Regimen",
    "Seeds",
    "Split",
    "StartOptions",
    "Temperature",
    "TrainingSettings",
]

START_STEPS = 200  # of a start that says nothing else
_TRANSITION_ROUNDS = 5  # a round leaves a third of the way, so these less than a hundredth
StartMethod = Literal["auto", "staged", "smoothing", "none"]


@section
@dataclass(frozen=True)
class Adam:
    """One stage of optimisation.

    Args:
        num_steps: number of optimiser steps.
        batch_size: trials per step; all of them when there are fewer.
        learning_rate: the largest; see :func:`mrsds_ppl.train.schedules.learning_rate_schedule`.
        lr_warmup_steps: steps of the learning rate's ramp.
        gradient_clip: each element of the gradient is clipped to [-gradient_clip, gradient_clip].
        dropout: whether neurons are hidden from the encoder, ``drop_perc`` of each region's.
        dropout_trial_perc: probability that a trial has hidden neurons.
    """

    num_steps: Count = 2000
    batch_size: Count = 64
    learning_rate: Positive = 1e-2
    lr_warmup_steps: Steps = 200
    gradient_clip: Positive = 10.0
    dropout: bool = False
    dropout_trial_perc: Fraction = 0.5


@section
@dataclass(frozen=True)
class Optimiser(Adam):
    """The stages of a run.

    Args:
        num_particles: draws of the guide per step.
        log_steps: steps between lines of progress.
        save_steps: steps between checkpoints.
        restarts: seeds that are trained side by side, of which the best is kept.
        follow_bound: end where the bound no longer rises, see :func:`mrsds_ppl.train.schedules.pace_of`; ``num_steps``
            is the most. Not while beta or a temperature change what is maximised from step to step.
        dynamics_only: a second stage of ``num_steps_do`` steps, of which the first ``lr_warmup_steps_do`` warm up, with
            the guide as it is.
    """

    num_particles: Count = 1
    log_steps: Count = 100
    save_steps: Count = 500
    restarts: Count = 1
    follow_bound: bool = True
    dynamics_only: bool = False
    num_steps_do: Steps = 0
    lr_warmup_steps_do: Steps = 0

    def __post_init__(self) -> None:
        if self.dynamics_only and self.num_steps_do == 0:
            raise ValueError("dynamics_only: found true, but num_steps_do is 0; set that to at least 1")


@dataclass(frozen=True)
class TrainingSettings(Adam):
    """What the compiled loop is given for one stage.

    Args:
        region_sizes: neurons of each region; read when `dropout` is on.
        drop_perc: fraction of each region's neurons that a chosen trial loses, that of the split.
        chunk_steps: steps per call of the compiled loop: how often progress, checkpoints and interrupts come.
        max_skipped_in_row: the run stops after this many non-finite steps in a row.
    """

    region_sizes: tuple[int, ...] = ()
    drop_perc: float = 0.25
    chunk_steps: int = 50
    max_skipped_in_row: int = 20


@section
@dataclass(frozen=True)
class StartOptions:
    """Where training begins; :func:`mrsds_ppl.config.choice.choose_start` says what ``auto`` chooses, and why.

    Args:
        method: ``staged``: principal components, warm-up, states of an AR-HMM, networks refitted to them.
            ``smoothing``: Laplace EM, slower, finds states that no random start finds. ``none``: principal components.
        steps: of the warm-up, or, twice, of a guide with an encoder alone after smoothing; None for 200.
        evidence_steps: Gauss-Newton steps of polynomials on log p(y), states and paths summed out, in the start by
            smoothing; 0, or where polynomials cannot stand for the dynamics, for rounds of networks.
        scoring_rounds: rounds of scoring on log p(y) after training, in the weights of the dynamics, of a guide without
            an encoder that started by smoothing, where no term of the regimen is on.
        transition_rounds: rounds of expectation-maximisation of the transitions after training, latents summed out;
            None for 5 of a fit that is scored, and else for none.
    """

    method: StartMethod = "auto"
    steps: Count | None = None
    evidence_steps: Steps = 6
    scoring_rounds: Steps = 1
    transition_rounds: Steps | None = None

    def rounds_after(self, *, scored: bool) -> tuple[int, int]:
        """Rounds of scoring and of transitions after training.

        Args:
            scored: whether the guide has no encoder, the start was by smoothing, and no term of the regimen is on.
        """
        usual = _TRANSITION_ROUNDS if scored else 0
        return self.scoring_rounds if scored else 0, usual if self.transition_rounds is None else self.transition_rounds


@section
@dataclass(frozen=True)
class Temperature:
    """Temperature of the state posterior over the steps.

    tau = max(t_min, t_init rate^(max(0, step - kickin_steps) / steps))
    """

    t_init: Weight = 0.0
    t_min: Positive = 1.0
    rate: Annotated[Positive, Field(le=1)] = 0.99
    steps: Count = 100
    kickin_steps: Steps = 0


@section
@dataclass(frozen=True)
class Regimen:
    """Terms that temper training; None is off. See :mod:`mrsds_ppl.train.regimen.chosen`.

    Args:
        beta_max, beta_warmup_steps, x0_weight: weights of log p(x), for structured guides.
        overshoot: a weight for each horizon, horizon 0 first.
        kl_z_scale: weight of the divergence of a guide's state weights from the program's.
        smooth_coef: penalty on differences of the latents from bin to bin.
        temperature: of the state posterior.
        message_sparsity: nats a bin that a message between regions costs which is as large as the noise of the latents.
        message_bending: the same for what is not linear in a message, local ones too.
    """

    beta_max: Weight | None = None
    beta_warmup_steps: Steps | None = None
    x0_weight: Weight | None = None
    overshoot: tuple[Weight, ...] | None = None
    kl_z_scale: Weight | None = None
    smooth_coef: Weight | None = None
    temperature: Temperature | None = None
    message_sparsity: Weight | None = None
    message_bending: Weight | None = None

    @property
    def steady(self) -> bool:
        """Whether what is maximised is the same in every step."""
        return self.beta_max is None and self.temperature is None


@section
@dataclass(frozen=True)
class Split:
    """What is kept for the test, and how much of each region's neurons is hidden in it.

    The hidden neurons are those of co-smoothing; under ``dropout`` as many are hidden in training.

    Args:
        test_perc: share of the trials for the test.
        drop_perc: share of each region's neurons that is hidden.
        folds: in place of ``test_perc``: trials are dealt into so many folds, of which each is the test once.
        fold: which of them is the test, counted from 0.
    """

    test_perc: SplitFraction = 0.1
    drop_perc: SplitFraction = 0.25
    folds: Annotated[Count, Field(ge=2)] | None = None
    fold: Steps = 0

    def __post_init__(self) -> None:
        if self.folds is None and self.fold:
            raise ValueError(f"fold: found {self.fold}, but there are no folds; set folds, or leave fold out")
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"fold: found {self.fold} of {self.folds} folds; allowed: 0 to {self.folds - 1}")


@section
@dataclass(frozen=True)
class Seeds:
    """``data`` draws simulations, split and hidden neurons, ``model`` the weights, ``train`` batches and noise."""

    data: Steps = 0
    model: Steps = 0
    train: Steps = 0
