"""What a fit found, gathered for its page."""

from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax import random
from jaxtyping import Array, PRNGKeyArray, PyTree
from numpyro import handlers

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.communication import input_labels
from mrsds_ppl.analysis.posterior import PosteriorSampler
from mrsds_ppl.analysis.recovery.alignment import align_latents, match_states, valid_bins
from mrsds_ppl.config.loading import resolved_yaml
from mrsds_ppl.data.labels import Labels, labels_of
from mrsds_ppl.data.trials import Batch, Trials
from mrsds_ppl.output.report.averages import Averages, averages_of, events_of
from mrsds_ppl.output.report.checks import Evidence
from mrsds_ppl.output.report.findings import Example, Findings, Score
from mrsds_ppl.output.report.flow import communication_of, conditions_of, edges_of, flow_fields, norms_of_trial
from mrsds_ppl.output.report.restarts import Posterior, Restarts, compare_restarts
from mrsds_ppl.output.report.scores import Predicted, score_lines, scores_by_neuron
from mrsds_ppl.output.report.sections import report_page
from mrsds_ppl.output.results import history_arrays, read_restarts
from mrsds_ppl.start.unused import share_of_bins
from mrsds_ppl.storage.atomic import write_text

if TYPE_CHECKING:
    import mrsds_ppl.fitted

_NORM_DRAWS = 40


def write_report(fit: "mrsds_ppl.fitted.Fit", path: Path, labels: Labels | None = None, *, quick: bool = False) -> Path:
    """Write the page of a fit, whole or not at all, and return its path.

    Args:
        fit: what was found.
        path: where the page shall appear.
        labels: condition of each trial, see :func:`mrsds_ppl.data.labels.labels_of`; by default those of the recording.
        quick: leave the tests of messages out, and say so.

    Raises:
        DataError: labels do not fit the trials.
        RunError: the page cannot be written.
    """
    import matplotlib as mpl

    given = fit.trials.labels if labels is None else labels
    conditions = None if given is None else labels_of(given, fit.trials.ids)
    # Figures go to the page alone, and a user's own settings may change sizes of text.
    with mpl.rc_context({**mpl.rcParamsDefault, "backend": "agg"}):
        write_text(path, report_page(gather(fit, conditions, quick=quick)))
    return path


