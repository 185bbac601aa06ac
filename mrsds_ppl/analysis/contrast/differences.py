"""Differences in the size of messages between two conditions of trials, or between two epochs of every trial.

The unit of inference is the trial. Its value is the mean norm of a message over its own bins, so that each trial counts
once, whatever its length:

    v_ib[r, s] = mean over bins t from the second on of |message_ibt[r, s]|,      v_b = mean over draws i

The null is that labels say nothing of the trials, within a session where there are several. The test of it is exact
whatever is wrong with the fit, which has not seen the labels. Where labels do say something, the test is of messages as
they were fitted: an error of the weights, which all trials share, can then make a message differ that is not there.
Intervals have, beside the spread of trials, that of the draws as far as all trials share it: as much of this error as
the draws have, and nothing of the paths, whose draws are independent from trial to trial.

The false discovery rate is controlled over the messages between regions and those of inputs. A region's own change is
of another kind, often differs where the messages differ, and would lend its small p-values to them: it has a p-value
and no q-value. Messages of one fit depend on each other in no known way, hence the procedure that holds for any
dependence: Benjamini and Yekutieli, Ann. Stat. 2001.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from scipy.stats import false_discovery_control

from mrsds_ppl.analysis.communication import check_level
from mrsds_ppl.analysis.contrast.designs import Design, TwoConditions, TwoEpochs
from mrsds_ppl.analysis.contrast.permutation import Comparison, compare, smallest_p
from mrsds_ppl.errors import DataError

Epochs = Mapping[str, tuple[float, float]]
# 4 and 4 trials can give p = 2/70 at the smallest, 3 and 3 trials 2/20, which is no evidence.
_FEWEST = 4
# 6 trials can give p = 2/64, 5 trials 2/32, which is no evidence.
_FEWEST_IN_BOTH = 6
_EVIDENCE = 0.05
# One message among all that is alone beyond every order has q = 1/40; and no fewer orders than is usual.
_LARGEST_SMALLEST_Q, _FEWEST_ORDERS = 1 / 40, 9_999
_AXES = ("target", "source")


def trial_norms(messages: xr.DataArray, start: float = -np.inf, stop: float = np.inf) -> xr.DataArray:
    """Mean norm of each message in each trial, (draw, trial, target, source).

    Args:
        messages: of :func:`mrsds_ppl.analysis.communication.posterior_messages`.
        start, stop: seconds from the start of a trial; bins that begin between them.

    Returns:
        NaN in trials that have no bin there.
    """
    seconds = messages["time"].values
    # No message leads into the first bin.
    inside = (seconds >= start) & (seconds < stop) & (np.arange(len(seconds)) > 0)
    chosen = messages.isel(time=np.flatnonzero(inside))
    # A draw at a time, since squares of all would need the memory twice.
    squares = ((chosen.isel(draw=i) ** 2).sum("latent", min_count=1) for i in range(chosen.sizes["draw"]))
    found = xr.concat([(some.astype(float) ** 0.5).mean("time") for some in squares], "draw")
    return found.transpose("draw", "trial", *_AXES).rename("norm").reset_coords(drop=True)


def contrast_conditions(
    norms: xr.DataArray,
    labels: Sequence[object] | np.ndarray,
    *,
    sessions: np.ndarray | None = None,
    level: float = 0.9,
    permutations: int | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Difference between two conditions of trials in the mean norm of each message, second minus first.

    Labels are permuted within sessions, and a session with trials of one condition alone is left out: it cannot tell
    the condition from the session.

    Args:
        norms: of :func:`trial_norms`, (draw, trial, target, source).
        labels: condition of each trial, as text; an empty one leaves the trial out. In sorted order they are first and
            second.
        sessions: of each trial.
        level: of the intervals, which are of each message alone.
        permutations: orders of the labels to compare with; all where there are no more. By default 9,999, or as many
            as it takes for one message alone to reach a small q-value.
        seed: of orders and resampling.

    Returns:
        ``difference``, ``low``, ``high``, ``p_value``, ``q_value``, and the means ``mean_first`` and ``mean_second``,
        (target, source); attributes ``first`` and ``second`` name the conditions. ``q_value`` is NaN for a region's own
        change.

    Raises:
        DataError: there are not two labels, or not enough trials of each for any difference to be shown.
        RunError: ``level`` is not between 0 and 1.
    """
    given = np.asarray(labels).astype(str)
    if given.shape != (norms.sizes["trial"],):
        raise DataError(f"labels: found shape {given.shape}, need one for each of {norms.sizes['trial']} trials.")
    check_level(level)
    names = np.unique(given[given != ""])
    if len(names) != 2:
        raise DataError(
            f"labels: found {_many(len(names), 'different label')} ({', '.join(names[:5])}), and a contrast is between "
            "two. Give two labels; None in place of a label leaves a trial out."
        )
    blocks = np.zeros(len(given), int) if sessions is None else np.unique(sessions, return_inverse=True)[1]
    values = _flat(norms)
    kept = (given != "") & np.isfinite(values).all(2).all(0)
    both = [n for n in np.unique(blocks) if len(np.unique(given[kept & (blocks == n)])) == 2]
    kept &= np.isin(blocks, both)
    second, session = given[kept] == names[1], np.unique(blocks[kept], return_inverse=True)[1]
    _check_conditions(names, second, len(both))
    designs = [TwoConditions(some[kept], second, session) for some in _mean_and_deviations(values)]
    found = _contrast(norms, designs, level, permutations, seed)
    for name, some in zip(("mean_first", "mean_second"), designs[0].means, strict=True):
        found[name] = (_AXES, some.reshape(norms.shape[2:]))
    return found.assign_attrs(
        first=str(names[0]), second=str(names[1]), num_first=int((~second).sum()), num_second=int(second.sum())
    )


