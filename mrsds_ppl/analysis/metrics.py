"""How well a prediction matches a recording: MSE, two conventions of R^2, bits per spike.

Every function takes ``observed``: what was not observed (padded bins, missing values, neurons without a recording)
enters no sum, whatever number stands there. Sums are accumulated in float64.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Real
from scipy.special import xlogy

# The floor that the Neural Latents Benchmark puts under a rate before its logarithm is taken.
_SMALLEST_RATE = 1e-9


class Scores(NamedTuple):
    """Scores of one prediction of one split.

    ``mse``: mean squared error over everything observed. ``r2``: mean of ``r2_by_neuron``. ``r2_published``: see
    :func:`r2_across_neurons`. ``bits_per_spike``: of the neurons whose signals are counts, None where there are none.
    ``r2_by_neuron``: see :func:`r2_by_neuron`, one value for each neuron scored.
    """

    mse: float
    r2: float
    r2_published: float
    bits_per_spike: float | None
    r2_by_neuron: Float[np.ndarray, "neuron"]


def evaluate(
    y: Real[np.ndarray, "trial time neuron"],
    observed: Bool[np.ndarray, "trial time neuron"],
    y_mean: Float[np.ndarray, "trial time neuron"],
    counts: bool | Bool[np.ndarray, "neuron"],
    neurons: Int[np.ndarray, "scored"] | None = None,
    *,
    sessions: np.ndarray | None = None,
) -> Scores:
    """All scores of one prediction.

    Args:
        y: the recording; any value where not observed.
        observed: which values of ``y`` are data.
        y_mean: predicted mean; for counts, the rate in spikes per bin.
        counts: which neurons' ``y`` are spike counts, one answer for each or for all; ``bits_per_spike`` is of these.
        neurons: indices of the neurons to score, such as those hidden for co-smoothing; None scores all.
        sessions: of each trial, where several were joined: a column is another neuron in each, and what was never
            observed in one is no neuron of it.
    """
    if sessions is not None:
        owns = [sessions == name for name in np.unique(sessions)]
        each = [evaluate(y[own], observed[own], y_mean[own], counts, neurons) for own in owns]
        scored, spikes = _amounts(y, observed, counts, neurons)
        values, fired = ([float(amount[own].sum()) for own in owns] for amount in (scored, spikes))
        return _together(each, values, fired, owns)
    counted = np.broadcast_to(counts, y.shape[-1:])
    if neurons is not None:
        y, observed, y_mean, counted = (a[..., neurons] for a in (y, observed, y_mean, counted))
    by_neuron = r2_by_neuron(y, observed, y_mean)
    return Scores(
        mse=mse(y, observed, y_mean),
        r2=_mean_of_finite(by_neuron),
        r2_published=r2_across_neurons(y, observed, y_mean),
        bits_per_spike=bits_per_spike(*(a[..., counted] for a in (y, observed, y_mean))) if counted.any() else None,
        r2_by_neuron=by_neuron,
    )


def noise_ceiling(
    y: Real[np.ndarray, "trial time neuron"],
    observed: Bool[np.ndarray, "trial time neuron"],
    variance: Float[np.ndarray, "trial time neuron"],
    neurons: Int[np.ndarray, "scored"] | None = None,
    *,
    sessions: np.ndarray | None = None,
) -> float:
    """R^2 of the true mean: what noise leaves to a prediction that has not seen the value; mean over neurons.

        1 - sum_{b,t} v_btn / sum_{b,t} (y_btn - ybar_n)^2,    at least 0 for each neuron

    Args:
        y: the recording.
        observed: which values of ``y`` are data.
        variance: v, of each value around its mean.
        neurons: indices of the neurons to score; None scores all.
        sessions: of each trial, as of :func:`evaluate`.
    """
    of_trial = np.zeros(len(y), int) if sessions is None else sessions
    mean, some = y + np.sqrt(variance), slice(None) if neurons is None else neurons
    owns = [of_trial == name for name in np.unique(of_trial)]
    each = [r2_by_neuron(y[own], observed[own], mean[own])[some] for own in owns]
    return _mean_of_finite(np.maximum(np.concatenate(each), 0.0))


def mse(
    y: Real[np.ndarray, "trial time neuron"],
    observed: Bool[np.ndarray, "trial time neuron"],
    y_mean: Float[np.ndarray, "trial time neuron"],
) -> float:
    """Mean of (y - y_mean)^2 over everything observed; NaN if nothing is.

    Args:
        y: the recording.
        observed: which values of ``y`` are data.
        y_mean: predicted mean, in the unit of ``y``.
    """
    count = int(observed.sum())
    return float(_squared_error(y, observed, y_mean).sum() / count) if count else float("nan")


def r2_by_neuron(
    y: Real[np.ndarray, "trial time neuron"],
    observed: Bool[np.ndarray, "trial time neuron"],
    y_mean: Float[np.ndarray, "trial time neuron"],
) -> Float[np.ndarray, "neuron"]:
    """R^2 of each neuron over time and trials, the standard convention.

        R^2_n = 1 - sum_{b,t} (y_btn - yhat_btn)^2 / sum_{b,t} (y_btn - ybar_n)^2,    ybar_n the mean over b and t

    Args:
        y: the recording.
        observed: which values of ``y`` are data.
        y_mean: predicted mean.

    Returns:
        one value a neuron; NaN for a neuron whose observed values are all equal, which has no variance to explain.
    """
    residual = _squared_error(y, observed, y_mean).sum(axis=(0, 1))
    return 1.0 - _ratio(residual, _squared_deviation(y, observed, axis=(0, 1)))


def r2_across_neurons(
    y: Real[np.ndarray, "trial time neuron"],
    observed: Bool[np.ndarray, "trial time neuron"],
    y_mean: Float[np.ndarray, "trial time neuron"],
) -> float:
    """R^2 over neurons within a bin, averaged over the bins of a trial, then over trials: the published convention.

        R^2_bt = 1 - sum_n (y_btn - yhat_btn)^2 / sum_n (y_btn - ybar_bt)^2,    ybar_bt the mean over n

    It credits a prediction for the differences between the neurons' mean rates, and a bin in which the neurons hardly
    differ weighs as much as any other; :func:`r2_by_neuron` has neither property.

    Args:
        y: the recording.
        observed: which values of ``y`` are data.
        y_mean: predicted mean.

    Returns:
        NaN if no bin has two neurons that differ; bins without such a pair (all counts zero, say) are left out.

    Source: the published code of Karniol-Tambour et al., ICLR 2024.
    """
    residual = _squared_error(y, observed, y_mean).sum(axis=2)
    by_bin = 1.0 - _ratio(residual, _squared_deviation(y, observed, axis=(2,)))
    return _mean_of_finite(np.array([_mean_of_finite(trial) for trial in by_bin]))


def bits_per_spike(
    y: Real[np.ndarray, "trial time neuron"],
    observed: Bool[np.ndarray, "trial time neuron"],
    rate: Float[np.ndarray, "trial time neuron"],
) -> float:
    """Poisson log likelihood gained over a constant rate, in bits per spike.

        ( sum_btn log Poisson(y_btn; rate_btn) - sum_btn log Poisson(y_btn; rbar_n) ) / ( log 2 * sum_btn y_btn )

    rbar_n is the neuron's own mean count over the *scored* trials and bins, as in the benchmark, so a prediction must
    beat a constant that has seen the test data. Rates are floored at 1e-9.

    Args:
        y: spike counts.
        observed: which values of ``y`` are data.
        rate: predicted rate in spikes per bin, not in hertz.

    Returns:
        NaN if there is no spike.

    Source: Pei et al., Neural Latents Benchmark '21, NeurIPS Datasets and Benchmarks 2021.
    """
    spikes = np.where(observed, y, 0.0).astype(np.float64)
    total = spikes.sum()
    if total == 0:
        return float("nan")
    null_rate = _ratio(spikes.sum(axis=(0, 1)), observed.sum(axis=(0, 1)).astype(np.float64))
    gain = _poisson_terms(spikes, rate.astype(np.float64)) - _poisson_terms(spikes, null_rate)
    return float(np.where(observed, gain, 0.0).sum() / (total * np.log(2.0)))


def _amounts(
    y: np.ndarray, observed: np.ndarray, counts: bool | np.ndarray, neurons: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Scored values and spikes of each trial."""
    which = np.zeros(y.shape[-1], bool)
    which[slice(None) if neurons is None else neurons] = True
    scored = observed & which
    return scored.sum((1, 2)), np.where(scored & counts, y, 0.0).sum((1, 2), dtype=float)


