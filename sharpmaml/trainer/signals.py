"""Interruptions that wait for the end of a meta-update."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Note SIGINT and SIGTERM instead of breaking off in the middle of a meta-update."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted  # only the main thread may set handlers
        return

    def note(number: int, _: FrameType | None) -> None:
        noted.append(number)

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interruption(number: int) -> BaseException:
    """What goes on after the state is saved: as the signal would have done."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
