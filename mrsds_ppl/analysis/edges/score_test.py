"""Whether a message is there: what training trials would gain by it, at the dynamics without it.

Without a message, whose coefficients M are zero, the others' coefficients c settle at d from the fit, and the efficient
score of trial i, which nothing that the others could say has a part in, is

    u_i = B ( g_i - l_i I d ),      B = C[M,M]^-1 C[M,:],      d = - C[:,M] C[M,M]^-1 c[M],

with the slope g_i and the information I of :mod:`mrsds_ppl.analysis.weights.information`, C = (I + P)^-1, and the
trial's share l_i of all bins. The slope, too, is the one with gains held, whose variance is I: in the exact one gains
and covariances tell more, of which I knows nothing. Where there is no message the mean of u_i is zero, whatever the fit
has made of noise; the statistic and its law are

    T = (sum_i u_i)^T (B I B^T)^-1 (sum_i u_i),      and that of the same sum with a random sign for each trial,

which asks neither that log p(y) of the program is the true one nor that trials are alike. Source: Rao (1948), tests by
scores; Hemerik, Goeman and Finos (2020), signs of score contributions.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from mrsds_ppl.analysis.weights import WeightPosterior

# p-values are multiples of 1e-4, finer than what is asked of a single edge among some hundreds.
_FLIPS = 9_999
# Directions with a smaller share of the information of the first are rounding; in a state that no bin is in all are.
_NOTHING, _TINY = 1e-6, 1e-12
# State (one beyond the last for all of them), target, source.
Edge = tuple[int, int, int]


def score_test(
    known: WeightPosterior, lengths: Int[np.ndarray, " trial"], *, seed: int = 0
) -> Float[np.ndarray, "state_or_all target source"]:
    """p-value of each message in each state, and in all states at once; NaN for a region's own change.

    Args:
        known: what training trials tell of the weights. Of weights that states share the message is there in all.
        lengths: bins of these trials.
        seed: of the signs.
    """
    targets, sources = known.fitted.shape[1:3]
    num_states = known.tangents.means.shape[1]
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(_FLIPS, len(lengths)))
    found = np.full((num_states + 1, targets, sources), np.nan)
    for place in edges(found.shape):
        found[place] = _p_value(known, coefficients_of(known, place), lengths / lengths.sum(), signs)
    return found


def edges(shape: tuple[int, ...]) -> Iterator[Edge]:
    """State, target and source of each message between two, all states last."""
    return ((k, r, s) for k, r, s in np.ndindex(*shape) if r != s)


def coefficients_of(known: WeightPosterior, place: Edge) -> Bool[np.ndarray, " coefficient"]:
    """Those of a message in a state, or in all; of weights that states share, in all."""
    (state, target, source), num_groups = place, len(known.fitted)
    some = np.zeros(known.fitted.shape, bool)
    some[state if 1 < num_groups > state else slice(None), target, source] = True
    return some.reshape(-1)


def _p_value(
    known: WeightPosterior,
    some: Bool[np.ndarray, " coefficient"],
    share: Float[np.ndarray, " trial"],
    signs: Float[np.ndarray, "flip trial"],
) -> float:
    apart = known.apart(some)
    told = known.information @ apart.T  # of thousands of coefficients, and all that is needed of them
    missing = apart @ told
    scores = known.slopes @ apart.T + np.outer(share, missing @ known.fitted.reshape(-1)[some])
    squares, axes = np.linalg.eigh(missing)
    kept = squares > max(_NOTHING * squares[-1], _TINY)
    scores = scores @ (axes[:, kept] / np.sqrt(squares[kept]))
    size = (scores.sum(0) ** 2).sum()
    return float((1 + (((signs @ scores) ** 2).sum(1) >= size).sum()) / (1 + len(signs)))
