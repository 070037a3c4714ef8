"""HDF5 files of strangers, read in a process of their own.

libhdf5 is C code that trusts its files: some damaged ones make it loop for ever, ask for terabytes or write
where it must not. Here another process does the reading, within bounds of time and memory. Where it dies, the
file is refused and this process goes on. One such process serves many files; it ends with this one. It has the
same rights as this process: what is kept out is a crash, not somebody who takes libhdf5 over.
"""

from __future__ import annotations

import atexit
import json
import os
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscape.wording import printable

ROOM = 1 << 26  # bytes of arrays in a small file
SHRINKS = 20  # times that a large file may have been compressed
_WORKER = Path(__file__).with_name("hdf5_worker.py")
_WAIT = 120.0  # seconds without an answer, also on a machine that is busy; more for large files
_lock = threading.Lock()
_workers: dict[int, subprocess.Popen[bytes]] = {}  # by process: a fork may not share one


def tree(path: Path, *, arrays: bool = True) -> dict[str, Any]:
    """Everything in a file: groups with ``entries``, ``numbers`` and ``bytes`` with an ``array``, ``texts``.

    Args:
        path: the file.
        arrays: whether the numbers are wanted; they are read in any case.

    Raises:
        ValueError: no HDF5 file, a damaged one, or one that claims more than :data:`SHRINKS` times its bytes.
        OSError: the file or the process cannot be opened.
    """
    size = path.stat().st_size
    room = ROOM if arrays else 8 * ROOM
    request = {
        "path": str(path.absolute()), "send": arrays, "limit": max(room, SHRINKS * size),
    }  # fmt: skip
    with _lock:
        told, found = _asked(request, _WAIT + size / (1 << 20))
    if "error" in told:
        raise ValueError(printable(told["error"], 300))
    _put(told["tree"], found)
    return dict(told["tree"])


def vet(path: Path) -> None:
    """Let the other process read the numbers of the file first, so that to do so here is known to end well.

    Attributes and texts of any length are left out: who vets a file may not read them. So are arrays that claim
    more than :data:`SHRINKS` times the file (and half a gigabyte).

    Raises:
        ValueError, OSError: as :func:`tree`.
    """
    tree(path, arrays=False)


def _asked(request: dict[str, Any], seconds: float) -> tuple[dict[str, Any], list[bytes]]:
    worker = _workers.get(os.getpid())
    if worker is None or worker.poll() is not None:
        worker = _workers[os.getpid()] = _started()
    assert worker.stdin is not None
    assert worker.stdout is not None
    bell = threading.Timer(seconds, worker.kill)
    bell.daemon = True
    bell.start()
    try:
        worker.stdin.write(json.dumps(request).encode() + b"\n")
        worker.stdin.flush()
        (length,) = struct.unpack("<Q", _exactly(worker, 8))
        told = json.loads(_exactly(worker, length))
        return told, [_exactly(worker, count) for count in told["arrays"]]
    except (OSError, EOFError, struct.error):
        del _workers[os.getpid()]
        with suppress(subprocess.TimeoutExpired):  # it is about to end, and how is worth telling
            worker.wait(1)
        worker.kill()
        status = worker.wait()
        worker.stdin.close()
        worker.stdout.close()
        reason = f"signal {-status}" if status < 0 else f"status {status}"
        raise ValueError(f"reading it ended the process that tried ({reason})") from None
    except BaseException:  # Ctrl-C: an answer is under way that nobody will read
        worker.kill()
        del _workers[os.getpid()]
        raise
    finally:
        bell.cancel()


def _exactly(worker: subprocess.Popen[bytes], count: int) -> bytes:
    assert worker.stdout is not None
    found = worker.stdout.read(count)
    if len(found) != count:
        raise EOFError
    return found


def _started() -> subprocess.Popen[bytes]:
    # -P: the folder of this package is no place to import from.
    command = [sys.executable, "-P", str(_WORKER)]
    worker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    owner = os.getpid()
    atexit.register(_ended, worker, owner)
    return worker


def _ended(worker: subprocess.Popen[bytes], owner: int) -> None:
    """Without a word: a worker that is left open warns when it is collected."""
    if os.getpid() == owner:
        worker.kill()
        worker.wait()
        for stream in (worker.stdin, worker.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


def _put(node: dict[str, Any], found: list[bytes]) -> None:
    """Arrays in the place of their numbers."""
    queue = [node]
    for one in queue:  # grows while it is walked
        queue += [inner for _, inner in (*one.get("entries", ()), *one.get("attributes", ()))]
        if "array" in one:
            one["array"] = _array(one["dtype"], one["shape"], found[one["array"]])


def _array(dtype: str, shape: list[int], data: bytes) -> NDArray[Any]:
    form = np.dtype(dtype)
    if not form.itemsize or not prod(shape):
        return np.zeros(shape, form)
    return np.frombuffer(bytearray(data), form).reshape(shape)
