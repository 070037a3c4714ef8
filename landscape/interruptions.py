"""Requests to end a process: Ctrl-C, a scheduler's SIGTERM, a terminal that closes."""

from __future__ import annotations

import _thread
import importlib
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

_AGAIN = 0.05  # seconds until a request that could not be raised is made again
_LONGEST = 10.0  # seconds that it waits for an import: a user's module may compute for hours as it is imported


class Terminated(KeyboardInterrupt):
    """The process was asked to end by a signal other than Ctrl-C: what keeps work on Ctrl-C keeps it then too.

    Attributes:
        number: of the signal; the exit status is 128 more.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def whole_process(module: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run ``main(arguments)`` of a module as all that the process does.

    Ctrl-C before it is one line too. After it, while the interpreter ends, requests change nothing any more: what
    was asked for is done, or answered.
    """
    try:
        main = importlib.import_module(module).main
    except KeyboardInterrupt:
        print("error: interrupted before anything was done", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    try:
        main(arguments)
    finally:
        for number in _asking():
            signal.signal(number, signal.SIG_IGN)
    sys.exit()


@contextmanager
def raised() -> Iterator[None]:
    """Raise `KeyboardInterrupt`, or :class:`Terminated`, where a signal asks the process to end.

    While a module is imported the request waits: C extensions lose the exception as they are loaded, make another
    one of it, or abort. One that was lost in a destructor is made again. Signals that are ignored stay so, as
    under nohup, and so do handlers of others.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    requests = _Requests()
    handlers = {number: signal.getsignal(number) for number in _asking()}
    taken = {
        number: handler
        for number, handler in handlers.items()
        if handler in (signal.SIG_DFL, signal.default_int_handler)
    }
    hook, sys.unraisablehook = sys.unraisablehook, requests.lost
    requests.hook = hook
    try:
        for number in taken:
            signal.signal(number, requests.made)
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


@contextmanager
def ignored() -> Iterator[None]:
    """Ignore further requests to end: the first is being answered."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, signal.SIG_IGN)
        for number in _asking()
        if signal.getsignal(number)
        is not None  # set by other than Python: it could not be set back
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Requests:
    """What was asked, and whether it was raised."""

    def __init__(self) -> None:
        self.first = 0.0
        self.hook: Any = None
        self.answered = False

    def made(self, number: int, frame: FrameType | None) -> None:
        """Handler of the signals."""
        self.first = self.first or time.monotonic()
        if _importing(frame) and time.monotonic() < self.first + _LONGEST:
            self._again(number)
            return
        self.answered = True
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)

    def lost(self, told: Any) -> None:
        """Hook for exceptions that nobody can catch."""
        if issubclass(told.exc_type, KeyboardInterrupt):
            self._again(getattr(told.exc_value, "number", signal.SIGINT))
        elif not self.answered:  # else: objects that were left half made, as they are thrown away
            self.hook(told)

    def _again(self, number: int) -> None:
        timer = threading.Timer(_AGAIN, _thread.interrupt_main, (number,))
        timer.daemon = True
        timer.start()


def _asking() -> list[int]:
    return [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
