"""A fitted run read back from its files, and the posterior of new trials under it: the story of ``mrsds infer``."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import yaml
from jax import random
from jaxtyping import PRNGKeyArray

from mrsds_ppl import __version__
from mrsds_ppl.analysis.posterior import PosteriorSampler, PosteriorSet
from mrsds_ppl.backend.device import enable_compilation_cache
from mrsds_ppl.build import initial_parameters, make_guide, make_model, make_settings, make_trials, needs_every_trial
from mrsds_ppl.config.loading import VERSIONS, RunConfig, load_config
from mrsds_ppl.data.loaders import load_recording, load_user_function
from mrsds_ppl.data.split import Split, split_trials
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import DataError, RunError
from mrsds_ppl.guides import for_new_trials
from mrsds_ppl.models.mrsds import MRSDS
from mrsds_ppl.output.datatree import write_posterior
from mrsds_ppl.output.matfile import split_arrays
from mrsds_ppl.storage.atomic import written_aside
from mrsds_ppl.storage.checkpoints import Checkpoints
from mrsds_ppl.storage.paths import CONFIG_ENDING, RunPaths, run_endings
from mrsds_ppl.train.training import History, initial_state


@dataclass(frozen=True)
class FittedRun:
    """A run as its files give it back.

    ``params`` are the values of the program's and the guide's sites; weights that have a prior stand there as their
    posterior medians. ``trials`` is the recording, ``split`` its training and test trials. ``history`` is of the last
    stage of training, ``step`` and ``skipped`` its steps done and left out. ``versions`` is what the run noted of the
    packages it ran on.
    """

    paths: RunPaths
    config: RunConfig
    versions: dict[str, str]
    model: MRSDS
    guide: Any
    params: dict[str, Any]
    trials: Trials
    split: Split
    history: History
    step: int
    skipped: int

    @property
    def counts(self) -> bool:
        """Whether signals are spike counts."""
        return self.config.model.emissions.dist == "poisson"


def find_run(given: str | Path) -> RunPaths:
    """The run that a user means by ``DIR/NAME``, by any one of its files, or by a ``DIR`` that holds exactly one.

    Raises:
        RunError: there is no such run, or several; what was found is named.
    """
    path = Path(given).expanduser()
    if _config_of(path).is_file():
        return RunPaths(path.parent, path.name)
    for ending in run_endings():
        prefix = path.with_name(path.name.removesuffix(ending)) if path.name.endswith(ending) else None
        if prefix is not None and prefix.name and _config_of(prefix).is_file():
            return RunPaths(prefix.parent, prefix.name)
    folder = path if path.is_dir() else path.parent
    found = _runs_in(folder)
    if path.is_dir() and len(found) == 1:
        return RunPaths(path, found[0])
    remedy = "give a run as DIR/NAME, as one of its files, or as a folder that holds exactly one"
    if path.is_dir() and found:
        raise RunError(f"{path}: holds {len(found)} runs ({', '.join(found)}); {remedy}.")
    if not folder.is_dir():
        raise RunError(f"{path}: no such run, and no folder {folder}; {remedy}.")
    raise RunError(
        f"{path}: no such run; {folder} holds {', '.join(found) or f'none (no *{CONFIG_ENDING})'}; {remedy}."
    )


def load_run(given: str | Path | RunPaths) -> FittedRun:
    """A run from its configuration and its latest checkpoint, that of the dynamics-only stage where there is one.

    Args:
        given: see :func:`find_run`.

    Raises:
        RunError: there is no such run, or it has no checkpoint yet, or a damaged one.
        ConfigError, DataError: its configuration or its recording cannot be read any more.
    """
    paths = given if isinstance(given, RunPaths) else find_run(given)
    config = load_config(paths.config)
    stages = (Checkpoints(paths.dynamics_checkpoints), Checkpoints(paths.checkpoints))
    checkpoints = next((stage for stage in stages if stage.latest() is not None), None)
    if checkpoints is None:
        raise RunError(
            f"{paths.checkpoints}: holds no checkpoint, so nothing was fitted yet; run mrsds fit to its end."
        )
    trials = make_trials(config)
    split = split_trials(trials, config.training.split.test_perc, config.training.seeds.data)
    model = make_model(config, split.train, split.train.num_trials)
    guide = make_guide(config, model)
    few = split.train.select(slice(0, min(2, split.train.num_trials))).batch()
    shown = split.train.batch() if needs_every_trial(guide) else few
    start = initial_parameters(random.key(config.training.seeds.train), model, guide, shown)
    like = initial_state(start.params, random.key(0), make_settings(config, split.train))
    state, extra = checkpoints.restore(None, like)
    params = start.constrain(state.params)
    params |= {name: v for name, v in guide.median(params, split.test.batch()).items() if name != "x"}
    params = for_new_trials(random.key(config.training.seeds.train), params, guide, [split.test.batch()])
    return FittedRun(
        paths=paths,
        config=config,
        versions=_versions(paths.config),
        model=model,
        guide=guide,
        params=params,
        trials=trials,
        split=split,
        history=History.from_dict(extra["history"]),
        step=int(state.step),
        skipped=int(state.skipped),
    )


def load_new_trials(run: FittedRun, data: str) -> Trials:
    """Trials to infer: a file that :func:`load_recording` reads, or ``file.py:function``.

    Raises:
        DataError: they cannot be read, or were not recorded as the run's; see :func:`check_trials`.
    """
    settings = run.config.data
    options: dict[str, Any] = {"bin_width": run.trials.bin_width}
    if settings.region_names is not None:
        options["region_names"] = settings.region_names
    trials = load_user_function(data, **options) if ".py:" in data else load_recording(data, **options)
    if settings.inputs is not None and 0 < trials.num_inputs < settings.inputs:
        trials = trials.with_inputs(settings.inputs)
    check_trials(run, trials)
    return trials


def check_trials(run: FittedRun, trials: Trials) -> None:
    """Check that trials can be read by a fitted run: the same neurons, inputs, stages and bins.

    A neuron of the fit that was not recorded this time may be NaN throughout.

    Raises:
        DataError: what differs, as found and as fitted.
    """
    fitted = run.trials
    for what, found, wanted in (
        ("region_sizes", trials.region_sizes, fitted.region_sizes),
        ("us: number of inputs", trials.num_inputs, fitted.num_inputs),
        ("stages: number of stages", trials.num_stages, fitted.num_stages),
    ):
        if found != wanted:
            raise DataError(
                f"{what}: found {found}, but {run.paths.name} was fitted to {wanted}. Give the same neurons, inputs "
                "and stages in the same order; fill neurons that were not recorded with NaN."
            )
    if not np.isclose(trials.bin_width, fitted.bin_width):
        raise DataError(
            f"bin_width: found bins of {trials.bin_width:g} s, but {run.paths.name} was fitted to bins of "
            f"{fitted.bin_width:g} s, and its dynamics go from bin to bin. Bin the recording anew."
        )
    if not trials.observed.any():
        raise DataError("ys: no value of any trial is observed, so there is nothing to infer from.")
    # Whoever fits needs every neuron at least once; whoever infers does not.
    seen = trials.observed.any((0, 1))
    filled = trials.dataset.assign(
        y=trials.dataset["y"].where(seen, 0.0), observed=trials.dataset["observed"].where(seen, True)
    )
    Trials(filled).validate(counts=run.counts)


def infer_trials(run: FittedRun, trials: Trials, *, key: PRNGKeyArray, draws: int = 100) -> PosteriorSet:
    """Posterior of new trials under a fitted run: latents, states, messages, likelihoods.

    Args:
        run: see :func:`load_run`.
        trials: as recorded for the run: the same neurons, inputs and bin width; any number of trials and bins.
        key: random key.
        draws: posterior draws of each trial.

    Raises:
        DataError: see :func:`check_trials`.
    """
    check_trials(run, trials)
    params = for_new_trials(key, run.params, run.guide, [trials.batch()])
    return PosteriorSampler(run.model, run.guide).infer(key, params, trials, draws=draws)


def infer(
    given: str | Path,
    data: str,
    *,
    out: Path | None = None,
    draws: int | None = None,
    seed: int = 0,
    log: Callable[[str], None] = print,
) -> PosteriorSet:
    """Infer new trials and write ``OUT_posterior.nc`` and ``OUT_latents.mat``, in which they stand as test trials.

    Args:
        given: the run, see :func:`find_run`.
        data: file or function of the trials, see :func:`load_new_trials`.
        out: folder and beginning of the files' names; by default those of the run with the name of the data.
        draws: posterior draws of each trial; those of the run's configuration by default.
        seed: of the draws.
        log: prints a line for the user.

    Raises:
        ConfigError, DataError, RunError: nothing is written then.
    """
    if draws is not None and draws < 1:
        raise RunError(f"--draws: found {draws}; allowed: a whole number of at least 1")
    paths = find_run(given)
    named = paths.folder / f"{paths.name}-{Path(data.rpartition(':')[0] or data).stem}"
    out = named if out is None else out
    if out.absolute() == (paths.folder / paths.name).absolute():
        raise RunError(f"--out {out}: this would replace the files of the run itself; choose another name.")
    enable_compilation_cache()
    run = load_run(paths)
    trials = load_new_trials(run, data)
    log(f"{run.paths.folder / run.paths.name}: step {run.step}; {trials.num_trials} trials of {data}")
    draws = run.config.output.draws if draws is None else draws
    found = infer_trials(run, trials, key=random.key(seed), draws=draws)
    posterior, mat = (out.with_name(f"{out.name}{ending}") for ending in ("_posterior.nc", "_latents.mat"))
    sizes = run.model.latent_sizes
    write_posterior(
        posterior,
        sets={"test": found},
        trials={"test": trials},
        which="test",
        latent_region_sizes=sizes,
        global_parameters=run.model.global_parameters(run.params),
        attrs={"mrsds_ppl_version": __version__, "fitted_run": run.paths.name, "data": data, "seed": seed},
    )
    arrays = {**split_arrays("test", found, trials), "latent_region_sizes": np.asarray(sizes, np.int64)}
    with written_aside(mat) as aside:
        scipy.io.savemat(aside, arrays, appendmat=False, do_compression=True, oned_as="row")
    heavy = found.pareto_k > 0.7
    log(
        f"bound {found.elbo.mean():.2f}, importance-weighted {found.log_likelihood.mean():.2f} nats a trial; "
        f"Pareto k above 0.7 in {int(heavy.sum())} of {len(heavy)} trials"
    )
    trained = run.history.metrics.get("elbo", np.zeros(0))[-50:]
    if len(trained):
        per_value = found.elbo.sum() / trials.observed.sum()
        log(
            f"bound {per_value:.3f} nats per observed value, {trained.mean():.3f} at the "
            "end of training (far below it: other neurons, another order, or another behaviour)"
        )
    log(f"{posterior}, {mat}")
    return found


def _config_of(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}{CONFIG_ENDING}") if prefix.name else prefix / CONFIG_ENDING


def _runs_in(folder: Path) -> list[str]:
    return sorted(p.name.removesuffix(CONFIG_ENDING) for p in folder.glob(f"*{CONFIG_ENDING}"))


def _versions(path: Path) -> dict[str, str]:
    noted = yaml.safe_load(path.read_text(encoding="utf-8")).get(VERSIONS) or {}
    return {str(name): str(value) for name, value in noted.items()}
