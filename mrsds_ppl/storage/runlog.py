"""NAME-log.txt: every line that a run says, and those of its training, with the time."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def run_log(path: Path, log: Callable[[str], None], append: bool) -> Iterator[Callable[[str], None]]:
    """Open the run's log; yields a function that prints a line and writes it there.

    Args:
        path: the file; its folder is made.
        log: prints for the user.
        append: go on with the file of an earlier run.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    logger = logging.getLogger("mrsds_ppl")
    handler = logging.FileHandler(path, mode="a" if append else "w", encoding="utf-8")
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
        handler.close()
        logger.setLevel(level)
        logger.propagate = propagate
