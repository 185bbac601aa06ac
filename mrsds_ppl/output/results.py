"""The files that hold a fit: written, and read back."""

from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import scipy.io
import xarray as xr
import yaml
from jax import random

from mrsds_ppl.build import (
    fitted_values,
    hidden_neurons,
    initial_parameters,
    make_guide,
    make_model,
    make_settings,
    make_trials,
    needs_every_trial,
)
from mrsds_ppl.config.loading import VERSIONS, RunConfig, load_config, resolved_yaml
from mrsds_ppl.config.names import RECORDING
from mrsds_ppl.data.split import split_trials
from mrsds_ppl.data.trials_file import write_trials
from mrsds_ppl.errors import RunError
from mrsds_ppl.output.datatree import write_tree
from mrsds_ppl.output.describe import versions
from mrsds_ppl.output.guard import DATA_DIGEST, demand_free_name
from mrsds_ppl.output.matfile import EVALUATION_KEYS, read_set, write_latents
from mrsds_ppl.storage.atomic import write_text, written_aside
from mrsds_ppl.storage.paths import RunPaths
from mrsds_ppl.storage.stores import in_files
from mrsds_ppl.train.history import History
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
    )
    write_tree(paths.posterior, fit.posterior)


def save_run(fit: "mrsds_ppl.fitted.Fit", paths: RunPaths, *, overwrite: bool) -> RunPaths:
    """Write all files that :func:`read_run` needs; arguments as of :meth:`mrsds_ppl.fitted.Fit.save`."""
    if not overwrite:
        demand_free_name(paths)
    config = with_source(fit.config, paths)
    if config.data.data_path == str(paths.trials.absolute()):
        with written_aside(paths.trials) as aside:
            write_trials(aside, fit.trials)
    about = fit.versions or {**versions(jax.devices()[0]), DATA_DIGEST: fit.trials.digest}
    write_text(paths.config, resolved_yaml(config, about))
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
    config, about = load_config(paths.config), _versions(paths)
    trials = make_trials(config)
    if about.get(DATA_DIGEST, trials.digest) != trials.digest:
        raise RunError(
            f"{paths.config}: the recording is not the one that was fitted (digest {about[DATA_DIGEST]}, found "
            f"{trials.digest}). Put the one that was fitted back in its place."
        )
    split = split_trials(trials, config.training.test_perc, config.training.data_seed)
    model = make_model(config, split.train, split.train.num_trials)
    guide = make_guide(config, model)
    key = random.key(config.training.train_seed)
    few = split.train.select(slice(0, min(2, split.train.num_trials))).batch()
    begun = initial_parameters(key, model, guide, split.train.batch() if needs_every_trial(guide) else few)
    stores = in_files(paths)
    store = next((some for some in (stores.dynamics, stores.joint) if some.latest() is not None), None)
    if store is None:
        raise RunError(f"{paths.checkpoints}: holds no checkpoint; fit again, with --overwrite.")
    state, extra = store.restore(None, initial_state(begun.params, key, make_settings(config, split.train)))
    mat = {name: values for name, values in scipy.io.loadmat(paths.mat).items() if not name.startswith("__")}
    train, test = (read_set(mat, name, part, model.latent_sizes) for name, part in split._asdict().items())
    with xr.open_datatree(paths.posterior, engine="h5netcdf") as tree:
        posterior = tree.load()
    bounds = mat.get("restart_bounds")
    trained = TrainResult(
        state,
        History.from_dict(extra["history"]),
        restart_bounds=None if bounds is None else bounds.ravel(),
        restart=int(extra.get("restart", 0)),
    )
    hidden = hidden_neurons(config, split)
    return {
        "config": config,
        "model": model,
        "guide": guide,
        "params": fitted_values(key, guide, begun.constrain(state.params), split, hidden),
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


def with_source(config: RunConfig, paths: RunPaths) -> RunConfig:
    """The configuration whose section ``data`` reads trials that came from memory back from a file of the run."""
    if config.data.data_source != RECORDING or config.data.data_path is not None:
        return config
    data = config.data.model_copy(update={"data_path": str(paths.trials.absolute())})
    return config.model_copy(update={"data": data})


def _versions(paths: RunPaths) -> dict[str, str]:
    noted = yaml.safe_load(paths.config.read_text(encoding="utf-8")).get(VERSIONS) or {}
    return {str(name): str(value) for name, value in noted.items()}
