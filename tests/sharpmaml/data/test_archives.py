"""Members of zips that say what is not so."""

import io
import struct
import tracemalloc
import zipfile

import pytest

from sharpmaml.data.archives import content


def claiming(size, packed):
    """A zip with one member of zeros, whose directory says that it holds ``size`` bytes."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", bytes(packed))
    data = bytearray(made.getvalue())
    at = data.index(b"PK\1\2")
    data[at + 24 : at + 28] = struct.pack("<I", size)
    return zipfile.ZipFile(io.BytesIO(bytes(data)))


def test_a_whole_member_is_read():
    assert content(claiming(1 << 16, 1 << 16), "x") == bytes(1 << 16)


def test_no_more_is_unpacked_than_is_claimed():
    archive = claiming(1000, 1 << 26)
    tracemalloc.start()
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        content(archive, "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
