"""Interruptions that wait for the end of a meta-update."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""What asks a process to end: Ctrl-C, a scheduler, a terminal that closes."""


class Noted(list[int]):
    """Signals that were sent and wait to be acted upon.

    Attributes:
        before: what each of them did before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[int, Any] = {}

    def interruption(self, number: int) -> BaseException:
        """What goes on after the state is saved: as the signal would have done."""
        handler = self.before.get(number, signal.getsignal(number))
        if callable(handler):
            try:
                handler(number, None)
            except BaseException as stop:  # it is made to raise one
                return stop
        return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


@contextmanager
def interruptible() -> Iterator[Noted]:
    """Note signals instead of breaking off in the middle of a meta-update; those that are ignored stay so."""
    noted = Noted()
    if threading.current_thread() is not threading.main_thread():
        yield noted  # only the main thread may set handlers
        return

    def note(number: int, _: FrameType | None) -> None:
        noted.append(number)

    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    noted.before = {
        n: handler
        for n, handler in handlers.items()
        if handler
        not in (signal.SIG_IGN, None)  # None: set by other than Python, and not ours to change
    }
    try:
        for number in noted.before:
            signal.signal(number, note)
        yield noted
    finally:
        for number, handler in noted.before.items():
            signal.signal(number, handler)
