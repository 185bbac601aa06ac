"""From names and values of the configuration to objects: the one place where names become things."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, NamedTuple

import jax
import numpy as np
import numpyro
from jax import random
from jaxtyping import PRNGKeyArray
from numpyro.distributions import biject_to
from numpyro.infer.autoguide import AutoGuide

from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.config.names import ROLLOUT_GUIDES, TRIANGULAR_GUIDES
from mrsds_ppl.data.split import Split, choose_held_out_neurons
from mrsds_ppl.data.trials import Batch, Trials
from mrsds_ppl.errors import ConfigError
from mrsds_ppl.guides import GUIDES, AmortizedGuide, GaussianMarkovPaths, Guide, PathGuide, for_new_trials
from mrsds_ppl.guides.user import check_sites, make_of, user_guide
from mrsds_ppl.models import MRSDS
from mrsds_ppl.models.emissions.emissions import refused_of
from mrsds_ppl.models.mrsds import of_program
from mrsds_ppl.ppl.markov import summed_out
from mrsds_ppl.start.laplace_em import LaplaceEM
from mrsds_ppl.start.new_session import fit_new_session
from mrsds_ppl.start.pca import initialize
from mrsds_ppl.start.smoothing_start import GuideTraining, SmoothingStart
from mrsds_ppl.start.staged import Staged
from mrsds_ppl.train.objective import records_state_weights
from mrsds_ppl.train.regimen.chosen import Terms, make_terms
from mrsds_ppl.train.settings import START_STEPS, Adam, TrainingSettings
from mrsds_ppl.train.stage import Stages, Start

_ALIGNING_DRAWS = 5
_HELD = (
    "training.regimen.beta_max: the covariances of the dynamics and of the first bin stay as they start; trained under "
    "a weight above 1, latents would shrink without end"
)


def make_model(config: RunConfig, trials: Trials, num_trials: int) -> MRSDS:
    """The program, sized by the recording; ``num_trials`` are those it is trained on.

    Under a weight beta above 1 on log p(x), covariances of x stay as they start. Latents, their noise and their
    posterior c times as large, with emissions that undo it, raise the bound by (beta - 1) log(1 / c) a bin and latent,
    so it has no maximum where all are trained. With the noise held, latents keep a scale.

    Raises:
        ConfigError: latent dimensions, or laws of emissions, for another number of regions.
    """
    laws, sizes = config.model.emissions.of_regions(trials.region_names), config.model.latent_sizes
    options = replace(config.model, emissions=replace(config.model.emissions, dist=laws))
    if not isinstance(sizes, int) and len(sizes) != (regions := len(trials.region_sizes)):
        raise ConfigError(f"model.latent_sizes: found {len(sizes)} sizes, but the recording has {regions} regions")
    if config.weighs_paths:
        options = replace(
            options,
            initial=replace(options.initial, trainable_cov=False),
            dynamics=replace(options.dynamics, trainable_cov=False),
        )
    return MRSDS(
        trials.region_sizes,
        sizes if isinstance(sizes, int) else list(sizes),
        options.num_states,
        key=random.key(config.training.seeds.model),
        num_inputs=trials.num_inputs,
        num_stages=trials.num_stages,
        options=options,
        num_sessions=trials.num_sessions,
        num_trials=num_trials,
    )


def make_guide(config: RunConfig, model: MRSDS) -> AutoGuide:
    """The guide that the configuration names, with its encoder; a user's own from ``file.py:ClassName``.

    Where no encoder was chosen yet (``auto``), it is the convolution.
    A user's class is given those of ``key``, ``encoder``, ``options`` and ``trainable_covariance`` that it takes.

    Raises:
        ConfigError: the guide cannot be loaded or made, or is none.
    """
    inference = config.inference
    arguments: dict[str, Any] = {
        "key": random.fold_in(random.key(config.training.seeds.model), 1),
        "encoder": "convolution" if inference.encoder == "auto" else inference.encoder,
        "options": inference.encoder_options,
        "trainable_covariance": inference.trainable_cov,
    }
    if inference.guide == "mean_field":
        arguments["per_bin"] = inference.covariance == "per_bin"
    if inference.guide in TRIANGULAR_GUIDES:
        arguments["triangular"] = inference.triangular_cov
    if inference.guide in ROLLOUT_GUIDES:
        arguments["psi_add"] = inference.psi_add
    if inference.chain_per_trial:
        return make_of(GaussianMarkovPaths, model, arguments)
    if inference.guide in GUIDES:
        return make_of(GUIDES[inference.guide], model, arguments)
    return user_guide(inference.guide, model, arguments)


def make_settings(config: RunConfig, trials: Trials) -> TrainingSettings:
    """Settings of the compiled training loop."""
    optimiser = config.training.optimiser
    return TrainingSettings(
        **{field.name: getattr(optimiser, field.name) for field in fields(Adam)},
        region_sizes=tuple(trials.region_sizes),
        drop_perc=config.training.split.drop_perc,
        chunk_steps=min(optimiser.log_steps, optimiser.save_steps, optimiser.num_steps),
    )


class Begun(NamedTuple):
    """Unconstrained values of every ``param`` site, and the map from them to the values that the sites take."""

    params: dict[str, Any]
    constrain: Callable[[dict[str, Any]], dict[str, Any]]


def initial_parameters(key: jax.Array, model: MRSDS, guide: Guide, batch: Batch) -> Begun:
    """Parameters of program and guide before training.

    Args:
        key: random key.
        model, guide: program and guide.
        batch: any trials; they give the sites their shapes. For guides that ``needs_every_trial`` says it of, all of
            the training trials.

    Raises:
        ConfigError: a site of a user's guide does not match the program.
    """
    if type(guide) not in (*GUIDES.values(), GaussianMarkovPaths):
        check_sites(key, model, guide, batch)
    constraints: dict[str, Any] = {}

    def collect(key: jax.Array) -> dict[str, Any]:
        with numpyro.handlers.seed(rng_seed=key), numpyro.handlers.trace() as guide_trace:
            guide(batch)
        program = numpyro.handlers.replay(summed_out(model), guide_trace)
        with numpyro.handlers.seed(rng_seed=key), numpyro.handlers.trace() as model_trace:
            program(batch)
        sites = {n: s for n, s in {**guide_trace, **model_trace}.items() if s["type"] == "param"}
        constraints.update({n: s["kwargs"]["constraint"] for n, s in sites.items() if "constraint" in s["kwargs"]})
        return {name: site["value"] for name, site in sites.items()}

    # Compiled, what the sites do beside giving their parameters is never run. NumPyro's own guides keep values of
    # their first call, which must not be a compiler's.
    if isinstance(guide, PathGuide):
        guide.begin(batch)
    if isinstance(guide, PathGuide | AmortizedGuide):
        if guide.global_guide is not None:
            with numpyro.handlers.seed(rng_seed=key), numpyro.handlers.block():
                guide.global_guide(batch)
        values = jax.jit(collect)(key)
    else:
        values = collect(key) if needs_every_trial(guide) else jax.jit(collect)(key)
    transforms = {name: biject_to(constraint) for name, constraint in constraints.items()}
    params = {name: transforms[name].inv(v) if name in transforms else v for name, v in values.items()}
    return Begun(params, lambda p: {n: transforms[n](v) if n in transforms else v for n, v in p.items()})


def needs_every_trial(guide: object) -> bool:
    """Whether a guide keeps values of the trials that it is first called with, which then are all training trials."""
    return bool(getattr(guide, "needs_every_trial", True))


def fitted_values(key: PRNGKeyArray, guide: Guide, values: dict[str, Any], split: Split) -> dict[str, Any]:
    """Values of all sites that serve all trials.

    Args:
        key, guide: of the run.
        values, split: of the sites, as trained; the trials.
    """

    @jax.jit
    def medians(values: dict[str, Any], batch: Batch) -> dict[str, Any]:
        return {name: value for name, value in guide.median(values, batch).items() if name != "x"}

    # Weights that have a prior enter what follows by their posterior medians.
    values = values | medians(values, split.test.batch())
    return for_new_trials(random.fold_in(key, 4), values, guide, [part.batch() for part in split.new])


class NewSession(NamedTuple):
    """Program, guide and values of the sites for a session with new neurons."""

    model: MRSDS
    guide: GaussianMarkovPaths
    params: dict[str, Any]


def for_new_neurons(
    key: PRNGKeyArray, config: RunConfig, params: dict[str, Any], session: Trials, fitted: Trials, draws: np.ndarray
) -> NewSession:
    """A fitted program whose emissions are those of another session.

    Args:
        key, config, params: a random key, and what is of the fit.
        session: joined by itself, with the regions of the fit in their order.
        fitted, draws: training trials of the fit, and draws (draw, trial, bin, latent) of their latents.

    Raises:
        DataError: a value that the emissions may not have, or a neuron never observed.
    """
    session.validate(refused=refused_of(config.model.emissions, session))
    model = make_model(config, session, session.num_trials)
    sites = {name: value for name, value in params.items() if of_program(name)}
    guide = GaussianMarkovPaths(model)
    guide.begin(session.batch())
    draws = np.asarray(draws[:_ALIGNING_DRAWS])
    return NewSession(model, guide, fit_new_session(model, session, fitted, draws, sites, key))


def hidden_neurons(config: RunConfig, split: Split) -> np.ndarray:
    """Indices of the neurons that are hidden from the posterior in the test of co-smoothing."""
    return choose_held_out_neurons(split.test.region_sizes, config.training.split.drop_perc, config.training.seeds.data)


def make_start(config: RunConfig, stages: Stages, settings: TrainingSettings, trials: Trials) -> Start | None:
    """What comes before joint training; nothing where weights have a prior or it is left out.

    Args:
        config: the configuration.
        stages: what is trained; its loop is that of joint training.
        settings: of joint training.
        trials: the training trials.
    """
    training, model = config.training, stages.model
    method, steps = training.start.method, training.start.steps or START_STEPS
    if method == "none" or model.options.weight_prior is not None or (model.num_states == 1 and method != "smoothing"):
        return None
    if method == "smoothing":
        laplace_em = LaplaceEM(
            sparsity=training.regimen.message_sparsity or 0.0,
            evidence_steps=training.start.evidence_steps,
            should_stop=stages.should_stop,
            say=stages.say,
            progress=stages.progress,
        )
        guide = GuideTraining(stages.objective, settings, steps, stages.should_stop, stages.progress, stages.say)
        return SmoothingStart(laplace_em, None if config.inference.posterior_per_trial else guide, trials.session_names)
    assert stages.run_chunk is not None
    return Staged(
        stages.objective,
        settings,
        stages.run_chunk,
        steps,
        stacked=training.optimiser.restarts > 1,
        constrain=stages.constrain,
        should_stop=stages.should_stop,
        say=stages.say,
        progress=stages.progress,
    )


class Restart(NamedTuple):
    """Random key of a restart's training, and its parameters before it."""

    key: PRNGKeyArray
    params: dict[str, Any]


