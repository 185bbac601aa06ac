"""``mrsds infer``: the posterior of new trials under a fitted run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io

from mrsds_ppl.analysis.posterior import PosteriorSet
from mrsds_ppl.backend.device import enable_compilation_cache
from mrsds_ppl.data.readers import load_recording, load_user_function, needs_binning
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import RunError
from mrsds_ppl.fitted import Fit
from mrsds_ppl.output.datatree import write_tree
from mrsds_ppl.output.matfile import split_arrays
from mrsds_ppl.output.results import tree_of
from mrsds_ppl.storage.atomic import written_aside
from mrsds_ppl.storage.paths import find_run


def infer(
    given: str | Path,
    data: str,
    *,
    out: Path | None = None,
    draws: int | None = None,
    seed: int = 0,
    new_neurons: bool = False,
    log: Callable[[str], None] = print,
) -> PosteriorSet:
    """Infer new trials and write ``OUT_posterior.nc`` and ``OUT_latents.mat``, in which they stand as test trials.

    Args:
        given: the run, see :func:`find_run`.
        data: file or function of the trials, see :func:`load_new_trials`.
        out: folder and beginning of the files' names; by default those of the run with the name of the data.
        draws: posterior draws of each trial; those of the run's configuration by default.
        seed: of the draws.
        new_neurons: the trials are of a session with other neurons, whose emissions are fitted to them first.
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
    fit = Fit.load(given)
    trials = load_new_trials(fit, data, new_neurons=new_neurons)
    if new_neurons:
        fit = fit.with_new_neurons(trials, name=Path(data.rpartition(":")[0] or data).stem)
        trials = fit.trials
    log(f"{paths.folder / paths.name}: step {fit.trained.step}; {trials.num_trials} trials of {data}")
    for note in trials.dataset.attrs.get("notes", []):
        log(f"note: {note}")
    draws = fit.config.output.draws if draws is None else draws
    found = fit.infer_set(trials, draws=draws, seed=seed)
    posterior, mat = (out.with_name(f"{out.name}{ending}") for ending in ("_posterior.nc", "_latents.mat"))
    sizes, about = fit.model.latent_sizes, {"fitted_run": paths.name, "data": data, "seed": seed}
    tree = tree_of(fit, {"test": (found, trials)}, "test")
    tree.attrs |= about
    write_tree(posterior, tree)
    arrays = {**split_arrays("test", found, trials), "latent_region_sizes": np.asarray(sizes, np.int64)}
    with written_aside(mat) as aside:
        scipy.io.savemat(aside, arrays, appendmat=False, do_compression=True, oned_as="row")
    log(
        f"bound {found.elbo.mean():.2f}, importance-weighted {found.log_likelihood.mean():.2f} nats a trial, both "
        "below log p(y)"
    )
    trained = fit.history.metrics.get("elbo", np.zeros(0))[-50:]
    if len(trained):
        per_value = found.elbo.sum() / trials.observed.sum()
        log(
            f"bound {per_value:.3f} nats per observed value, {trained.mean():.3f} at the "
            "end of training (far below it: other neurons, another order, or another behaviour)"
        )
    log(f"{posterior}, {mat}")
    return found


def load_new_trials(fit: Fit, data: str, *, new_neurons: bool = False) -> Trials:
    """Trials to infer: a file that :func:`load_recording` reads as it did that of the fit, or ``file.py:function``.

    Raises:
        DataError: they cannot be read, or were not recorded as the run's; see :func:`check_trials`.
    """
    settings = fit.config.data
    width = fit.trials.bin_width
    if ".py:" in data:
        trials = load_user_function(data, bin_width=width, region_names=settings.region_names)
    else:
        asked = settings.reading() if needs_binning(data) else {"region_names": settings.region_names}
        trials = load_recording(data, **{**asked, "bin_width": width})
    if settings.input_width is not None and 0 < trials.num_inputs < settings.input_width:
        trials = trials.with_inputs(settings.input_width)
    if fit.trials.starts is not None and trials.num_trials == 1 and trials.num_bins > fit.trials.num_bins:
        trials = trials.in_pieces(fit.trials.num_bins * width)
    if settings.drop_silent_neurons and not new_neurons:
        left_out = fit.trials.dataset.attrs.get("left_out", [])
        trials = trials.without_neurons(trials.neuron_ids[np.isin(trials.neuron_ids.astype(str), left_out)])
    return trials
