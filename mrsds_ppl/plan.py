"""From the configuration to what a run trains with: encoder, restarts, terms of the regimen, the second stage."""

from dataclasses import replace
from typing import Any, NamedTuple

from jax import random

from mrsds_ppl.build import initial_parameters, make_guide, make_model
from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.data.trials import Batch, Trials
from mrsds_ppl.start.pca import initialize
from mrsds_ppl.train.objective import records_state_weights
from mrsds_ppl.train.regimen.chosen import Regimen, Terms, make_terms
from mrsds_ppl.train.regimen.terms import Temperature
from mrsds_ppl.train.training import TrainingSettings

_HELD = (
    "training.beta_max: the covariances of the dynamics and of the first bin stay as they start; trained under a "
    "weight above 1, latents would shrink without end"
)

WITHOUT_ENCODER = (
    "no encoder is named, and counts with several states are fitted better without one, from a start by smoothing; "
    "inference.encoder: convolution brings an encoder where the guide has one, which is faster where trials are many"
)
# Up to these a start by smoothing takes a minute or two on two cores.
_MOST_BINS, _MOST_LATENTS = 60_000, 16


def with_encoder(config: RunConfig, trials: Trials) -> RunConfig:
    """The configuration with ``inference.encoder: none`` where none is named and the recording does better without.

    That is so for spike counts with several states: the posterior is narrower than what an encoder can read off the
    counts, and states are told apart by it (docs/results.md has the figures). Trials without an encoder are fitted one
    by one, so there is an encoder where they are many, where latents are, and where the fit cannot start by smoothing.

    Args:
        config: the configuration.
        trials: the training trials.
    """
    without = config.model_copy(update={"inference": config.inference.model_copy(update={"encoder": "none"})})
    dims = config.model.latent_dims
    latents = dims * len(trials.region_sizes) if isinstance(dims, int) else sum(dims)
    suits = (
        without.starts_by_smoothing
        and config.training.start != "staged"
        and config.model.emissions.dist == "poisson"
        and config.model.num_states > 1
        and config.training.restarts == 1
        and int(trials.lengths.sum()) <= _MOST_BINS
        and latents <= _MOST_LATENTS
    )
    return without if suits and not config.inference.names_encoder else config


class Restart(NamedTuple):
    """Random key of a restart's training, and its parameters before it."""

    key: Any
    params: dict[str, Any]


def restart_of(config: RunConfig, number: int, trials: Trials, data: Batch) -> Restart:
    """Start of a restart: that of a run whose model and training seeds are higher by its number."""
    training = config.training
    seeds = {"model_seed": training.model_seed + number, "train_seed": training.train_seed + number}
    config = config.model_copy(update={"training": training.model_copy(update=seeds)})
    model = make_model(config, trials, trials.num_trials)
    key = random.key(config.training.train_seed)
    params = initial_parameters(random.fold_in(key, 0), model, make_guide(config, model), data).params
    counts = config.model.emissions.dist == "poisson"
    return Restart(random.fold_in(key, 1), initialize(params, trials, model.latent_sizes, counts))


def terms_of(config: RunConfig, guide: Any, values: dict[str, Any], data: Batch) -> Terms:
    """Terms of the regimen that the configuration asks for."""
    training = config.training
    temperature = Temperature(
        training.t_init,
        training.t_min,
        training.annealing_rate,
        training.annealing_steps,
        training.annealing_kickin_steps,
    )
    regimen = Regimen(
        beta_max=training.beta_max,
        beta_warmup_steps=training.beta_warmup_steps,
        x0_weight=training.x0_weight,
        overshoot=training.overshoot,
        kl_z_scale=training.kl_z_scale,
        smooth_coef=training.smooth_coef,
        message_sparsity=training.message_sparsity,
        message_bending=training.message_bending,
        temperature=temperature if training.temperature_annealing else None,
    )
    terms = make_terms(
        regimen,
        guide=config.inference.guide,
        num_states=config.model.num_states,
        num_steps=training.num_steps,
        records_state_weights=training.kl_z_scale is not None and records_state_weights(guide, values, data),
    )
    return terms._replace(notes=(*terms.notes, _HELD)) if config.weighs_paths else terms


def second_stage(config: RunConfig, settings: TrainingSettings) -> TrainingSettings | None:
    """Settings of the dynamics-only stage, where there is one."""
    training = config.training
    if not training.dynamics_only:
        return None
    return replace(
        settings,
        num_steps=training.num_steps_do,
        lr_warmup_steps=training.lr_warmup_steps_do,
        chunk_steps=min(training.log_steps, training.save_steps, training.num_steps_do),
    )
