"""Which pieces of a recording are held out: blocks of neighbours, and a gap around each."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from mrsds_ppl.errors import DataError

_MOST_BLOCKS, _PIECES_OF_A_BLOCK, _FEWEST_PIECES = 5, 3, 4


class Blocks(NamedTuple):
    """Pieces for test, and those beside them, which are neither trained on nor tested."""

    test: Bool[np.ndarray, " piece"]
    gap: Bool[np.ndarray, " piece"]


def held_out_blocks(
    numbers: Int[np.ndarray, " piece"], follows: Bool[np.ndarray, " piece"], fraction: float, seed: int
) -> Blocks:
    """Up to five blocks of at least three pieces where there are as many, evenly spread from a random piece on.

    Every piece is as likely to be tested. A block that reaches over the end of the recording goes on at its start.

    Args:
        numbers: of the pieces, ascending.
        follows: whether each carries on from that of the number before.
        fraction: of the pieces for test; at least one, and so many that some are left to train on.
        seed: of the draw.

    Raises:
        DataError: fewer than four pieces.
    """
    pieces = len(numbers)
    if pieces < _FEWEST_PIECES:
        raise DataError(
            f"piece: found {pieces} {'piece' if pieces == 1 else 'pieces'} of one recording; need at least "
            f"{_FEWEST_PIECES}, to train on, to test on, and a gap between. Take shorter pieces, or more trials."
        )
    wanted = max(1, round(fraction * pieces))
    blocks = min(max(wanted // _PIECES_OF_A_BLOCK, 1), _MOST_BLOCKS)
    # Between blocks, two pieces are a gap; one more somewhere is left to train on.
    count = max(1, min(wanted, pieces - 2 * blocks - 1))
    test = np.zeros(pieces, bool)
    first = int(np.random.default_rng(seed).integers(pieces))
    for block, part in enumerate(np.array_split(np.arange(count), blocks)):
        test[(first + block * pieces // blocks + np.arange(len(part))) % pieces] = True
    return Blocks(test, _beside(test, numbers, follows))


def held_out_fold(
    numbers: Int[np.ndarray, " piece"], follows: Bool[np.ndarray, " piece"], folds: int, fold: int
) -> Blocks:
    """One block of neighbours, of which ``folds`` of about one size make up the recording.

    Args:
        numbers, follows: as of :func:`held_out_blocks`.
        folds: how many blocks there are.
        fold: which of them is held out, counted from 0.

    Raises:
        DataError: none is left to train on.
    """
    test = np.zeros(len(numbers), bool)
    test[np.array_split(np.arange(len(numbers)), folds)[fold]] = True
    gap = _beside(test, numbers, follows)
    if (test | gap).all():
        raise DataError(
            f"piece: found {len(numbers)} pieces of one recording for {folds} folds; beside a fold and the gap around "
            "it none is left to train on. Take shorter pieces."
        )
    return Blocks(test, gap)


def _beside(
    test: Bool[np.ndarray, " piece"], numbers: Int[np.ndarray, " piece"], follows: Bool[np.ndarray, " piece"]
) -> Bool[np.ndarray, " piece"]:
    """Pieces right before or after one that is held out."""
    joined = follows[1:] & (np.diff(numbers) == 1)
    gap = np.zeros(len(test), bool)
    gap[1:] |= joined & test[:-1]
    gap[:-1] |= joined & test[1:]
    return gap & ~test
