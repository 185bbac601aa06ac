"""Splits: trials for training and test, neurons hidden for co-smoothing."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from mrsds_ppl.data.continuous.blocks import Blocks, held_out_blocks, held_out_fold
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import DataError


class Split(NamedTuple):
    """Trials for training and for test; of pieces of one recording also those between, which are neither."""

    train: Trials
    test: Trials
    gap: Trials

    @property
    def new(self) -> list[Trials]:
        """What is not trained on."""
        return [part for part in (self.test, self.gap) if part.num_trials]


def split_trials(trials: Trials, test_fraction: float, seed: int) -> Split:
    """Random split by trials, or by blocks of pieces of one recording; each part keeps its order in the recording.

    Of joined sessions each is split by itself.

    Neighbours in time are alike: pieces are held out in blocks, and those right before and after one are left out.

    Args:
        trials: the recording.
        test_fraction: fraction of trials for test, at least one trial.
        seed: seed of the draw.

    Raises:
        DataError: fewer than two trials, or four pieces.
    """
    return _by_session(trials, lambda part, number, session: _held_out(part, test_fraction, seed + number, session))


def split_into_fold(trials: Trials, folds: int, fold: int, seed: int) -> Split:
    """One split of a cross-validation, in which every trial is the test of exactly one fold.

    Trials are dealt at random, those of joined sessions session by session. Pieces of one recording are not: a fold is
    a block of neighbours, and the pieces right before and after it are left out.

    Args:
        trials: the recording.
        folds: how many there are.
        fold: which of them is the test, counted from 0.
        seed: seed of the draw.

    Raises:
        DataError: fewer trials than folds, or pieces that leave none to train on.
    """
    return _by_session(trials, lambda part, number, session: _dealt_out(part, folds, fold, seed + number, session))


def _by_session(trials: Trials, held_out: Callable[[Trials, int, str], Blocks]) -> Split:
    """The split whose parts ``held_out`` names of each session, given its trials, its number and how to call it."""
    test, gap = np.zeros(trials.num_trials, bool), np.zeros(trials.num_trials, bool)
    for number, (name, part) in enumerate(trials.by_session().items()):
        own = slice(None) if trials.sessions is None else trials.sessions == name
        test[own], gap[own] = held_out(part, number, f"session {name}: " if name else "")
    return Split(*(trials.select(np.flatnonzero(part)) for part in (~test & ~gap, test, gap)))


def _dealt_out(trials: Trials, folds: int, fold: int, seed: int, session: str) -> Blocks:
    """Which trials of a session are the test of a fold, and which are beside those."""
    if trials.num_trials < folds:
        raise DataError(
            f"{session}ys: found {trials.num_trials} trials for {folds} folds; need at least one trial for each fold. "
            "Take fewer folds."
        )
    if trials.follows is not None:
        return held_out_fold(trials.numbers, trials.follows, folds, fold)
    test = np.zeros(trials.num_trials, bool)
    test[np.random.default_rng(seed).permutation(trials.num_trials)[fold::folds]] = True
    return Blocks(test, np.zeros_like(test))


def _held_out(trials: Trials, fraction: float, seed: int, session: str) -> Blocks:
    """Which trials of a session are for test, and which are between those and the ones to train on."""
    if trials.follows is not None:
        return held_out_blocks(trials.numbers, trials.follows, fraction, seed)
    if trials.num_trials < 2:
        raise DataError(
            f"{session}ys: found {trials.num_trials} trial; need at least 2, one to train on and one to test on."
        )
    count = min(max(1, round(fraction * trials.num_trials)), trials.num_trials - 1)
    test = np.zeros(trials.num_trials, bool)
    test[np.random.default_rng(seed).permutation(trials.num_trials)[:count]] = True
    return Blocks(test, np.zeros_like(test))


def choose_held_out_neurons(region_sizes: list[int], fraction: float, seed: int) -> Int[np.ndarray, " hidden"]:
    """Indices of ``fraction`` of each region's neurons, to be hidden from the encoder at test.

    At least one neuron of each region stays in sight; a region of one neuron hides none.
    """
    rng = np.random.default_rng(seed)
    chosen, first = [], 0
    for size in region_sizes:
        count = min(max(1, round(fraction * size)), size - 1) if fraction > 0 else 0
        chosen.append(first + np.sort(rng.choice(size, count, replace=False)))
        first += size
    return np.concatenate(chosen)
