"""Objects of pynapple, which is not needed for them, as arguments of ``Trials.from_spikes``."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np

from mrsds_ppl.errors import DataError


@runtime_checkable
class Events(Protocol):
    """A ``Ts``: times in seconds."""

    @property
    def t(self) -> np.ndarray: ...


@runtime_checkable
class Signal(Events, Protocol):
    """A ``Tsd`` or ``TsdFrame``: times in seconds and a value, or some, for each."""

    @property
    def values(self) -> np.ndarray: ...


@runtime_checkable
class WithMetadata(Protocol):
    """What has a table of metadata."""

    @property
    def metadata_columns(self) -> Sequence[str]: ...

    def get_info(self, key: str) -> Iterable[object]: ...


@runtime_checkable
class IntervalSet(WithMetadata, Protocol):
    """An ``IntervalSet``: start and stop in seconds."""

    @property
    def start(self) -> np.ndarray: ...

    @property
    def end(self) -> np.ndarray: ...


@runtime_checkable
class TsGroup(WithMetadata, Protocol):
    """A ``TsGroup``: a ``Ts`` for each unit, by its id."""

    @property
    def time_support(self) -> IntervalSet: ...

    def __iter__(self) -> Iterator[int]: ...

    def __getitem__(self, key: int) -> Events: ...


class Spikes(TypedDict):
    """Arguments of ``Trials.from_spikes``."""

    spike_times: Mapping[int, np.ndarray]
    regions: list[object]
    trials: np.ndarray | None
    align: np.ndarray | None
    window: Sequence[float | int] | None
    observed: np.ndarray
    inputs: Mapping[str, object]
    labels: Sequence[object] | None


def spikes_of(
    units: TsGroup,
    regions: str | Iterable[object],
    trials: IntervalSet | Events,
    window: Sequence[float | int] | None,
    inputs: Mapping[str, object] | None,
    labels: str | Sequence[object] | None,
) -> Spikes:
    """See :meth:`mrsds_ppl.data.trials.Trials.from_pynapple`."""
    if isinstance(labels, str):
        if not isinstance(trials, WithMetadata):
            raise DataError(f"labels: found {labels!r}, but trials have no metadata; give a label for each.")
        labels = _column(trials, labels, "labels")
    return Spikes(
        spike_times={int(key): np.asarray(units[key].t) for key in units},
        regions=_column(units, regions, "regions") if isinstance(regions, str) else list(regions),
        trials=_limits(trials) if isinstance(trials, IntervalSet) else None,
        align=None if isinstance(trials, IntervalSet) else np.asarray(trials.t),
        window=window,
        observed=_limits(units.time_support),
        inputs={
            name: (given.t, np.asarray(given.values)) if isinstance(given, Signal) else given
            for name, given in (inputs or {}).items()
        },
        labels=labels,
    )


def _limits(intervals: IntervalSet) -> np.ndarray:
    return np.column_stack([intervals.start, intervals.end])


def _column(table: WithMetadata, name: str, what: str) -> list[object]:
    if name not in table.metadata_columns:
        raise DataError(f"{what}: found {name!r}; the metadata have the columns {list(table.metadata_columns)}.")
    return list(table.get_info(name))
