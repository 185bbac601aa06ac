"""The state of a run between steps, what its steps gave, and what is said where they fail."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray, PyTree

# One key, or one for each restart.
Keys: TypeAlias = PRNGKeyArray | Key[Array, " restart"]
AnyArray: TypeAlias = Array | np.ndarray  # on the device inside the loop, on the host once it is recorded


class TrainState(NamedTuple):
    """Everything that a run needs to go on; a pytree of arrays.

    Of restarts that are trained side by side, every leaf but ``step`` has a leading axis of restarts.
    """

    params: PyTree
    opt_state: PyTree
    key: Keys  # never changes: step s draws from the key folded with s
    step: Int[Array, ""]  # steps done, skipped ones included
    skipped: Int[Array, "*restart"]  # non-finite steps so far
    skipped_in_row: Int[Array, "*restart"]  # of these, how many came last in a row

    @partial(jax.jit, static_argnames="index")
    def restart(self, index: int) -> "TrainState":
        """The state of one of several restarts."""
        parts = {name: part for name, part in self._asdict().items() if name != "step"}
        return TrainState(step=self.step, **jax.tree.map(lambda leaf: leaf[index], parts))


class History(NamedTuple):
    """What each step gave; arrays with a leading step axis, in a chunk as long as the chunk.

    Of restarts that are trained side by side, all but ``step`` and ``learning_rate`` have a second axis of restarts.
    """

    step: Int[AnyArray, " step"]  # number of the step, from 0; -1 in rows of a chunk that were not run
    loss: Float[AnyArray, "step *restart"]
    learning_rate: Float[AnyArray, " step"]
    gradient_norm: Float[AnyArray, "step *restart"]  # Euclidean, before clipping
    skipped: Bool[AnyArray, "step *restart"]
    bad_gradient: Int[AnyArray, "step *restart"]  # first entry of the parameters whose gradient was not finite, or -1
    metrics: dict[str, Float[AnyArray, "step *restart"]]

    def restart(self, index: int) -> "History":
        """The history of one of several restarts."""
        return jax.tree.map(lambda leaf: leaf[:, index] if leaf.ndim > 1 else leaf, self)

    def trimmed(self) -> "History":
        """The rows that were run, on the host."""
        host = jax.device_get(self)
        return jax.tree.map(lambda leaf: leaf[host.step >= 0], host)

    def last(self, count: int) -> "History":
        """The last steps, such as those of one stage."""
        return jax.tree.map(lambda leaf: leaf[len(leaf) - count :], self)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, as `Checkpoints.save` takes them."""
        return self._asdict()

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> "History":
        """The inverse of `to_dict`."""
        return History(**fields)

    @staticmethod
    def concatenate(histories: "list[History]") -> "History":
        """One history of runs that follow each other."""
        kept = [history for history in histories if len(history.step)]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *kept) if kept else History.empty()

    @staticmethod
    def empty() -> "History":
        """The history of no steps."""
        counts, values = np.zeros(0, np.int32), np.zeros(0, np.float32)
        return History(counts, values, values, values, np.zeros(0, bool), counts, {})


class TrainResult(NamedTuple):
    """How a call of `train`, or a stage of a fit, ended.

    ``history`` holds the steps of this call, of a stage those before it as well, on the host. ``stopped``: it was asked
    to stop before the end, and ``state`` is worth a checkpoint. ``skipped_before``: steps skipped in earlier stages.
    Where there were restarts, ``restart_bounds`` holds their bounds on held-out trials, and ``restart`` the number of
    the one that was kept. ``factor`` of the scheduled rate was trained with.
    """

    state: TrainState
    history: History
    stopped: bool = False
    skipped_before: int = 0
    restart_bounds: Float[np.ndarray, " restart"] | None = None
    restart: int = 0
    factor: float = 1.0

    @property
    def params(self) -> PyTree:
        """Parameters that were trained."""
        return self.state.params

    @property
    def step(self) -> int:
        """Steps done in the last stage."""
        return int(self.state.step)

    @property
    def skipped(self) -> int:
        """Steps left out because they were not finite, in all stages."""
        return self.skipped_before + int(np.sum(self.state.skipped))


@partial(jax.jit, static_argnames="axis")
def stack(each: Sequence[Any], axis: int = 0) -> Any:
    """Pytrees of several restarts as one, with an axis of restarts; the inverse of their ``restart``."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis), *each)


def failure_message(
    state: TrainState, chunk: History, num_steps: int, learning_rate: float, checkpoint: Path | None
) -> str:
    """The message of a run that stops because its steps are not finite.

    Args:
        state: the last state, of one restart.
        chunk: the last steps, of one restart.
        num_steps, learning_rate: of the settings.
        checkpoint: path of the latest checkpoint, None where there is none.
    """
    if len(chunk.step) == 0:  # restored from a state that had already failed
        terms = ["unknown, as no step was run"]
    else:
        terms = [name for name, values in chunk.metrics.items() if not np.isfinite(values[-1])]
        if not np.isfinite(chunk.loss[-1]):
            terms.append("the loss")
        if chunk.bad_gradient[-1] >= 0:
            leaves = jax.tree_util.tree_leaves_with_path(state.params)
            ends = np.cumsum([leaf.size for _, leaf in leaves])
            path, _ = leaves[int(np.searchsorted(ends, chunk.bad_gradient[-1], side="right"))]
            terms.append(f"the gradient of parameter {jax.tree_util.keystr(path) or 'tree'}")
    where = f"the last good checkpoint is {checkpoint}" if checkpoint else "no checkpoint was written yet"
    return (
        f"training stopped at step {int(state.step)} of {num_steps}: {int(state.skipped_in_row)} steps in a "
        f"row gave a loss or gradient that is not finite (not finite in the last one: {', '.join(terms)}); {where}. "
        f"Try a smaller training.learning_rate (it is {learning_rate:g}) or a longer "
        f"training.lr_warmup_steps, and look for extreme values in the data"
    )
