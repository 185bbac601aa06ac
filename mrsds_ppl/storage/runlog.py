"""NAME-log.txt: every line that a run says, and those of its training, with the time."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mrsds_ppl.storage.atomic import unwritable


class _LogFile(logging.FileHandler):
    """A log that cannot be written ends the run; by default every line of it would print a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        if isinstance(error, OSError):
            raise unwritable(self.baseFilename, error) from error
        super().handleError(record)


@contextmanager
def run_log(path: Path, log: Callable[[str], None], append: bool) -> Iterator[Callable[[str], None]]:
    """Open the run's log; yields a function that prints a line and writes it there.

    Args:
        path: the file; its folder is made.
        log: prints for the user.
        append: go on with the file of an earlier run.

    Raises:
        RunError: the file cannot be written, such as on a full disk.
    """
    logger = logging.getLogger("mrsds_ppl")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(path, mode="a" if append else "w", encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    # A library that sets up the root logger would otherwise print every line a second time.
    propagate, logger.propagate = logger.propagate, False

    def say(text: str) -> None:
        log(text)
        for line in text.splitlines():
            logger.info(line)

    try:
        yield say
    except BaseException as error:
        logger.error("%s: %s", type(error).__name__, error)
        raise
    finally:
        logger.removeHandler(handler)
        # On a full disk the rest of a line that has been refused is refused again.
        with suppress(OSError):
            handler.close()
        logger.setLevel(level)
        logger.propagate = propagate
