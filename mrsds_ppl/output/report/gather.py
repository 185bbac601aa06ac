"""What a fitted run found, gathered from its files and written as one page: the story of ``mrsds report``."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.io
import xarray as xr
from jax import random
from numpyro import handlers

from mrsds_ppl.analysis.communication import input_labels
from mrsds_ppl.analysis.posterior import PosteriorSampler
from mrsds_ppl.analysis.recovery.alignment import align_latents, match_states, valid_bins
from mrsds_ppl.backend.device import enable_compilation_cache
from mrsds_ppl.data.labels import read_labels
from mrsds_ppl.errors import RunError
from mrsds_ppl.fitted import FittedRun, find_run, load_run
from mrsds_ppl.output.report.checks import Evidence
from mrsds_ppl.output.report.findings import Example, Findings, Score
from mrsds_ppl.output.report.flow import communication_of, conditions_of, flow_fields, norms_of_trial
from mrsds_ppl.output.report.scores import Files, score_lines, scores_by_neuron
from mrsds_ppl.output.report.sections import report_page
from mrsds_ppl.start.unused import share_of_bins
from mrsds_ppl.storage.atomic import write_text

_NORM_DRAWS = 40


def report(
    given: str | Path,
    *,
    out: Path | None = None,
    labels: Path | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Write ``NAME_report.html`` and return its path.

    Args:
        given: the run, see :func:`mrsds_ppl.fitted.find_run`.
        out: another name for the page.
        labels: conditions of the trials, see :func:`mrsds_ppl.data.labels.read_labels`; those of the recording where
            not given.
        log: prints a line for the user.

    Raises:
        ConfigError, DataError, RunError: the run or its recording cannot be read, or it has not ended yet.
    """
    import matplotlib as mpl

    started = time.perf_counter()
    paths = find_run(given)
    for needed in (paths.mat, paths.posterior):
        if not needed.exists():
            raise RunError(f"{needed}: no such file, so the run has not ended yet; mrsds fit with --resume goes on.")
    out = paths.report if out is None else out
    enable_compilation_cache()
    run = load_run(paths)
    conditions = run.split.test.labels if labels is None else read_labels(labels, run.split.test.ids)
    # A user's own settings may change sizes of text.
    with mpl.rc_context(mpl.rcParamsDefault):
        write_text(out, report_page(gather(run, conditions)))
    log(f"{out}: {out.stat().st_size / 1e6:.1f} MB in {time.perf_counter() - started:.0f} s")
    return out


