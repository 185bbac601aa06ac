"""Scores of a fitted run beside those of plain predictions, for its report."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mrsds_ppl.analysis.baselines import hidden_from_visible, next_from_last, trial_average
from mrsds_ppl.analysis.metrics import Scores, bits_per_spike, evaluate, noise_ceiling
from mrsds_ppl.analysis.posterior import Reconstruction
from mrsds_ppl.analysis.summary import noise_variance
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.output.report.findings import Score
from mrsds_ppl.output.report.page import Section, Table

if TYPE_CHECKING:
    import mrsds_ppl.fitted


class Predicted(NamedTuple):
    """Expected signals of test trials: given all of them, and given the neurons that were not hidden."""

    plain: Reconstruction
    smoothed: Reconstruction


def score_lines(fit: "mrsds_ppl.fitted.Fit", predicted: Predicted) -> tuple[list[Score], np.ndarray]:
    """The table's lines, and the trial average as a prediction of every test trial."""
    train, test = fit.split.train, fit.split.test
    average = trial_average(train.y, train.observed, test.num_bins)
    repeated = np.broadcast_to(average, test.y.shape)
    emissions = fit.model.networks_from(fit.params).emissions

    def line(
        name: str,
        trials: Trials,
        estimate: np.ndarray,
        simple: np.ndarray,
        linear: np.ndarray | None = None,
        some: np.ndarray | None = None,
    ) -> Score:
        observed = trials.observed & np.isfinite(estimate) if linear is None else trials.observed & np.isfinite(linear)

        def of(prediction: np.ndarray) -> Scores:
            return evaluate(trials.y, observed, np.asarray(prediction, np.float64), fit.counts, some)

        ours = of(estimate)
        ceiling = noise_ceiling(trials.y, observed, noise_variance(emissions, trials, estimate), some)
        r2_linear = None if linear is None else of(linear).r2
        return Score(name, ours.r2, ceiling, of(simple).r2, r2_linear, ours.bits_per_spike)

    fitted = fit.train.y_mean
    own = np.broadcast_to(trial_average(train.y, train.observed, train.num_bins), train.y.shape)
    lines = [
        line("training trials, given all their data", train, fitted, own),
        line("test trials, given all their data", test, predicted.plain.y_mean, repeated),
        line("test trials, one bin ahead", test, predicted.plain.y_next, repeated, next_from_last(train.y, test.y)),
    ]
    if len(fit.hidden_neurons):
        linear = hidden_from_visible(train.y, test.y, fit.hidden_neurons)
        lines.append(
            line("test trials, hidden neurons", test, predicted.smoothed.y_mean, repeated, linear, fit.hidden_neurons)
        )
    return lines, repeated


def scores_by_neuron(
    fit: "mrsds_ppl.fitted.Fit", predicted: Predicted, average: np.ndarray
) -> tuple[np.ndarray, np.ndarray, str]:
    """Score of each hidden neuron by the model and by the trial average, and the score's name."""
    test = fit.split.test
    if fit.counts.all():
        pairs = [
            [
                bits_per_spike(test.y[..., [n]], test.observed[..., [n]], np.asarray(rate[..., [n]], np.float64))
                for n in fit.hidden_neurons
            ]
            for rate in (predicted.smoothed.y_mean, average)
        ]
        return np.array(pairs[0]), np.array(pairs[1]), "bits per spike"
    ours, simple = (
        evaluate(test.y, test.observed, np.asarray(p, np.float64), False, fit.hidden_neurons).r2_by_neuron
        for p in (predicted.smoothed.y_mean, average)
    )
    return ours, simple, "R²"


def scores_section(scores: Sequence[Score], recovery: Sequence[str]) -> Section:
    """The table of scores, and how near a simulation's truth is.

    Args:
        scores: of :func:`score_lines`.
        recovery: sentences on what is recovered of a simulation.
    """
    counts = any(score.bits is not None for score in scores)
    head = ["Prediction of", "this model, R²", "noise ceiling, R²", "trial average, R²", "linear regression, R²"]
    rows = [
        [score.name, f"{score.r2:.3f}", _number(score.ceiling), f"{score.r2_average:.3f}", _number(score.r2_linear)]
        + ([_number(score.bits)] if counts else [])
        for score in scores
    ]
    text = [
        "R² is the share of each neuron's variance over time and trials that a prediction explains, averaged over "
        "neurons: 1 is perfect, 0 is no better than the neuron's mean. The noise ceiling is the R² of the true mean, "
        "by the noise that the fit finds: only a prediction that has seen the values themselves passes it. Compare "
        "along a row: a model of interest beats the trial average, which knows only the time since the start of a "
        "trial, and comes close to or beats linear regression on other neurons (hidden ones) or on the last bin (one "
        "bin ahead). One bin ahead starts from latents inferred from the whole trial, later bins included: it tests "
        "the dynamics and is no forecast, which gives it an advantage over regression."
    ]
    if recovery:
        text.append("The recording is a simulation, so the truth is known. " + " ".join(recovery))
    return Section(
        "scores", "How well it describes the recording", text, [Table(head + ["bits per spike"] * counts, rows)]
    )


def _number(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.3f}"
