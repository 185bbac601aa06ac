"""Where a fit keeps its states while it goes on: in the files of a run, or in memory."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp

from mrsds_ppl.errors import RunError
from mrsds_ppl.storage.checkpoints import Checkpoints
from mrsds_ppl.storage.paths import RunPaths

State = TypeVar("State")


@runtime_checkable
class Store(Protocol):
    """The states of one stage, by step; see :class:`~mrsds_ppl.storage.checkpoints.Checkpoints`."""

    def latest(self) -> int | None: ...

    def where(self, step: int) -> Path | None: ...

    def clear(self) -> None: ...

    def save(self, step: int, state: object, extra: dict[str, Any] | None = None) -> object: ...

    def restore(self, step: int | None, like: State) -> tuple[State, dict[str, Any]]: ...


class InMemory:
    """The last state of one stage, copied, for a fit that writes no files."""

    def __init__(self) -> None:
        self._kept: tuple[int, Any, dict[str, Any]] | None = None

    def latest(self) -> int | None:
        """Step of the state that is kept."""
        return None if self._kept is None else self._kept[0]

    def where(self, step: int) -> None:
        """No file."""

    def clear(self) -> None:
        """Forget it."""
        self._kept = None

    def save(self, step: int, state: object, extra: dict[str, Any] | None = None) -> None:
        """Keep a copy of a state, whose arrays the next steps take over, instead of the one before."""
        self._kept = step, jax.tree.map(jnp.copy, state), extra or {}

    def restore(self, step: int | None, like: State) -> tuple[State, dict[str, Any]]:
        """The state that is kept.

        Raises:
            RunError: none is, or one of another step.
        """
        if self._kept is None or step not in (None, self._kept[0]):
            raise RunError(f"no state of step {step} is kept in memory.")
        return jax.tree.map(jnp.copy, self._kept[1]), self._kept[2]


class Stores(NamedTuple):
    """Those of joint training, of the stage for the dynamics alone, and of all restarts; TensorBoard's folder."""

    joint: Store
    dynamics: Store
    restarts: Store
    scalars: Path | None


def in_memory() -> Stores:
    """Nothing is written."""
    return Stores(InMemory(), InMemory(), InMemory(), None)


def in_files(paths: RunPaths) -> Stores:
    """Checkpoints and scalars among the files of a run."""
    return Stores(
        joint=Checkpoints(paths.checkpoints),
        dynamics=Checkpoints(paths.dynamics_checkpoints),
        restarts=Checkpoints(paths.restart_checkpoints),
        scalars=paths.scalars,
    )