def gather(run: FittedRun, labels: np.ndarray | None = None) -> Findings:
    """All numbers of the page, from the run's files and its parameters; ``labels``: of the test trials."""
    files = _read(run)
    test, mat = run.split.test, files.mat
    x_test, z_test = mat["xs_test"], mat["zs_test"]
    trial = int(np.argsort(files.sample_stats["elbo"].values / test.observed.sum((1, 2)))[test.num_trials // 2])
    regions = _latent_regions(run)
    occupancy = np.asarray(share_of_bins(np.nan_to_num(z_test), test.lengths))
    scores, average = score_lines(run, files)
    seconds = np.arange(test.num_bins) * test.bin_width
    hidden_scores, hidden_baseline, hidden_unit = scores_by_neuron(run, files, average)
    total = run.split.train.observed.sum()
    log_path = run.paths.log
    listings = [("Configuration of the run (with versions)", run.paths.config.read_text(encoding="utf-8"))]
    if log_path.exists():
        listings.append(("Log of the run", log_path.read_text(encoding="utf-8")))
    return Findings(
        name=f"Report of {run.paths.name}",
        subtitle="Multi-region switching dynamical system: what brain regions say to each other, and when that changes",
        facts=_facts(run),
        evidence=_evidence(run, files, scores),
        scores=scores,
        recovery=_recovery(run, x_test, z_test),
        latent_names=[
            f"{name} latent {i + 1}" if size > 1 else f"{name} latent"
            for name, size in zip(regions, run.model.latent_sizes, strict=True)
            for i in range(size)
        ],
        latent_regions=regions,
        region_names=test.region_names,
        region_sizes=test.region_sizes,
        input_names=input_labels(run.model),
        neuron_names=[str(name) for name in test.dataset["neuron"].values],
        unit="spikes per bin" if run.counts else "signal (a.u.)",
        example=_example(run, files, trial),
        seconds=seconds,
        z_prob=np.nan_to_num(z_test),
        lengths=test.lengths,
        communication=communication_of(run),
        occupancy=occupancy,
        fields=flow_fields(run, x_test, z_test, regions),
        curves={
            "bound (ELBO)": mat["elbos"].ravel(),
            "log p(y|x)": mat["log_pys"].ravel() / total,
            "log p(x)": mat["log_pxs"].ravel() / total,
            "log q(x)": mat["log_qxs"].ravel() / total,
        },
        skipped=np.asarray(run.history.skipped, bool),
        hidden_scores=hidden_scores,
        hidden_baseline=hidden_baseline,
        hidden_region=test.region_of_neuron[files.hidden],
        hidden_unit=hidden_unit,
        listings=listings,
        conditions=None if labels is None else conditions_of(run, labels),
    )


def _read(run: FittedRun) -> Files:
    mat = {k: v for k, v in scipy.io.loadmat(run.paths.mat).items() if not k.startswith("__")}
    # MATLAB's files drop a last axis of one.
    mat["xs_test"] = mat["xs_test"].reshape(run.split.test.num_trials, run.split.test.num_bins, -1)
    if mat["xs_test"].shape[2] != run.model.num_latents:
        raise RunError(
            f"{run.paths.mat}: holds {mat['xs_test'].shape[2]} latents, but {run.paths.config} has "
            f"{run.model.num_latents}; the files are of different runs. Fit again."
        )
    hidden = mat["dropout_ids"].ravel().astype(int)
    with xr.open_datatree(run.paths.posterior, engine="h5netcdf") as tree:
        stats = tree["sample_stats"].to_dataset().load()
    stats = stats.sel(trial=stats["split"] == "test")
    sampler, key = PosteriorSampler(run.model, run.guide), random.key(0)
    plain = sampler.reconstruct(key, run.params, run.split.test)
    smoothed = sampler.reconstruct(key, run.params, run.split.test, hidden_neurons=hidden) if len(hidden) else plain
    return Files(mat, stats, plain, smoothed, hidden)


def _latent_regions(run: FittedRun) -> list[str]:
    names = run.trials.region_names
    return names if len(run.model.latent_sizes) == len(names) else ["all regions"]


def _facts(run: FittedRun) -> list[tuple[str, str]]:
    config, trials, split = run.config, run.trials, run.split
    dynamics, lengths = config.model.dynamics, trials.lengths
    optimiser, seeds = config.training.optimiser, config.training.seeds
    bins = f"{lengths.min()}" if lengths.min() == lengths.max() else f"{lengths.min()} to {lengths.max()}"
    missing = 1 - trials.observed.sum() / (lengths.sum() * trials.num_neurons)
    pooled = len(run.model.latent_sizes) != len(trials.region_sizes)
    latents = [""] * len(trials.region_sizes) if pooled else [_many(d, "latent") for d in run.model.latent_sizes]
    parts = ", ".join(
        f"{name} ({', '.join(filter(None, (_many(size, 'neuron'), some)))})"
        for name, size, some in zip(trials.region_names, trials.region_sizes, latents, strict=True)
    )
    source = config.data.data_path if config.data.data_path and not config.data.is_simulation else None
    return [
        ("Recording", f"{source or config.data.data_source}{' (simulated)' if config.data.is_simulation else ''}"),
        ("Regions", parts + (f"; {run.model.num_latents} pooled latents" if pooled else "")),
        (
            "Trials",
            f"{split.train.num_trials} to train on, {split.test.num_trials} kept for the tests below; {bins} bins of "
            f"{trials.bin_width:g} s; {trials.num_inputs} inputs; {missing:.1%} missing",
        ),
        (
            "Model",
            f"{run.model.num_states} discrete states; {dynamics.communication_type} messages, networks "
            f"{list(dynamics.layers) or 'linear'}; {config.model.emissions.dist} observations",
        ),
        ("Inference", f"{config.inference.guide} guide, {config.inference.encoder_phrase}"),
        (
            "Training",
            f"{run.step} of {optimiser.num_steps} steps of {optimiser.batch_size} trials; seeds: data "
            f"{seeds.data}, model {seeds.model}, training {seeds.train}",
        ),
        ("Software", ", ".join(f"{n} {v}" for n, v in run.versions.items() if n in ("mrsds-ppl", "jax", "device"))),
    ]


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _evidence(run: FittedRun, files: Files, scores: list[Score]) -> Evidence:
    z_train = np.nan_to_num(files.mat["zs_train"])
    train, test = run.split.train, run.split.test
    hidden = scores[3] if len(scores) > 3 else None
    nan = float("nan")
    top = z_train.max(-1)[valid_bins(train.lengths, train.num_bins)]
    return Evidence(
        step=run.step,
        num_steps=run.config.training.optimiser.num_steps,
        skipped=run.skipped,
        elbo=files.mat["elbos"].ravel(),
        elbo_test=float(files.sample_stats["elbo"].values.sum() / test.observed.sum()),
        occupancy=np.asarray(share_of_bins(z_train, train.lengths)),
        certainty=float(top.mean()),
        pareto_k=files.sample_stats["pareto_k"].values.astype(np.float64),
        r2_train=scores[0].r2,
        r2_test=scores[1].r2,
        r2_hidden=nan if hidden is None else hidden.r2,
        r2_hidden_average=nan if hidden is None else hidden.r2_average,
        r2_hidden_linear=nan if hidden is None or hidden.r2_linear is None else hidden.r2_linear,
    )


def _recovery(run: FittedRun, x: np.ndarray, z_prob: np.ndarray) -> list[str]:
    trials, said = run.split.test, []
    if trials.x is not None and trials.x.shape[2] == run.model.num_latents:
        found = align_latents(trials.x, x, trials.lengths, list(run.model.latent_sizes))
        said.append(f"R² of the true latents, after a linear map: {', '.join(f'{r:.3f}' for r in found.r2)}.")
    if trials.z is not None and trials.z.max() < run.model.num_states:
        match = match_states(trials.z, np.nan_to_num(z_prob), trials.lengths)
        said.append(f"The true state is named in {match.accuracy:.1%} of test bins.")
    return said


def _example(run: FittedRun, files: Files, trial: int) -> Example:
    test, mat = run.split.test, files.mat
    bins = int(test.lengths[trial])
    draws = mat["xs_test_draws"].reshape(-1, test.num_trials, test.num_bins, run.model.num_latents)
    norms = norms_of_trial(run, trial, draws[:_NORM_DRAWS, trial], mat["zs_test"][trial])
    x, z_prob = np.asarray(mat["xs_test"][trial, :bins], np.float64), mat["zs_test"][trial, :bins]
    x_true, shown = None, x
    if test.x is not None and test.x.shape[2] == run.model.num_latents:
        found = align_latents(test.x, mat["xs_test"], test.lengths, list(run.model.latent_sizes))
        x_true, first, mapped = test.x[trial, :bins], 0, []
        for weights, offset in zip(found.weights, found.offsets, strict=True):
            mapped.append(x[:, first : first + len(weights)] @ weights + offset)
            first += len(weights)
        shown = np.concatenate(mapped, axis=-1)
    activity = {
        "observed": np.where(test.observed[trial], test.y[trial], np.nan)[:bins],
        "reconstructed": files.plain.y_mean[trial, :bins],
        "one bin ahead": files.plain.y_next[trial, :bins],
        "generated": _generated(run, trial)[:bins],
    }
    return Example(
        number=int(test.ids[trial]),
        seconds=np.arange(bins) * test.bin_width,
        x=shown,
        z_prob=z_prob,
        x_true=x_true,
        z_true=None if test.z is None else test.z[trial, :bins],
        activity={title: np.asarray(values, np.float64) for title, values in activity.items()},
        norms=norms.values,
    )


def _generated(run: FittedRun, trial: int) -> np.ndarray:
    """(bin, neuron): a trial that the program draws by itself, with the inputs of this one."""
    batch = run.split.test.select([trial]).batch()

    def draw(key: Any, params: Any, batch: Any) -> Any:
        program = handlers.seed(handlers.substitute(handlers.uncondition(run.model), data=params), key)
        return handlers.trace(program).get_trace(batch)["y"]["value"]

    return np.asarray(jax.jit(draw)(random.key(1), run.params, batch))[0]
