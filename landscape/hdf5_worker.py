"""The process in which HDF5 files are read: run by :mod:`landscape.hdf5_apart`, never imported by it.

Requests are lines of JSON on standard input: ``path``, ``send`` (whether the arrays are wanted) and ``limit`` in
bytes. An answer is a length of 8 bytes, as much JSON, and the bytes of the arrays that it lists. Nothing but h5py and
NumPy is imported, and nothing of the file is run.
"""

import json
import os
import signal
import struct
import sys
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

SECONDS = 2  # of computing for a small file, which takes a hundredth of one
SPEED = 1 << 23  # bytes a second that more are granted for
MEMORY = 1 << 29  # bytes beside what the arrays take
_NODES = 100_000
_DEPTH = 20
_BLOCK = 1 << 26
_LONGEST = 1 << 24  # characters of texts in all

Node = dict[str, Any]


class Reading:
    """One file."""

    def __init__(self, file: Any, send: bool, limit: int) -> None:
        self.file, self.send, self.left, self.texts = file, send, limit, _LONGEST
        self.arrays: list[Any] = []
        self.nodes = 0

    def node(self, group: Any, name: str, above: tuple[int, ...]) -> Node:
        """What lies under a name; links are named and never followed."""
        self.nodes += 1
        if self.nodes > _NODES:
            raise ValueError(f"it has over {_NODES} entries")
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            return {"kind": "link"}
        found = group[name]
        if isinstance(found, h5py.Group):
            return self.group(found, above)
        if not isinstance(found, h5py.Dataset):
            return {"kind": "other"}
        if found.is_virtual or found.external:
            return {"kind": "elsewhere"}
        told = self.values(found.dtype, found.shape, found)
        return {**told, "attributes": self.attributes(found), "dimensions": self.dimensions(found)}

    def group(self, found: Any, above: tuple[int, ...] = ()) -> Node:
        """A group and all in it."""
        place = h5py.h5o.get_info(found.id).addr
        if place in above or len(above) > _DEPTH:
            return {"kind": "other"}
        inner = [[name, self.node(found, name, (*above, place))] for name in found]
        return {"kind": "group", "entries": inner, "attributes": self.attributes(found)}

    def attributes(self, found: Any) -> list[Any]:
        """Names and values; those of references are read for dimensions alone."""
        told: list[Any] = []
        for name in found.attrs if self.send else ():
            where = found.attrs.get_id(name)
            told.append(
                [name, self.values(where.dtype, where.shape, partial(found.attrs.get, name))]
            )
        return told

    def dimensions(self, found: Any) -> list[str] | None:
        """Names of the datasets that the axes are of, as netCDF keeps them; None where there are none."""
        if not self.send or "DIMENSION_LIST" not in found.attrs:
            return None
        lists = found.attrs["DIMENSION_LIST"]
        if len(lists) != len(found.shape):
            raise ValueError("an array has more axes than dimensions")
        return [self.file[references[0]].name.split("/")[-1] for references in lists]

    def values(self, dtype: Any, shape: tuple[int, ...] | None, source: Any) -> Node:
        """Numbers or texts; their bytes are put aside."""
        if shape is None:
            return {"kind": "empty", "dtype": dtype.str if dtype.kind in "iufSU" else "|S1"}
        text = h5py.check_string_dtype(dtype)
        plain = dtype.kind in "iufbc" and dtype.subdtype is None
        if not plain and not text:
            return {"kind": "other", "shape": list(shape)}
        size = prod(shape) * max(1, dtype.itemsize)
        if not self.send and (size > self.left or (text and text.length is None)):
            return {"kind": "unread", "shape": list(shape)}
        self.left -= size
        if self.left < 0:
            raise ValueError(f"it claims arrays of {size} bytes and more")
        if text and text.length is None:
            flat = self.flat_texts(np.asarray(read(source), dtype=object))
            return {"kind": "texts", "shape": list(shape), "texts": flat}
        whole = self.send or not isinstance(source, h5py.Dataset)
        if not whole and shape and size > _BLOCK:
            rows = max(1, _BLOCK * shape[0] // size)
            for start in range(0, shape[0], rows):
                source[start : start + rows]
            return {"kind": "numbers", "shape": list(shape), "dtype": dtype.str}
        array = np.ascontiguousarray(read(source)).reshape(shape)
        told: Node = {
            "kind": "bytes" if text else "numbers",
            "shape": list(shape),
            "dtype": array.dtype.str,
        }
        if self.send:
            self.arrays.append(array)
            told["array"] = len(self.arrays) - 1
        return told

    def flat_texts(self, found: Any) -> list[str]:
        """Texts of any length, one after another."""
        told = []
        for one in found.reshape(-1).tolist():
            word = one.decode("utf-8", "surrogateescape") if isinstance(one, bytes) else str(one)
            self.texts -= len(word)
            if self.texts < 0:
                raise ValueError(f"it holds over {_LONGEST} characters")
            told.append(word)
        return told


def read(source: Any) -> Any:
    """All values of a dataset or attribute."""
    return source[()] if isinstance(source, h5py.Dataset) else source()


def answer(request: dict[str, Any]) -> tuple[Node, list[Any]]:
    """The tree of a file, and its arrays."""
    size = Path(request["path"]).stat().st_size
    allow(SECONDS + size // SPEED, MEMORY + 2 * request["limit"])
    try:
        with h5py.File(request["path"], "r", locking="best-effort") as file:
            reading = Reading(file, request["send"], request["limit"])
            tree = reading.group(file)
        return {"tree": tree}, reading.arrays
    except Exception as error:  # h5py raises whatever libhdf5 says
        text = " ".join(str(error).split())[:300] or type(error).__name__
        return {"error": text}, []


def allow(seconds: int, memory: int) -> None:
    """Bounds on what follows, where the system has them; libhdf5 does not always come back by itself."""
    if not hasattr(signal, "setitimer"):
        return
    import resource

    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = mapped + memory if hard == resource.RLIM_INFINITY else min(hard, mapped + memory)
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # what a library prints is no answer
        for line in sys.stdin.buffer:
            told, arrays = answer(json.loads(line))
            told["arrays"] = [array.nbytes for array in arrays]
            head = json.dumps(told).encode("utf-8")
            answers.write(struct.pack("<Q", len(head)) + head)
            for array in arrays:
                answers.write(array.reshape(-1).view(np.uint8).data if array.nbytes else b"")
            answers.flush()


if __name__ == "__main__":
    main()
