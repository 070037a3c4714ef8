"""Entries that survive whatever ends the process."""

import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landscape.journal import Journal
from landscape.writing import WriteError

TITLE = {"run": 1, "settings": {"b": 2, "a": [1, 2]}}


def filled(path, count=4):
    journal = Journal(path, TITLE)
    for i in range(count):
        numbers = {"v": np.arange(i, i + 3.0), "n": np.array([[i]], np.int32)}
        journal.append({"i": i, "x": float("nan") if i == 1 else 0.1 * i}, numbers)
    journal.close()
    return path


def numbers_of(journal):
    return [journal[i][0]["i"] for i in range(len(journal))]


def test_entries_come_back_to_the_bit(tmp_path):
    journal = Journal(filled(tmp_path / "j"), TITLE)
    assert numbers_of(journal) == [0, 1, 2, 3]
    words, arrays = journal[3]
    assert words == {"i": 3, "x": 0.1 * 3}
    assert arrays["v"].tolist() == [3.0, 4.0, 5.0]
    assert arrays["n"].dtype == np.int32
    assert arrays["n"].shape == (1, 1)
    assert np.isnan(journal[1][0]["x"])


def test_every_torn_end_leaves_the_whole_entries(tmp_path):
    data = filled(tmp_path / "j").read_bytes()
    counts = []
    for length in range(len(data) + 1):
        (tmp_path / "j").write_bytes(data[:length])
        journal = Journal(tmp_path / "j", TITLE)
        counts.append(len(journal))
        assert numbers_of(journal) == list(range(counts[-1]))
        assert not journal.foreign
    assert sorted(counts) == counts
    assert {*counts} == {0, 1, 2, 3, 4}
    assert counts[-1] == 4
    assert counts[-2] == 3


def test_a_torn_end_is_overwritten(tmp_path):
    data = filled(tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(data[:-1])
    journal = Journal(tmp_path / "j", TITLE)
    journal.append({"i": 9})
    journal.append({"i": 10})
    assert numbers_of(journal) == [0, 1, 2, 9, 10]
    journal.close()
    assert numbers_of(Journal(tmp_path / "j", TITLE)) == [0, 1, 2, 9, 10]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(where=st.integers(0, 10_000), what=st.integers(1, 255))
def test_a_changed_byte_ends_the_list_there(tmp_path_factory, where, what):
    path = filled(tmp_path_factory.mktemp("j") / "j")
    data = bytearray(path.read_bytes())
    data[where % len(data)] ^= what
    path.write_bytes(data)
    found = numbers_of(Journal(path, TITLE))
    assert found == list(range(len(found)))
    assert len(found) < 4


def test_another_computation_begins_anew(tmp_path):
    path = filled(tmp_path / "j")
    journal = Journal(path, {**TITLE, "run": 2})
    assert len(journal) == 0
    assert journal.foreign
    assert len(Journal(path, TITLE)) == 4  # looking changes nothing
    journal.append({"i": 7})
    assert numbers_of(journal) == [7]
    assert len(Journal(path, TITLE)) == 0


def test_cutting_and_clearing(tmp_path):
    journal = Journal(filled(tmp_path / "j"), TITLE)
    journal.cut(2)
    assert numbers_of(journal) == [0, 1]
    journal.append({"i": 20})
    assert numbers_of(journal) == [0, 1, 20]
    journal.close()
    journal = Journal(tmp_path / "j", TITLE)
    assert numbers_of(journal) == [0, 1, 20]
    journal.cut(0)
    journal.append({"i": 30})
    assert numbers_of(journal) == [30]
    journal.clear()
    assert not (tmp_path / "j").exists()
    assert len(journal) == 0
    journal.append({"i": 40})
    assert numbers_of(Journal(tmp_path / "j", TITLE)) == [40]


def test_a_removed_file_begins_anew(tmp_path):
    journal = Journal(tmp_path / "j", TITLE)
    journal.append({"i": 0})
    (tmp_path / "j").unlink()
    journal.append({"i": 1})
    assert numbers_of(journal) == [1]


def test_a_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    journal = Journal(filled(tmp_path / "j"), TITLE)
    real = os.write

    def full(handle, data):
        if len(data) > 20:
            return real(handle, data[:20])  # some of it still fits
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(WriteError, match="no space left on device; make room"):
            journal.append({"i": 4})
    assert numbers_of(Journal(tmp_path / "j", TITLE)) == [0, 1, 2, 3]
    journal.append({"i": 5})
    journal.close()
    assert numbers_of(Journal(tmp_path / "j", TITLE)) == [0, 1, 2, 3, 5]


def test_no_objects_are_made_from_a_file(tmp_path):
    journal = Journal(tmp_path / "j", TITLE)
    with pytest.raises((TypeError, ValueError)):
        journal.append({}, {"o": np.array([object()], dtype=object)})
        journal[0]
    assert json.dumps(TITLE)  # titles are plain


@pytest.mark.parametrize("act", ["close", "clear", "cut"])
def test_what_the_disk_tells_on_closing_is_one_clear_error(tmp_path, monkeypatch, act):
    path = tmp_path / "j"
    journal = Journal(path, TITLE)
    journal.append({"i": 0, "x": 0.0})
    plain = os.close

    def fails(file):
        plain(file)
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", fails)
        with pytest.raises(WriteError, match="j: input/output error"):
            journal.cut(0) if act == "cut" else getattr(journal, act)()
    journal.close()  # nothing is closed twice
    journal.append({"i": 0, "x": 0.0})
    assert numbers_of(Journal(path, TITLE))[-1:] == [0]


def test_a_full_disk_is_told_even_if_closing_fails_too(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "j", TITLE)
    journal.append({"i": 0})

    def full(file, data):
        raise OSError(28, "No space left on device")

    def fails(file):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        patch.setattr(os, "close", fails)
        with pytest.raises(WriteError, match="full"):
            journal.append({"i": 1})
