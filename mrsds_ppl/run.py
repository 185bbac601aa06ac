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
from mrsds_ppl.analysis.summary import Evaluation, evaluate_run, recovery_lines
from mrsds_ppl.build import initial_parameters, make_guide, make_model, make_settings, make_trials, simulation_options
from mrsds_ppl.config import RunConfig, ignored_keys, reject_unknown, resolved_yaml
from mrsds_ppl.data.simulate import SIMULATORS
from mrsds_ppl.data.split import Split, choose_held_out_neurons, split_trials
from mrsds_ppl.describe import describe, versions
from mrsds_ppl.device import choose_device, enable_compilation_cache
from mrsds_ppl.errors import RunError
from mrsds_ppl.inference.checkpoints import Checkpoints
from mrsds_ppl.inference.initialization import initialize
from mrsds_ppl.inference.interrupts import graceful_interrupt
from mrsds_ppl.inference.objective import make_objective
from mrsds_ppl.inference.posterior import PosteriorSampler, PosteriorSet
from mrsds_ppl.inference.stages import Fit, RunPaths, fit_stages
from mrsds_ppl.inference.training import History
from mrsds_ppl.output.atomic import write_text, written_aside
from mrsds_ppl.output.datatree import write_posterior
from mrsds_ppl.output.matfile import write_latents
from mrsds_ppl.output.runlog import run_log

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
        gpu: number of the GPU to use; the default device otherwise.
        log: prints a line for the user.

    Raises:
        ConfigError, DataError, RunError: nothing is written but the log then.
    """
    started = time.perf_counter()
    paths = RunPaths(Path(result_path), name)
    device = choose_device(gpu, log)
    enable_compilation_cache()
    trials = make_trials(config)
    split = split_trials(trials, config.training.test_perc, config.training.data_seed)
    if resume and not paths.config.exists():
        raise RunError(f"{paths.config}: no such file, so there is no run to resume; leave --resume out to start one.")
    with run_log(paths.log, log, append=resume) as say, jax.default_device(device):
        say(f"mrsds-ppl {__version__}: {config_path} -> {paths.folder / name}*")
        say(describe(config, trials, split))
        for key in ignored_keys(config):
            say(f"note: {key} has no effect on this run")
        write_text(paths.config, resolved_yaml(config, versions(device)))
        result = _fit(config, split, paths, resume, say)
        say(f"done in {time.perf_counter() - started:.0f} s: {paths.mat}, {paths.posterior}")
    return result


def _fit(config: RunConfig, split: Split, paths: RunPaths, resume: bool, say: Log) -> RunResult:
    model = make_model(config, split.train, split.train.num_trials)
    guide = make_guide(config, model)
    data = jax.device_put(split.train.batch())
    key = random.key(config.training.train_seed)
    start = initial_parameters(random.fold_in(key, 0), model, guide, data)
    counts = config.model.emissions.dist == "poisson"
    params = initialize(start.params, split.train, model.latent_sizes, counts)
    num_observed = float(split.train.observed.sum())
    objective = make_objective(model, guide, num_observed, config.training.num_particles, start.constrain)
    with graceful_interrupt() as interrupted:
        found = fit_stages(
            random.fold_in(key, 1),
            params,
            model,
            guide,
            objective,
            data,
            make_settings(config, split.train),
            switch_init_steps=config.training.switch_init_steps,
            save_steps=config.training.save_steps,
            paths=paths,
            resume=resume,
            should_stop=interrupted,
            say=say,
        )
    if found.stopped:
        if Checkpoints(paths.checkpoints).latest() is None:
            raise KeyboardInterrupt("stopped before the first checkpoint; the same command starts it anew")
        raise KeyboardInterrupt(f"stopped at step {found.step}; the same command with --resume goes on from there")
    # Weights that have a prior enter what follows by their posterior medians.
    fitted = start.constrain(found.params)
    fitted |= {name: v for name, v in guide.median(fitted, split.test.batch()).items() if name != "x"}
    found = found._replace(params=fitted)
    sampler = PosteriorSampler(model, guide)
    train, test = _posteriors(config, split, sampler, found, random.fold_in(key, 2))
    hidden = choose_held_out_neurons(split.test.region_sizes, config.training.drop_perc, config.training.data_seed)
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
        evaluations=evaluation.arrays(),
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
            "data_seed": config.training.data_seed,
            "model_seed": config.training.model_seed,
            "train_seed": config.training.train_seed,
        },
    )


def _history(history: History) -> dict[str, np.ndarray]:
    metrics = history.metrics
    return {
        "elbos": np.asarray(metrics["elbo"]),
        "lrs": np.asarray(history.learning_rate),
        "temps": np.ones(len(history.step)),
        "log_pxs": np.asarray(metrics["log_px"]),
        "log_pys": np.asarray(metrics["log_py"]),
        "log_qxs": np.asarray(metrics["log_qx"]),
    }


def simulate(simulator: str, out: Path, *, seed: int, options: dict[str, Any], log: Log = print) -> None:
    """Write trials of a simulator to a ``.npz`` or ``.mat`` file that ``fit`` reads.

    Raises:
        ConfigError, RunError: a wrong option or file name.
    """
    import scipy.io

    reject_unknown("--set", options, simulation_options(simulator))
    trials = SIMULATORS[simulator](seed, **options)
    arrays: dict[str, Any] = {
        "ys": trials.y,
        "us": trials.u,
        "region_sizes": np.array(trials.region_sizes),
        "lengths": trials.lengths,
    }
    arrays |= {"region_names": np.array(trials.region_names), "bin_width": np.array(trials.bin_width)}
    arrays |= {name: value for name, value in (("x", trials.x), ("z", trials.z)) if value is not None}
    if out.suffix not in (".npz", ".mat"):
        raise RunError(f"{out}: allowed endings are .npz and .mat")
    with written_aside(out) as aside:
        if out.suffix == ".npz":
            with open(aside, "wb") as file:
                np.savez_compressed(file, **arrays)
        else:
            scipy.io.savemat(aside, arrays, appendmat=False, do_compression=True)
    log(f"{out}: {trials.num_trials} trials x {trials.num_bins} bins, {sum(trials.region_sizes)} neurons")


def check(config: RunConfig) -> str:
    """Validate configuration and recording, and say what would be fitted."""
    trials = make_trials(config)
    split = split_trials(trials, config.training.test_perc, config.training.data_seed)
    return describe(config, trials, split)
