"""Checkpoints of a run: whole or not at all, restored bit for bit.

A checkpoint is a folder `directory/STEP` that orbax writes aside and renames when complete, so a process killed in the
middle leaves nothing that passes for one. Orbax is imported when first used: it takes half a second, and a run
that only looks for a checkpoint does not need it.
"""

import logging
import shutil
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import PyTree

from mrsds_ppl.errors import RunError

State = TypeVar("State")

COMPLETE = "_CHECKPOINT_METADATA"  # orbax writes this file last
ASIDE = ".orbax-checkpoint-tmp"
ARRAY = "__array__"  # marks, in the JSON part, a place whose array is stored with the arrays


class Checkpoints:
    """The checkpoints of one stage of a run, the latest few of them.

    Args:
        directory: folder of the checkpoints; made by the first `save`.
        keep: how many of the latest are kept.
    """

    def __init__(self, directory: str | Path, keep: int = 2) -> None:
        self.directory = Path(directory).absolute()
        self.keep = keep

    def steps(self) -> list[int]:
        """The steps that have a complete checkpoint, in order; half-written ones are passed over."""
        if not self.directory.is_dir():
            return []
        folders = (folder for folder in self.directory.iterdir() if folder.name.isdecimal())
        return sorted(int(folder.name) for folder in folders if (folder / COMPLETE).is_file())

    def latest(self) -> int | None:
        """The latest step with a complete checkpoint, or None."""
        return max(self.steps(), default=None)

    def path(self, step: int) -> Path:
        """The folder of a step's checkpoint."""
        return self.directory / str(step)

    def where(self, step: int) -> Path:
        """The same, as every :class:`~mrsds_ppl.storage.stores.Store` has it."""
        return self.path(step)

    def clear(self) -> None:
        """Removes all checkpoints, for a run that starts anew under an old name."""
        for step in self.steps():
            self._remove_incomplete(step)
        if self.directory.is_dir():
            shutil.rmtree(self.directory)

    def save(self, step: int, state: PyTree, extra: dict[str, Any] | None = None) -> Path:
        """Writes a checkpoint and returns its folder; the oldest beyond `keep` are removed.

        Args:
            step: steps done; a checkpoint of the same step is replaced.
            state: pytree of arrays, random keys of either kind included.
            extra: nested dicts of arrays, lists, numbers, strings, booleans and None, such as the history.

        Raises:
            RunError: the folder cannot be written.
        """
        arrays = {f"state{name}": _to_host(leaf) for name, leaf in _named_leaves(state)}
        extra_skeleton = _put_aside(extra or {}, "extra", arrays)
        # Checksums, because neither orbax nor its store notices a changed byte within an array.
        kinds = {name: [list(array.shape), str(array.dtype), _checksum(array)] for name, array in arrays.items()}
        stored = {name: array for name, array in arrays.items() if array.size}  # orbax refuses arrays of no elements
        ocp = _orbax()
        items = ocp.args.Composite(
            arrays=ocp.args.StandardSave(stored), about=ocp.args.JsonSave({"arrays": kinds, "extra": extra_skeleton})
        )
        options = ocp.CheckpointManagerOptions(max_to_keep=self.keep, enable_async_checkpointing=False)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._remove_incomplete(step)
            with ocp.CheckpointManager(self.directory, options=options) as manager:
                manager.save(step, args=items, force=True)
        except OSError as error:
            raise RunError(
                f"{self.path(step)}: the checkpoint cannot be written ({error.strerror or error}); "
                f"make room or give another result path"
            ) from error
        return self.path(step)

    def restore(self, step: int | None, like: State) -> tuple[State, dict[str, Any]]:
        """The state and the extra of a checkpoint, bit for bit as saved.

        Args:
            step: which one, None for the latest.
            like: a state of the same structure, such as `initial_state` gives: its shapes and types are demanded.

        Raises:
            RunError: there is no such checkpoint, it is damaged, or it holds another model than `like`.
        """
        step = self.latest() if step is None else step
        if step is None or step not in self.steps():
            what = "no checkpoint" if step is None else f"no complete checkpoint of step {step}"
            raise RunError(
                f"{self.directory}: {what} to resume from (found: {self.steps() or 'none'}); start the run without "
                f"--resume"
            )
        ocp = _orbax()
        try:
            with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
                about = reader.restore(self.path(step) / "about")
            kinds = {name: (tuple(shape), np.dtype(dtype)) for name, (shape, dtype, _) in about["arrays"].items()}
            self._demand_same(step, {name[5:]: kind for name, kind in kinds.items() if name.startswith("state")}, like)
            arrays = {name: np.zeros(*kind) for name, kind in kinds.items()}
            stored = {name: array for name, array in arrays.items() if array.size}
            with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
                arrays |= reader.restore(self.path(step) / "arrays", args=ocp.args.StandardRestore(stored))
            for name, array in arrays.items():
                if _checksum(array) != about["arrays"][name][2]:
                    raise ValueError(f"the checksum of {name} is wrong")
            extra = _put_back(about["extra"], arrays)
        except RunError:
            raise
        except Exception as error:  # orbax, tensorstore and json each raise their own
            reason = str(error).strip().split("\n")[0][:200]
            raise RunError(
                f"{self.path(step)}: the checkpoint is damaged and cannot be read ({type(error).__name__}: {reason}); "
                f"remove this folder to resume from {self._before(step)}"
            ) from error
        leaves = [_to_device(arrays[f"state{name}"], leaf) for name, leaf in _named_leaves(like)]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), extra

    def _before(self, step: int) -> str:
        earlier = [other for other in self.steps() if other < step]
        return f"step {earlier[-1]}" if earlier else "the beginning"

    def _demand_same(self, step: int, found: dict[str, tuple[tuple[int, ...], np.dtype]], like: PyTree) -> None:
        wanted = {name: (array.shape, array.dtype) for name, array in _host_kinds(like)}
        differences = [
            f"{name} is {_describe(found.get(name))} in the checkpoint and {_describe(wanted.get(name))} in this run"
            for name in sorted(found.keys() | wanted.keys(), key=lambda name: (not name.startswith(".params"), name))
            if found.get(name) != wanted.get(name)
        ]
        if differences:
            more = f" (and {len(differences) - 1} more differences)" if len(differences) > 1 else ""
            raise RunError(
                f"{self.path(step)}: the checkpoint holds another model: {differences[0]}{more}; resume with the "
                f"configuration and data that wrote it, or start under another name"
            )

    def _remove_incomplete(self, step: int) -> None:
        """Removes what killed runs left, which orbax would count among the latest, and an older write of this step."""
        for folder in self.directory.iterdir():
            left_over = folder.name.isdecimal() and not (folder / COMPLETE).is_file()
            if folder.is_dir() and (left_over or ASIDE in folder.name):
                shutil.rmtree(folder)
        older = self.path(step)
        if older.is_dir():
            # Killed between two of its files, this process leaves nothing that passes for a checkpoint.
            shutil.rmtree(older.rename(older.with_name(f"{older.name}-removed{ASIDE}")))