def restart_of(config: RunConfig, number: int, trials: Trials, data: Batch) -> Restart:
    """Start of a restart: that of a run whose model and training seeds are higher by its number."""
    seeds = config.training.seeds
    seeds = replace(seeds, model=seeds.model + number, train=seeds.train + number)
    config = config.model_copy(update={"training": replace(config.training, seeds=seeds)})
    model = make_model(config, trials, trials.num_trials)
    key = random.key(seeds.train)
    params = initial_parameters(random.fold_in(key, 0), model, make_guide(config, model), data).params
    return Restart(random.fold_in(key, 1), initialize(params, trials, model.latent_sizes))


def terms_of(config: RunConfig, guide: Guide, values: dict[str, Any], data: Batch) -> Terms:
    """Terms of the regimen that the configuration asks for."""
    regimen = config.training.regimen
    terms = make_terms(
        regimen,
        guide=config.inference.guide,
        num_states=config.model.num_states,
        num_steps=config.training.optimiser.num_steps,
        records_state_weights=regimen.kl_z_scale is not None and records_state_weights(guide, values, data),
    )
    return terms._replace(notes=(*terms.notes, _HELD)) if config.weighs_paths else terms


def second_stage(config: RunConfig, settings: TrainingSettings) -> TrainingSettings | None:
    """Settings of the dynamics-only stage, where there is one."""
    optimiser = config.training.optimiser
    if not optimiser.dynamics_only:
        return None
    return replace(
        settings,
        num_steps=optimiser.num_steps_do,
        lr_warmup_steps=optimiser.lr_warmup_steps_do,
        chunk_steps=min(optimiser.log_steps, optimiser.save_steps, optimiser.num_steps_do),
    )
