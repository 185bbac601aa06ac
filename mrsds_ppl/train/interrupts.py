"""Ending a run that is asked to stop: at a checkpoint where one comes soon, and a command within seconds anyhow."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130  # exit status
_STOPPING = "stopping ... once what is being computed is done"
_SHOW_CURSOR = b"\x1b[?25h"  # which a bar hides
# What is being computed gets a little less than the five seconds that are said.
_STOPPING_SOON, _PATIENCE = "stopping ... within 5 s; Ctrl-C again: at once", 4.0


class Interrupt:
    """Says whether the run was asked to stop: `interrupt()` is the `should_stop` that `train` takes."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __call__(self) -> bool:
        return self.signal is not None


@contextmanager
def graceful_interrupt() -> Iterator[Interrupt]:
    """Within the block the first SIGINT or SIGTERM sets a flag; a second one interrupts.

    Signals can be handled in the main thread alone; elsewhere the flag is never set.

    Raises:
        KeyboardInterrupt: at the second signal.
    """
    interrupt = Interrupt()

    def handle(number: int, frame: FrameType | None) -> None:
        if interrupt.signal is not None:
            raise KeyboardInterrupt
        interrupt.signal = signal.Signals(number)

    with _handled(handle):
        yield interrupt


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block the first SIGINT or SIGTERM interrupts, whatever the process was told of them before.

    Raises:
        KeyboardInterrupt: in the main thread, at the signal.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled(handle):
        yield


@contextmanager
def _handled(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """The handler of both signals within the block, in the main thread, where alone one can be set."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            # None: the handler was not installed from Python and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def answered(say: Callable[[str], None], *, last_words: str | None = None) -> Iterator[None]:
    """Within the block the first signal that has a handler is answered as it comes.

    Python's handlers run once compiled code returns, which may take minutes. With ``last_words`` that is not waited
    for: 4 s after the first signal, or at a second one, they are said and the process ends with status 130. Files
    appear whole or not at all, so it leaves none half written. Outside the main thread nothing is answered.

    Args:
        say: prints a line, from a thread of its own.
        last_words: None where the process is the user's own, such as a notebook's.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def heard() -> bool:
        """Waits for a signal; False where the block has ended."""
        while number := ours.recv(1):
            if number[0] in SIGNALS:
                return True
        return False

    def answer() -> None:
        if not heard():
            return
        say(_STOPPING if last_words is None else _STOPPING_SOON)
        if last_words is None:
            return
        ours.settimeout(_PATIENCE)
        try:
            ends = heard()
        except TimeoutError:
            ends = True
        if ends:
            try:
                say(last_words)
                if os.isatty(2):
                    os.write(2, _SHOW_CURSOR)
            finally:
                os._exit(INTERRUPTED)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        theirs.close()
        thread.join()
        ours.close()
