"""What reading a file did beside returning or refusing: writes, network, processes, code, warnings."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OURS = ("landscape", "sharpmaml")
_ROOT = Path(__file__).resolve().parents[2]
_LONGEST = 2000  # characters of a message
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = (
    "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod", "os.chown",
    "os.utime", "shutil.", "tempfile.", "os.setxattr",
)  # fmt: skip
_NEVER = (
    "socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "pty.",
    "pickle.find_class", "ctypes.", "urllib.", "http.", "ftplib.", "webbrowser.", "code.__new__", "exec",
    "os.putenv", "os.kill", "sys.setprofile", "marshal.",
)  # fmt: skip
_READABLE = ("/dev/", "/proc/", "/sys/", "/usr/", sys.prefix, sys.base_prefix, str(_ROOT))
_WORKER = "hdf5_worker.py"


class Watch:
    """Notes what happens while :meth:`reading`; the hook of the interpreter stays for good.

    Python's parser may run (literals of arrays and settings); what it makes may not be executed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.events: list[str] = []
        self._on = False
        self._known: set[str] = set()
        sys.addaudithook(self._event)
        sys.unraisablehook = lambda told: self.events.append(f"unraisable {told.exc_type.__name__}")
        warnings.simplefilter("always")
        warnings.showwarning = self._warned

    @contextmanager
    def reading(self) -> Iterator[None]:
        self.events.clear()
        self._known = {name.partition(".")[0] for name in sys.modules}
        self._on = True
        try:
            yield
        finally:
            self._on = False

    def _warned(self, message: Any, category: type, filename: str, lineno: int, *_: Any) -> None:
        self.events.append(f"warning {category.__name__}: {str(message)[:80]}")

    def _event(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event == "open":
            self._opened(*args)
        elif event == "import":
            if args[0].partition(".")[0] not in self._known:
                self.events.append(f"import {args[0]}")
        elif event.startswith(_CHANGES):
            if not all(
                self._inside(place)
                for place in args
                if isinstance(place, str | bytes | os.PathLike)
            ):
                self.events.append(f"{event} {args[:2]}")
        elif event.startswith(_NEVER) and event != "socket.gethostname":
            if event in ("exec", "marshal.loads", "code.__new__") and _importing():
                return  # the import was judged by its name
            if event in ("subprocess.Popen", "os.posix_spawn", "os.fork") and _WORKER in str(args):
                return  # our own helper, started again after it was killed
            self.events.append(f"{event} {str(args)[:80]}")

    def _opened(self, path: Any, mode: Any, flags: int) -> None:
        if isinstance(path, int):
            return
        if flags & _WRITING and path != os.devnull:
            if not self._inside(path):
                self.events.append(f"writes {path!r:.100}")
        elif not self._inside(path) and not os.fsdecode(path).startswith(_READABLE):
            self.events.append(f"reads {path!r:.100}")

    def _inside(self, path: Any) -> bool:
        try:
            # Links are taken as what they are.
            return os.path.abspath(os.fsdecode(path)).startswith(self.folder)  # noqa: PTH100
        except (TypeError, ValueError):
            return True  # no path


def _importing() -> bool:
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def verdict(error: BaseException | None, folder: Path, names_file: bool) -> str:
    """``accepted``, ``refused``, or what is wrong with the way in which a reader ended."""
    if error is None:
        return "accepted"
    seen: BaseException | None = error
    for _ in range(20):
        if isinstance(seen, MemoryError) and not _parsing(seen):
            return "memory"
        seen = seen.__cause__ or seen.__context__ if seen is not None else None
    kind, text = type(error), str(error)
    frames = traceback.extract_tb(error.__traceback__)
    innermost = frames[-1].filename if frames else ""
    own = kind.__module__.startswith(OURS) or (
        kind in (ValueError, FileNotFoundError)
        and any(f"{os.sep}{name}{os.sep}" in innermost for name in OURS)
    )
    if not own or not isinstance(error, ValueError | FileNotFoundError):
        return f"raises {kind.__name__}"
    if not text or any(not char.isprintable() for char in text):
        return "message of several lines, or with control characters"
    if len(text) > _LONGEST:
        return "message too long"
    if names_file and folder.name not in text:
        return "message names no file"
    return "refused"


def _parsing(error: MemoryError) -> bool:
    """Python's parser calls it that when brackets are nested too deep."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).name == "ast.py"


def where(error: BaseException | None) -> str:
    """File and line of ours, and the innermost one, where an error came up."""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    ours = [f for f in frames if any(f"{os.sep}{name}{os.sep}" in f.filename for name in OURS)]
    told = [f"{Path(f.filename).name}:{f.lineno}" for f in (*ours[-1:], *frames[-1:])]
    return " ".join(dict.fromkeys(told))
