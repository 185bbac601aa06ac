"""Results as they come: a live table on a terminal, elsewhere a line for each cell."""

import sys
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from mrsds_ppl.sweeps.cell_fit import Outcome
from mrsds_ppl.sweeps.cells import Cell, Grid, size_label
from mrsds_ppl.sweeps.files import SweepPaths
from mrsds_ppl.sweeps.results import read_cell

_OFTEN = 4.0  # times a second at most that the table is drawn
_LEFT = 50  # letters of what went wrong that a table has room for


class Results:
    """What is known of the cells so far.

    Args:
        paths, grid: of the sweep.
        say: prints a line.
        visible: whether anything is shown.
        console: where the table goes; standard error by default.
    """

    def __init__(
        self,
        paths: SweepPaths,
        grid: Grid,
        say: Callable[[str], None],
        *,
        visible: bool = True,
        console: Console | None = None,
    ) -> None:
        self._paths, self._grid, self._say = paths, grid, say
        self._began, self._before = time.perf_counter(), 0
        # Of each row. All are there from the beginning, as the table is drawn by a thread of its own.
        rows = [(str(states), size_label(size)) for states in grid.num_states for size in grid.latent_sizes]
        self._evidence: dict[tuple[str, str], list[float]] = {row: [] for row in rows}
        self._seconds: dict[tuple[str, str], list[float]] = {row: [] for row in rows}
        self.failed: dict[str, str] = {}
        console = console or Console(stderr=True)
        self._in_lines = visible and not (console.is_terminal and sys.stdout.isatty())
        self._live = Live(get_renderable=self.table, console=console, refresh_per_second=_OFTEN)
        self._shown = visible and not self._in_lines

    def __enter__(self) -> "Results":
        if self._shown:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._shown:
            self._live.stop()

    def done_before(self, cell: Cell) -> None:
        """A cell that an earlier command has done."""
        self._before += 1
        self._take(cell)

    def add(self, outcome: Outcome) -> None:
        """How the fit of a cell ended."""
        if outcome.error is not None:
            self.failed[outcome.cell.name] = outcome.error
            line = f"failed: {outcome.error}"
        else:
            line = self._take(outcome.cell)
        if self._in_lines:
            self._say(f"{self._num_done + len(self.failed)} of {len(self._grid.cells)}  {outcome.cell.name}: {line}")

    def table(self) -> Table:
        """One row for each number of states and latents."""
        total, done = self._grid.seeds * (self._grid.folds or 1), self._num_done
        found = Table(title=f"{done} of {len(self._grid.cells)} cells done{self._left()}", title_justify="left")
        for name in ("states", "latents", "done", "failed", "evidence", "seconds a cell"):
            found.add_column(name, justify="right")
        for states in self._grid.num_states:
            for size in self._grid.latent_sizes:
                row = str(states), size_label(size)
                some = self._evidence[row]
                bad = sum(
                    name.startswith(f"{Cell(states, size, 0, 0).name.split('-s')[0]}-s") for name in tuple(self.failed)
                )
                found.add_row(
                    *row,
                    f"{len(some)} of {total}",
                    str(bad or ""),
                    f"{np.mean(some):.2f}" if some else "",
                    f"{np.mean(self._seconds[row]):.0f}" if some else "",
                )
        if self.failed:
            name, error = list(self.failed.items())[-1]
            found.caption = f"{name}: {error[:_LEFT]}{'...' if len(error) > _LEFT else ''}"
        return found

    @property
    def _num_done(self) -> int:
        return sum(map(len, self._evidence.values()))

    def _take(self, cell: Cell) -> str:
        found, row = read_cell(self._paths.result(cell)), (str(cell.num_states), size_label(cell.latent_size))
        evidence = float(found.evidence.mean())
        self._evidence[row].append(evidence)
        self._seconds[row].append(float(found.attrs["seconds"]))
        return (
            f"evidence {evidence:.2f} nats a trial, {found.attrs['seconds']:.0f} s, {found.attrs['peak_memory']:.0f} MB"
        )

    def _left(self) -> str:
        """About how long the rest will take, once something was done."""
        now = self._num_done - self._before + len(self.failed)
        left = len(self._grid.cells) - self._num_done - len(self.failed)
        if not now or not left:
            return ""
        minutes = (time.perf_counter() - self._began) / now * left / 60
        return f", about {minutes:.0f} min left" if minutes < 90 else f", about {minutes / 60:.1f} h left"
