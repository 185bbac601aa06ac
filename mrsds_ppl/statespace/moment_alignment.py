"""Latents of one session in the coordinates of another, by what both have in common: moments of the same law.

Principal components of two sessions with other neurons are latents w and x in other coordinates, x ~ M w with a block
of M for each region. If both follow the same dynamics, driven alike, then for every lag h

    M E[w_{t+h} w_t^T] M^T = E[x_{t+h} x_t^T],    M E[w_{t+h} u_t^T] = E[x_{t+h} u_t^T],    M E[w_t] = E[x_t],

the last for each bin after the start of a trial. M is that of the least sum of squares, each in units of its standard
error over trials, so that a moment counts for as much as is known of it. Lagged moments hold the coordinates up to what
the dynamics leave as they are, such as a sign; inputs and trial averages tell the rest, where there are any. No trial
of one session needs a counterpart in the other.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import minimize

_LAGS = (0, 1, 2, 3, 5, 8)
_SMOOTHING = 1.5  # bins, standard deviation, of trial averages, whose neighbours then are as one for about 5 bins
_ALIKE = 5.0
_STARTS, _SWEEPS, _TURNS, _MOST_SIGNS = 24, 3, 4, 8
_LEAST_VARIANCE = 1e-4


class Moments(NamedTuple):
    """Means over trials, and the squares of their standard errors, as pairs.

    ``lagged`` (lag, latent, latent), ``driven`` (lag, latent, input), ``average`` (bin, latent).
    """

    lagged: tuple[np.ndarray, np.ndarray]
    driven: tuple[np.ndarray, np.ndarray]
    average: tuple[np.ndarray, np.ndarray]


def moments_of(
    x: Float[np.ndarray, "trial bin latent"],
    u: Float[np.ndarray, "trial bin input"],
    lengths: Int[np.ndarray, " trial"],
    sizes: Sequence[int],
    *,
    noisy: bool = True,
) -> Moments:
    """Moments of latents of mean zero.

    Args:
        x: draws of them, or ``noisy`` an unbiased estimate of latents with unit variance, whose errors are independent
            from bin to bin.
        u: inputs, in any unit that sessions share.
        lengths: valid bins.
        sizes: latents of each region, which are uncorrelated within it.
    """
    valid = np.arange(x.shape[1]) < lengths[:, None]
    x, u = (np.where(valid[..., None], values, 0.0).astype(float) for values in (x, u))
    lags = [lag for lag in _LAGS if lag < x.shape[1]]
    count = np.stack([valid[:, lag:].sum(1) for lag in lags], 1)[..., None, None]

    def sums(other: np.ndarray) -> np.ndarray:
        return np.stack([np.einsum("bti,btj->bij", x[:, lag:], other[:, : x.shape[1] - lag]) for lag in lags], 1)

    lagged = sums(x)
    for block in _blocks(sizes) if noisy else []:
        # What noise adds within a region is not known, but the latents are.
        lagged[:, 0, block, block] = np.eye(block.stop - block.start) * count[:, 0]
    enough = valid.sum(0) >= 0.5 * valid[:, 0].sum()
    smooth = np.where(valid[..., None], gaussian_filter1d(x, _SMOOTHING, axis=1), 0.0)[:, enough]
    present = valid[:, enough, None].astype(float)
    return Moments(_over_trials(lagged, count), _over_trials(sums(u), count), _over_trials(smooth, present))


def aligned(
    own: Moments, reference: Moments, sizes: Sequence[int], there: Bool[np.ndarray, " region"]
) -> Float[np.ndarray, "latent latent"]:
    """M, one block for each region: latents of a session times its transpose are those of the reference.

    Args:
        own: moments of the session.
        reference: those of the session whose coordinates are kept.
        sizes: latents of each region.
        there: regions that both have; the others stay as they are.
    """
    problem = _Problem(own, reference, sizes, there)
    blocks = [block for block, both in zip(problem.blocks, there, strict=True) if both]
    rng, best = np.random.default_rng(0), (np.inf, np.eye(sum(sizes)))
    for _ in range(_STARTS):
        start = np.eye(sum(sizes))
        for block in blocks:
            start[block, block] = _orthogonal(rng, block)
        found = problem.descend(start, blocks)
        # A sign of a region that descent cannot find a way to.
        found = min(found, problem.descend(problem.best_signs(found[1], blocks), blocks), key=lambda one: one[0])
        best = min(best, found, key=lambda one: one[0])
        if best[0] < problem.num_terms:  # what is to be expected of errors alone
            return best[1]
    for _ in range(_SWEEPS):
        turned = problem.descend(problem.other_turns(rng, best[1], blocks), blocks)
        best = min(best, turned, key=lambda one: one[0])
    return best[1]


class _Problem:
    """The sum of squares as a function of M, and ways to lower it."""

    def __init__(
        self, own: Moments, reference: Moments, sizes: Sequence[int], there: Bool[np.ndarray, " region"]
    ) -> None:
        self.blocks = _blocks(sizes)
        bins = min(len(own.average[0]), len(reference.average[0]))
        lags = min(len(own.lagged[0]), len(reference.lagged[0]))
        both = list(zip(own, reference, (lags, lags, bins), strict=True))
        self.pairs = [(a[0][:n], b[0][:n]) for a, b, n in both]
        errors = [a[1][:n] + b[1][:n] for a, b, n in both]
        self.weights = [1.0 / np.maximum(error, _LEAST_VARIANCE) for error in self._by_block(*errors)]
        # Of a region that one of them lacks nothing is known.
        known = np.repeat(there, sizes).astype(float)
        shapes = (known[:, None] * known, known[:, None], known)
        self.weights = [weight * shape for weight, shape in zip(self.weights, shapes, strict=True)]

    @property
    def num_terms(self) -> int:
        """Of the sum."""
        return sum(weight.size for weight in self.weights)

    def _by_block(self, lagged: np.ndarray, driven: np.ndarray, average: np.ndarray) -> list[np.ndarray]:
        """Errors averaged over the latents of a region, between which M turns, and over bins."""
        found = [lagged.copy(), driven.copy(), average * _ALIKE]
        for block in self.blocks:
            for other in self.blocks:
                found[0][:, block, other] = lagged[:, block, other].mean((1, 2), keepdims=True)
            if driven.size:
                found[1][:, block] = driven[:, block].mean()
            found[2][:, block] = average[:, block].mean() * _ALIKE
        return found

    def value(self, matrix: np.ndarray) -> tuple[float, np.ndarray]:
        """The sum of squares and its derivative."""
        (lagged, wanted), (driven, response), (average, level) = self.pairs
        first, second, third = (
            matrix @ lagged @ matrix.T - wanted,
            matrix @ driven - response,
            average @ matrix.T - level,
        )
        total = sum(float((w * e**2).sum()) for w, e in zip(self.weights, (first, second, third), strict=True))
        one, two, three = (w * e for w, e in zip(self.weights, (first, second, third), strict=True))
        slope = (one @ matrix @ lagged.swapaxes(1, 2) + one.swapaxes(1, 2) @ matrix @ lagged).sum(0)
        return total, 2 * (slope + (two @ driven.swapaxes(1, 2)).sum(0) + three.T @ average)

    def descend(self, start: np.ndarray, blocks: Sequence[slice]) -> tuple[float, np.ndarray]:
        """The nearest minimum."""
        free = np.zeros(start.shape, bool)
        for block in blocks:
            free[block, block] = True

        def whole(entries: np.ndarray) -> np.ndarray:
            matrix = start.copy()
            matrix[free] = entries
            return matrix

        def value(entries: np.ndarray) -> tuple[float, np.ndarray]:
            total, slope = self.value(whole(entries))
            return total, slope[free]

        found = minimize(value, start[free], jac=True, method="L-BFGS-B", options={"maxiter": 100})
        return float(found.fun), whole(found.x)

    def best_signs(self, matrix: np.ndarray, blocks: Sequence[slice]) -> np.ndarray:
        """M with the signs of its regions that fit best: all of them where they are few, else one after another."""
        some = list(product((1.0, -1.0), repeat=len(blocks))) if len(blocks) <= _MOST_SIGNS else [
            *(tuple(-1.0 if i == j else 1.0 for i in range(len(blocks))) for j in range(len(blocks) + 1)),
            (-1.0,) * len(blocks),
        ]  # fmt: skip
        return min((self._times(matrix, blocks, signs) for signs in some), key=lambda one: self.value(one)[0])

    def other_turns(self, rng: np.random.Generator, matrix: np.ndarray, blocks: Sequence[slice]) -> np.ndarray:
        """M with the best of some turns of each region, the others as they are."""
        for block in blocks:
            tried = [matrix]
            for _ in range(_TURNS):
                turned = matrix.copy()
                turned[block, block] = _orthogonal(rng, block) @ matrix[block, block]
                tried.append(self.best_signs(self.descend(turned, [block])[1], blocks))
            matrix = min(tried, key=lambda one: self.value(one)[0])
        return matrix

    @staticmethod
    def _times(matrix: np.ndarray, blocks: Sequence[slice], signs: Sequence[float]) -> np.ndarray:
        found = matrix.copy()
        for block, sign in zip(blocks, signs, strict=True):
            found[block] *= sign
        return found


def _over_trials(sums: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A ratio of sums over trials, and the square of its standard error."""
    total = np.maximum(count.sum(0), 1)
    mean = sums.sum(0) / total
    return mean, ((sums - count * mean) ** 2).sum(0) / total**2


def _orthogonal(rng: np.random.Generator, block: slice) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(block.stop - block.start,) * 2))[0]


def _blocks(sizes: Sequence[int]) -> list[slice]:
    ends = np.cumsum(sizes)
    return [slice(int(end - size), int(end)) for size, end in zip(sizes, ends, strict=True)]
