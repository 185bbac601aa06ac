"""Trials spread over several devices of one machine, parameters whole on each of them.

Programs stay as they are: the compiler divides them as their arrays are divided. So a program of spread trials computes
what it computes on one device, to rounding, with sums over trials summed over devices. Within :func:`on_devices` trials
are spread, as within ``jax.default_device`` another device computes; elsewhere nothing here does anything.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, PyTree

from mrsds_ppl.data.batch import Batch
from mrsds_ppl.errors import ConfigError

State = TypeVar("State")

_TRIAL = "trial"
_HOST_DEVICES = "--xla_force_host_platform_device_count"


@dataclass(frozen=True)
class TrialMesh:
    """Several devices in a row, over which trials are spread.

    Args:
        devices: of one kind and one machine.
    """

    devices: tuple[jax.Device, ...]

    @cached_property
    def spread(self) -> NamedSharding:
        """An equal share of the leading axis on each device."""
        return NamedSharding(self._mesh, PartitionSpec(_TRIAL))

    @cached_property
    def whole(self) -> NamedSharding:
        """All of an array on each device."""
        return NamedSharding(self._mesh, PartitionSpec())

    @cached_property
    def _mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), (_TRIAL,), axis_types=(AxisType.Auto,))

    def multiple(self, count: int) -> int:
        """The least number from ``count`` on that the devices divide."""
        return -(-count // len(self.devices)) * len(self.devices)

    def put(self, arrays: PyTree) -> PyTree:
        """Arrays whose leading axis is the trial, spread; the devices divide their number of trials."""
        return jax.device_put(arrays, self.spread)

    def replicated(self, arrays: PyTree) -> PyTree:
        """Arrays whole on each device."""
        return jax.device_put(arrays, self.whole)

    def place(self, data: Batch) -> "SpreadTrials":
        """A data set, of arrays on the host or on devices; each device gets no more than its share."""
        num_trials = len(data.lengths)
        missing = self.multiple(num_trials) - num_trials
        if missing:
            data = jax.tree.map(lambda leaf: _filled(np.asarray(leaf), missing), data)
        return SpreadTrials(self.put(data), num_trials, self)


@partial(jax.tree_util.register_dataclass, data_fields=["rows"], meta_fields=["num_trials", "mesh"])
@dataclass(frozen=True)
class SpreadTrials:
    """A data set spread over devices, and what compiled programs take of it.

    Args:
        rows: arrays of the trials, and of as many empty ones as make the devices divide their number; no program sees
            these.
        num_trials: of the data set.
        mesh: over which it is spread.
    """

    rows: Batch
    num_trials: int
    mesh: TrialMesh

    def all_trials(self) -> Batch:
        """The whole data set, in order; within compiled programs only."""
        return self._spread(jax.tree.map(lambda leaf: leaf[: self.num_trials], self.rows))

    def some(self, index: Int[Array, " trial"]) -> Batch:
        """Some trials, spread anew; within compiled programs only.

        The devices exchange these trials, and no others.
        """
        return self._spread(jax.tree.map(lambda leaf: jnp.take(leaf, index, axis=0, mode="clip"), self.rows))

    def _spread(self, batch: Batch) -> Batch:
        # Within a program their number need not be one that the devices divide: the last then have fewer, or none.
        return jax.lax.with_sharding_constraint(batch, self.mesh.spread)


_MESH: ContextVar[TrialMesh | None] = ContextVar("trial_mesh", default=None)


@contextmanager
def on_devices(count: int | None) -> Iterator[None]:
    """Spread trials over the first devices of this machine, in whatever is fitted and inferred within.

    Args:
        count: number of devices; with 1 or None nothing changes.

    Raises:
        ConfigError: there are not so many.
    """
    if count is None or count == 1:
        yield
        return
    found = jax.local_devices()
    if not 1 <= count <= len(found):
        raise ConfigError(_other_number(count, found))
    before = _MESH.set(TrialMesh(tuple(found[:count])))
    try:
        yield
    finally:
        _MESH.reset(before)


def trial_mesh() -> TrialMesh | None:
    """The devices over which trials are spread here, or None where one device computes."""
    return _MESH.get()


def trials_first(function: Callable[[Array, Array], Array], x: Array, u: Array) -> Array:
    """``function(x, u)`` of every bin of every trial, so that it is divided over devices where trials are spread.

    Rows that are bins first and trials second cannot be divided by trials, and each device would compute all of them.

    Args:
        function: of arrays (*batch, feature), each row by itself, which returns (state, *batch, feature).
        x, u: (bin, trial, feature), or of other axes, which are taken as they are.
    """
    if trial_mesh() is None or x.ndim != 3:
        return function(x, u)
    return jnp.swapaxes(function(jnp.swapaxes(x, 0, 1), jnp.swapaxes(u, 0, 1)), 1, 2)


def to_begin_with(data: Batch) -> Batch:
    """A data set before it is trained on: on the device, or, where several get their shares later, on the host."""
    return jax.device_put(data) if trial_mesh() is None else data


def at_hand(data: Batch) -> Batch:
    """A data set for programs that take all of it: spread where the devices divide it, else on the first of them."""
    mesh = trial_mesh()
    if mesh is None or mesh.multiple(len(data.lengths)) > len(data.lengths):
        return jax.device_put(data)
    return mesh.put(data)


def whole_again(data: Batch | SpreadTrials, arrays: PyTree) -> PyTree:
    """What a compiled program of a data set returns, whole on each device where the data are spread over several."""
    return jax.lax.with_sharding_constraint(arrays, data.mesh.whole) if isinstance(data, SpreadTrials) else arrays


def begun_on(state: State, data: Batch) -> tuple[State, Batch | SpreadTrials]:
    """State and data set of a training as it begins: on the device, or whole and spread over several."""
    mesh = trial_mesh()
    return (state, jax.device_put(data)) if mesh is None else (mesh.replicated(state), mesh.place(data))


def on_default_device(arrays: State) -> State:
    """Arrays that stood whole on each device, bound to none of them; with one device as they are."""
    if trial_mesh() is None:
        return arrays

    def one(leaf: Array) -> Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return random.wrap_key_data(one(random.key_data(leaf)), impl=random.key_impl(leaf))
        return jax.device_put(np.asarray(leaf))

    moved: State = jax.tree.map(one, arrays)
    return moved


def devices_line(mesh: TrialMesh, batch_size: int) -> str:
    """For the record, with what slows it down: rows of an uneven batch cannot be divided by trials."""
    first, count = mesh.devices[0], len(mesh.devices)
    told = f"devices: trials spread over {count} of {first.platform}: {first.device_kind}"
    if mesh.multiple(batch_size) == batch_size:
        return told
    return (
        f"{told}; batches of {batch_size} trials cannot be divided evenly, so that each device computes the dynamics "
        f"of all of them: with a training.batch_size that is a multiple of {count} each computes its share"
    )


def _filled(rows: np.ndarray, missing: int) -> np.ndarray:
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])


def _other_number(count: int, found: list[jax.Device]) -> str:
    platform, allowed = found[0].platform, "1" if len(found) == 1 else f"1 to {len(found)}"
    told = f"devices: found {count}, but JAX finds {len(found)} on this machine ({platform}); allowed: {allowed}"
    if platform != "cpu" or count < 1:
        return told
    return (
        f"{told}. A CPU counts as one device; to try several on it, set the environment variable "
        f"XLA_FLAGS={_HOST_DEVICES}={count} before Python starts. For NVIDIA GPUs: pip install 'mrsds-ppl[cuda]'"
    )
