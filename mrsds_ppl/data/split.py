"""Splits: trials for training and test, neurons hidden for co-smoothing."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from mrsds_ppl.data.continuous.blocks import held_out_blocks
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
    test, gap = np.zeros(trials.num_trials, bool), np.zeros(trials.num_trials, bool)
    for number, (name, part) in enumerate(trials.by_session().items()):
        own = slice(None) if trials.sessions is None else trials.sessions == name
        test[own], gap[own] = _held_out(part, test_fraction, seed + number, f"session {name}: " if name else "")
    return Split(*(trials.select(np.flatnonzero(part)) for part in (~test & ~gap, test, gap)))


def _held_out(trials: Trials, fraction: float, seed: int, session: str) -> tuple[np.ndarray, np.ndarray]:
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
    return test, np.zeros_like(test)


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
