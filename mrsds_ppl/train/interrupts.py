"""Ending a run at the next checkpoint when it is asked to stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Says whether the run was asked to stop: `interrupt()` is the `should_stop` that `train` takes."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __call__(self) -> bool:
        return self.signal is not None


@contextmanager
def graceful_interrupt() -> Iterator[Interrupt]:
    """Within the block the first SIGINT or SIGTERM sets a flag; a second one interrupts at once.

    Signals can be handled in the main thread alone; elsewhere the flag is never set.

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
    try:
        yield interrupt
    finally:
        for number, handler in previous.items():
            # None: the handler was not installed from Python and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