def gather(fit: "mrsds_ppl.fitted.Fit", labels: np.ndarray | None = None, *, quick: bool = False) -> Findings:
    """All numbers of the page; ``labels``: of all trials, empty where one has none; ``quick``: without tests."""
    found = _predicted(fit)
    test, curves = fit.split.test, history_arrays(fit.history)
    x_test, z_test = (_padded(values, test) for values in (fit.test.x_mean, fit.test.z_prob))
    trial = int(np.argsort(fit.test.elbo / test.observed.sum((1, 2)))[test.num_trials // 2])
    regions = _latent_regions(fit)
    occupancy = np.asarray(share_of_bins(np.nan_to_num(z_test), test.lengths))
    scores, average = score_lines(fit, found)
    seconds = np.arange(test.num_bins) * test.bin_width
    hidden = scores_by_neuron(fit, found, average)
    total = fit.split.train.observed.sum()
    listings = [("Configuration of the run (with versions)", resolved_yaml(fit.config, fit.versions))]
    if fit.paths is not None and fit.paths.log.exists():
        listings.append(("Log of the run", fit.paths.log.read_text(encoding="utf-8")))
    return Findings(
        name=f"Report of {fit.name}",
        subtitle="Multi-region switching dynamical system: what brain regions say to each other, and when that changes",
        facts=_facts(fit),
        evidence=_evidence(fit, scores),
        scores=scores,
        recovery=_recovery(fit, x_test, z_test),
        latent_names=[
            f"{name} latent {i + 1}" if size > 1 else f"{name} latent"
            for name, size in zip(regions, fit.model.latent_sizes, strict=True)
            for i in range(size)
        ],
        latent_regions=regions,
        region_names=test.region_names,
        region_sizes=test.region_sizes,
        input_names=input_labels(fit.model, fit.trials),
        neuron_names=[str(name) for name in test.dataset["neuron"].values],
        unit="spikes per bin" if fit.counts.all() else "signal (a.u.)",
        example=_example(fit, found, trial),
        seconds=seconds,
        z_prob=np.nan_to_num(z_test),
        lengths=test.lengths,
        communication=communication_of(fit),
        occupancy=occupancy,
        fields=flow_fields(fit, x_test, z_test, regions),
        curves={
            "bound (ELBO)": curves["elbos"],
            "log p(y|x)": curves["log_pys"] / total,
            "log p(x)": curves["log_pxs"] / total,
            "log q(x)": curves["log_qxs"] / total,
        },
        skipped=np.asarray(fit.history.skipped, bool),
        hidden_scores=hidden.model,
        hidden_baseline=hidden.average,
        hidden_region=test.region_of_neuron[hidden.neuron],
        hidden_unit=hidden.unit,
        listings=listings,
        averages=_averages(fit, labels),
        conditions=None if labels is None else conditions_of(fit, labels, quick=quick),
        edges=edges_of(fit, quick=quick),
        restarts=_restarts(fit),
    )


def _predicted(fit: "mrsds_ppl.fitted.Fit") -> Predicted:
    sampler, key = PosteriorSampler(fit.program), random.key(0)
    plain, hidden = sampler.reconstruct(key, fit.split.test), fit.hidden_neurons
    if not len(hidden):
        return Predicted(plain, plain)
    return Predicted(plain, sampler.reconstruct(key, fit.split.test, hidden_neurons=hidden))


def _padded(values: np.ndarray, trials: Trials) -> np.ndarray:
    """Values (trial, time, ...) with NaN after the end of each trial."""
    valid = valid_bins(trials.lengths, trials.num_bins)
    return np.where(valid.reshape(valid.shape + (1,) * (values.ndim - 2)), values, np.nan)


def _latent_regions(fit: "mrsds_ppl.fitted.Fit") -> list[str]:
    names = fit.trials.region_names
    return names if len(fit.model.latent_sizes) == len(names) else ["all regions"]


def _averages(fit: "mrsds_ppl.fitted.Fit", labels: np.ndarray | None) -> Averages:
    trials = fit.trials
    events = events_of(trials.u, trials.stage, trials.lengths, trials.input_names)
    return averages_of(fit.states.values, fit.latents.values, trials.bin_width, labels, events)


def _restarts(fit: "mrsds_ppl.fitted.Fit") -> Restarts | None:
    """What a run holds of its restarts; one whose bound is not finite has no posterior."""
    bounds, test = fit.trained.restart_bounds, fit.split.test
    if bounds is None:
        return None
    posteriors: list[Posterior | None] = []
    for bound, params in zip(bounds, read_restarts(fit), strict=False):
        found = None
        if np.isfinite(bound):
            inferred = PosteriorSampler(FittedProgram(fit.model, params, fit.guide)).infer(random.key(0), test, draws=2)
            found = Posterior(np.asarray(inferred.x_mean), np.asarray(inferred.z_prob))
        posteriors.append(found)
    return compare_restarts(bounds, fit.trained.restart, posteriors, test.lengths, list(fit.model.latent_sizes))


def _facts(fit: "mrsds_ppl.fitted.Fit") -> list[tuple[str, str]]:
    config, trials, split = fit.config, fit.trials, fit.split
    dynamics, lengths = config.model.dynamics, trials.lengths
    optimiser, seeds = config.training.optimiser, config.training.seeds
    bins = f"{lengths.min()}" if lengths.min() == lengths.max() else f"{lengths.min()} to {lengths.max()}"
    missing = 1 - trials.observed.sum() / (lengths.sum() * trials.num_neurons)
    pooled = len(fit.model.latent_sizes) != len(trials.region_sizes)
    latents = [""] * len(trials.region_sizes) if pooled else [_many(d, "latent") for d in fit.model.latent_sizes]
    parts = ", ".join(
        f"{name} ({', '.join(filter(None, (_many(size, 'neuron'), some)))})"
        for name, size, some in zip(trials.region_names, trials.region_sizes, latents, strict=True)
    )
    source = config.data.data_path if config.data.data_path and not config.data.is_simulation else None
    return [
        ("Recording", f"{source or config.data.data_source}{' (simulated)' if config.data.is_simulation else ''}"),
        ("Regions", parts + (f"; {fit.model.num_latents} pooled latents" if pooled else "")),
        (
            "Trials",
            f"{split.train.num_trials} to train on, {split.test.num_trials} kept for the tests below; {bins} bins of "
            f"{trials.bin_width:g} s; {trials.num_inputs} inputs; {missing:.1%} missing",
        ),
        (
            "Model",
            f"{fit.model.num_states} discrete states; {dynamics.communication_type} messages, networks "
            f"{list(dynamics.layers) or 'linear'}; {config.model.emissions.phrase} observations",
        ),
        ("Inference", f"{config.inference.guide} guide, {config.inference.encoder_phrase}"),
        (
            "Training",
            f"{fit.trained.step} of {optimiser.num_steps} steps of {optimiser.batch_size} trials; seeds: "
            f"data {seeds.data}, model {seeds.model}, training {seeds.train}",
        ),
        ("Software", ", ".join(f"{n} {v}" for n, v in fit.versions.items() if n in ("mrsds-ppl", "jax", "device"))),
    ]


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _evidence(fit: "mrsds_ppl.fitted.Fit", scores: list[Score]) -> Evidence:
    z_train = np.nan_to_num(fit.train.z_prob)
    train, test = fit.split.train, fit.split.test
    hidden = scores[3] if len(scores) > 3 else None
    nan = float("nan")
    top = z_train.max(-1)[valid_bins(train.lengths, train.num_bins)]
    return Evidence(
        step=fit.trained.step,
        # Training ends by itself where the bound no longer rises.
        num_steps=fit.config.training.optimiser.num_steps if fit.trained.stopped else fit.trained.step,
        skipped=fit.trained.skipped,
        elbo=history_arrays(fit.history)["elbos"],
        elbo_test=float(fit.test.elbo.sum() / test.observed.sum()),
        occupancy=np.asarray(share_of_bins(z_train, train.lengths)),
        certainty=float(top.mean()),
        r2_train=scores[0].r2,
        r2_test=scores[1].r2,
        r2_hidden=nan if hidden is None else hidden.r2,
        r2_hidden_average=nan if hidden is None else hidden.r2_average,
        r2_hidden_linear=nan if hidden is None or hidden.r2_linear is None else hidden.r2_linear,
    )


def _recovery(fit: "mrsds_ppl.fitted.Fit", x: np.ndarray, z_prob: np.ndarray) -> list[str]:
    trials, said = fit.split.test, []
    if trials.x is not None and trials.x.shape[2] == fit.model.num_latents:
        found = align_latents(trials.x, x, trials.lengths, list(fit.model.latent_sizes))
        said.append(f"R² of the true latents, after a linear map: {', '.join(f'{r:.3f}' for r in found.r2)}.")
    if trials.z is not None and trials.z.max() < fit.model.num_states:
        match = match_states(trials.z, np.nan_to_num(z_prob), trials.lengths)
        said.append(f"The true state is named in {match.accuracy:.1%} of test bins.")
    return said


def _example(fit: "mrsds_ppl.fitted.Fit", predicted: Predicted, trial: int) -> Example:
    test = fit.split.test
    bins = int(test.lengths[trial])
    norms = norms_of_trial(fit, trial, fit.test.x_draws[:_NORM_DRAWS, trial], fit.test.z_prob[trial])
    x, z_prob = np.asarray(fit.test.x_mean[trial, :bins], np.float64), fit.test.z_prob[trial, :bins]
    x_true, shown = None, x
    if test.x is not None and test.x.shape[2] == fit.model.num_latents:
        found = align_latents(test.x, fit.test.x_mean, test.lengths, list(fit.model.latent_sizes))
        x_true, first, mapped = test.x[trial, :bins], 0, []
        for weights, offset in zip(found.weights, found.offsets, strict=True):
            mapped.append(x[:, first : first + len(weights)] @ weights + offset)
            first += len(weights)
        shown = np.concatenate(mapped, axis=-1)
    # A session has no neuron in some of the columns that all sessions share.
    there = np.ones(test.num_neurons, bool)
    if test.own_neurons is not None and test.session_numbers is not None:
        there = test.own_neurons[test.session_numbers[trial]] != ""
    activity = {
        "observed": np.where(test.observed[trial], test.y[trial], np.nan)[:bins],
        "reconstructed": predicted.plain.y_mean[trial, :bins],
        "one bin ahead": predicted.plain.y_next[trial, :bins],
        "generated": _generated(fit, trial)[:bins],
    }
    return Example(
        number=test.ids[trial].item(),
        seconds=np.arange(bins) * test.bin_width,
        x=shown,
        z_prob=z_prob,
        x_true=x_true,
        z_true=None if test.z is None else test.z[trial, :bins],
        activity={title: np.where(there, values, np.nan) for title, values in activity.items()},
        norms=norms.values,
    )


def _generated(fit: "mrsds_ppl.fitted.Fit", trial: int) -> np.ndarray:
    """(bin, neuron): a trial that the program draws by itself, with the inputs of this one."""
    batch = fit.split.test.select([trial]).batch()

    def draw(key: PRNGKeyArray, params: PyTree, batch: Batch) -> Array:
        program = handlers.seed(handlers.substitute(handlers.uncondition(fit.model), data=params), key)
        return handlers.trace(program).get_trace(batch)["y"]["value"]

    return np.asarray(jax.jit(draw)(random.key(1), fit.params, batch))[0]
