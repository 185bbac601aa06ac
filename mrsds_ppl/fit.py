"""The story of a fit, in memory.

trials -> split -> program and guide -> where parameters begin -> joint training -> what follows it -> posteriors of
both splits -> scores
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, Unpack

import jax
from jax import random

from mrsds_ppl import __version__
from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.posterior import PosteriorSampler
from mrsds_ppl.analysis.summary import evaluate_run, not_finite_sentence, recovery_lines, remarks
from mrsds_ppl.analysis.weights import Scoring
from mrsds_ppl.backend.device import choose_device, demand_one_choice, enable_compilation_cache, make_room_for_programs
from mrsds_ppl.backend.sharding import at_hand, devices_line, on_devices, to_begin_with, trial_mesh
from mrsds_ppl.build import (
    fitted_values,
    hidden_neurons,
    initial_parameters,
    make_guide,
    make_model,
    make_settings,
    make_start,
    restart_of,
    second_stage,
    terms_of,
)
from mrsds_ppl.config.arguments import config_for
from mrsds_ppl.config.choice import choose_start
from mrsds_ppl.config.loading import RunConfig
from mrsds_ppl.config.recording import split_of
from mrsds_ppl.data.split import Split
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import ConfigError
from mrsds_ppl.fitted import Fit
from mrsds_ppl.guides import PathGuide
from mrsds_ppl.models.emissions.emissions import refused_of
from mrsds_ppl.output.describe import describe, emissions_phrase, notes, versions
from mrsds_ppl.output.guard import DATA_DIGEST, demand_free_name, demand_same_run
from mrsds_ppl.output.results import with_source, write_description, write_results
from mrsds_ppl.start.pca import initialize
from mrsds_ppl.start.step_size import largest_rate
from mrsds_ppl.storage.lock import locked
from mrsds_ppl.storage.paths import RunPaths
from mrsds_ppl.storage.runlog import run_log
from mrsds_ppl.storage.stores import Stores, in_files, in_memory
from mrsds_ppl.train.history import stack
from mrsds_ppl.train.interrupts import answered, graceful_interrupt
from mrsds_ppl.train.objective import make_objective
from mrsds_ppl.train.progress import Rounds, Say
from mrsds_ppl.train.restarts import hold_out
from mrsds_ppl.train.stage import Stages
from mrsds_ppl.train.stages import fit_stages
from mrsds_ppl.train.training import TrainResult, make_run_chunk


def fit(
    trials: Trials,
    num_states: int,
    latent_sizes: int | list[int],
    *,
    model: Mapping[str, Any] | None = None,
    guide: str = "gaussian_markov",
    start: str = "auto",
    training: Mapping[str, Any] | None = None,
    test: float = 0.1,
    seed: int = 0,
    save_to: str | Path | None = None,
    progress: bool = True,
    devices: int | None = None,
) -> Fit:
    """Fit a multi-region switching dynamical system to trials.

    The same start, training, scores and defaults as the command ``mrsds fit``. Emissions are Poisson where all signals
    are counts, Gaussian otherwise, unless ``model`` says which.

    Args:
        trials: the recording, such as of :func:`mrsds_ppl.read`; a single trial is cut into pieces.
        num_states: K, the number of discrete states.
        latent_sizes: latent dimensions of each region; one number for all.
        model: further keys of the section ``model`` of a configuration.
        guide: form of the posterior of the latents, by name, or ``path/to/file.py:ClassName``.
        start: how parameters begin: ``auto``, ``staged``, ``smoothing`` or ``none``.
        training: keys of the section ``training``, such as ``{"num_steps": 500}``.
        test: fraction of the trials that is kept out of training.
        seed: draws the split, the first weights, and the batches.
        save_to: folder and name of the run, such as ``results/mouse12``: its files are written as the fit goes on.
        progress: print what happens, with a bar on a terminal or in a notebook.
        devices: spread the trials over so many devices of this machine; see :func:`mrsds_ppl.on_devices`.

    Raises:
        ConfigError, DataError: an argument or the recording is wrong; nothing was computed or written then.
        RunError: a run of this name exists, or steps stay non-finite.
    """
    trials = trials.in_pieces()
    config = config_for(
        num_states,
        latent_sizes,
        model=model,
        guide=guide,
        start=start,
        training=training,
        test=test,
        seed=seed,
        emission="poisson" if trials.holds_counts else "gaussian",
    )
    trials.validate(refused=refused_of(config.model.emissions, trials))
    say: Say = print if progress else lambda line: None
    with on_devices(devices), answered(say):
        if save_to is not None:
            place = Path(save_to)
            return fit_into_files(trials, config, RunPaths(place.parent, place.name), say=say, progress=progress)
        say(emissions_phrase(config, trials))
        return fit_trials(trials, config, say=say, progress=progress)


class FileOptions(TypedDict, total=False):
    """What :func:`fit_into_files` does with a run of that name, where it computes, and whether it shows bars.

    ``resume`` goes on from the latest checkpoint, ``overwrite`` replaces a run of this name; ``gpu`` is the number of
    the GPU to use instead of the default device.
    """

    resume: bool
    overwrite: bool
    gpu: int | None
    progress: bool


def fit_into_files(
    trials: Trials, config: RunConfig, paths: RunPaths, *, say: Say = print, **options: Unpack[FileOptions]
) -> Fit:
    """:func:`fit_trials` that writes the files of a run as it goes on.

    Args:
        trials: the recording.
        config: the configuration; where its section ``data`` names no source, the trials are written beside the run.
        paths: where the files go.
        say: prints a line for the user.
        options: see :class:`FileOptions`.

    Raises:
        ConfigError, DataError, RunError: a run of this name exists, or the one to resume was begun as another; nothing
            is written then.
    """
    demand_one_choice(options.get("gpu"))
    started, resume = time.perf_counter(), options.get("resume", False)
    split = split_of(config, trials)
    choice = choose_start(config, split.train)
    config = choice.applied_to(with_source(config, paths))
    with locked(paths):
        if resume:
            demand_same_run(paths, config, trials)
        elif not options.get("overwrite", False):
            demand_free_name(paths)
        with run_log(paths.log, say, append=resume) as tell:
            tell(f"mrsds-ppl {__version__}: {paths.folder / paths.name}*")
            tell(describe(config, trials, split))
            for line in (choice.line, *(f"note: {note}" for note in notes(config, trials, split))):
                tell(line)
            device = choose_device(options.get("gpu"), tell)
            about = {**versions(device), DATA_DIGEST: trials.digest}
            write_description(trials, config, paths, about)
            with jax.default_device(device):
                found = _fit(trials, split, config, in_files(paths), resume, tell, options.get("progress", True))
            write_results(found, paths)
            tell(f"done in {time.perf_counter() - started:.0f} s: {paths.mat}, {paths.posterior}")
    return replace(found, paths=paths, versions=about)


def fit_trials(trials: Trials, config: RunConfig, *, say: Say = print, progress: bool = True) -> Fit:
    """A fit in memory as a configuration describes it; the section ``data`` has been read.

    Args:
        trials, config: the recording and its configuration.
        say: prints a line for the user.
        progress: whether bars are shown.

    Raises:
        ConfigError, RunError: settings that do not fit the recording, or steps that stay non-finite.
        KeyboardInterrupt: stopped; its message says how to go on.
    """
    split = split_of(config, trials)
    choice = choose_start(config, split.train)
    config = choice.applied_to(config)
    for line in (choice.line, *(f"note: {note}" for note in notes(config, trials, split))):
        say(line)
    return _fit(trials, split, config, in_memory(), False, say, progress)


def _fit(
    trials: Trials, split: Split, config: RunConfig, stores: Stores, resume: bool, say: Say, progress: bool
) -> Fit:
    enable_compilation_cache()
    make_room_for_programs()
    training, seeds, restarts = config.training, config.training.seeds, config.training.optimiser.restarts
    validation = hold_out(split.train, seeds.data) if restarts > 1 else None
    trained_on = split.train if validation is None else validation.train
    if (mesh := trial_mesh()) is not None:
        say(devices_line(mesh, min(training.optimiser.batch_size, trained_on.num_trials)))
    model = make_model(config, split.train, trained_on.num_trials)
    guide = make_guide(config, model)
    if validation is not None and isinstance(guide, PathGuide):
        raise ConfigError(
            f"training.optimiser.restarts: found {restarts} with {config.inference.guide}, which has no posterior of "
            "the trials that choose the best; allowed: 1, or a guide with an encoder"
        )
    key, data = random.key(seeds.train), to_begin_with(trained_on.batch())
    begun = initial_parameters(random.fold_in(key, 0), model, guide, data)
    keys, params = random.fold_in(key, 1), initialize(begun.params, trained_on, model.latent_sizes)
    if validation is not None:
        others = [restart_of(config, number, trained_on, data) for number in range(1, restarts)]
        keys, params = stack([keys, *(one.key for one in others)]), stack([params, *(one.params for one in others)])
        say(
            f"restarts: {restarts}, model and training seeds from {seeds.model} and "
            f"{seeds.train}; trained on {trained_on.num_trials} trials, {validation.chooses.num_trials} choose"
        )
    terms = terms_of(config, guide, begun.constrain(begun.params), data)
    for note in terms.notes:
        say(f"note: {note}")
    observed, particles = float(trained_on.observed.sum()), training.optimiser.num_particles
    objective = make_objective(model, guide, observed, particles, begun.constrain, terms.on)
    settings = make_settings(config, split.train)
    smoothed = config.inference.posterior_per_trial and training.start.method == "smoothing"
    scoring, transitions = training.start.rounds_after(scored=smoothed and not terms.on)
    with graceful_interrupt() as interrupted:
        stages = Stages(
            model,
            guide,
            objective,
            data,
            stores,
            save_steps=training.optimiser.save_steps,
            should_stop=interrupted,
            say=say,
            progress=progress,
            constrain=begun.constrain,
            held_out=None if validation is None else at_hand(validation.chooses.batch()),
            entries_of=guide.at if config.inference.posterior_per_trial else None,
            transition_rounds=transitions,
            run_chunk=make_run_chunk(objective, settings, stacked=validation is not None),
            follow_bound=training.optimiser.follow_bound and training.regimen.steady,
            largest_rate=partial(largest_rate, model=model, guide=guide, data=data) if smoothed else None,
            score=Scoring(model, data, scoring, interrupted, say, progress) if scoring else None,
        )
        stages = replace(stages, start=make_start(config, stages, settings, trained_on))
        found = fit_stages(keys, params, stages, settings, resume=resume, dynamics_only=second_stage(config, settings))
    if found.stopped:
        raise KeyboardInterrupt(_how_to_go_on(stores, found))
    program = FittedProgram(model, fitted_values(key, guide, begun.constrain(found.params), split), guide)
    with Rounds("posterior and scores", None, say, progress):
        return _read_off(program, trials, split, config, found, say)


def _read_off(
    program: FittedProgram, trials: Trials, split: Split, config: RunConfig, found: TrainResult, say: Say
) -> Fit:
    """Posteriors of training and test trials, in full only for what the posterior file holds, and scores."""
    assert program.guide is not None
    key, sampler = random.key(config.training.seeds.train), PosteriorSampler(program)
    draws, everything = config.output.draws, config.output.trials == "all"
    train_key, test_key = random.split(random.fold_in(key, 2))
    train = sampler.infer(train_key, split.train, draws=draws if everything else min(draws, 20), predictive=everything)
    test = sampler.infer(test_key, split.test, draws=draws)
    for line in remarks(train, test, found.history):
        say(line)
    evaluation = evaluate_run(random.fold_in(key, 3), sampler, split, train, test, hidden_neurons(config, split))
    for line in (*evaluation.lines(), *recovery_lines(split, test, program.model)):
        say(line)
    if (sentence := not_finite_sentence(evaluation.arrays(), train=train, test=test)) is not None:
        say(f"warning: {sentence}")
    bounds = {} if found.restart_bounds is None else {"restart_bounds": found.restart_bounds.tolist()}
    return Fit(
        config=config,
        model=program.model,
        guide=program.guide,
        params=program.params,
        trials=trials,
        split=split,
        trained=found,
        train=train,
        test=test,
        scores=evaluation.arrays() | bounds,
    )


def _how_to_go_on(stores: Stores, found: TrainResult) -> str:
    if stores.scalars is None:
        return f"stopped at step {found.step}; nothing is kept of a fit in memory, save_to keeps it in files"
    if stores.joint.latest() is None and stores.restarts.latest() is None:
        return "stopped before the first checkpoint; the same command starts it anew"
    return f"stopped at step {found.step}; the same command with --resume goes on from there"
