"""One process at a time writes an output; the next one is told who does. No torch."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from landscape.writing import write_error


class HeldError(ValueError):
    """Another process writes this output; the message names it."""


class Hold:
    """The right to write ``path``, until :meth:`release` or the end of the process, however it ends.

    Args:
        path: a file or a folder; it need not be there yet, its parent must.

    Raises:
        HeldError: another process, or another run in this one, has it.
        WriteError: the folder cannot be written to.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        # The system gives the lock back when the process ends, by a SIGKILL too: none is ever stale.
        self._file = _lock_file(self._path)
        self._lock = FileLock(self._file, blocking=False, thread_local=False)
        self._take()

    def confirm(self) -> None:
        """Take the lock again if its file was removed meanwhile.

        Raises:
            HeldError: another process has taken it since.
        """
        if self._identity() != self._taken:
            self._lock.release()
            self._take()

    def release(self) -> None:
        """Let others write; the lock file goes."""
        if self._identity() == self._taken:
            with suppress(OSError):
                self._file.unlink()
        self._lock.release()

    def _take(self) -> None:
        try:
            if not self._file.parent.is_dir():  # filelock would make it
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            self._lock.acquire()
        except Timeout:
            raise HeldError(
                f"{self._path} is being written by {_holder(self._file)}: wait for it, stop it, or choose another name"
            ) from None
        except OSError as error:
            raise write_error(self._path, error) from None
        me = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:500],
        }
        try:
            with self._file.open("w", encoding="utf-8") as file:
                file.write(json.dumps(me) + "\n")
        except OSError as error:
            self._lock.release()
            raise write_error(self._path, error) from None
        self._taken = self._identity()

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self._file.stat()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            return None
        return found.st_dev, found.st_ino


@contextmanager
def held(path: str | os.PathLike[str] | None) -> Iterator[Hold | None]:
    """Inside the block this process alone writes ``path``; ``None`` is nobody's business.

    Raises:
        HeldError: another process, or another run in this one, writes it; the message names that process.
        WriteError: the folder cannot be written to.
    """
    if path is None:
        yield None
        return
    hold = Hold(path)
    try:
        yield hold
    finally:
        hold.release()


def _lock_file(path: Path) -> Path:
    whole = path.resolve()  # two names of one file have one lock
    return whole.with_name(f".{whole.name}.lock")


def _holder(file: Path) -> str:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        words = f"process {told['process']} on {told['host']} since {told['since']}"
        return f"{words} ({told['command']})" if told["command"] else words
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"  # it has only just begun
