"""A Gaussian prior on messages whose widths are those of largest evidence, so that it asks for no number.

For what region s tells region r, with weights w_k in state k, all of the same size in units of the target's noise,

    log p(w) = - 1/2 sum_k a_k w_k^T B w_k - 1/2 sum_{k > j} b_kj (w_k - w_j)^T B (w_k - w_j),
    w^T B w = the variance of Q^{-1/2} W phi over the latents visited.

A message that the signals do not ask for gets a large a_k and vanishes; one that two states share gets a large b_kj and
is estimated from the bins of both; where they differ, b_kj goes to zero and nothing ties them. Widths move by

    lambda  <-  lambda (tr(P^-1 S) - tr(C S)) / w^T S w

for a term lambda S of the prior precision P and posterior covariance C. Source: MacKay (1992) and Tipping (2001) for
relevance determination; Wood and Fasiolo (2017) for terms that overlap.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

_START, _LEAST, _MOST = 1e-3, 1e-6, 1e5
_RIDGE = 1e-6


class Edge(NamedTuple):
    """Weights of one directed message in all states (where they stand among all), and S of each term of its prior."""

    weights: Int[np.ndarray, " weight"]
    terms: list[Float[np.ndarray, "weight weight"]]


def edge(weights: Int[np.ndarray, "state latent feature"], variance: Float[np.ndarray, "feature feature"]) -> Edge:
    """The prior's terms of one message, first a_k of each state, then b_kj of each pair.

    Args:
        weights: where its weights stand among all.
        variance: covariance of the features of its source over the latents visited, times 1 / Q of the target.
    """
    states, latents, features = weights.shape
    square = np.kron(np.eye(latents), variance) + _RIDGE * np.eye(latents * features)
    own = np.eye(states)
    terms = [np.kron(np.outer(row, row), square) for row in own]
    terms += [np.kron(np.outer(own[k] - own[j], own[k] - own[j]), square) for k, j in combinations(range(states), 2)]
    return Edge(weights.reshape(-1), terms)


def first_widths(edges: Sequence[Edge]) -> list[Float[np.ndarray, " term"]]:
    """a_k and b_kj to start from: next to nothing."""
    return [np.full(len(some.terms), _START) for some in edges]


def precision(some: Edge, widths: Float[np.ndarray, " term"]) -> Float[np.ndarray, "weight weight"]:
    """P of one message."""
    return np.einsum("t,tij->ij", widths, np.stack(some.terms))


def moved_widths(
    some: Edge,
    widths: Float[np.ndarray, " term"],
    covariance: Float[np.ndarray, "weight weight"],
    values: Float[np.ndarray, " weight"],
) -> Float[np.ndarray, " term"]:
    """Widths after one update, for the posterior covariance and mean of this message's weights."""
    prior = np.linalg.inv(precision(some, widths))
    freed = np.array([np.sum((prior - covariance) * term) for term in some.terms])
    size = np.array([values @ term @ values for term in some.terms])
    return np.clip(widths * np.maximum(freed, _LEAST) / np.maximum(size, _LEAST), _LEAST, _MOST)
