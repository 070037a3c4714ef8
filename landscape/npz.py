"""NumPy's ``.npz`` files of strangers: plain arrays that fill their place in the file, or one ValueError.

``numpy.load`` makes room for what a header claims before it looks for the bytes, and hands a member that is no
array over as bytes. Here a claim is held against the archive's directory and the size of the file, and only
numbers and texts are read. Format of the members: NumPy Enhancement Proposal 1.
"""

from __future__ import annotations

import ast
import re
import warnings
import zipfile
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscape.wording import listed, one_line

Array = NDArray[Any]

ROOM = 1 << 29  # bytes of one array that a small file may unpack to
SHRINKS = 50  # times that a large file may
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_HEADER = 4096  # bytes; that of a plain array has 118
_DESCR = re.compile(r"[<>|=]?(?:[bui][1248]|f[248]|c8|c16|[SU]\d{1,8})")
_CHUNK = 1 << 20
_DEFLATE = 1100  # times that deflate shrinks at most, somewhat more


class Npz:
    """The arrays of a file, each read when it is asked for. A context manager, which closes the file.

    Args:
        path: the file.

    Attributes:
        names: of the arrays.

    Raises:
        ValueError: no zip archive, or a damaged one; OSError where it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._stream = path.open("rb")
        try:
            self._size = self._stream.seek(0, 2)
            self._archive = zipfile.ZipFile(self._stream)
            self._members = {
                info.filename.removesuffix(".npy"): info for info in self._archive.infolist()
            }
        except Exception as error:  # a stranger's directory may raise anything
            self._stream.close()
            raise ValueError(f"it is no zip archive that can be read ({one_line(error)})") from None
        self.names = tuple(self._members)

    def __enter__(self) -> Npz:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()
        self._stream.close()

    def array(self, name: str) -> Array:
        """An array of numbers, in the byte order of this machine, that may be written to.

        Raises:
            ValueError: missing, damaged, not numbers, or larger than the file accounts for.
        """
        return self._read(name, "buifc")

    def texts(self, name: str) -> list[str]:
        """The texts of an array of them; one where it has no axis.

        Raises:
            ValueError: as :meth:`array`.
        """
        found = self._read(name, "U")
        codes = np.ascontiguousarray(found).reshape(-1).view(np.uint32)
        if found.dtype.itemsize and (codes > 0x10FFFF).any():
            raise ValueError(f"its array {name} holds what is no text")
        return [str(text) for text in found.reshape(-1).tolist()]

    def _read(self, name: str, kinds: str) -> Array:
        if name not in self._members:
            raise ValueError(f"it has no array {name} (found {listed(self.names) or 'none'})")
        info = self._members[name]
        room = min(
            max(ROOM, SHRINKS * self._size), _DEFLATE * min(info.compress_size + 1, self._size)
        )
        if info.compress_type not in _METHODS or info.file_size > room:
            raise ValueError(
                f"its array {name} claims {info.file_size} bytes, or is packed in an unusual way"
            )
        try:
            with self._archive.open(info) as member:
                return _array(member, info.file_size, kinds)
        except Exception as error:  # zipfile and zlib raise many kinds
            raise ValueError(f"its array {name} cannot be read ({one_line(error)})") from None


def _array(member: Any, size: int, kinds: str) -> Array:
    head = member.read(8)
    if head[:6] != b"\x93NUMPY" or head[6] not in (1, 2, 3):
        raise ValueError("it is no array of NumPy")
    wide = 2 if head[6] == 1 else 4
    length = int.from_bytes(member.read(wide), "little")
    if length > _HEADER:
        raise ValueError("its header is too long for plain numbers")
    descr, fortran, shape = _facts(member.read(length))
    form = np.dtype(descr)
    if form.kind not in kinds:
        raise ValueError(f"it holds {form}, expected {'numbers' if 'f' in kinds else 'texts'}")
    count = prod(shape)
    if count * form.itemsize != size - 8 - wide - length or len(shape) > 32:
        raise ValueError(f"an array {shape} of {form} does not fill its bytes")
    data = bytearray(count * form.itemsize)
    view = memoryview(data)
    for start in range(0, len(data), _CHUNK):
        piece = member.read(min(_CHUNK, len(data) - start))
        if len(piece) != min(_CHUNK, len(data) - start):
            raise ValueError("it ends in the middle")
        view[start : start + len(piece)] = piece
    if member.read(1):  # the end of the member is where its checksum is looked at
        raise ValueError("it is longer than it claims")
    if not form.itemsize:
        return np.zeros(shape, form)
    flat = np.frombuffer(data, np.dtype("u1") if form.kind == "b" else form)
    if form.kind == "b":
        flat = flat != 0  # a byte of 7 would be neither true nor false
    return flat.astype(form.newbyteorder("="), copy=False).reshape(
        shape, order="F" if fortran else "C"
    )


def _facts(header: bytes) -> tuple[str, bool, tuple[int, ...]]:
    """Type, order and shape of a plain array."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python's parser, on texts that are none of NumPy's
            facts = ast.literal_eval(header.decode("latin-1").strip())
        descr, fortran, shape = facts["descr"], facts["fortran_order"], facts["shape"]
    except (SyntaxError, ValueError, TypeError, KeyError, RecursionError, MemoryError):
        raise ValueError("its header is damaged") from None
    if not isinstance(descr, str) or not _DESCR.fullmatch(descr):
        raise ValueError(f"it holds {str(descr)[:40]!r}, expected plain numbers or texts")
    plain = isinstance(shape, tuple) and all(type(n) is int and 0 <= n < 1 << 48 for n in shape)
    if not plain or not isinstance(fortran, bool):
        raise ValueError("its shape is impossible")
    return descr, fortran, shape
