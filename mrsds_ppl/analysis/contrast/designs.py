"""Two ways to compare trials, each with all that chance could have made of the same trials.

An arrangement says how often each trial is counted on each of two sides: (order, side, trial). Where labels are
permuted or signs flipped each trial is counted once, on one of the sides; where trials are resampled it stays on its
side and is counted as often as it was drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from math import comb, prod
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

# Values that differ by less than this share of the largest differ by rounding alone.
_ROUNDING = 1e-12


class Estimate(NamedTuple):
    """Difference of each message, and its standard error."""

    difference: Float[np.ndarray, "order message"]
    error: Float[np.ndarray, "order message"]


@runtime_checkable
class Design(Protocol):
    """Which trials stand on which side, and what else could have stood there."""

    @property
    def num_orders(self) -> int:
        """Different arrangements, the observed one among them."""

    @property
    def num_alike(self) -> int:
        """Arrangements with the same size of the statistic as the observed one, whatever the values."""

    @property
    def observed(self) -> Int[np.ndarray, "1 2 trial"]:
        """The arrangement of the trials as they are."""

    def estimate(self, counts: Int[np.ndarray, "order 2 trial"]) -> Estimate:
        """Difference and standard error of each arrangement."""

    def every_order(self) -> Int[np.ndarray, "order 2 trial"]:
        """All arrangements."""

    def orders(self, rng: np.random.Generator, count: int) -> Int[np.ndarray, "order 2 trial"]:
        """Arrangements at random."""

    def resamples(self, rng: np.random.Generator, count: int) -> Int[np.ndarray, "order 2 trial"]:
        """Trials drawn with replacement from those that are alike."""


@dataclass(frozen=True, eq=False)
class TwoConditions:
    """Trials of two conditions, in one session or several, each of which has trials of both.

        difference = sum_g w_g (mean of second_g - mean of first_g),     w_g ~ n_1g n_2g / (n_1g + n_2g)
        error^2 = sum_g w_g^2 (s_1^2 / n_1g + s_2^2 / n_2g)

    with s_c^2 the variance of condition c around its mean in each session, pooled over sessions. Labels are permuted
    within sessions, and trials resampled within condition and session.

    Args:
        values: of each trial.
        second: whether a trial is of the second condition.
        session: number of the session of each trial, from 0.
    """

    values: Float[np.ndarray, "trial message"]
    second: Bool[np.ndarray, " trial"]
    session: Int[np.ndarray, " trial"]

    @cached_property
    def members(self) -> Sequence[Int[np.ndarray, " _"]]:
        """Places of the trials of each session."""
        return [np.flatnonzero(self.session == number) for number in range(int(self.session.max()) + 1)]

    @cached_property
    def sizes(self) -> Int[np.ndarray, "session 2"]:
        """Trials of each condition in each session."""
        return np.array([[(~self.second[some]).sum(), self.second[some].sum()] for some in self.members])

    @property
    def weights(self) -> Float[np.ndarray, " session"]:
        """w_g, which add up to one."""
        weights = self.sizes.prod(1) / self.sizes.sum(1)
        return weights / weights.sum()

    @property
    def num_orders(self) -> int:
        return prod(comb(int(sizes.sum()), int(sizes[1])) for sizes in self.sizes)

    @property
    def num_alike(self) -> int:
        return 2 if (self.sizes[:, 0] == self.sizes[:, 1]).all() else 1

    @property
    def observed(self) -> Int[np.ndarray, "1 2 trial"]:
        return _sides(self.second[None])

    @cached_property
    def means(self) -> Float[np.ndarray, "2 message"]:
        """Mean of each condition, sessions weighted alike in both."""
        parts = [
            weight * np.stack([self.values[some][self.second[some] == side].mean(0) for side in (False, True)])
            for weight, some in zip(self.weights, self.members, strict=True)
        ]
        return np.sum(parts, axis=0)

    @cached_property
    def _centred(self) -> Sequence[Float[np.ndarray, "_ message"]]:
        return [_centred(self.values[some]) for some in self.members]

    def estimate(self, counts: Int[np.ndarray, "order 2 trial"]) -> Estimate:
        difference, within = np.zeros(()), np.zeros(())
        for some, values, sizes, weight in zip(self.members, self._centred, self.sizes, self.weights, strict=True):
            counted, n = counts[..., some].astype(float), sizes[:, None]
            means = counted @ values / n
            difference = difference + weight * (means[:, 1] - means[:, 0])
            within = within + np.maximum(counted @ values**2 - n * means**2, 0.0)
        variance = within / (self.sizes - 1).sum(0)[:, None]
        factors = (self.weights[:, None] ** 2 / self.sizes).sum(0)
        return Estimate(difference, np.sqrt(np.einsum("ocm,c->om", variance, factors)))

    def every_order(self) -> Int[np.ndarray, "order 2 trial"]:
        chosen = product(*(combinations(some, int(n[1])) for some, n in zip(self.members, self.sizes, strict=True)))
        second = np.zeros((self.num_orders, len(self.second)), bool)
        for row, places in enumerate(chosen):
            second[row, np.concatenate(places).astype(int)] = True
        return _sides(second)

    def orders(self, rng: np.random.Generator, count: int) -> Int[np.ndarray, "order 2 trial"]:
        second = np.zeros((count, len(self.second)), bool)
        for some in self.members:
            second[:, some] = rng.permuted(np.tile(self.second[some], (count, 1)), axis=1)
        return _sides(second)

    def resamples(self, rng: np.random.Generator, count: int) -> Int[np.ndarray, "order 2 trial"]:
        found = np.zeros((count, 2, len(self.second)), int)
        for some in self.members:
            for side in (0, 1):
                own = some[self.second[some] == bool(side)]
                found[:, side, own] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=count)
        return found


@dataclass(frozen=True, eq=False)
class TwoEpochs:
    """The same trials in two epochs: the mean difference of a trial, whose sign is flipped by chance.

    Args:
        values: of each trial, second epoch minus first.
    """

    values: Float[np.ndarray, "trial message"]

    @property
    def num_orders(self) -> int:
        return 2 ** len(self.values)

    @property
    def num_alike(self) -> int:
        return 2

    @property
    def observed(self) -> Int[np.ndarray, "1 2 trial"]:
        return _sides(np.ones((1, len(self.values)), bool))

    def estimate(self, counts: Int[np.ndarray, "order 2 trial"]) -> Estimate:
        n, counted = len(self.values), counts.astype(float)
        mean = (counted[:, 1] - counted[:, 0]) @ self.values / n
        within = np.maximum(counted.sum(1) @ self.values**2 - n * mean**2, 0.0)
        return Estimate(mean, np.sqrt(within / (n * (n - 1))))

    def every_order(self) -> Int[np.ndarray, "order 2 trial"]:
        return _sides(np.array(list(product((True, False), repeat=len(self.values)))))

    def orders(self, rng: np.random.Generator, count: int) -> Int[np.ndarray, "order 2 trial"]:
        return _sides(rng.random((count, len(self.values))) < 0.5)

    def resamples(self, rng: np.random.Generator, count: int) -> Int[np.ndarray, "order 2 trial"]:
        n = len(self.values)
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=count)
        return np.stack([np.zeros_like(drawn), drawn], axis=1)


def _sides(second: Bool[np.ndarray, "order trial"]) -> Int[np.ndarray, "order 2 trial"]:
    return np.stack([~second, second], axis=1).astype(int)


def _centred(values: Float[np.ndarray, "trial message"]) -> Float[np.ndarray, "trial message"]:
    """Around the mean, and exactly zero where trials differ by rounding alone."""
    around = values - values.mean(0)
    return np.where(np.abs(around) > _ROUNDING * np.abs(values).max(0), around, 0.0)