def _orbax() -> ModuleType:
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.WARNING)  # orbax tells each step of each save
    return ocp


def _named_leaves(tree: PyTree) -> list[tuple[str, ArrayLike]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _is_typed_key(leaf: object) -> TypeGuard[jax.Array]:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_host(leaf: ArrayLike | np.generic) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_typed_key(leaf) else leaf)


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


def _host_kinds(tree: PyTree) -> list[tuple[str, jax.ShapeDtypeStruct]]:
    return [(name, jax.eval_shape(lambda leaf=leaf: _raw(leaf))) for name, leaf in _named_leaves(tree)]


def _raw(leaf: ArrayLike) -> jax.Array:
    return jax.random.key_data(leaf) if _is_typed_key(leaf) else jnp.asarray(leaf)


def _to_device(array: np.ndarray, like: ArrayLike) -> jax.Array:
    if _is_typed_key(like):
        return jax.random.wrap_key_data(jax.device_put(array), impl=jax.random.key_impl(like))
    return jax.device_put(array)


def _describe(kind: tuple[tuple[int, ...], np.dtype] | None) -> str:
    return "missing" if kind is None else f"{kind[1]}{list(kind[0])}"


def _put_aside(value: object, name: str, arrays: dict[str, np.ndarray]) -> object:
    """`value` as JSON, with its arrays moved into `arrays`."""
    if isinstance(value, dict):
        return {key: _put_aside(inner, f"{name}[{key!r}]", arrays) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_put_aside(inner, f"{name}[{place}]", arrays) for place, inner in enumerate(value)]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        arrays[name] = _to_host(value)
        return {ARRAY: name}
    return value


def _put_back(value: object, arrays: dict[str, np.ndarray]) -> Any:
    """The inverse of `_put_aside`."""
    if isinstance(value, dict):
        if set(value) == {ARRAY}:
            return arrays[value[ARRAY]]
        return {key: _put_back(inner, arrays) for key, inner in value.items()}
    return [_put_back(inner, arrays) for inner in value] if isinstance(value, list) else value
