"""Files that appear whole or not at all: written aside, then renamed."""

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mrsds_ppl.errors import RunError


@contextmanager
def written_aside(path: str | Path) -> Iterator[Path]:
    """Yields a path to write to; on success that file takes the place of ``path``, on any failure it is removed.

    The file aside lies in the same folder, since only a rename within one file system is atomic, and it reaches the
    disk before the rename, so that after a crash of the machine ``path`` holds either what it held before or all of
    the new file.

    Args:
        path: where the file shall appear. An earlier file there is replaced.

    Raises:
        RunError: if the folder or the file cannot be written.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        aside.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):  # the error of interest is the one above
            aside.unlink(missing_ok=True)


def remove_asides(path: str | Path) -> None:
    """Removes what processes that were killed have left aside of a file; nobody else may be writing it."""
    path = Path(path)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial{glob.escape(path.suffix)}"):
        left.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text so that the file appears whole or not at all.

    Args:
        path: where the file shall appear. An earlier file there is replaced.
        text: what it shall hold.

    Raises:
        RunError: if the folder or the file cannot be written.
    """
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def unwritable(path: str | Path, error: OSError) -> RunError:
    """What is said of a file that cannot be written."""
    return RunError(
        f"{path} could not be written: {error.strerror or error}. Choose a folder that can be written "
        "and has space (--result-path)."
    )
