"""Scores of a fitted run beside those of plain predictions, for its report."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

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
    repeated = _of_each_session(_average, train, test)
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
            numbers = np.asarray(prediction, np.float64)
            return evaluate(trials.y, observed, numbers, fit.counts, some, sessions=trials.sessions)

        ours = of(estimate)
        variance = noise_variance(emissions, trials, estimate)
        ceiling = noise_ceiling(trials.y, observed, variance, some, sessions=trials.sessions)
        r2_linear = None if linear is None else of(linear).r2
        return Score(name, ours.r2, ceiling, of(simple).r2, r2_linear, ours.bits_per_spike)

    fitted = fit.train.y_mean
    ahead = _of_each_session(lambda own, part: next_from_last(own.y, part.y), train, test)
    lines = [
        line("training trials, given all their data", train, fitted, _of_each_session(_average, train, train)),
        line("test trials, given all their data", test, predicted.plain.y_mean, repeated),
        line("test trials, one bin ahead", test, predicted.plain.y_next, repeated, ahead),
    ]
    if len(fit.hidden_neurons):
        hidden = fit.hidden_neurons
        linear = _of_each_session(lambda own, part: hidden_from_visible(own.y, part.y, hidden), train, test)
        lines.append(line("test trials, hidden neurons", test, predicted.smoothed.y_mean, repeated, linear, hidden))
    return lines, repeated


class HiddenScores(NamedTuple):
    """Scores of the hidden neurons of each session by the model and by the trial average, their column, and a unit."""

    model: Float[np.ndarray, " hidden"]
    average: Float[np.ndarray, " hidden"]
    neuron: Int[np.ndarray, " hidden"]
    unit: str


def scores_by_neuron(fit: "mrsds_ppl.fitted.Fit", predicted: Predicted, average: np.ndarray) -> HiddenScores:
    """Scores of each hidden neuron that the test trials show.

    Args:
        fit: the fit.
        predicted: of test trials.
        average: the trial average as a prediction of them.
    """
    test, counts = fit.split.test, fit.counts.all()
    session = np.zeros(test.num_trials, int) if test.session_numbers is None else test.session_numbers
    scored = [
        (session == number, np.array([n]))
        for number in np.unique(session)
        for n in fit.hidden_neurons
        if test.observed[session == number, :, n].any()
    ]

    def of(rate: np.ndarray, own: np.ndarray, n: np.ndarray) -> float:
        given = test.y[own][..., n], test.observed[own][..., n], np.asarray(rate[own][..., n], np.float64)
        return bits_per_spike(*given) if counts else evaluate(*given, False).r2

    ours, simple = (np.array([of(rate, *one) for one in scored]) for rate in (predicted.smoothed.y_mean, average))
    return HiddenScores(ours, simple, np.array([n for _, (n,) in scored], int), "bits per spike" if counts else "R²")


def _of_each_session(
    predict: Callable[[Trials, Trials], np.ndarray], train: Trials, trials: Trials
) -> Float[np.ndarray, "trial time neuron"]:
    """Predictions of the trials of each session from the training trials of the same."""
    own, found = train.by_session(), np.full(trials.y.shape, np.nan)
    for name, part in trials.by_session().items():
        which = slice(None) if trials.sessions is None else trials.sessions == name
        found[which, : part.num_bins] = predict(own[name], part)
    return found


def _average(own: Trials, part: Trials) -> np.ndarray:
    return np.broadcast_to(trial_average(own.y, own.observed, part.num_bins), part.y.shape)


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
