"""The files that hold a fit: written, and read back."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np
import scipy.io
import xarray as xr
from jax import random

from mrsds_ppl import __version__
from mrsds_ppl.analysis.posterior import PosteriorSet
from mrsds_ppl.build import (
    fitted_values,
    initial_parameters,
    make_guide,
    make_model,
    make_settings,
    needs_every_trial,
)
from mrsds_ppl.config.loading import RunConfig, load_config, resolved_yaml
from mrsds_ppl.config.names import RECORDING
from mrsds_ppl.config.recording import make_trials, split_of
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.data.trials_file import write_trials
from mrsds_ppl.errors import RunError
from mrsds_ppl.output.datatree import SplitName, posterior_tree, write_tree
from mrsds_ppl.output.describe import versions
from mrsds_ppl.output.guard import DATA_DIGEST, demand_free_name, versions_of
from mrsds_ppl.output.matfile import EVALUATION_KEYS, read_set, write_latents
from mrsds_ppl.storage.atomic import write_text, written_aside
from mrsds_ppl.storage.lock import locked
from mrsds_ppl.storage.paths import RunPaths
from mrsds_ppl.storage.stores import in_files
from mrsds_ppl.train.history import History, stack
from mrsds_ppl.train.training import TrainResult, initial_state

if TYPE_CHECKING:
    import mrsds_ppl.fitted


def write_results(fit: "mrsds_ppl.fitted.Fit", paths: RunPaths) -> None:
    """Write ``NAME_latents.mat`` and ``NAME_posterior.nc``, each whole or not at all.

    Args:
        fit: what was found.
        paths: where the run's files are.

    Raises:
        RunError: a file cannot be written.
    """
    parameters = fit.model.global_parameters(fit.params)
    write_latents(
        paths.mat,
        train=fit.train,
        test=fit.test,
        train_trials=fit.split.train,
        test_trials=fit.split.test,
        dropout_ids=fit.hidden_neurons,
        latent_region_sizes=fit.model.latent_sizes,
        history=history_arrays(fit.history),
        evaluations=fit.scores,
        emissions={name: values for name, values in parameters.items() if name.startswith("emission_")},
    )
    write_tree(paths.posterior, fit.posterior)


def save_run(fit: "mrsds_ppl.fitted.Fit", paths: RunPaths, *, overwrite: bool) -> RunPaths:
    """Write all files that :func:`read_run` needs; arguments as of :meth:`mrsds_ppl.fitted.Fit.save`."""
    with locked(paths):
        if not overwrite:
            demand_free_name(paths)
        about = fit.versions or {**versions(jax.devices()[0]), DATA_DIGEST: fit.trials.digest}
        write_description(fit.trials, with_source(fit.config, paths, fit.paths), paths, about)
        stores = in_files(paths)
        for store in (stores.joint, stores.dynamics, stores.restarts):
            store.clear()
        stores.joint.save(fit.trained.step, fit.trained.state, {"history": fit.history.to_dict(), "finished": True})
        write_results(fit, paths)
    return paths


def read_run(paths: RunPaths) -> dict[str, Any]:
    """What a finished run's files hold, by the names of the fields of :class:`mrsds_ppl.fitted.Fit`.

    Raises:
        RunError: the run has not ended, its files are damaged, or its recording is another one by now.
        ConfigError, DataError: its configuration or its recording cannot be read any more.
    """
    for needed in (paths.mat, paths.posterior):
        if not needed.exists():
            raise RunError(f"{needed}: no such file, so the run has not ended yet; mrsds fit with --resume goes on.")
    config, about = load_config(paths.config), versions_of(paths)
    trials = make_trials(config)
    if about.get(DATA_DIGEST, trials.digest) != trials.digest:
        raise RunError(
            f"{paths.config}: the recording is not the one that was fitted (digest {about[DATA_DIGEST]}, found "
            f"{trials.digest}). Put the one that was fitted back in its place."
        )
    split = split_of(config, trials)
    model = make_model(config, split.train, split.train.num_trials)
    guide = make_guide(config, model)
    key = random.key(config.training.seeds.train)
    few = split.train.select(slice(0, min(2, split.train.num_trials))).batch()
    begun = initial_parameters(key, model, guide, split.train.batch() if needs_every_trial(guide) else few)
    stores = in_files(paths)
    store = next((some for some in (stores.dynamics, stores.joint) if some.latest() is not None), None)
    if store is None:
        raise RunError(f"{paths.checkpoints}: holds no checkpoint; fit again, with --overwrite.")
    state, extra = store.restore(None, initial_state(begun.params, key, make_settings(config, split.train)))
    mat = {name: values for name, values in scipy.io.loadmat(paths.mat).items() if not name.startswith("__")}
    parts = {"train": split.train, "test": split.test}
    train, test = (read_set(mat, name, part, model.latent_sizes) for name, part in parts.items())
    with xr.open_datatree(paths.posterior, engine="h5netcdf") as tree:
        posterior = tree.load()
    bounds = mat.get("restart_bounds")
    trained = TrainResult(
        state,
        History.from_dict(extra["history"]),
        restart_bounds=None if bounds is None else bounds.ravel(),
        restart=int(extra.get("restart", 0)),
    )
    return {
        "config": config,
        "model": model,
        "guide": guide,
        "params": fitted_values(key, guide, begun.constrain(state.params), split),
        "trials": trials,
        "split": split,
        "trained": trained,
        "train": train,
        "test": test,
        "scores": {name: mat[name].ravel().tolist() for name in EVALUATION_KEYS if name in mat},
        "tree": posterior,
        "paths": paths,
        "versions": about,
    }


def read_restarts(fit: "mrsds_ppl.fitted.Fit") -> list[dict[str, Any]]:
    """Values of the sites of every restart, as joint training left them; none where a run holds only the best.

    Args:
        fit: of a run; one in memory holds no restarts but its own.

    Raises:
        RunError: the checkpoint of the restarts is damaged.
    """
    bounds, store = fit.trained.restart_bounds, None if fit.paths is None else in_files(fit.paths).restarts
    if bounds is None or store is None or store.latest() is None:
        return []
    key = random.key(fit.config.training.seeds.train)
    begun = initial_parameters(key, fit.model, fit.guide, fit.split.train.select(slice(0, 2)).batch())
    every = stack([begun.params] * len(bounds))
    like = initial_state(
        every, random.split(key, len(bounds)), make_settings(fit.config, fit.split.train), stacked=True
    )
    state, _ = store.restore(None, like)
    each = (begun.constrain(state.restart(number).params) for number in range(len(bounds)))
    return [fitted_values(key, fit.guide, values, fit.split) for values in each]


def history_arrays(history: History) -> dict[str, np.ndarray]:
    """Curves of training under the published keys."""
    metrics = history.metrics
    return {
        "elbos": np.asarray(metrics["elbo"]),
        "lrs": np.asarray(history.learning_rate),
        "temps": np.asarray(metrics.get("temperature", np.ones(len(history.step)))),
        "log_pxs": np.asarray(metrics["log_px"]),
        "log_pys": np.asarray(metrics["log_py"]),
        "log_qxs": np.asarray(metrics["log_qx"]),
    }


def write_description(trials: Trials, config: RunConfig, paths: RunPaths, about: dict[str, str]) -> None:
    """Write ``NAME-config.yaml``, and the trials where the configuration reads them from a file of the run.

    Args:
        trials: the recording.
        config: of :func:`with_source`.
        paths: where the run's files are.
        about: versions, and the digest of the recording.

    Raises:
        RunError: a file cannot be written.
    """
    if config.data.data_path == paths.trials.name:
        with written_aside(paths.trials) as aside:
            write_trials(aside, trials)
    write_text(paths.config, resolved_yaml(config, about))


def with_source(config: RunConfig, paths: RunPaths, before: RunPaths | None = None) -> RunConfig:
    """The configuration whose section ``data`` reads trials that came from memory back from a file of the run.

    The file is named without its folder, which a configuration is read relative to: a run can be moved.

    Args:
        config: the configuration.
        paths: where the run's files will be.
        before: where they are, if anywhere.
    """
    given = config.data.data_path
    own = given is None or (before is not None and isinstance(given, str) and Path(given).name == before.trials.name)
    if config.data.data_source != RECORDING or not own:
        return config
    return config.model_copy(update={"data": replace(config.data, data_path=paths.trials.name)})


def tree_of(
    fit: "mrsds_ppl.fitted.Fit",
    found: Mapping[SplitName, tuple[PosteriorSet, Trials]],
    which: Literal["test", "all"],
) -> xr.DataTree:
    """Posteriors of some trials in ArviZ's schema; see :func:`mrsds_ppl.output.datatree.posterior_tree`."""
    return posterior_tree(
        sets={name: posterior for name, (posterior, _) in found.items()},
        trials={name: trials for name, (_, trials) in found.items()},
        which=which,
        latent_region_sizes=fit.model.latent_sizes,
        global_parameters=fit.model.global_parameters(fit.params),
        attrs=attributes(fit),
    )


def attributes(fit: "mrsds_ppl.fitted.Fit") -> dict[str, str | int]:
    """What ``NAME_posterior.nc`` says of the fit as a whole."""
    seeds, bounds = fit.config.training.seeds, fit.trained.restart_bounds
    about: dict[str, str | int] = {
        "mrsds_ppl_version": __version__,
        "guide": fit.config.inference.guide,
        "num_states": fit.model.num_states,
        "emissions": ", ".join(fit.config.model.emissions.of_regions(fit.trials.region_names)),
        "data_seed": seeds.data,
        "model_seed": seeds.model,
        "train_seed": seeds.train,
    }
    if bounds is not None:
        listed = " ".join(f"{bound:.7g}" for bound in bounds)
        about |= {"restart_bounds": listed, "restart": fit.trained.restart}
    return about
