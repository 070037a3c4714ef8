"""Pickles of arrays are read as pickle reads them, and nothing that they name is run."""

import collections
import os
import pickle
import pickletools
import struct

import numpy as np
import pytest

from sharpmaml.data import DataError
from sharpmaml.data.array_pickle import MAX_STEPS, read_array_pickle

IMAGES = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
VALUE = {
    "image_data": IMAGES,
    "class_dict": {"n01": [0, 1], "n02": []},
    "labels": [1, -5, 2**40, True, None, 0.5, "text", b"bytes\xff"],
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big endian": np.arange(5, dtype=">i4"),
    "scalars": [np.int64(-3), np.float32(0.25), np.uint8(255)],
    "pair": (1, (2, "three")),
    "empty": np.zeros((0, 3), np.int32),
    "bools": np.array([True, False]),
    3: "a number as a key",
}


def equal(found, expected):
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(equal(found[k], expected[k]) for k in expected)
    if isinstance(expected, list | tuple):
        same = isinstance(found, type(expected)) and len(found) == len(expected)
        return same and all(map(equal, found, expected))
    if isinstance(expected, np.ndarray):
        return found.dtype == expected.dtype and np.array_equal(found, expected)
    return found == expected


@pytest.fixture
def read(tmp_path):
    def reader(content):
        path = tmp_path / "data.pkl"
        path.write_bytes(content)
        return read_array_pickle(path)

    return reader


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_gives_back_what_was_written(read, protocol):
    assert equal(read(pickle.dumps(VALUE, protocol)), VALUE)


def test_shared_arrays_are_read(read):
    for protocol in range(6):
        found = read(pickle.dumps([IMAGES, IMAGES, {"again": IMAGES}], protocol))
        assert equal(found, [IMAGES, IMAGES, {"again": IMAGES}])


def text(word):
    return b"U" + bytes([len(word)]) + word


def python2(shape=b"K\x02K\x02\x86", data=bytes(range(4)), kind=b"u1"):
    """What Python 2 wrote for {'data': array, 'labels': [7]} with cPickle, byte for byte in structure."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    )
    dtype = b"cnumpy\ndtype\n" + text(kind) + b"K\x00K\x01\x87R(K\x03" + text(b"|")
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", len(data)) + data + b"tb"
    return b"\x80\x02}(" + text(b"data") + array + state + text(b"labels") + b"]K\x07au."


def test_python_2_is_read(read):
    found = read(python2(data=b"\x00\x80\xfe\xff"))
    assert equal(found, {"data": np.array([[0, 128], [254, 255]], np.uint8), "labels": [7]})


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_hostile_pickle_is_named_and_not_run(read, tmp_path, protocol):
    mark = tmp_path / "mark"
    for value in (Evil(mark), {"image_data": IMAGES, "class_dict": [Evil(mark)]}):
        with pytest.raises(DataError, match=r"data.pkl.*(posix|nt)\.system.*not run"):
            read(pickle.dumps(value, protocol))
        assert not mark.exists()
    pickle.loads(pickle.dumps(Evil(mark), protocol))  # it would have worked
    assert mark.exists()


@pytest.mark.parametrize(
    "value",
    [
        collections.OrderedDict(a=1),
        {1, 2},
        np.array([object()]),
        np.array(["text"]),
        np.zeros(2, dtype=[("a", "i4")]),
        np.ma.masked_array([1], [True]),
        np.float64,
        np.array([1j]),
    ],
)
def test_what_is_no_plain_array_is_refused(read, value):
    for protocol in (2, 4):
        with pytest.raises(DataError, match="pickle of arrays"):
            read(pickle.dumps({"data": value}, protocol))


DEEP = b"\x80\x02K\x01" + b"".join(
    b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "claims 1 bytes where 0 are left"),
        (b"hello", "damaged"),
        (b"\x80\x02}", "claims 1 bytes where 0 are left"),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02u.", "damaged|mark"),
        (b"\x80\x02K\x01K\x02R.", "no function"),
        (b"\x80\x02K\x01}b.", "changes an object"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"\x80\x03B" + struct.pack("<I", 2**31) + b"abc.", "claims 2147483648 bytes"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.", "claims 4611686018427387904 bytes"),
        (b"\x80\x02cnumpy\nndarray\n.", "holds a function"),
        (b"\x80\x02cnumpy\nndarray\n)R.", "calls ndarray"),
        (b"\x80\x02}" + DEEP[2:] + b"K\x01s.", "key of a dictionary is a tuple"),
        (python2(shape=b"K\x02K\x03\x86"), "does not fill its bytes"),
        (python2(shape=b"J\xff\xff\xff\xffJ\xfc\xff\xff\xff\x86"), "impossible shape"),
        (python2(kind=b"O8"), "no plain numbers"),
        (python2(kind=b"V4"), "no plain numbers"),
        (pickle.dumps(VALUE)[:-20], "damaged|claims"),
        (b"\x80\x02i" + b"posix\nsystem\n.", "instruction INST"),
        (b"\x80\x02Pxyz\n.", "instruction PERSID"),
    ],
)
def test_damage_is_refused(read, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read(content)
    assert "\n" not in str(caught.value)


def test_every_cut_is_an_error_and_no_crash(read):
    content = pickle.dumps(VALUE, 4)
    for length in range(0, len(content), 7):
        with pytest.raises(DataError):
            read(content[:length])


def test_instructions_are_counted(read, monkeypatch):
    assert MAX_STEPS >= 1_000_000
    monkeypatch.setattr("sharpmaml.data.array_pickle.MAX_STEPS", 100)
    with pytest.raises(DataError, match="more than 100 instructions"):
        read(pickle.dumps(list(range(200))))
    assert sum(1 for _ in pickletools.genops(pickle.dumps(list(range(50))))) < 100
    assert read(pickle.dumps(list(range(50)))) == list(range(50))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="nothing.pkl"):
        read_array_pickle(tmp_path / "nothing.pkl")


class NestedDtype:
    """Pickled as a dtype whose byte order is a tuple that takes for ever to write out."""

    def __reduce__(self):
        order = ()
        for _ in range(60):
            order = (order, order)
        return np.dtype, ("u1", False, True), (3, order, None, None, None, -1, -1, 0)


def test_texts_without_end_are_not_written_out(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"image_data": NestedDtype()}, 2))
    with pytest.raises(DataError, match="what is no text"):
        read_array_pickle(tmp_path / "x.pkl")
