"""What the process that reads HDF5 files makes of them, here without a process of its own."""

import io
import os
import signal
import struct
import sys
import threading

import h5py
import numpy as np
import pytest

from landscape import hdf5_worker


@pytest.fixture(autouse=True)
def no_bounds(monkeypatch):
    """The bounds on memory and computing are of a process, and this one has more to do."""
    asked = []
    monkeypatch.setattr(hdf5_worker, "allow", lambda *bounds: asked.append(bounds))
    return asked


def answered(path, send=True, limit=1 << 20):
    return hdf5_worker.answer({"path": str(path), "send": send, "limit": limit})


def entries(told):
    return dict(told["tree"]["entries"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.h5"


def test_arrays_texts_and_attributes(path):
    with h5py.File(path, "w") as file:
        file["numbers"] = np.arange(6.0).reshape(2, 3)
        file["bytes"] = np.array([b"ab", b"c"])
        file["texts"] = ["one", "two"]
        file["empty"] = h5py.Empty("f4")
        file["empty text"] = h5py.Empty(h5py.string_dtype())
        file["pairs"] = np.zeros(2, dtype=[("a", "i4"), ("b", "i4")])
        file["type"] = np.dtype("f8")
        file["numbers"].attrs["unit"] = "loss"
        file.create_group("inner")["x"] = np.int16(3)
    told, arrays = answered(path)
    found = entries(told)
    numbers = found["numbers"]
    assert numbers["shape"] == [2, 3] and numbers["dtype"] == "<f8" and numbers["kind"] == "numbers"
    assert np.array_equal(arrays[numbers["array"]], np.arange(6.0).reshape(2, 3))
    assert numbers["dimensions"] is None
    ((name, unit),) = numbers["attributes"]
    assert name == "unit" and unit["texts"] == ["loss"]
    assert found["bytes"]["kind"] == "bytes" and arrays[found["bytes"]["array"]].tolist() == [
        b"ab",
        b"c",
    ]
    assert found["texts"]["texts"] == ["one", "two"]
    assert found["empty"]["kind"] == "empty" and found["empty"]["dtype"] == "<f4"
    assert found["empty text"]["dtype"] == "|S1"
    assert found["pairs"]["kind"] == "other" and found["type"]["kind"] == "other"
    assert dict(found["inner"]["entries"])["x"]["shape"] == []


def test_names_of_axes(path):
    with h5py.File(path, "w") as file:
        file["a"] = np.arange(3.0)
        file["a"].make_scale("a")
        file["values"] = np.zeros(3)
        file["values"].dims[0].attach_scale(file["a"])
    assert entries(answered(path)[0])["values"]["dimensions"] == ["a"]
    with h5py.File(path, "a") as file:
        lists = file["values"].attrs["DIMENSION_LIST"]
        file["flat"] = np.float64(1.0)
        file["flat"].attrs.create("DIMENSION_LIST", lists, dtype=lists.dtype)
    assert "more axes than dimensions" in answered(path)[0]["error"]


def test_what_lies_elsewhere_is_not_read(path, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.ones(3)
    layout = h5py.VirtualLayout(shape=(3,), dtype="f8")
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "secret", shape=(3,))
    with h5py.File(path, "w") as file:
        file["soft"] = h5py.SoftLink("/nowhere")
        file["link"] = h5py.ExternalLink("other.h5", "secret")
        file.create_virtual_dataset("virtual", layout)
        file["again"] = file["/"]  # a group in itself
    told, arrays = answered(path)
    found = entries(told)
    assert [found[n]["kind"] for n in ("soft", "link", "virtual", "again")] == [
        "link", "link", "elsewhere", "other",
    ]  # fmt: skip
    assert not arrays


def test_bounds_on_what_a_file_may_claim(path, monkeypatch, no_bounds):
    with h5py.File(path, "w") as file:
        file.create_dataset("large", shape=(1000, 1000), dtype="f8")  # takes no place
        file["text"] = "ab" * 40
        file["small"] = np.arange(4)
    assert "claims arrays of" in answered(path, limit=1000)[0]["error"]
    found = entries(answered(path, send=False, limit=1000)[0])
    assert found["large"]["kind"] == found["text"]["kind"] == "unread"
    assert found["small"] == {
        "kind": "numbers", "shape": [4], "dtype": "<i8", "attributes": [], "dimensions": None,
    }  # fmt: skip
    assert no_bounds[-1][1] == hdf5_worker.MEMORY + 2000
    monkeypatch.setattr(hdf5_worker, "_BLOCK", 1 << 20)  # read for its checks, a part at a time
    assert "array" not in entries(answered(path, send=False, limit=1 << 23)[0])["large"]
    monkeypatch.setattr(hdf5_worker, "_LONGEST", 50)
    assert "over 50 characters" in answered(path, limit=1 << 23)[0]["error"]
    monkeypatch.setattr(hdf5_worker, "_NODES", 2)
    assert "over 2 entries" in answered(path, limit=1 << 23)[0]["error"]


def test_deep_groups_end_somewhere(path, monkeypatch):
    monkeypatch.setattr(hdf5_worker, "_DEPTH", 2)
    with h5py.File(path, "w") as file:
        file["a/b/c/d"] = 1
    node = answered(path)[0]["tree"]
    for name in "abc":
        node = dict(node["entries"])[name]
    assert node == {"kind": "other"}


def test_files_that_are_none(path):
    path.write_bytes(b"no such thing")
    told, arrays = answered(path)
    assert "signature" in told["error"] and not arrays


@pytest.mark.parametrize("interrupted", [True, False])
def test_answers_are_lengths_trees_and_bytes(path, monkeypatch, interrupted):
    """Over pipes, with what a library prints kept apart."""
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(3.0)
        file["none"] = np.zeros(0)
    request = b'{"path": "%s", "send": true, "limit": 1000}\n' % os.fsencode(path)
    monkeypatch.setattr(
        sys, "stdin", type("Input", (), {"buffer": io.BytesIO(request * (2 - interrupted))})
    )
    before = signal.getsignal(signal.SIGINT)
    reading, writing = os.pipe()
    kept = os.dup(1)
    os.dup2(writing, 1)
    os.close(writing)
    received = bytearray()

    def receive():
        while part := os.read(reading, 1 << 16):
            received.extend(part)

    thread = threading.Thread(target=receive)
    thread.start()
    try:
        hdf5_worker.main()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        signal.signal(signal.SIGINT, before)
        thread.join(20)
        os.close(reading)
    (length,) = struct.unpack("<Q", received[:8])
    body = bytes(received[8 + length : 8 + length + 24])
    assert b'"arrays": [0, 24]' in received[8 : 8 + length]
    assert np.frombuffer(body).tolist() == [0.0, 1.0, 2.0]
    assert len(received) == (2 - interrupted) * (8 + length + 24)
