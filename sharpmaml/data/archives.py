"""Members of zip archives that strangers packed: of a checked size and method, into memory only."""

from __future__ import annotations

import zipfile

MAX_BYTES = 1 << 26
"""Of one member."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def content(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return the bytes of a member; its checksum was right.

    Nothing is written, so that a member may be called whatever it wants.

    Raises:
        ValueError: of more than `MAX_BYTES`, or packed with a method other than the usual one, some of which
            ask for memory that their bytes do not fill. What `zipfile` raises for damage comes through.
    """
    info = archive.getinfo(name)
    if info.file_size > MAX_BYTES:
        raise ValueError(f"{info.file_size} bytes, over {MAX_BYTES}")
    # Python makes room for all that a member claims before it reads.
    if info.compress_size > archive.start_dir:
        raise ValueError(f"{info.compress_size} packed bytes, more than the archive has")
    if info.compress_type not in _METHODS:
        raise ValueError(f"it is packed with method {info.compress_type}, expected deflate or none")
    with archive.open(info) as member:
        return member.read(
            info.file_size
        )  # all of it at once would unpack more than it claims to have
