"""One run, from a configuration to its files: the story of ``mrsds fit``.

load the trials -> split them -> build program and guide -> start from the data -> warm-up, states, joint training
-> posterior of both splits -> scores -> files
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import random

from mrsds_ppl import __version__
from mrsds_ppl.analysis.posterior import PosteriorSampler, PosteriorSet
from mrsds_ppl.analysis.summary import Evaluation, evaluate_run, recovery_lines
from mrsds_ppl.backend.device import choose_device, enable_compilation_cache
from mrsds_ppl.build import (
    initial_parameters,
    make_guide,
    make_model,
    make_settings,
    make_trials,
    restart_of,
    second_stage,
    terms_of,
)
from mrsds_ppl.commands.describe import describe, versions
from mrsds_ppl.commands.guard import DATA_DIGEST, demand_free_name, demand_same_run
from mrsds_ppl.config.loading import RunConfig, ignored_keys, resolved_yaml
from mrsds_ppl.data.split import Split, choose_held_out_neurons, split_trials
from mrsds_ppl.errors import ConfigError
from mrsds_ppl.guides import PathGuide, for_new_trials
from mrsds_ppl.output.datatree import write_posterior
from mrsds_ppl.output.matfile import write_latents
from mrsds_ppl.start.choice import choose_start
from mrsds_ppl.start.pca import initialize
from mrsds_ppl.start.unused import share_of_bins, unused_sentence
from mrsds_ppl.storage.atomic import write_text
from mrsds_ppl.storage.checkpoints import Checkpoints
from mrsds_ppl.storage.paths import RunPaths
from mrsds_ppl.storage.runlog import run_log
from mrsds_ppl.train.history import History, stack
from mrsds_ppl.train.interrupts import graceful_interrupt
from mrsds_ppl.train.objective import make_objective
from mrsds_ppl.train.restarts import hold_out
from mrsds_ppl.train.stage import Fit, Stages
from mrsds_ppl.train.stages import fit_stages

Log = Callable[[str], None]


class RunResult(NamedTuple):
    """What a run leaves behind in memory; its files hold the same."""

    fit: Fit
    train: PosteriorSet
    test: PosteriorSet
    evaluation: Evaluation


def fit(
    config: RunConfig,
    *,
    config_path: Path,
    name: str,
    result_path: Path,
    resume: bool = False,
    overwrite: bool = False,
    gpu: int | None = None,
    log: Log = print,
) -> RunResult:
    """Fit a recording and write the run's files.

    Args:
        config: the validated configuration.
        config_path: where it was read from.
        name: name of the run, the beginning of its files' names.
        result_path: folder of the files.
        resume: go on from the latest checkpoint.
        overwrite: replace a run of this name.
        gpu: number of the GPU to use; the default device otherwise.
        log: prints a line for the user.

    Raises:
        ConfigError, DataError, RunError: a run of this name exists, or the one to resume was begun as another; nothing
            is written then.
    """
    started = time.perf_counter()
    paths = RunPaths(Path(result_path), name)
    device = choose_device(gpu, log)
    enable_compilation_cache()
    trials = make_trials(config)
    split = split_trials(trials, config.training.split.test_perc, config.training.seeds.data)
    choice = choose_start(config, split.train)
    config = choice.applied_to(config)
    if resume:
        demand_same_run(paths, config, trials)
    elif not overwrite:
        demand_free_name(paths)
    with run_log(paths.log, log, append=resume) as say, jax.default_device(device):
        say(f"mrsds-ppl {__version__}: {config_path} -> {paths.folder / name}*")
        say(describe(config, trials, split))
        say(choice.line)
        for note in _notes(config):
            say(f"note: {note}")
        write_text(paths.config, resolved_yaml(config, {**versions(device), DATA_DIGEST: trials.digest}))
        result = _fit(config, split, paths, resume, say)
        say(f"done in {time.perf_counter() - started:.0f} s: {paths.mat}, {paths.posterior}")
    return result


def _notes(config: RunConfig) -> list[str]:
    """What the run reads otherwise than the file says it."""
    notes = list(config.notes)
    for key in ignored_keys(config):
        if key == "data.data_path":
            notes.append(
                f"the trials are simulated, as data.data_source is {config.data.data_source}; "
                f"--set data.data_source=mydata takes those of {config.data.data_path}"
            )
        else:
            notes.append(f"{key} has no effect on this run")
    return notes


def _fit(config: RunConfig, split: Split, paths: RunPaths, resume: bool, say: Log) -> RunResult:
    training, seeds, restarts = config.training, config.training.seeds, config.training.optimiser.restarts
    validation = hold_out(split.train, seeds.data) if restarts > 1 else None
    trained_on = split.train if validation is None else validation.train
    model = make_model(config, split.train, trained_on.num_trials)
    guide = make_guide(config, model)
    if validation is not None and isinstance(guide, PathGuide):
        raise ConfigError(
            f"training.optimiser.restarts: found {restarts} with {config.inference.guide}, which has no posterior of "
            "the trials that choose the best; allowed: 1, or a guide with an encoder"
        )
    data = jax.device_put(trained_on.batch())
    key = random.key(seeds.train)
    counts = config.model.emissions.dist == "poisson"
    start = initial_parameters(random.fold_in(key, 0), model, guide, data)
    params = initialize(start.params, trained_on, model.latent_sizes, counts)
    keys = random.fold_in(key, 1)
    if validation is not None:
        others = [restart_of(config, number, trained_on, data) for number in range(1, restarts)]
        keys, params = stack([keys, *(one.key for one in others)]), stack([params, *(one.params for one in others)])
        say(
            f"restarts: {restarts}, model and training seeds from {seeds.model} and "
            f"{seeds.train}; trained on {trained_on.num_trials} trials, {validation.chooses.num_trials} choose"
        )
    terms = terms_of(config, guide, start.constrain(start.params), data)
    for note in terms.notes:
        say(f"note: {note}")
    num_observed = float(trained_on.observed.sum())
    objective = make_objective(model, guide, num_observed, training.optimiser.num_particles, start.constrain, terms.on)
    settings = make_settings(config, split.train)
    with graceful_interrupt() as interrupted:
        stages = Stages(
            model,
            guide,
            objective,
            data,
            paths,
            save_steps=training.optimiser.save_steps,
            should_stop=interrupted,
            say=say,
            constrain=start.constrain,
            held_out=None if validation is None else jax.device_put(validation.chooses.batch()),
            smooths=training.start.method == "smoothing",
            entries_of=guide.at if config.inference.posterior_per_trial else None,
            message_sparsity=training.regimen.message_sparsity or 0.0,
            evidence_steps=training.start.evidence_steps,
            transition_rounds=training.start.transition_rounds,
        )
        found = fit_stages(
            keys,
            params,
            stages,
            settings,
            switch_init_steps=0 if training.start.method == "none" else training.start.steps,
            resume=resume,
            dynamics_only=second_stage(config, settings),
        )
    if found.stopped:
        folders = (paths.checkpoints, paths.restart_checkpoints)
        if all(Checkpoints(folder).latest() is None for folder in folders):
            raise KeyboardInterrupt("stopped before the first checkpoint; the same command starts it anew")
        raise KeyboardInterrupt(f"stopped at step {found.step}; the same command with --resume goes on from there")
    # Weights that have a prior enter what follows by their posterior medians.
    fitted = start.constrain(found.params)
    fitted |= {name: v for name, v in guide.median(fitted, split.test.batch()).items() if name != "x"}
    hidden = choose_held_out_neurons(split.test.region_sizes, training.split.drop_perc, seeds.data)
    unseen = [split.test.batch(), split.test.batch(hidden)]
    fitted = for_new_trials(random.fold_in(key, 4), fitted, guide, unseen)
    found = found._replace(params=fitted)
    sampler = PosteriorSampler(model, guide)
    train, test = _posteriors(config, split, sampler, found, random.fold_in(key, 2))
    shares = np.asarray(share_of_bins(train.z_prob, train.lengths))
    if (sentence := unused_sentence(shares, revived=False)) is not None:
        say(sentence)
    evaluation = evaluate_run(random.fold_in(key, 3), found.params, sampler, split, train, test, hidden, counts)
    for line in (*evaluation.lines(), *recovery_lines(split, test, model)):
        say(line)
    _write(config, split, model, found, train, test, hidden, evaluation, paths)
    return RunResult(found, train, test, evaluation)


def _posteriors(
    config: RunConfig, split: Split, sampler: PosteriorSampler, found: Fit, key: Any
) -> tuple[PosteriorSet, PosteriorSet]:
    """Posteriors of the training and the test trials; in full only for what the posterior file holds."""
    draws, everything = config.output.draws, config.output.trials == "all"
    train_draws = draws if everything else min(draws, 20)
    keys = random.split(key)
    train = sampler.infer(keys[0], found.params, split.train, draws=train_draws, predictive=everything)
    return train, sampler.infer(keys[1], found.params, split.test, draws=draws)


def _write(
    config: RunConfig,
    split: Split,
    model: Any,
    found: Fit,
    train: PosteriorSet,
    test: PosteriorSet,
    hidden: np.ndarray,
    evaluation: Evaluation,
    paths: RunPaths,
) -> None:
    write_latents(
        paths.mat,
        train=train,
        test=test,
        train_trials=split.train,
        test_trials=split.test,
        dropout_ids=hidden,
        latent_region_sizes=model.latent_sizes,
        history=_history(found.history),
        evaluations={**evaluation.arrays(), **_restart_bounds(found)},
    )
    write_posterior(
        paths.posterior,
        sets={"train": train, "test": test},
        trials={"train": split.train, "test": split.test},
        which=config.output.trials,
        latent_region_sizes=model.latent_sizes,
        global_parameters=model.global_parameters(found.params),
        attrs={
            "mrsds_ppl_version": __version__,
            "guide": config.inference.guide,
            "num_states": model.num_states,
            "data_seed": config.training.seeds.data,
            "model_seed": config.training.seeds.model,
            "train_seed": config.training.seeds.train,
            **_restart_attributes(found),
        },
    )


def _restart_bounds(found: Fit) -> dict[str, np.ndarray]:
    """Bounds of all restarts on the trials that choose, where there were several."""
    return {} if found.restart_bounds is None else {"restart_bounds": np.asarray(found.restart_bounds)}


def _restart_attributes(found: Fit) -> dict[str, str | int]:
    """The same as text, and which was kept."""
    if found.restart_bounds is None:
        return {}
    bounds = " ".join(f"{bound:.7g}" for bound in found.restart_bounds)
    return {"restart_bounds": bounds, "restart": found.restart}


def _history(history: History) -> dict[str, np.ndarray]:
    metrics = history.metrics
    return {
        "elbos": np.asarray(metrics["elbo"]),
        "lrs": np.asarray(history.learning_rate),
        "temps": np.asarray(metrics.get("temperature", np.ones(len(history.step)))),
        "log_pxs": np.asarray(metrics["log_px"]),
        "log_pys": np.asarray(metrics["log_py"]),
        "log_qxs": np.asarray(metrics["log_qx"]),
    }


def check(config: RunConfig) -> str:
    """Validate configuration and recording, and say what would be fitted."""
    trials = make_trials(config)
    split = split_trials(trials, config.training.split.test_perc, config.training.seeds.data)
    choice = choose_start(config, split.train)
    run = choice.applied_to(config)
    return "\n".join([describe(run, trials, split), choice.line, *(f"note: {note}" for note in _notes(run))])
