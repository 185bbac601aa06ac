"""Tables of an NWB file: columns as arrays, rows by a query, and the table and column that trials are taken from."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from mrsds_ppl.errors import DataError

if TYPE_CHECKING:
    import hdmf.common
    import pynwb

SESSION = "session"


class Alignment(NamedTuple):
    """The table of intervals that trials are taken from, and its column of event times; None for the whole interval."""

    table: "hdmf.common.DynamicTable"
    column: str | None


def is_ragged(table: "hdmf.common.DynamicTable", name: str) -> bool:
    """Whether a column has a list in each row."""
    return f"{name}_index" in {column.name for column in table.columns}


def ragged(table: "hdmf.common.DynamicTable", name: str) -> list[np.ndarray]:
    """The values of each row of such a column; of any other, one for each row."""
    if not is_ragged(table, name):
        return list(np.asarray(table[name].data[:])[:, None])
    index = table[name]
    return np.split(np.asarray(index.target.data[:]), np.asarray(index.data[:], int)[:-1])


def flat_columns(table: "hdmf.common.DynamicTable") -> dict[str, Shaped[np.ndarray, " _"]]:
    """The columns with one value in each row, by name; what refers to an object has its name."""
    found = {"id": np.asarray(table.id[:])}
    references = {column.name for column in table.columns if hasattr(column, "table")}
    for name in table.colnames:
        # Waveforms have more axes, and are large.
        if is_ragged(table, name) or name in references or len(np.shape(table[name].data)) != 1:
            continue
        values = np.asarray(table[name][:])
        named = values.dtype == object and len(values) and hasattr(values[0], "object_id")
        found[name] = np.array([value.name for value in values]) if named else values
    return found


def numbers(table: "hdmf.common.DynamicTable", name: str, what: str) -> Shaped[np.ndarray, " _"]:
    """A column of numbers. Raises DataError where it holds none."""
    try:
        return flat_columns(table)[name].astype(float)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{what}: the column {name!r} of {table.name} does not hold one number in each row.") from error


def rows_where(columns: dict[str, Shaped[np.ndarray, " _"]], query: str | None, what: str) -> Int[np.ndarray, " row"]:
    """Rows that a query of pandas leaves, in order; there may be none.

    Args:
        columns: of the table.
        query: such as ``quality == 'good' and firing_rate > 0.5``; None for all.
        what: the argument, for messages.

    Raises:
        DataError: the query cannot be asked.
    """
    import pandas

    frame = pandas.DataFrame(columns)
    if query is None:
        return np.arange(len(frame))
    try:
        return frame.query(query).index.to_numpy()
    except Exception as error:  # pandas raises many kinds, of its own and of Python
        raise DataError(
            f"{what}: found {query!r}, which cannot be asked ({type(error).__name__}: {error}). The columns are "
            f"{list(columns)}; a query is like \"quality == 'good' and firing_rate > 0.5\"."
        ) from error


def interval_tables(file: "pynwb.NWBFile") -> dict[str, "hdmf.common.DynamicTable"]:
    """The tables of intervals, by name: trials, epochs and others."""
    more = {name: getattr(file, name) for name in ("trials", "epochs", "invalid_times")}
    return {**dict(file.intervals or {}), **{name: table for name, table in more.items() if table is not None}}


def invalid_times(file: "pynwb.NWBFile") -> Float[np.ndarray, "interval 2"]:
    """Start and stop of the times that are to be left out of any analysis."""
    table = file.invalid_times
    if table is None:
        return np.zeros((0, 2))
    return np.stack([numbers(table, name, "invalid_times") for name in ("start_time", "stop_time")], axis=1)


def without(intervals: Float[np.ndarray, "interval 2"], gaps: Float[np.ndarray, "gap 2"]) -> Float[np.ndarray, "_ 2"]:
    """What is left of the intervals where the gaps are taken out."""
    for start, stop in gaps:
        before = np.stack([intervals[:, 0], np.minimum(intervals[:, 1], start)], axis=1)
        after = np.stack([np.maximum(intervals[:, 0], stop), intervals[:, 1]], axis=1)
        both = np.concatenate([before, after])
        intervals = both[both[:, 0] < both[:, 1]]
    return intervals


def find_alignment(file: "pynwb.NWBFile", align: str | None) -> Alignment:
    """What ``align`` names: a column of the trials, another table of intervals, or TABLE:COLUMN or TABLE.COLUMN.

    Raises:
        DataError: there is no such table or column; those that there are are named.
    """
    tables = interval_tables(file)
    there = "; ".join(f"{name} ({', '.join(table.colnames)})" for name, table in tables.items()) or "none"
    trials = tables.get("trials")
    if align is None:
        if trials is None:
            raise DataError(
                f"align: there is no table of trials. The tables of intervals are: {there}. Give one as "
                f"align='TABLE' or 'TABLE:COLUMN' with a window, or align='{SESSION}' for one trial over all."
            )
        return Alignment(trials, None)
    if trials is not None and align in trials.colnames:
        return Alignment(trials, align)
    if align in tables:
        return Alignment(tables[align], None)
    name, _, column = align.partition(":" if ":" in align else ".")
    if name in tables and column in tables[name].colnames:
        return Alignment(tables[name], column)
    raise DataError(
        f"align: found {align!r}, which is no column of the trials and no table of intervals. There are: {there}. "
        "Give a COLUMN of trials, a TABLE, or TABLE:COLUMN."
    )