def _together(
    each: Sequence[Scores], scored: Sequence[float], spikes: Sequence[float], owns: Sequence[np.ndarray]
) -> Scores:
    """Scores of several sessions as those of all their values, neurons, trials and spikes."""
    by_neuron = np.concatenate([one.r2_by_neuron for one in each])
    bits = [one.bits_per_spike for one in each if one.bits_per_spike is not None]
    return Scores(
        mse=_weighted([one.mse for one in each], scored),
        r2=_mean_of_finite(by_neuron),
        r2_published=_weighted([one.r2_published for one in each], [float(own.sum()) for own in owns]),
        bits_per_spike=_weighted(bits, spikes) if len(bits) == len(each) else None,
        r2_by_neuron=by_neuron,
    )


def _weighted(values: Sequence[float], weights: Sequence[float]) -> float:
    """Weighted mean of what is not NaN; NaN if nothing is left."""
    kept = ~np.isnan(values) & (np.asarray(weights) > 0)
    return (
        float(np.average(np.asarray(values)[kept], weights=np.asarray(weights)[kept])) if kept.any() else float("nan")
    )


def _poisson_terms(spikes: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """log Poisson(spikes; rate) without log(spikes!), which cancels between two rates."""
    floored = np.maximum(rate, _SMALLEST_RATE)  # keeps NaN, so a rate that is not a number shows in the score
    return xlogy(spikes, floored) - floored


def _squared_error(y: np.ndarray, observed: np.ndarray, y_mean: np.ndarray) -> np.ndarray:
    """(y - y_mean)^2, 0 where not observed."""
    # Masked before the subtraction: what stands in unobserved places may be infinite.
    return (np.where(observed, y, 0.0).astype(np.float64) - np.where(observed, y_mean, 0.0)) ** 2


def _squared_deviation(y: np.ndarray, observed: np.ndarray, axis: tuple[int, ...]) -> np.ndarray:
    """Sum over ``axis`` of squared deviations from the observed mean; exactly 0 if all values are equal."""
    values = np.where(observed, y, 0.0).astype(np.float64)
    count = observed.sum(axis=axis, keepdims=True)
    mean = values.sum(axis=axis, keepdims=True) / np.maximum(count, 1)
    deviation = (np.where(observed, values - mean, 0.0) ** 2).sum(axis=axis)
    high = np.where(observed, values, -np.inf).max(axis=axis, initial=-np.inf)
    low = np.where(observed, values, np.inf).min(axis=axis, initial=np.inf)
    # Rounding in the mean would otherwise leave a constant neuron a tiny variance, hence an R^2 of minus millions.
    return np.where(high > low, deviation, 0.0)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def _mean_of_finite(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN if nothing is left."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else float("nan")
