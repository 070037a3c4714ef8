"""What a long computation has found so far, entry by entry: a process that is killed loses the last one at most."""

from __future__ import annotations

import json
import math
import os
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from landscape.writing import WriteError, write_error

_MAGIC = b"landscape.journal/1\n"
_HEAD = struct.Struct("<IQI")  # length of the words, of the numbers, and their checksum

Array = np.ndarray[Any, np.dtype[Any]]
Entry = tuple[dict[str, Any], dict[str, Array]]
"""Words that JSON can hold, and arrays by name."""


class Journal:
    """Append-only entries with a checksum each; a file of another computation is started anew.

    Every entry is one write, so that a process that is killed leaves whole entries and at most a torn last
    one, which is cut off. A power cut may lose more: entries are not waited for until they are on the disk.

    Args:
        path: the file; it is made when the first entry comes.
        identity: what tells this computation from all others; JSON can hold it.

    Attributes:
        foreign: whether the file holds something else; it would be written over.

    Raises:
        WriteError: the file cannot be read, or the folder not be written to.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self._title = _packed(identity, {})
        self._file = -1
        self.foreign = False
        self._ends = self._found()

    def __len__(self) -> int:
        """How many entries there are."""
        return max(len(self._ends) - 1, 0)

    def __getitem__(self, number: int) -> Entry:
        """An entry, read from the file."""
        begin, end = self._ends[number], self._ends[number + 1]
        with self.path.open("rb") as file:
            file.seek(begin)
            return _entry(file.read(end - begin))

    def append(self, words: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> None:
        """Add an entry; it is in the file when this returns.

        Raises:
            WriteError: the disk refuses. Entries before it are kept.
        """
        record = _packed(words, arrays or {})
        try:
            self._open()
            self._write(record)
        except OSError as error:
            with suppress(WriteError):
                self.close()  # opened again, it is cut where the last whole entry ends
            raise write_error(self.path, error) from None

    def cut(self, count: int) -> None:
        """Forget all entries but the first ``count``: what follows went another way."""
        self.close()
        del self._ends[count + 1 :]

    def clear(self) -> None:
        """Forget everything, and remove the file: what it held is kept elsewhere now."""
        self.close()
        self._ends = []
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise write_error(self.path, error) from None

    def close(self) -> None:
        """Leave the file as it is.

        Raises:
            WriteError: the disk tells only now that it has not kept what was written.
        """
        file, self._file = self._file, -1  # closed it is, whatever the disk says
        try:
            if file >= 0:
                os.close(file)
        except OSError as error:
            raise write_error(self.path, error) from None

    def _open(self) -> None:
        if self._file >= 0:
            if os.fstat(self._file).st_nlink:
                return
            self._ends = []  # somebody removed it, and what was in it
        self.close()
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        if not self._ends:
            os.ftruncate(self._file, 0)
            self._write(_MAGIC + self._title)
        os.ftruncate(self._file, self._ends[-1])
        os.lseek(self._file, self._ends[-1], os.SEEK_SET)

    def _write(self, record: bytes) -> None:
        view = memoryview(record)
        while len(view):
            view = view[os.write(self._file, view) :]
        self._ends.append((self._ends[-1] if self._ends else 0) + len(record))

    def _found(self) -> list[int]:
        try:
            with self.path.open("rb") as file:
                title = _MAGIC + self._title
                begin = file.read(len(title))
                if begin != title:
                    self.foreign = not title.startswith(begin)  # else torn while it was begun
                    return []
                ends = [file.tell()]
                while (record := _next(file)) is not None:
                    ends.append(ends[-1] + len(record))
                return ends
        except FileNotFoundError:
            return []
        except OSError as error:
            raise write_error(self.path, error) from None


def _next(file: BinaryIO) -> bytes | None:
    """The next entry if it is whole."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    words, numbers, checksum = _HEAD.unpack(head)
    left = os.fstat(file.fileno()).st_size - file.tell()
    if words + numbers > left:
        return None
    body = file.read(words + numbers)
    return head + body if zlib.crc32(body) == checksum else None


def _entry(record: bytes) -> Entry:
    words = _HEAD.unpack_from(record)[0]
    told, about = json.loads(record[_HEAD.size : _HEAD.size + words])
    arrays: dict[str, Array] = {}
    place = _HEAD.size + words
    for name, kind, shape in about:
        flat = np.frombuffer(record, np.dtype(kind), math.prod(shape), place)
        arrays[name] = flat.reshape(shape).copy()
        place += flat.nbytes
    return told, arrays


def _packed(words: Mapping[str, Any], arrays: Mapping[str, Array]) -> bytes:
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    about = [[name, array.dtype.str, list(array.shape)] for name, array in plain.items()]
    head = json.dumps([dict(words), about], sort_keys=True, default=str).encode()
    body = head + b"".join(array.tobytes() for array in plain.values())
    return _HEAD.pack(len(head), len(body) - len(head), zlib.crc32(body)) + body
