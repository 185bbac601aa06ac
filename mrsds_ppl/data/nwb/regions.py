"""The region of each unit of an NWB file: a column of its own, or where its electrodes are."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mrsds_ppl.data.nwb.tables import flat_columns, is_ragged, ragged
from mrsds_ppl.errors import DataError

if TYPE_CHECKING:
    import hdmf.common
    import pynwb

_LOCATION = "location"


def unit_regions(file: "pynwb.NWBFile", given: str | Sequence[str] | None) -> list[str]:
    """Region of each unit of the table.

    Args:
        file: with units.
        given: a column of the units, or of the electrodes; or a label for each unit; or None for the ``location`` of
            the electrodes, or else of the electrode group. Of several electrodes the most frequent counts.

    Raises:
        DataError: there is no such column, or nothing that says where units are.
    """
    units = file.units
    columns = flat_columns(units)
    if given is not None and not isinstance(given, str):
        if len(given) != len(units):
            raise DataError(f"regions: found {len(given)} labels for {len(units)} units; need one for each.")
        return [str(label) for label in given]
    if given in columns:
        return [str(label) for label in columns[given]]
    electrodes = _electrodes_of_units(file)
    if electrodes is not None:
        table, rows = electrodes
        known = flat_columns(table)
        if (given or _LOCATION) in known:
            return [_most_frequent(known[given or _LOCATION][some]) for some in rows]
        columns |= known
    if given is None and "electrode_group" in units.colnames:
        return [str(group.location) for group in units["electrode_group"][:]]
    wanted = "units refer to no electrodes, and to no electrode group" if given is None else f"found {given!r}"
    raise DataError(
        f"regions: {wanted}. Give the column that names the region of each unit, as regions='COLUMN', or a label for "
        f"each; the columns of units and electrodes are {list(columns)}."
    )


def _electrodes_of_units(file: "pynwb.NWBFile") -> tuple["hdmf.common.DynamicTable", list[np.ndarray]] | None:
    """The table of electrodes, and the rows there of each unit."""
    units = file.units
    if "electrodes" in units.colnames:
        column = units["electrodes"].target if is_ragged(units, "electrodes") else units["electrodes"]
        return column.table, ragged(units, "electrodes")
    if "peak_channel_id" in units.colnames and file.electrodes is not None:  # as the Allen Institute writes it
        place = {int(number): i for i, number in enumerate(file.electrodes.id[:])}
        peaks = flat_columns(units)["peak_channel_id"].tolist()
        return file.electrodes, [np.array([place[int(peak)]] if int(peak) in place else [], int) for peak in peaks]
    return None


def _most_frequent(labels: np.ndarray) -> str:
    return str(Counter(labels.tolist()).most_common(1)[0][0]) if len(labels) else ""
