"""The posterior of messages given the signals, Laplace's with one step of scoring from the fit, and draws of it.

    c ~ N(h C g, C),      C = (I + P)^-1,      P = 1 / tau^2 for each message

with coefficients c of the changes of a message (:mod:`mrsds_ppl.analysis.weights.tangents`), the information I and
slope g of the signals (:mod:`mrsds_ppl.analysis.weights.information`). Training ends near the largest log p(y), not at
it: early, or where the guide pulls it. One step of scoring from there is as good an estimator as the maximum itself
(Le Cam 1956), with g and I of one objective: both hold gains and states. P is of changes, and pulls no message towards
zero: it bounds those that the signals do not tell of. The length h is 1, or as much of it as raises log p(y) and the
log density of the change together.

A width tau is the size of the fitted message in such coefficients, over those that the signals tell of, which is where
the evidence is largest:

    tau^2  <-  |w|^2 / gamma,      gamma = sum_i (1 - C_ii / tau^2).

A message that is not there has small widths, and is as sure to be small. Source: MacKay (1992).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from scipy.linalg import lapack

from mrsds_ppl.analysis import FittedProgram
from mrsds_ppl.analysis.weights.information import information
from mrsds_ppl.analysis.weights.tangents import (
    Change,
    Moved,
    Tangents,
    change_of,
    changes,
    own_coefficients,
    tangents,
)
from mrsds_ppl.backend.trials_at_once import Parts, in_parts, over_parts
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.models.dynamics import Rows
from mrsds_ppl.models.filtering import count_transitions, smooth_paths
from mrsds_ppl.models.linearised import with_dynamics
from mrsds_ppl.statespace.linear_gaussian import Latents, States

_ROUNDS = 20
_SHARES = (1.0, 0.5, 0.25)
_TINY = 1e-12
# Of the coefficients of a message at least this share of one is known, so that widths stay finite.
_LEAST = 0.1

Coefficients = Float[np.ndarray, " coefficient"]
Square = Float[np.ndarray, "coefficient coefficient"]


class WeightPosterior(NamedTuple):
    """Directions of the messages, and what is known of their coefficients.

    ``fitted`` are those of the fitted messages, ``slopes`` those of log p(y) of each training trial with gains held,
    ``information`` and ``prior`` the two parts of C^-1 (of the prior its diagonal), ``root`` the square root of C,
    ``mode`` the mean of the changes.
    """

    tangents: Tangents
    fitted: Float[np.ndarray, "group target source direction"]
    slopes: Float[np.ndarray, "trial coefficient"]
    information: Square
    prior: Coefficients
    root: Square
    mode: Coefficients

    def draws(self, key: PRNGKeyArray, count: int) -> Change:
        """Changes of all weights, whose leaves have an axis of draws in front."""
        noise = random.normal(key, (count, len(self.root)))
        root, mode = (jnp.asarray(some, noise.dtype) for some in (self.root, self.mode))
        return _changed(self.tangents, (mode + noise @ root.T).reshape(count, *self.tangents.scales.shape))

    def change(self, coefficients: Coefficients) -> Change:
        """The change of all weights that coefficients stand for."""
        return change_of(self.tangents, coefficients)

    def apart(self, some: Bool[np.ndarray, " coefficient"]) -> Float[np.ndarray, "some coefficient"]:
        """B = C[M,M]^-1 C[M,:]: what is left of slopes along coefficients M once the others have settled."""
        return np.linalg.solve(self.root[some] @ self.root[some].T, self.root[some] @ self.root.T)

    def without(self, some: Bool[np.ndarray, " coefficient"]) -> Coefficients:
        """Where coefficients go from the fit if some are to be zero: d = - B^T c[M]."""
        return -self.apart(some).T @ self.fitted.reshape(-1)[some]


@jax.jit
def _changed(given: Tangents, coefficients: Array) -> Change:
    return jax.vmap(partial(changes, given))(coefficients)


def weight_posterior(
    key: PRNGKeyArray,
    fitted: FittedProgram,
    training: Trials,
    x: Float[np.ndarray, "trial time latent"],
    z_prob: Float[np.ndarray, "trial time state"],
    steps: Rows,
) -> WeightPosterior:
    """What the training trials tell of the messages.

    Args:
        key: random key.
        fitted: program and parameters.
        training: the trials.
        x: posterior means of their latents.
        z_prob: probabilities of their states.
        steps: some steps of theirs, on which directions are sought.
    """
    networks, model = fitted.networks, fitted.model
    found = tangents(key, networks.dynamics, steps)
    parts = in_parts(training.batch())
    kind = networks.dynamics.noise.raw_diagonal.dtype
    start, states = (jnp.asarray(np.nan_to_num(a), kind) for a in (x, z_prob))
    each = over_parts(partial(information, networks, found, model), parts, start, states)
    told = np.sum([np.asarray(some.information, float) for some in each], axis=0)
    held = np.concatenate([some.slope for some in each])[: parts.num_trials].astype(float)
    own = np.asarray(own_coefficients(networks.dynamics, found, steps), float)
    prior = prior_of(told, own)
    squares, axes = np.linalg.eigh(_scaled(told, prior))
    root = axes / np.sqrt(prior[:, None] * (1.0 + np.maximum(squares, 0.0)))
    begun = WeightPosterior(found, own, held, told, prior, root, np.zeros(len(prior)))
    return begun._replace(mode=_mode(fitted, begun, parts, start, states))


def _mode(fitted: FittedProgram, known: WeightPosterior, parts: Parts, x: Latents, states: States) -> Coefficients:
    """A step of scoring from the fit that raises log p(y) and log density of the change together; none if none does."""
    networks, model = fitted.networks, fitted.model

    def value(coefficients: Coefficients) -> float:
        moved = with_dynamics(networks, Moved(networks.dynamics, known.change(coefficients)))
        paths = smooth_paths(moved, model, parts, x, states)
        log_evidence = np.asarray(count_transitions(moved, model, parts, paths.mean).log_evidence, float).sum()
        return float(log_evidence - (known.prior * coefficients**2).sum() / 2)

    step = known.root @ (known.root.T @ known.slopes.sum(0))
    least = value(known.mode)
    rises = (share * step for share in _SHARES if value(share * step) > least)
    return next(rises, known.mode)


def prior_of(told: Square, own: Float[np.ndarray, "group target source direction"]) -> Coefficients:
    """P under the widths of largest evidence.

    Args:
        told: the information of the signals.
        own: coefficients of the messages.
    """
    size = np.maximum((own**2).sum(-1, keepdims=True), _TINY)
    squares = size / own.shape[-1]
    for _ in range(_ROUNDS):
        prior = np.broadcast_to(1.0 / squares, own.shape).reshape(-1)
        left = _inverse_diagonal(_scaled(told, prior) + np.eye(len(prior))).reshape(own.shape)
        known = (1.0 - left).sum(-1, keepdims=True)
        squares = size / np.maximum(known, _LEAST)
    return np.broadcast_to(1.0 / squares, own.shape).reshape(-1)


def _inverse_diagonal(matrix: Square) -> Coefficients:
    """By Cholesky, a third of the work of an inverse; by that where rounding has left the matrix indefinite."""
    factor, failed = lapack.dpotrf(matrix, lower=1)
    if failed:
        return np.diag(np.linalg.inv(matrix))
    return (lapack.dtrtri(factor, lower=1)[0] ** 2).sum(0)


def _scaled(told: Square, prior: Coefficients) -> np.ndarray:
    """P^-1/2 I P^-1/2: widths of messages that are there and of others differ by many powers of ten."""
    scale = 1.0 / np.sqrt(prior)
    return scale[:, None] * (told + told.T) / 2 * scale
