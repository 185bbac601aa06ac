"""Scores of a fitted run beside those of plain predictions, for its report."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from mrsds_ppl.analysis.baselines import hidden_from_visible, next_from_last, trial_average
from mrsds_ppl.analysis.metrics import bits_per_spike, evaluate
from mrsds_ppl.analysis.posterior import Reconstruction
from mrsds_ppl.fitted import FittedRun
from mrsds_ppl.output.report.findings import Score


class Files(NamedTuple):
    """What the run wrote, and what is computed anew from its parameters."""

    mat: dict[str, np.ndarray]
    sample_stats: xr.Dataset
    plain: Reconstruction
    smoothed: Reconstruction
    hidden: np.ndarray


def score_lines(run: FittedRun, files: Files) -> tuple[list[Score], np.ndarray]:
    """The table's lines, and the trial average as a prediction of every test trial."""
    train, test = run.split.train, run.split.test
    average = trial_average(train.y, train.observed, test.num_bins)
    repeated = np.broadcast_to(average, test.y.shape)

    def line(name: str, trials: Any, estimate: Any, simple: Any, linear: Any = None, some: Any = None) -> Score:
        observed = trials.observed & np.isfinite(estimate) if linear is None else trials.observed & np.isfinite(linear)

        def of(prediction: Any) -> Any:
            return evaluate(trials.y, observed, np.asarray(prediction, np.float64), run.counts, some)

        ours = of(estimate)
        return Score(name, ours.r2, of(simple).r2, None if linear is None else of(linear).r2, ours.bits_per_spike)

    fitted = files.mat["ys_recon_train"].reshape(train.y.shape)
    own = np.broadcast_to(trial_average(train.y, train.observed, train.num_bins), train.y.shape)
    lines = [
        line("training trials, given all their data", train, fitted, own),
        line("test trials, given all their data", test, files.plain.y_mean, repeated),
        line("test trials, one bin ahead", test, files.plain.y_next, repeated, next_from_last(train.y, test.y)),
    ]
    if len(files.hidden):
        linear = hidden_from_visible(train.y, test.y, files.hidden)
        lines.append(line("test trials, hidden neurons", test, files.smoothed.y_mean, repeated, linear, files.hidden))
    return lines, repeated


def scores_by_neuron(run: FittedRun, files: Files, average: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Score of each hidden neuron by the model and by the trial average, and the score's name."""
    test = run.split.test
    if run.counts:
        pairs = [
            [
                bits_per_spike(test.y[..., [n]], test.observed[..., [n]], np.asarray(rate[..., [n]], np.float64))
                for n in files.hidden
            ]
            for rate in (files.smoothed.y_mean, average)
        ]
        return np.array(pairs[0]), np.array(pairs[1]), "bits per spike"
    ours, simple = (
        evaluate(test.y, test.observed, np.asarray(p, np.float64), False, files.hidden).r2_by_neuron
        for p in (files.smoothed.y_mean, average)
    )
    return ours, simple, "R²"
