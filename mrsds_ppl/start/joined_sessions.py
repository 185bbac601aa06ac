"""Start of joined sessions by smoothing: the largest one tells the program, and the others find their place in it.

Sessions in coordinates of their own would each pull the dynamics to themselves. So Laplace EM fits one session alone:
of those with the most regions the one with the most signals, neurons times bins. The emissions of the others follow its
program; see :mod:`mrsds_ppl.start.session_emissions`. What they have to say about it, joint training hears.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import PRNGKeyArray, PyTree

from mrsds_ppl.data.batch import Batch
from mrsds_ppl.models.filtering import SmoothedPaths
from mrsds_ppl.models.mrsds import MRSDS
from mrsds_ppl.start.laplace_em import LaplaceEM, SmoothedFit
from mrsds_ppl.start.session_emissions import drawn, fit_session, reference_of, regions_seen
from mrsds_ppl.train.progress import Rounds

_EMISSIONS = "emissions$params"


@dataclass(frozen=True)
class JoinedEM:
    """Laplace EM of sessions with other neurons each, whose emissions are affine.

    Args:
        of_one: Laplace EM of one session.
        names: of all sessions.
    """

    of_one: LaplaceEM
    names: Sequence[str]

    def __call__(self, key: PRNGKeyArray, params: dict[str, PyTree], model: MRSDS, data: Batch) -> SmoothedFit:
        """Program and paths; see :class:`~mrsds_ppl.start.laplace_em.LaplaceEM`."""
        session, say = np.asarray(data.session), self.of_one.say
        parts = {int(number): _trials(data, session == number) for number in np.unique(session)}
        there = {number: regions_seen(model, own) for number, own in parts.items()}
        first = max(parts, key=lambda number: (there[number].sum(), np.asarray(parts[number].observed).sum()))
        say(f"smoothing: session {self.names[first]} alone, which has the most regions and signals")
        own, begun = parts.pop(first), params[_EMISSIONS]
        alone = self.of_one(random.fold_in(key, 0), params, model, own)
        emissions = begun.with_session(first, alone.params[_EMISSIONS].parts.of(first))
        params, paths = {**alone.params, _EMISSIONS: emissions}, {first: alone.paths}
        x = np.asarray(drawn(random.fold_in(key, 1), alone.paths.moments))
        reference = reference_of(x, own, model, there[first])
        with Rounds("aligning sessions", len(parts), say, self.of_one.progress) as rounds:
            for number, own in parts.items():
                found = fit_session(random.fold_in(key, 2 + number), params, model, own, number, reference)
                emissions, paths[number] = emissions.with_session(number, found.emissions), found.paths
                begins, ends = found.evidence
                say(
                    f"smoothing: session {self.names[number]}: evidence of its emissions {begins:.4f} nats a bin, "
                    f"{ends:.4f} after rounds of them and its paths"
                )
                rounds.next()
        return SmoothedFit({**params, _EMISSIONS: emissions}, _together(paths, session))


def _trials(data: Batch, which: np.ndarray) -> Batch:
    return jax.tree.map(lambda part: part[which], data)


def _together(found: dict[int, SmoothedPaths], session: np.ndarray) -> SmoothedPaths:
    """Paths of all trials."""

    def put(*parts: jax.Array) -> jax.Array:
        whole = np.zeros((len(session), *parts[0].shape[1:]), parts[0].dtype)
        for number, part in zip(found, parts, strict=True):
            whole[session == number] = np.asarray(part)
        return jnp.asarray(whole)

    return jax.tree.map(put, *found.values())
