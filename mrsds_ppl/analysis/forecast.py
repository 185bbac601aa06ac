"""Forecasts against what was recorded."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, TypedDict

import jax
import numpy as np
from jax import random
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.metrics import Scores, evaluate
from mrsds_ppl.analysis.rollouts import check_bin, masked, rolled_ahead, shortened, starts_of
from mrsds_ppl.backend.trials_at_once import over_trials
from mrsds_ppl.data.batch import Batch
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import RunError

_DEFAULT_CUTS = 8


class Forecast(NamedTuple):
    """Expected signals 1 ... H bins after each cut, and how well they match.

    ``y_mean[c, i, h - 1]`` is E[y_{t+h} | bins up to t] of trial i, t = ``cuts[c]``; NaN past the end of the trial.
    ``scores[h - 1]`` compares h bins ahead over all trials and cuts.
    """

    cuts: Int[np.ndarray, " cut"]
    y_mean: Float[np.ndarray, "cut trial horizon neuron"]
    scores: list[Scores]

    @property
    def r2(self) -> Float[np.ndarray, " horizon"]:
        """R^2 at each horizon, averaged over neurons."""
        return np.array([score.r2 for score in self.scores])


class Origins(TypedDict, total=False):
    """The bins that forecasts start from, and what they start with: arguments of :func:`forecast`."""

    cuts: Sequence[int] | np.ndarray | None
    filtered: bool


def forecast(
    key: PRNGKeyArray,
    fitted: FittedProgram,
    trials: Trials,
    horizon: int,
    draws: int = 50,
    *,
    cuts: Sequence[int] | np.ndarray | None = None,
    filtered: bool = True,
) -> Forecast:
    """Expected signals up to ``horizon`` bins after some bins t, z and x marginalised by sampling, and their R^2.

        E[y_{t+h} | y_{1..t}] = average of C(x_{t+h}) over paths from draws of (z_t, x_t) given y_{1..t}

    An encoder sees a whole trial, so its posterior of bin t knows the future. An honest forecast from t therefore
    infers the trial anew as one that ends after t: nothing later, inputs included, reaches the encoder; a guide without
    one is fitted at each cut. The rollout is then given the later inputs, as they are known in an experiment. R^2 at h
    is over all cuts and trials that have both bins, relative to each neuron's mean over what is scored.

    Args:
        key: random key.
        fitted: program, guide and parameters.
        trials: the trials.
        horizon: H, in bins.
        draws: paths that are averaged; the error of the average adds 1/draws of the paths' variance to the MSE.
        cuts: the bins t to forecast from; by default eight, evenly spread.
        filtered: False starts from the posterior given the whole trial instead: no forecast, but it tells the
            dynamics' part of the error from that of an encoder that is bad at the ends of trials.

    Raises:
        RunError: no bin of any trial is that far ahead, or a cut does not exist.
    """
    latest = int(trials.lengths.max()) - 1 - horizon
    if horizon < 1 or latest < 0:
        raise RunError(f"horizon: found {horizon}, the longest trial allows 1 to {int(trials.lengths.max()) - 1} bins.")
    if cuts is None:
        cuts = np.unique(np.linspace(min(max(latest // _DEFAULT_CUTS, 1), latest), latest, _DEFAULT_CUTS).round())
    bins = np.asarray(cuts, int)
    for cut in bins:
        check_bin(int(cut), trials, "cuts")
    batch, found = trials.batch(), []
    for cut in bins:
        cut_key, first = random.fold_in(key, cut), np.full(trials.num_trials, cut)
        known = shortened(batch, first) if filtered else batch
        adapted = fitted.adapted(cut_key, known) if filtered else fitted
        some = partial(_expected, fitted=adapted, draws=draws, horizon=horizon)
        found.append(over_trials(some, cut_key, known, batch, first)[:, 1:])
    later = bins[:, None] + np.arange(1, horizon + 1)
    index = np.minimum(later, trials.num_bins - 1)
    inside = later < trials.lengths[:, None, None]  # (trial, cut, horizon)
    y_mean = np.stack(found, axis=1)
    counts = fitted.networks.emissions.counts
    scores = []
    for h in range(horizon):
        observed = trials.observed[:, index[:, h]] & inside[:, :, h, None]
        ahead = trials.y[:, index[:, h]], observed, y_mean[:, :, h]
        scores.append(evaluate(*ahead, counts, sessions=trials.sessions))
    return Forecast(bins, np.moveaxis(masked(y_mean, inside[..., None]), 0, 1), scores)


@partial(jax.jit, static_argnames=("draws", "horizon"))
def _expected(
    key: Array,
    known: Batch,
    batch: Batch,
    first: Array,
    *,
    fitted: FittedProgram,
    draws: int,
    horizon: int,
) -> Float[Array, "trial bin neuron"]:
    start_key, roll_key = random.split(key)
    starts = starts_of(start_key, known, first, fitted=fitted, draws=draws)
    return rolled_ahead(roll_key, batch, first, starts, fitted.model, fitted.networks, horizon)[2]
