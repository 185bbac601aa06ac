"""From names and values of the configuration to objects: the one place where names become things."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import numpyro
from jax import random
from jaxtyping import PRNGKeyArray
from numpyro.distributions import biject_to
from numpyro.infer.autoguide import AutoGuide

from mrsds_ppl.config.loading import RunConfig, reject_unknown
from mrsds_ppl.config.names import ROLLOUT_GUIDES, TRIANGULAR_GUIDES
from mrsds_ppl.data.loaders import load_recording, load_user_function
from mrsds_ppl.data.simulate import SIMULATORS, simulation_options
from mrsds_ppl.data.split import Split, choose_held_out_neurons
from mrsds_ppl.data.trials import Batch, Trials
from mrsds_ppl.errors import ConfigError
from mrsds_ppl.guides import GUIDES, AmortizedGuide, GaussianMarkovPaths, PathGuide, for_new_trials
from mrsds_ppl.guides.user import check_sites, make_of, user_guide
from mrsds_ppl.models import MRSDS, DynamicsOptions, ModelOptions
from mrsds_ppl.nn.encoders import EncoderOptions
from mrsds_ppl.ppl.markov import summed_out
from mrsds_ppl.start.laplace_em import LaplaceEM
from mrsds_ppl.start.smoothing_start import GuideTraining, SmoothingStart
from mrsds_ppl.start.staged import Staged
from mrsds_ppl.train.stage import Stages, Start
from mrsds_ppl.train.training import TrainingSettings

_START_STEPS = 200


def make_trials(config: RunConfig) -> Trials:
    """The recording, validated for the likelihood that the configuration names.

    Raises:
        ConfigError, DataError: the source or what it holds is wrong.
    """
    data = config.data
    if data.is_simulation:
        simulator = SIMULATORS[data.data_source]
        arguments = data.simulation_arguments()
        reject_unknown("data.simulation", arguments, simulation_options(data.data_source))
        trials = simulator(config.training.data_seed, **arguments)
    else:
        options: dict[str, Any] = {"bin_width": data.bin_width, "region_names": data.region_names}
        if ".py:" in data.data_source:
            trials = load_user_function(data.data_source, data.data_path, **options)
        else:
            trials = load_recording(data.recording(), **options)
    if data.tlim is not None:
        trials = trials.limit_bins(data.tlim)
    if data.inputs is not None and trials.num_inputs:
        trials = trials.with_inputs(data.inputs)
    trials.validate(counts=config.model.emissions.dist == "poisson")
    return trials


def make_model(config: RunConfig, trials: Trials, num_trials: int) -> MRSDS:
    """The program, sized by the recording; ``num_trials`` are those it is trained on.

    Under a weight beta above 1 on log p(x), covariances of x stay as they start. Latents, their noise and their
    posterior c times as large, with emissions that undo it, raise the bound by (beta - 1) log(1 / c) a bin and latent,
    so it has no maximum where all are trained. With the noise held, latents keep a scale.

    Raises:
        ConfigError: latent dimensions for another number of regions.
    """
    model, transition = config.model, config.model.xtransition
    dims = model.latent_dims
    regions = len(trials.region_sizes)
    if not isinstance(dims, int) and len(dims) != regions:
        raise ConfigError(f"model.latent_dims: found {len(dims)} sizes, but the recording has {regions} regions")
    options = ModelOptions(
        ux=model.ux,
        uz=model.uz,
        xz=model.xz,
        sz=model.sz,
        single_region_latent=transition.dynamics.single_region_latent,
        transition_hidden=model.ztransition.layer_mult * model.num_states**2,
        dynamics=DynamicsOptions(
            communication=transition.dynamics.communication_type,
            input=transition.dynamics.input_type,
            inputs_together=transition.dynamics.input_func_type == "together",
            zcond=transition.zcond,
            layers=transition.dynamics.layers,
            activations=transition.dynamics.activations_with_output,
            input_layers=transition.inputs.layers,
            input_activations=transition.inputs.activations_with_output,
            triangular_covariance=transition.triangular_cov,
            trainable_covariance=transition.trainable_cov and not config.weighs_paths,
        ),
        emission=model.emissions.dist,
        emission_layers=model.emissions.layers,
        emission_activations=model.emissions.activations,
        final_activation=model.emissions.final_activation,
        triangular_emission=model.emissions.triangular_cov,
        trainable_emission=model.emissions.trainable_cov,
        triangular_initial=model.xic.triangular_cov,
        trainable_initial=model.xic.trainable_cov and not config.weighs_paths,
        weight_prior=None if model.weight_prior is None else model.weight_prior.scale,
    )
    return MRSDS(
        trials.region_sizes,
        dims if isinstance(dims, int) else list(dims),
        model.num_states,
        key=random.key(config.training.model_seed),
        num_inputs=trials.num_inputs,
        num_stages=trials.num_stages,
        options=options,
        num_trials=num_trials,
    )


def make_guide(config: RunConfig, model: MRSDS) -> AutoGuide:
    """The guide that the configuration names, with its encoder; a user's own from ``file.py:ClassName``.

    A user's class is given those of ``key``, ``encoder``, ``options`` and ``trainable_covariance`` that it takes.

    Raises:
        ConfigError: the guide cannot be loaded or made, or is none.
    """
    inference = config.inference
    options = EncoderOptions(
        embedding_layers=inference.embedding.layers,
        embedding_activations=inference.embedding.activations,
        **inference.convolution_params.model_dump(),
        **inference.transformer_params.model_dump(),
    )
    arguments: dict[str, Any] = {
        "key": random.fold_in(random.key(config.training.model_seed), 1),
        "encoder": inference.encoder,
        "options": options,
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
    training = config.training
    return TrainingSettings(
        num_steps=training.num_steps,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        lr_warmup_steps=training.lr_warmup_steps,
        gradient_clip=training.gradient_clip,
        dropout=training.dropout,
        drop_perc=training.drop_perc,
        dropout_trial_perc=training.dropout_trial_perc,
        region_sizes=tuple(trials.region_sizes),
        chunk_steps=min(training.log_steps, training.save_steps, training.num_steps),
    )


class Begun(NamedTuple):
    """Unconstrained values of every ``param`` site, and the map from them to the values that the sites take."""

    params: dict[str, Any]
    constrain: Callable[[dict[str, Any]], dict[str, Any]]


def initial_parameters(key: jax.Array, model: MRSDS, guide: Any, batch: Batch) -> Begun:
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
    # their first call, which must not be a compiler's; a path guide that has begun keeps none but of weights.
    if isinstance(guide, PathGuide):
        guide.begin(batch)
        keeps_values = guide.global_guide is not None
    else:
        keeps_values = needs_every_trial(guide)
    values = collect(key) if keeps_values else jax.jit(collect)(key)
    transforms = {name: biject_to(constraint) for name, constraint in constraints.items()}
    params = {name: transforms[name].inv(v) if name in transforms else v for name, v in values.items()}
    return Begun(params, lambda p: {n: transforms[n](v) if n in transforms else v for n, v in p.items()})


def needs_every_trial(guide: Any) -> bool:
    """Whether a guide keeps values of the trials that it is first called with, which then are all training trials."""
    if isinstance(guide, AmortizedGuide):
        return guide.global_guide is not None
    return bool(getattr(guide, "needs_every_trial", True))


def fitted_values(
    key: PRNGKeyArray, guide: Any, values: dict[str, Any], split: Split, hidden: np.ndarray
) -> dict[str, Any]:
    """Values of all sites that serve training and test trials, the latter with neurons hidden too.

    Args:
        key: of the run.
        guide: the guide.
        values: of the sites, as trained.
        split: the trials.
        hidden: neurons hidden for co-smoothing.
    """
    # Weights that have a prior enter what follows by their posterior medians.
    values = values | {name: v for name, v in guide.median(values, split.test.batch()).items() if name != "x"}
    return for_new_trials(random.fold_in(key, 4), values, guide, [split.test.batch(), split.test.batch(hidden)])


def hidden_neurons(config: RunConfig, split: Split) -> np.ndarray:
    """Indices of the neurons that are hidden from the posterior in the test of co-smoothing."""
    return choose_held_out_neurons(split.test.region_sizes, config.training.drop_perc, config.training.data_seed)


def make_start(config: RunConfig, stages: Stages, settings: TrainingSettings) -> Start | None:
    """What comes before joint training; nothing where weights have a prior or it is left out.

    Args:
        config: the configuration.
        stages: what is trained; its loop is that of joint training.
        settings: of joint training.
    """
    training, model = config.training, stages.model
    steps = _START_STEPS if training.switch_init_steps is None else training.switch_init_steps
    if steps == 0 or model.options.weight_prior is not None:
        return None
    if config.starts_by_smoothing:
        laplace_em = LaplaceEM(
            sparsity=training.message_sparsity or 0.0,
            evidence_steps=training.evidence_steps,
            should_stop=stages.should_stop,
            say=stages.say,
        )
        guide = GuideTraining(stages.objective, settings, steps, stages.should_stop, stages.progress)
        return SmoothingStart(laplace_em, None if config.inference.posterior_per_trial else guide)
    if model.num_states == 1:
        return None
    assert stages.run_chunk is not None
    return Staged(
        stages.objective,
        settings,
        stages.run_chunk,
        steps,
        stacked=training.restarts > 1,
        constrain=stages.constrain,
        should_stop=stages.should_stop,
        say=stages.say,
        progress=stages.progress,
    )
