"""From the configuration to what a run trains with: restarts, terms of the regimen, the second stage."""

from dataclasses import replace
from typing import Any, NamedTuple

from jax import random

from mrsds_ppl.build import initial_parameters, make_guide, make_model
from mrsds_ppl.config import RunConfig
from mrsds_ppl.data.trials import Batch, Trials
from mrsds_ppl.inference.initialization import initialize
from mrsds_ppl.inference.objective import records_state_weights
from mrsds_ppl.inference.regimen import Regimen, Temperature, Terms, make_terms
from mrsds_ppl.inference.training import TrainingSettings

_HELD = (
    "training.beta_max: the covariances of the dynamics and of the first bin stay as they start; trained under a "
    "weight above 1, latents would shrink without end"
)


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
