"""What a run shows while it computes: bars on a terminal, lines elsewhere and in the log, TensorBoard scalars."""

import logging
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeAlias

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mrsds_ppl.train.history import History

logger = logging.getLogger(__name__)

# What takes less is not worth a line.
_SHORTEST_SAID = 20.0  # seconds
_BAR_WIDTH = 16  # with names, counts, times and a number the line has at most 80 columns
Say: TypeAlias = Callable[[str], None]


def chunk_means(history: History) -> dict[str, float]:
    """The mean of the loss and of each metric over the steps of a chunk that were not skipped, NaN if all were."""
    good = ~np.asarray(history.skipped)
    columns = {
        "loss": history.loss,
        **history.metrics,
        "gradient_norm": history.gradient_norm,
        "learning_rate": history.learning_rate,
    }
    return {
        name: float(np.mean(np.asarray(values)[good])) if good.any() else float("nan")
        for name, values in columns.items()
    }


class Rounds:
    """Progress of a stage that is no training: a bar where there is a terminal, elsewhere a line now and then.

    Args:
        stage: name of the stage, as the user reads it.
        total: rounds; None where that is not known, or the stage is one piece.
        say: prints a line.
        visible: whether anything is shown.
        console: where the bar goes, standard error by default.
    """

    def __init__(
        self, stage: str, total: int | None, say: Say, visible: bool = True, console: Console | None = None
    ) -> None:
        self.stage, self.total, self.rounds = stage, total, 0
        self._say, self._said = say, time.perf_counter()
        console = console or Console(stderr=True)
        self._bar = _bar(console, visible, [] if total is None else [MofNCompleteColumn()])
        self._in_lines = visible and not _is_watched(console)
        self._task = self._bar.add_task(stage, total=total)

    def __enter__(self) -> "Rounds":
        self._bar.start()
        if self._in_lines:
            self._say(f"{self.stage} ...")
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def next(self) -> None:
        """One more round is done."""
        self.rounds += 1
        self._bar.update(self._task, completed=self.rounds)
        now = time.perf_counter()
        if self._in_lines and now - self._said > _SHORTEST_SAID:
            self._said = now
            self._say(f"{self.stage}: {self.rounds} of {self.total} rounds")


class TrainingProgress:
    """One stage's progress: a bar where there is a terminal, elsewhere one line per chunk, as in the log in any case.

    Once the second chunk is done, a line says how long the rest will take. The first one compiles, so its time tells
    nothing.

    Args:
        stage: name of the stage, as the user reads it.
        num_steps: number of steps of the stage.
        first_step: steps already done, more than 0 after resuming.
        shown: metrics to show, in this order, the first one beside the bar; those that a history lacks are left out.
        console: where the bar goes, standard error by default.
        visible: whether there is a bar at all; it needs a terminal or a notebook.
        say: prints a line; None for none but in the log.
    """

    def __init__(
        self,
        stage: str,
        num_steps: int,
        first_step: int = 0,
        shown: tuple[str, ...] = ("loss",),
        console: Console | None = None,
        visible: bool = True,
        say: Say | None = None,
    ) -> None:
        self.stage = stage
        self.num_steps = num_steps
        self.shown = shown
        self.step = first_step
        self.skipped = 0
        self._say = say
        self._chunks = 0
        self._time = time.perf_counter()
        console = console or Console(stderr=True)
        columns = [MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[values]}")]
        self._bar = _bar(console, visible, columns)
        self._tell: Say = say if say is not None and visible and not _is_watched(console) else logger.info
        self._task = self._bar.add_task(stage, total=num_steps, completed=first_step, values="")

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        self._time = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def update(self, history: History) -> None:
        """Shows the steps of one chunk; `history` as `train` hands it to `on_chunk`."""
        if len(history.step) == 0:
            return
        now = time.perf_counter()
        milliseconds = 1e3 * (now - self._time) / len(history.step)
        self._time = now
        self.step = int(history.step[-1]) + 1
        means = chunk_means(history)
        values = [f"{name} {means[name]:.5g}" for name in self.shown if name in means]
        self._bar.update(self._task, completed=self.step, values="".join(values[:1]))
        self._tell(
            f"{self.stage}: step {self.step} of {self.num_steps}  {'  '.join(values)}  "
            f"lr {history.learning_rate[-1]:.3g}  {milliseconds:.1f} ms a step"
        )
        self._chunks += 1
        left = self.num_steps - self.step
        if self._say is not None and self._chunks == 2 and left * milliseconds > 1e3 * _SHORTEST_SAID:
            rate = 1e-3 * milliseconds
            self._say(f"{self.stage}: about {rounded_time(left * rate)} for {left} more steps at {rate:.2g} s a step")
        skipped = int(np.sum(history.skipped))
        if skipped:
            self.skipped += skipped
            logger.warning(
                "%s: skipped %d of the last %d steps, whose loss or gradient was not finite (%d so far)",
                *(self.stage, skipped, len(history.step), self.skipped),
            )


def _bar(console: Console, visible: bool, columns: list[ProgressColumn]) -> Progress:
    shown = visible and (console.is_terminal or console.is_jupyter)
    name, bar = TextColumn("{task.description}"), BarColumn(_BAR_WIDTH)
    return Progress(name, bar, TimeElapsedColumn(), *columns, console=console, disable=not shown)


def _is_watched(console: Console) -> bool:
    """Whether bars are all that is wanted: not where the output goes to a file, or to another command."""
    return console.is_jupyter or (console.is_terminal and sys.stdout.isatty())


def rounded_time(seconds: float) -> str:
    """A time as one says it: 40 s, 4 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


class ScalarLog(AbstractContextManager["ScalarLog"]):
    """TensorBoard scalars of one stage: the means over each chunk, in the folder `directory/stage`.

    A stage has a folder of its own, since each counts its steps from 0 and resuming disregards later steps by folder.

    Args:
        directory: the run's TensorBoard folder, made if need be.
        stage: name of the stage.
        first_step: steps already done; what an interrupted run wrote beyond them is disregarded by TensorBoard.
    """

    def __init__(self, directory: str | Path, stage: str, first_step: int = 0) -> None:
        from tensorboardX import SummaryWriter

        # Scalars of step s are written when s steps are done, so those of `first_step` itself are already there.
        self._writer = SummaryWriter(str(Path(directory) / stage), purge_step=first_step + 1 if first_step else None)

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def write(self, history: History) -> None:
        """Writes the means of one chunk at its last step."""
        if len(history.step) == 0:
            return
        step = int(history.step[-1]) + 1
        for name, value in chunk_means(history).items():
            self._writer.add_scalar(name, value, step)
        self._writer.add_scalar("skipped_steps", int(np.sum(history.skipped)), step)
        self._writer.flush()
