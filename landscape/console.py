"""What both command lines share: exit statuses, one-line errors, progress and JSON on their own streams."""

from __future__ import annotations

import json
import math
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from landscape import interruptions

if TYPE_CHECKING:
    from cyclopts import App

DONE, BAD, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses: done; bad input or a result that cannot be trusted; usage; interrupted with work kept.

Ended by another signal, with work kept: 128 and its number, 143 for SIGTERM."""


class Untrusted(ValueError):
    """The command ran, but a result fails its own check; it was written with its mark."""


def run(
    app: App, arguments: Sequence[str] | None = None, prepare: Callable[[], None] | None = None
) -> int:
    """Run a command line; errors of the user become one line on standard error.

    Returns:
        The exit status.
    """
    app.suppress_keyboard_interrupt = False  # it would end the process without a word
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        # What the user took upon himself is told each time, not once a process.
        warnings.filterwarnings("always", message=".* on your word")
        with interruptions.raised():
            return _run(app, arguments, prepare)


def _run(app: App, arguments: Sequence[str] | None, prepare: Callable[[], None] | None) -> int:
    from cyclopts import CycloptsError

    try:
        if prepare is not None:
            prepare()
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()  # a reader that is gone is noticed here, not at the end of the process
    except CycloptsError as error:
        cause = error.__cause__
        if isinstance(cause, ValueError) and str(cause) and type(error).__name__ == "CoercionError":
            return _fail(cause, BAD)
        return _fail(error, USAGE)
    except KeyboardInterrupt as stop:
        how, status = "interrupted", INTERRUPTED
        if isinstance(stop, interruptions.Terminated):
            how, status = f"ended by {stop}", 128 + stop.number
        with interruptions.ignored():
            return _fail(
                f"{how}; files written so far are kept, the same command continues them "
                "(sharpmaml train: with --resume)",
                status,
            )
    except BrokenPipeError:
        # The reader of our output, such as head, had seen enough; what is left goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (ValueError, OSError) as error:
        return _fail(error, BAD)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else BAD
    except Exception as error:  # out of memory, or a fault of ours: one line, with the place
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}, line {last.lineno}"
        return _fail(f"{type(error).__name__}: {error} ({place})", BAD)
    return DONE


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning in one line, without the place in our code that gave it."""
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def _fail(error: BaseException | str, status: int) -> int:
    lines = [line.strip(" │╭╰─╮╯") for line in str(error).splitlines()]
    text = " ".join(line for line in lines if line) or type(error).__name__
    print(f"error: {text}", file=sys.stderr)
    return status


def print_json(value: Any) -> None:
    """One JSON document on standard output; what is not finite becomes null, as JSON wants."""
    print(json.dumps(jsonable(value), indent=1, allow_nan=False))


def jsonable(value: Any) -> Any:
    """Plain values that JSON can hold; tensors and arrays become lists."""
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    return jsonable(value.tolist()) if hasattr(value, "tolist") else str(value)


class Advance(Protocol):
    """A progress callback: how much is done, of how much, and what to say beside it."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show it."""


class Board(Protocol):
    """Progress of several jobs at once: which one, how much is done, of how much, doing what."""

    def __call__(self, title: str, done: int, total: int, note: str = "") -> None:
        """Show it."""


@contextmanager
def progress_bar(title: str, quiet: bool = False) -> Iterator[Advance]:
    """A bar on standard error with rate and time left; lines off a terminal, nothing when ``quiet``."""
    with progress_board(quiet) as board:

        def advance(done: int, total: int, note: str = "") -> None:
            board(title, done, total, note)

        yield advance


@contextmanager
def progress_board(quiet: bool = False) -> Iterator[Board]:
    """One bar a job, made when the job first reports; off a terminal a line now and then instead."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if quiet:
        yield lambda title, done, total, note="": None
        return
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, Any] = {}

        def show(title: str, done: int, total: int, note: str = "") -> None:
            if title not in tasks:
                tasks[title] = bars.add_task(title, total=None, rate="", note="")
            task = bars.tasks[bars.task_ids.index(tasks[title])]
            if task.total != total or done < task.completed:
                bars.reset(task.id)  # another stage of the same job
            rate = f"{task.speed:.1f}/s" if task.speed else ""
            bars.update(task.id, completed=done, total=total, note=note, rate=rate)

        yield show


class _Lines:
    """Progress for log files: a line at every quarter, and at least every half minute."""

    def __init__(self) -> None:
        self._jobs: dict[str, tuple[int, float, int, float, int]] = {}

    def __call__(self, title: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        quarter = 4 * done // max(total, 1)
        last_total, began, first, told, last_quarter = self._jobs.get(title, (-1, 0.0, 0, 0.0, -1))
        if total != last_total or quarter < last_quarter:
            began, first, last_quarter = now, done, -1
        due = quarter > last_quarter or now - told > 30
        self._jobs[title] = (total, began, first, now if due else told, quarter)
        if not due:
            return
        seconds, count = now - began, done - first
        rate = (
            f", {count / seconds:.1f}/s, {(total - done) * seconds / count:.0f} s left"
            if count and seconds and done < total
            else ""
        )
        words = f"{title}: {note}" if note else f"{title}:"
        print(f"{words} {done}/{total}{rate}", file=sys.stderr, flush=True)
