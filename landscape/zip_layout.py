"""Where the records of a zip file lie, for files that must look as ``torch.save`` writes them.

Stricter than a zip reader: no compression, no overlaps, no bytes before or behind, no two records of one
name. What passes cannot unpack to more than the file itself, and reads the same in every zip reader.
Layout: PKWARE APPNOTE 6.3.10, sections 4.3.7 to 4.3.16 and 4.5.3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from landscape.pickle_machine import Refused

_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = 30  # bytes of a local header before its name
_RECORDS = 200_000
_FULL = 0xFFFFFFFF  # the number stands in a field of 64 bits instead


@dataclass(frozen=True)
class Record:
    """One file in the archive.

    Attributes:
        name: with its folders.
        start: of its local header, in bytes from the start of the file.
        size: of its content in the archive, in bytes.
        packed: it is compressed.
    """

    name: str
    start: int
    size: int
    packed: bool

    @property
    def end(self) -> int:
        """The first byte that may belong to another record."""
        return self.start + _LOCAL + len(self.name.encode()) + self.size


def records(file: BinaryIO) -> list[Record]:
    """The records in the order of the directory.

    Raises:
        Refused: the file is cut short, or laid out in a way that ``torch.save`` does not write.
    """
    size = file.seek(0, 2)
    start, length, count = _directory(file, size)
    if count > _RECORDS or length > 1000 * _RECORDS:
        raise Refused(f"its zip directory lists {count} records, over {_RECORDS}")
    file.seek(start)
    directory = file.read(length)
    found, at = [], 0
    for _ in range(count):
        record, at = _record(directory, at)
        found.append(record)
    return found


def check_stored(found: list[Record], limit: int) -> None:
    """Refuse archives whose records are packed, overlap, reach past ``limit`` or share a name.

    Raises:
        Refused: naming the record.
    """
    for record in found:
        if record.packed:
            raise Refused(
                f"its record {record.name} is compressed, as torch.save never does: "
                "unpack it, and save the weights again"
            )
    ordered = sorted(found, key=lambda record: record.start)
    starts = [record.start for record in ordered[1:]] + [limit]
    for record, following in zip(ordered, starts, strict=False):
        if record.end > following:
            raise Refused(f"its record {record.name} overlaps what follows it")
    names = {record.name.lower() for record in found}  # torch's reader does not tell cases apart
    if len(names) < len(found):
        raise Refused("two of its records share a name")


def _directory(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Start, length and number of records of the central directory."""
    tail = max(0, size - 98)
    file.seek(tail)
    end = file.read()
    if end[-22:-18] != b"PK\x05\x06":
        raise Refused("its zip directory is not where it belongs: the file is cut short or grew")
    disk, _, _, count, length, start, comment = struct.unpack("<4H2IH", end[-18:])
    closing = size - 22
    if end[-42:-38] == b"PK\x06\x07" and end[-98:-94] == b"PK\x06\x06":
        closing = size - 98
        where = struct.unpack("<Q", end[-34:-26])[0]
        count64, length64, start64 = struct.unpack("<3Q", end[-66:-42])
        short = (count in (count64, 0xFFFF), length in (length64, _FULL), start in (start64, _FULL))
        if where != closing or not all(short):
            raise Refused("its zip directory contradicts itself")
        count, length, start = count64, length64, start64
    if disk or comment or start + length != closing:
        raise Refused("its zip directory is not where it belongs: the file is cut short or grew")
    return start, length, count


def _record(directory: bytes, at: int) -> tuple[Record, int]:
    try:
        fields = _ENTRY.unpack_from(directory, at)
        mark, _, _, flags, method, *_, size, unpacked, name, extra, comment = fields[:13]
        start = fields[-1]
        at += _ENTRY.size
        text = directory[at : at + name].decode()
        if _FULL in (size, unpacked, start):
            wide = _wide(directory[at + name : at + name + extra])
            unpacked = next(wide) if unpacked == _FULL else unpacked
            size = next(wide) if size == _FULL else size
            start = next(wide) if start == _FULL else start
    except (struct.error, ValueError, StopIteration):
        raise Refused("its zip directory is damaged") from None
    if mark != b"PK\x01\x02" or flags & 1:
        raise Refused("its zip directory is damaged or encrypted")
    packed = method != 0 or size != unpacked
    return Record(text, start, size, packed), at + name + extra + comment


def _wide(extra: bytes) -> Iterator[int]:
    """The numbers of 64 bits in the extra field of a record."""
    while extra:
        tag, length = struct.unpack_from("<2H", extra)
        if tag == 1:
            yield from struct.unpack(f"<{length // 8}Q", extra[4 : 4 + length // 8 * 8])
        extra = extra[4 + length :]