def contrast_epochs(
    messages: xr.DataArray,
    epochs: Epochs,
    *,
    level: float = 0.9,
    permutations: int | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Difference between two epochs of the same trials in the mean norm of each message, second minus first.

    The sign of each trial's difference is flipped at random: the null is that both epochs are alike. Trials that have
    no bin in one of them are left out.

    Args:
        messages: of :func:`mrsds_ppl.analysis.communication.posterior_messages`.
        epochs: start and stop of each in seconds from the start of a trial, such as ``{"before": (0.0, 0.5), "after":
            (0.5, 1.0)}``; the first named is first.
        level, permutations, seed: as of :func:`contrast_conditions`, where all trials are one session.

    Returns:
        as of :func:`contrast_conditions`.

    Raises:
        DataError: there are not two epochs, or fewer than six trials have bins in both.
        RunError: ``level`` is not between 0 and 1.
    """
    check_level(level)
    if len(epochs) != 2:
        raise DataError(f"epochs: found {len(epochs)}, and a contrast is between two, such as before and after.")
    first, second = (trial_norms(messages, *window) for window in epochs.values())
    values = np.stack([_flat(first), _flat(second)])
    values = values[:, :, np.isfinite(values).all(3).all((0, 1))]
    number = values.shape[2]
    if number < _FEWEST_IN_BOTH:
        raise DataError(
            f"epochs: {_many(number, 'trial')} with bins in both of {dict(epochs)}; need {_FEWEST_IN_BOTH}, "
            f"as the signs of fewer can give no p-value below {_EVIDENCE}."
        )
    differences = values[1] - values[0]
    designs = [TwoEpochs(some) for some in _mean_and_deviations(differences)]
    found = _contrast(first, designs, level, permutations, seed)
    for name, some in zip(("mean_first", "mean_second"), values.mean((1, 2)), strict=True):
        found[name] = (_AXES, some.reshape(first.shape[2:]))
    names = [str(name) for name in epochs]
    return found.assign_attrs(first=names[0], second=names[1], num_first=number, num_second=number)


def _contrast(
    norms: xr.DataArray, designs: Sequence[Design], level: float, permutations: int | None, seed: int
) -> xr.Dataset:
    """Of the first design, whose values are the mean over draws; those of the draws' deviations follow."""
    shape, (design, *of_draws) = norms.shape[2:], designs
    if permutations is None:
        # The factor by which the q-value of the smallest of several p-values is larger.
        tests = np.arange(1, np.prod(shape) + 1)
        permutations = max(_FEWEST_ORDERS, int(len(tests) * (1 / tests).sum() / _LARGEST_SMALLEST_Q))
    smallest = smallest_p(design, permutations)
    if smallest >= _EVIDENCE:
        raise DataError(
            f"labels: the smallest p-value that these trials can give is {smallest:.2g}, so no difference could be "
            "shown; need more trials of both conditions in the same sessions."
        )
    by_draw = _shared(of_draws)
    rng = np.random.default_rng(seed)
    found: Comparison = compare(design, level=level, permutations=permutations, rng=rng, by_draw=by_draw)
    arrays = {name: getattr(found, name).reshape(shape) for name in ("difference", "low", "high", "p_value")}
    own = norms["target"].values[:, None] == norms["source"].values
    return xr.Dataset(
        {name: (_AXES, values) for name, values in (arrays | {"q_value": _q_values(arrays["p_value"], own)}).items()},
        {axis: norms[axis].values for axis in _AXES},
        {"units": "latent units per bin", "level": level, "orders": found.num_orders, "smallest_p": smallest},
    )


def _shared(of_draws: Sequence[Design]) -> Float[np.ndarray, "draw message"]:
    """Deviations of the difference in each draw, as large as what all trials share.

    As in an analysis of variance: what differs between trials in a draw says how much the difference would deviate
    were draws independent from trial to trial, and that is taken off.
    """
    found = [some.estimate(some.observed) for some in of_draws]
    deviations, errors = (np.concatenate(some) for some in zip(*found, strict=True))
    spread, alone = (deviations**2).mean(0), (errors**2).mean(0)
    return deviations * np.sqrt(np.divide(np.maximum(spread - alone, 0.0), spread, where=spread > 0, out=0.0 * spread))


def _mean_and_deviations(values: Float[np.ndarray, "draw trial message"]) -> list[Float[np.ndarray, "trial message"]]:
    mean = values.mean(0)
    return [mean, *(values - mean)]


def _q_values(
    p_value: Float[np.ndarray, "target source"], own: Bool[np.ndarray, "target source"]
) -> Float[np.ndarray, "target source"]:
    """By Benjamini and Yekutieli's procedure over all but a region's own change."""
    found = np.full(p_value.shape, np.nan)
    if not own.all():
        found[~own] = false_discovery_control(p_value[~own], method="by")
    return found


def _flat(norms: xr.DataArray) -> Float[np.ndarray, "draw trial message"]:
    return norms.values.reshape(norms.sizes["draw"], norms.sizes["trial"], -1)


def _check_conditions(names: np.ndarray, second: Bool[np.ndarray, " trial"], num_sessions: int) -> None:
    if num_sessions == 0:
        raise DataError(
            f"labels: no session has trials of both {str(names[0])!r} and {str(names[1])!r}, so that the condition "
            "cannot be told from the session."
        )
    # A session takes one mean of each condition.
    fewest, counts = _FEWEST + num_sessions - 1, ((~second).sum(), second.sum())
    if min(counts) < fewest:
        raise DataError(
            f"labels: found {_many(int(counts[0]), 'trial')} of {str(names[0])!r} and {counts[1]} of "
            f"{str(names[1])!r}; need at least {fewest} of each. 4 and 4 trials can give a p-value of 0.029 at the "
            "smallest, 3 and 3 of 0.1."
        )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
