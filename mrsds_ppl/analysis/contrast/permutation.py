"""A p-value by permutation and an interval by resampling, of every message at once.

Both are of the studentised difference t = difference / error. Its permutation test is exact where conditions do not
differ at all, and holds its level with many trials where they have equal means and unequal spreads. The interval is
the bootstrap's t interval, widened by what is uncertain in the values of all trials at once, such as weights.
Equivalents of ``scipy.stats.permutation_test`` and ``bootstrap`` for all messages in a few matrix products.

Sources: Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 2010 (the count of the observed order); Janssen, Stat. Probab.
Lett. 1997 (studentised permutation); Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 12.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mrsds_ppl.analysis.contrast.designs import Design, Estimate

# Orders whose statistics are equal differ by rounding.
_TIES = 1e-9
_RESAMPLES = 9_999
# Numbers of an arrangement that are in memory at once.
_MOST_NUMBERS = 4_000_000


class Comparison(NamedTuple):
    """Of each message: difference, interval, p-value; and in how many orders the p-value is a share."""

    difference: Float[np.ndarray, " message"]
    low: Float[np.ndarray, " message"]
    high: Float[np.ndarray, " message"]
    p_value: Float[np.ndarray, " message"]
    num_orders: int


def compare(
    design: Design,
    *,
    level: float,
    permutations: int,
    rng: np.random.Generator,
    by_draw: Float[np.ndarray, "draw message"] | None = None,
) -> Comparison:
    """Compare two sides of a design.

        p = (b + 1) / (n + 1),      b of n orders at random with |t| at least that of the observed order

    and b / n over all orders, the observed one among them, where there are no more than ``permutations``.

    Args:
        design: the trials.
        level: of the interval.
        permutations: n.
        rng: draws orders and resamples.
        by_draw: deviations of the difference under draws of what all trials share; each resample has one of them.

    Returns:
        the interval is NaN where trials do not differ at all.
    """
    found = design.estimate(design.observed)
    difference, error = found.difference[0], found.error[0]
    least = np.abs(_ratio(found.difference, found.error)[0]) * (1 - _TIES)
    exact = design.num_orders <= permutations
    size = 2 * design.observed.shape[-1] + 4 * len(difference)
    some = [design.every_order()] if exact else (design.orders(rng, n) for n in _batches(permutations, size))
    beyond = sum((np.abs(_ratio(*design.estimate(orders))) >= least).sum(0) for orders in some)
    p_value = beyond / design.num_orders if exact else (beyond + 1) / (permutations + 1)
    drawn = np.concatenate([_around(design, rng, n, difference) for n in _batches(_RESAMPLES, size)])
    with np.errstate(invalid="ignore"):  # no spread times an infinite t
        values = np.where(error > 0, difference - drawn * error, np.nan)
    if by_draw is not None:
        values += by_draw[rng.integers(len(by_draw), size=len(values))]
    # Order statistics, between which nothing is interpolated: one may be infinite.
    low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2], axis=0, method="inverted_cdf")
    return Comparison(difference, low, high, p_value, design.num_orders if exact else permutations)


def smallest_p(design: Design, permutations: int) -> float:
    """The smallest p-value that the design can give."""
    exact = design.num_orders <= permutations
    return design.num_alike / design.num_orders if exact else 1 / (permutations + 1)


def _around(
    design: Design, rng: np.random.Generator, count: int, difference: Float[np.ndarray, " message"]
) -> Float[np.ndarray, "order message"]:
    """t of resampled trials, around the observed difference."""
    found: Estimate = design.estimate(design.resamples(rng, count))
    return _ratio(found.difference - difference, found.error)


def _ratio(
    difference: Float[np.ndarray, "order message"], error: Float[np.ndarray, "order message"]
) -> Float[np.ndarray, "order message"]:
    """Infinite where a difference has no spread; zero where there is no difference."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(difference == 0, 0.0, difference / error)


def _batches(count: int, size: int) -> Iterator[int]:
    at_once = max(1, _MOST_NUMBERS // size)
    yield from (min(at_once, count - begun) for begun in range(0, count, at_once))
