"""Stopping on Ctrl-C or SIGTERM without losing what is in hand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from deconv_cli.cli.exit_codes import ExitCode


class Stop:
    """Whether the user asked to stop, and the exit code that says so."""

    def __init__(self) -> None:
        self.code: ExitCode | None = None

    def __call__(self) -> bool:
        """Tell whether to stop."""
        return self.code is not None

    def request(self, number: int, _frame: FrameType | None) -> None:
        """Take the first signal as a request and let the second one abort at once."""
        self.code = ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.TERMINATED
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def graceful_stop() -> Iterator[Stop]:
    """Turn the first SIGINT or SIGTERM inside the block into a request to stop."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # Only the main thread may install handlers.
        return
    before = {number: signal.signal(number, stop.request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
