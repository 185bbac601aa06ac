"""Rounds of scoring on log p(y) after training, in the networks' own weights, states and paths summed out.

    w  <-  w + V c,      c = (I + P)^-1 (g - P a),      P = 1 / tau^2 for each message

with the directions V of all messages (:mod:`mrsds_ppl.analysis.weights.tangents`), information I and slope g of the
signals (:mod:`mrsds_ppl.analysis.weights.information`), the widths tau of largest evidence
(:mod:`mrsds_ppl.analysis.weights.posterior`), and the coefficients a of the messages between regions as they are: what
no signal asks for vanishes, whatever Adam has made of it. The prior pulls local dynamics nowhere. As much of a step is
taken as raises log p(y) and the log prior together, around paths smoothed anew. The state noise stays: of a program
linearised around paths log p(y) asks for less than there is, with which states and latents are too sure.

Adam on draws from a guide hardly moves along directions in which regions look alike: it ends with messages that are too
small, or another region's.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float, PRNGKeyArray

from mrsds_ppl.analysis.weights.information import information
from mrsds_ppl.analysis.weights.posterior import prior_of
from mrsds_ppl.analysis.weights.tangents import Change, Tangents, change_of, own_coefficients, tangents
from mrsds_ppl.backend.trials_at_once import Parts, in_parts, over_parts
from mrsds_ppl.data.trials import Batch
from mrsds_ppl.models.dynamics import Dynamics, Rows
from mrsds_ppl.models.filtering import (
    SmoothedPaths,
    count_transitions,
    find_states,
    smooth_and_find_states,
)
from mrsds_ppl.models.mrsds import MRSDS, Networks
from mrsds_ppl.start.ascent.evidence_ascent import draw_rows
from mrsds_ppl.statespace.linear_gaussian import Latents, States
from mrsds_ppl.train.progress import Rounds

_STEPS = 3000  # of the trials, for directions and sizes of messages; as for edges, so that these compile nothing anew
_SHARES = (1.0, 0.5, 0.25)


@dataclass(frozen=True)
class Scoring:
    """Rounds of scoring of a trained program.

    Args:
        model, data: the program and its training trials.
        num_rounds: at most.
        should_stop: asked after each round.
        say: prints a line.
        progress: whether a bar is shown.
    """

    model: MRSDS
    data: Batch
    num_rounds: int
    should_stop: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = lambda line: None
    progress: bool = False

    def __call__(self, key: PRNGKeyArray, values: dict[str, Any], x: Latents) -> tuple[dict[str, Any], Latents]:
        """Values of the program's sites, and paths under them.

        Args:
            key: random key.
            values: as trained.
            x: paths under these.
        """
        if (reason := why_no_scoring(self.model)) is not None:
            self.say(f"scoring: left out: {reason}")
            return values, x
        found: list[Scored] = []
        with Rounds("scoring", self.num_rounds, self.say, self.progress) as rounds:
            for now in scoring(key, self.model.networks_from(values), self.model, self.data, x):
                found.append(now)
                if len(found) > self.num_rounds or self.should_stop():
                    break
                if len(found) > 1:
                    rounds.next()
        first, last = found[0].log_evidence, found[-1].log_evidence
        self.say(f"scoring: log p(y) {first:.1f} nats, {last:.1f} after {len(found) - 1} of {self.num_rounds} rounds")
        return {**values, "dynamics$params": found[-1].networks.dynamics}, found[-1].paths.moments.mean


class Scored(NamedTuple):
    """The program after a round, paths and states under it, and log p(y) of all trials in nats."""

    networks: Networks
    paths: SmoothedPaths
    probabilities: States
    log_evidence: float


class _Told(NamedTuple):
    """Directions, what the messages between regions are along them, I + P with its P, and g."""

    tangents: Tangents
    between: Float[np.ndarray, " coefficient"]
    precision: Float[np.ndarray, "coefficient coefficient"]
    prior: Float[np.ndarray, " coefficient"]
    slope: Float[np.ndarray, " coefficient"]

    def log_prior(self, step: np.ndarray) -> float:
        """Of the messages after a step, up to a constant."""
        return float(-(self.prior * (self.between + step) ** 2).sum() / 2)


def why_no_scoring(model: MRSDS) -> str | None:
    """What keeps the weights of a program from being scored, or None."""
    if model.options.dynamics.communication_type == "additive-shared":
        return "messages share hidden layers, so that none can change by itself"
    return None


def scoring(key: PRNGKeyArray, networks: Networks, model: MRSDS, data: Batch, x: Latents) -> Iterator[Scored]:
    """A program before the first round and after each, until a round raises nothing; only dynamics change.

    Args:
        key: random key.
        networks, model: the program, one that :func:`why_no_scoring` says nothing of.
        data: the trials.
        x: their paths.
    """
    parts = in_parts(data)
    now: Scored | None = _judged(networks, model, parts, x, find_states(networks, model, parts, x).states)
    for number in count():
        if now is None:
            return
        yield now
        now = _after_a_round(random.fold_in(key, number), model, data, parts, now)


def _after_a_round(key: PRNGKeyArray, model: MRSDS, data: Batch, parts: Parts, before: Scored) -> Scored | None:
    """The program after the largest share of a step that raises the objective; None if none does."""
    told = _told(key, model, data, parts, before)
    step = np.linalg.solve(told.precision, told.slope - told.prior * told.between)
    least = before.log_evidence + told.log_prior(np.zeros_like(step))
    for share in _SHARES:
        moved = moved_weights(before.networks.dynamics, change_of(told.tangents, share * step))
        networks, paths = before.networks._replace(dynamics=moved), before.paths
        tried = _judged(networks, model, parts, paths.moments.mean, paths.states)
        if tried.log_evidence + told.log_prior(share * step) > least:
            return tried
    return None


def _told(key: PRNGKeyArray, model: MRSDS, data: Batch, parts: Parts, now: Scored) -> _Told:
    """What the trials tell of the weights, states weighed by their probabilities."""
    networks, x = now.networks, now.paths.moments.mean
    row_key, choice_key, tangent_key = random.split(key, 3)
    rows = draw_rows(row_key, model, data, now.paths)
    inside = np.flatnonzero(np.asarray(rows.weights).sum(1) > 0)
    chosen = np.asarray(random.choice(choice_key, inside, (min(_STEPS, len(inside)),), replace=False))
    rows = Rows(*(jnp.asarray(np.asarray(part)[chosen]) for part in rows))
    found = tangents(tangent_key, networks.dynamics, rows)
    each = over_parts(partial(information, networks, found, model), parts, x, now.probabilities)
    square = np.sum([np.asarray(some.information, float) for some in each], axis=0)
    # Trials without bins, which fill up the last part, say nothing.
    slope = np.sum([some.slope.astype(float).sum(0) for some in each], axis=0)
    own = np.asarray(own_coefficients(networks.dynamics, found, rows), float)
    prior, local = prior_of(square, own), np.eye(own.shape[1], own.shape[2], dtype=bool)[..., None]
    return _Told(found, np.where(local, 0.0, own).reshape(-1), square + np.diag(prior), prior, slope)


@jax.jit
def moved_weights(dynamics: Dynamics, change: Change) -> Dynamics:
    """The networks with changed weights; what that adds to free constants is taken off again.

    Args:
        dynamics: networks that share no hidden layers.
        change: of :func:`mrsds_ppl.analysis.weights.tangents.changes`.
    """
    moved = eqx.tree_at(lambda d: d.noise, jax.tree.map(jnp.add, dynamics, change.weights), dynamics.noise)
    if dynamics.pairs.biases is None:
        return moved
    means = change.means[:, :, : len(dynamics.latent_sizes)]
    return eqx.tree_at(lambda d: d.pairs.biases[-1], moved, replace_fn=lambda bias: bias - means)


def _judged(networks: Networks, model: MRSDS, parts: Parts, x: Latents, states: Array) -> Scored:
    """Paths smoothed anew, their states, and the evidence around them, no path of states dropped."""
    moments, found = smooth_and_find_states(networks, model, parts, x, states)
    evidence = count_transitions(networks, model, parts, moments.mean).log_evidence
    log_evidence = float(np.asarray(evidence, float).sum())
    return Scored(networks, SmoothedPaths(moments, found.states), found.probabilities, log_evidence)
