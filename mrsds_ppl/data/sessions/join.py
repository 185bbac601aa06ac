"""Several sessions as one recording: the same regions and inputs, other neurons in each.

Neurons share columns: a region has as many as its largest session has neurons in it, and in each session the first of
them are its neurons. No array is as wide as all sessions together. Which neuron stands where is ``own_neuron``.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from mrsds_ppl.data.ragged import PADDING
from mrsds_ppl.data.trials import Trials
from mrsds_ppl.errors import DataError, listed

# What all sessions must have to be kept: truths of simulations, conditions, places of pieces in their recording.
_OPTIONAL = ("x", "z", "messages")
_OF_TRIALS = ("label", "start", "follows")


def join(
    sessions: Sequence[Trials], names: Sequence[str] | None = None, *, regions: Sequence[str] | None = None
) -> Trials:
    """Sessions as one recording, for one fit with shared dynamics, transitions and latents and with emissions for each.

    A region may be missing in some sessions. The id of a trial becomes ``name/id``. Labels, and the truth of
    simulations, are kept where every session has them.

    Args:
        sessions: recordings with the same inputs and bins, and with neurons of their own.
        names: of the sessions; default ``session0``, ``session1``, ...
        regions: their order; default as they first appear. One that no session has is a region without neurons.

    Raises:
        DataError: bins, inputs or stages differ, a session shares no region with the others, or names are wrong.
    """
    sessions = list(sessions)
    _check(sessions)
    given = _names(names, len(sessions))
    regions = _order(regions, list(dict.fromkeys(region for session in sessions for region in session.region_names)))
    sizes = [dict(zip(session.region_names, session.region_sizes, strict=True)) for session in sessions]
    widest = [max(1, *(own.get(region, 0) for own in sizes)) for region in regions]
    columns = [_columns(own, regions, widest) for own in sizes]
    bins, kept = max(session.num_bins for session in sessions), _kept(sessions)
    arrays = {}
    for name, dims in kept.items():
        parts = [_padded(one, name, bins, sum(widest), own) for one, own in zip(sessions, columns, strict=True)]
        arrays[name] = (dims, np.concatenate(parts))
    own_neuron = np.full((len(sessions), sum(widest)), "", object)
    for row, session, places in zip(own_neuron, sessions, columns, strict=True):
        row[places] = session.neuron_ids.astype(str)
    counts = [session.num_trials for session in sessions]
    coords = {
        "trial": [f"{name}/{i}" for name, session in zip(given, sessions, strict=True) for i in session.ids],
        "number": ("trial", np.arange(sum(counts), dtype=np.int32)),
        "session": ("trial", np.repeat(given, counts)),
        "time": np.arange(bins) * sessions[0].bin_width,
        "neuron": [f"{region}:{i}" for region, size in zip(regions, widest, strict=True) for i in range(size)],
        "region": ("neuron", np.repeat(regions, widest)),
        "input": np.array(sessions[0].input_names, str),
        "session_name": given,
        "own_neuron": (("session_name", "neuron"), own_neuron.astype(str)),
    }
    for name in _OF_TRIALS:
        if all(name in session.dataset.coords for session in sessions):
            values = [session.dataset[name].values for session in sessions]
            # Conditions of different kinds are text.
            same = len({part.dtype.kind for part in values}) == 1
            coords[name] = ("trial", np.concatenate([part if same else part.astype(str) for part in values]))
    attrs = {"region_sizes": widest, "region_names": regions, "bin_width": sessions[0].bin_width}
    return Trials(xr.Dataset(arrays, coords, attrs))


def _check(sessions: Sequence[Trials]) -> None:
    if not sessions:
        raise DataError("join: found no session; give the trials of each in a list.")
    for number, session in enumerate(sessions):
        if session.sessions is not None:
            raise DataError(f"join: session {number} was joined already; join all sessions at once.")
    first = sessions[0]
    for number, session in enumerate(sessions[1:], start=1):
        if not np.isclose(session.bin_width, first.bin_width):
            raise DataError(
                f"bin_width: session {number} has bins of {session.bin_width:g} s and session 0 of "
                f"{first.bin_width:g} s; dynamics go from bin to bin. Bin all sessions alike."
            )
        for what, found, wanted in (
            ("inputs", session.input_names, first.input_names),
            ("number of stages", session.num_stages, first.num_stages),
            ("pieces of one recording", session.follows is not None, first.follows is not None),
        ):
            if found != wanted:
                raise DataError(
                    f"{what}: session {number} has {found} and session 0 has {wanted}; sessions share what drives "
                    "them. Give all of them the same, in the same order."
                )
    for number, session in enumerate(sessions):
        others = {name for other in sessions if other is not session for name in other.region_names}
        if len(sessions) > 1 and not others & set(session.region_names):
            raise DataError(
                f"regions: session {number} has {listed(session.region_names)}, and no other session has any of "
                "these; need a region in common. Names are compared letter by letter."
            )


def _names(names: Sequence[str] | None, count: int) -> list[str]:
    found = [f"session{i}" for i in range(count)] if names is None else [str(name).strip() for name in names]
    if len(found) != count or len(set(found)) < count or not all(found) or any("/" in name for name in found):
        raise DataError(f"names: found {found} for {count} sessions; need a name of its own for each, without a slash.")
    return found


def _order(regions: Sequence[str] | None, found: list[str]) -> list[str]:
    if regions is None:
        return found
    unknown = [region for region in found if region not in regions]
    if unknown:
        raise DataError(f"regions: found {listed(unknown)}; allowed: {', '.join(regions)}. Leave other neurons out.")
    return list(regions)


def _columns(own: dict[str, int], regions: Sequence[str], widest: Sequence[int]) -> np.ndarray:
    """Where the neurons of a session stand, in its own order of the regions."""
    first = dict(zip(regions, np.cumsum([0, *widest[:-1]]), strict=True))
    return np.concatenate([first[region] + np.arange(size) for region, size in own.items()])


def _kept(sessions: Sequence[Trials]) -> dict[str, tuple[str, ...]]:
    """Arrays that the sessions have in common, and their axes."""
    names = ["y", "observed", "lengths", "u", "stage"]
    for name in _OPTIONAL:
        shapes = {s.dataset[name].shape[2:] if name in s.dataset else None for s in sessions}
        alike = len({tuple(session.region_names) for session in sessions}) == 1
        if len(shapes) == 1 and None not in shapes and (alike or name == "z"):
            names.append(name)
    return {name: tuple(str(dim) for dim in sessions[0].dataset[name].dims) for name in names}


def _padded(session: Trials, name: str, bins: int, neurons: int, columns: np.ndarray) -> np.ndarray:
    """An array of one session, as long and as wide as that of all."""
    variable = session.dataset[name]
    values = variable.values
    if "time" not in variable.dims:
        return values
    shape = [len(values), bins, *values.shape[2:]]
    if "neuron" in variable.dims:
        shape[2] = neurons
    found = np.full(shape, PADDING.get(name, 0), values.dtype)
    if "neuron" in variable.dims:
        found[:, : values.shape[1], columns] = values
    else:
        found[:, : values.shape[1]] = values
    return found
