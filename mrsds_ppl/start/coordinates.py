"""Coordinates of latents in which they follow a given program best: the step of EM in parameters that it lacks.

For each invertible T of a region's latents and each s, latents T x + s with loadings C T^-1 and offset b - C T^-1 s say
the same of the signals. Where the signals tell the path well, the M step of the emissions finds those that drew it, and
EM hardly leaves the coordinates in which it began. So T and s are found as well, as what maximises

    J(T, s) = sum_t E log p(T x_t + s | T x_{t-1} + s, u_t) + log |det T|,

states summed out, x drawn from the posterior of the path. log p(y) rises by it as by any M step: parameter-expanded EM
(Liu, Rubin and Wu, 1998). J has many maxima, and of paths that another program has drawn the largest need not be the
right one: it is for steps from where moments, and the evidence, say that the right one is near.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy.linalg import block_diag
from scipy.optimize import minimize

from mrsds_ppl.data.batch import Batch
from mrsds_ppl.models.mrsds import MRSDS, Networks
from mrsds_ppl.ppl.markov import PathLaw
from mrsds_ppl.statespace.linear_gaussian import Latents, valid_bins

_MOST_STEPS = 100


class Coordinates(NamedTuple):
    """x -> matrix x + offset, a block for each region."""

    matrix: Float[np.ndarray, "latent latent"]
    offset: Float[np.ndarray, " latent"]

    @classmethod
    def unmoved(cls, num_latents: int) -> "Coordinates":
        """x itself."""
        return cls(np.eye(num_latents), np.zeros(num_latents))


class Alignment:
    """J of some trials, and its maxima.

    Args:
        model: the program.
        networks: its parts, as they are given.
        batch: the trials.
        there: regions that have neurons; the others stay as they are.
    """

    def __init__(self, model: MRSDS, networks: Networks, batch: Batch, there: Bool[np.ndarray, " region"]) -> None:
        sizes = model.latent_sizes
        self.count, ends = sum(sizes), np.cumsum(sizes)
        self.blocks = [
            slice(int(end - size), int(end)) for end, size, both in zip(ends, sizes, there, strict=True) if both
        ]
        free = np.repeat(there, sizes)
        inside = block_diag(*(np.ones((size, size), bool) for size in sizes)).astype(bool) & free
        self.free = np.concatenate([inside.ravel(), free])
        law, valid = PathLaw(model.switching(networks, batch)), valid_bins(batch.lengths, batch.y.shape[1])
        self.valid = np.asarray(valid)

        @jax.jit
        def lost(entries: Array, x: Array) -> Array:
            matrix, offset = entries[: self.count**2].reshape(self.count, self.count), entries[self.count**2 :]
            moved = jnp.where(valid[..., None], x @ matrix.T + offset, 0.0)
            # Padded bins have a standard normal law, at zero here.
            padding = (~valid).sum() * self.count * 0.5 * np.log(2 * np.pi)
            return -(law.log_prob(moved).sum() + padding) / valid.sum() - jnp.linalg.slogdet(matrix)[1]

        self._value_and_slope = jax.jit(jax.value_and_grad(lost))

    def value(self, x: Latents, to: Coordinates) -> float:
        """J of some coordinates, in nats a bin."""
        lost, _ = self._value_and_slope(jnp.asarray(_flat(to), x.dtype), x)
        return -float(lost)

    def ascend(self, x: Latents, start: Coordinates) -> Coordinates:
        """The nearest maximum.

        Args:
            x: a draw of each path.
            start: where to begin.
        """
        entries = _flat(start)

        def whole(some: np.ndarray) -> np.ndarray:
            found = entries.copy()
            found[self.free] = some
            return found

        def evaluated(some: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope = self._value_and_slope(jnp.asarray(whole(some), x.dtype), x)
            return float(value), np.asarray(slope, float)[self.free]

        found = minimize(evaluated, entries[self.free], jac=True, method="L-BFGS-B", options={"maxiter": _MOST_STEPS})
        matrix, offset = np.split(whole(found.x), [self.count**2])
        return Coordinates(matrix.reshape(self.count, self.count), offset)

    def begun(self, x: Latents, start: Coordinates) -> list[Coordinates]:
        """The maxima next to some coordinates, and next to those with the mirror image of one region."""
        mean, tried = np.asarray(x[self.valid].mean(0), float), [start]
        for block in self.blocks:
            matrix = start.matrix.copy()
            matrix[block] *= -1.0
            tried.append(Coordinates(matrix, start.offset + (start.matrix - matrix) @ mean))
        return [self.ascend(x, one) for one in tried]


def _flat(coordinates: Coordinates) -> np.ndarray:
    return np.concatenate([coordinates.matrix.ravel(), coordinates.offset])
