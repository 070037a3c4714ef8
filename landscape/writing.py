"""Files that appear whole or not at all, also when the disk is full or the process is killed. No torch."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ADVICE = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room in your quota",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.ENOENT: "its folder is gone: make it again",
    errno.EIO: "the disk fails: look at the system's log",
    errno.EFBIG: "the limit on the size of files is too low",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n)",
}


class WriteError(OSError):
    """A file cannot be written: which, why, and what to do. What was there before is still there."""


def write_error(path: str | os.PathLike[str], error: OSError) -> WriteError:
    """The error as one line that names the file and says what to do.

    >>> str(write_error("runs/a.nc", OSError(errno.ENOSPC, "No space left on device")))
    'cannot write runs/a.nc: no space left on device; make room on the disk'
    """
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    reason = reason[:1].lower() + reason[1:] if reason[1:2].islower() else reason
    advice = _ADVICE.get(error.errno or 0)
    return WriteError(f"cannot write {path}: {reason}" + (f"; {advice}" if advice else ""))


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A name beside ``path`` to write to; it replaces ``path`` where the block ends without an error.

    The contents are on the disk before the name changes, so that a reader finds the old file or the new
    one whole, whenever the process or the machine stops. What earlier processes of this machine left
    behind when they were killed is removed.

    Raises:
        WriteError: the disk refuses. ``path`` is as it was, and nothing else is left.
    """
    target = Path(path)
    temporary = target.with_name(f"{_prefix(target)}{os.getpid()}.tmp")
    try:
        sweep(target)
        yield temporary
        flush(temporary)
        temporary.replace(target)
        flush(target.parent)
    except OSError as error:
        raise error if isinstance(error, WriteError) else write_error(target, error) from None
    finally:
        with suppress(OSError):  # the error that led here says more
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write ``text`` in UTF-8: the file appears whole or not at all.

    Raises:
        WriteError: the disk refuses; nothing is left behind.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def flush(path: Path) -> None:
    """Have the contents of a file, or the names in a folder, on the disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some file systems cannot do it for folders; the name changes all the same.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(handle)


def sweep(target: Path) -> None:
    """Remove what processes of this machine that are gone left beside ``target``."""
    prefix = _prefix(target)
    for left in target.parent.glob(f"{_escaped(prefix)}*.tmp"):
        number = left.name.removeprefix(prefix).removesuffix(".tmp")
        if number.isdigit() and int(number) != os.getpid() and not alive(int(number)):
            with suppress(OSError):
                left.unlink()


def alive(process: int) -> bool:
    """Whether there is a process of that number on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # somebody else's
    return True


def _prefix(target: Path) -> str:
    # The machine's name: a shared folder is written to from several, with processes of equal number.
    return f".{target.name}.{socket.gethostname()}-"


def _escaped(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)
