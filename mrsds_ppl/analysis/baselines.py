"""Predictions that any model must beat: the trial average, and linear regression from other neurons."""

import numpy as np
from jaxtyping import Bool, Float, Int

_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def trial_average(
    y: Float[np.ndarray, "trial time neuron"], observed: Bool[np.ndarray, "trial time neuron"], num_bins: int
) -> Float[np.ndarray, "{num_bins} neuron"]:
    """Mean over trials of each bin and neuron; where a bin was never observed, the neuron's mean over all bins.

    Args:
        y: training trials; any value where not observed.
        observed: which values are data.
        num_bins: bins of the prediction, which may be more or fewer than those of ``y``.
    """
    values = np.where(observed, y, 0.0).astype(np.float64)
    count = observed.sum(0)
    overall = values.sum((0, 1)) / np.maximum(observed.sum((0, 1)), 1)
    mean = np.where(count > 0, values.sum(0) / np.maximum(count, 1), overall)
    longer = np.broadcast_to(overall, (max(num_bins - len(mean), 0), len(overall)))
    return np.concatenate([mean, longer])[:num_bins]


def regress(
    source: Float[np.ndarray, "row feature"],
    target: Float[np.ndarray, "row neuron"],
    source_test: Float[np.ndarray, "test_row feature"],
) -> Float[np.ndarray, "test_row neuron"]:
    """Ridge regression with an intercept, its penalty chosen on the last fifth of the rows.

        minimise |Y - X B|^2 + lambda n |B|^2        X standardised, n rows

    Args:
        source, target: of the training trials; NaN is missing and counts as the column's mean.
        source_test: of the test trials.
    """
    center, spread = _center_and_spread(source)
    middle = _center_and_spread(target)[0]
    x, x_test = (np.nan_to_num((rows - center) / spread) for rows in (source, source_test))
    y = np.nan_to_num(target - middle)
    cut = max(int(0.8 * len(x)), 1)
    # Sums of products of both parts: the error of any weights follows from them without going over the rows again.
    (gram, cross), (held_gram, held_cross) = ((a.T @ a, a.T @ b) for a, b in ((x[:cut], y[:cut]), (x[cut:], y[cut:])))
    unit = np.eye(x.shape[1])
    errors = []
    for ridge in _RIDGES:
        found = np.linalg.solve(gram / cut + ridge * unit, cross / cut)
        errors.append(float((found * (held_gram @ found - 2 * held_cross)).sum()))
    best = _RIDGES[int(np.argmin(errors))]
    weights = np.linalg.solve((gram + held_gram) / len(x) + best * unit, (cross + held_cross) / len(x))
    return x_test @ weights + middle


def hidden_from_visible(
    y: Float[np.ndarray, "trial time neuron"],
    y_test: Float[np.ndarray, "test_trial test_time neuron"],
    hidden: Int[np.ndarray, " hidden"],
) -> Float[np.ndarray, "test_trial test_time neuron"]:
    """Hidden neurons by regression on the others in the same bin: what co-smoothing must beat. Others are NaN.

    Args:
        y: training trials, NaN where not observed.
        y_test: test trials, likewise.
        hidden: indices of the neurons to predict.
    """
    visible = np.setdiff1d(np.arange(y.shape[2]), hidden)
    rows = np.isfinite(y).any(2)
    found = regress(y[rows][:, visible], y[rows][:, hidden], y_test.reshape(-1, y.shape[2])[:, visible])
    predicted = np.full(y_test.shape, np.nan)
    predicted[..., hidden] = found.reshape(*y_test.shape[:2], len(hidden))
    return predicted


def next_from_last(
    y: Float[np.ndarray, "trial time neuron"], y_test: Float[np.ndarray, "test_trial test_time neuron"]
) -> Float[np.ndarray, "test_trial test_time neuron"]:
    """Every neuron by regression on all neurons in the bin before; NaN in the first bin.

    Args:
        y: training trials, NaN where not observed.
        y_test: test trials, likewise.
    """
    neurons = y.shape[2]
    rows = np.isfinite(y[:, 1:]).any(2)
    found = regress(y[:, :-1][rows], y[:, 1:][rows], y_test[:, :-1].reshape(-1, neurons))
    predicted = np.full(y_test.shape, np.nan)
    predicted[:, 1:] = found.reshape(len(y_test), -1, neurons)
    return predicted


def _center_and_spread(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column over what is observed; 1 where a column does not vary."""
    seen = np.isfinite(rows)
    count = np.maximum(seen.sum(0), 1)
    values = np.where(seen, rows, 0.0).astype(np.float64)
    mean = values.sum(0) / count
    spread = np.sqrt((np.where(seen, values - mean, 0.0) ** 2).sum(0) / count)
    return mean, np.where(spread > 0, spread, 1.0)
