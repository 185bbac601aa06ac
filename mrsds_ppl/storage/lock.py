"""The lock of a run, so that two commands never write one."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase

from mrsds_ppl.errors import RunError
from mrsds_ppl.storage.atomic import remove_asides, unwritable
from mrsds_ppl.storage.paths import RunPaths


@contextmanager
def locked(paths: RunPaths) -> Iterator[None]:
    """Hold the lock of a run, ``NAME.lock``, which says who holds it and is removed at the end.

    What a killed command had half written aside is removed.

    The system lets go of it with the process, however that ends. A file that is a lock by being there would be left
    behind by ``kill -9``, and whether its process lives could be told on its own machine only.

    Args:
        paths: of the run; its folder is made.

    Raises:
        RunError: another command writes the run, or the folder cannot be written.
    """
    try:
        paths.folder.mkdir(parents=True, exist_ok=True)
        file = paths.lock.open("a+b", buffering=0)
    except OSError as error:
        raise unwritable(paths.lock, error) from error
    with file:
        if _is_held(file):
            file.seek(0)
            raise RunError(
                f"{paths.folder / paths.name}: {file.read().decode() or 'another command'} is writing this run. Wait "
                "until it has ended, or give another name (--name)."
            )
        try:
            try:
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
            except OSError as error:
                raise unwritable(paths.lock, error) from error
            for path in (paths.config, paths.trials, paths.mat, paths.posterior):
                remove_asides(path)
            yield
        finally:
            # Before it is let go of: after that it may be another command's.
            paths.lock.unlink(missing_ok=True)


def _is_held(file: RawIOBase) -> bool:
    """Whether another process holds the lock; otherwise this one does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        # A file system without locks, such as some that clusters share: there nobody can tell.
        return False
    # One that was removed by its holder between opening and locking locks nothing.
    return os.fstat(file.fileno()).st_nlink == 0
