"""Ending a run at the next checkpoint when it is asked to stop."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STOPPING = "stopping ... at the next checkpoint, once what is being computed is done"


class Interrupt:
    """Says whether the run was asked to stop: `interrupt()` is the `should_stop` that `train` takes."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __call__(self) -> bool:
        return self.signal is not None


@contextmanager
def graceful_interrupt(say: Callable[[str], None] = print) -> Iterator[Interrupt]:
    """Within the block the first SIGINT or SIGTERM sets a flag and is answered; a second one interrupts at once.

    Signals can be handled in the main thread alone; elsewhere the flag is never set.

    Args:
        say: prints a line, from a thread of its own.

    Raises:
        KeyboardInterrupt: at the second signal.
    """
    interrupt = Interrupt()

    def handle(number: int, frame: FrameType | None) -> None:
        if interrupt.signal is not None:
            raise KeyboardInterrupt
        interrupt.signal = signal.Signals(number)

    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    previous = {number: signal.signal(number, handle) for number in SIGNALS}
    with _answered(say):
        try:
            yield interrupt
        finally:
            for number, handler in previous.items():
                # None: the handler was not installed from Python and cannot be put back.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def _answered(say: Callable[[str], None]) -> Iterator[None]:
    """Within the block the first signal is answered as it comes: handlers wait for what is being computed."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def answer() -> None:
        while number := ours.recv(1):
            if number[0] in SIGNALS:
                say(_STOPPING)
                return

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
