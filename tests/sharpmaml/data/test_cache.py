import socket

import numpy as np
import pytest

from sharpmaml.data import load_strokes
from sharpmaml.data.cache import cache_dir, cache_path, cached

KEY = {"version": 1, "seed": 3}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SHARP_LANDSCAPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def never():
    raise AssertionError("the cache was not used")


def test_round_trip(folder, strokes):
    assert cached("strokes", KEY, lambda: strokes) is strokes
    found = cached("strokes", KEY, never)
    assert np.array_equal(found.images, strokes.images)
    assert np.array_equal(found.alphabet, strokes.alphabet)
    for split, rows in strokes.splits.items():
        assert np.array_equal(found.splits[split], rows)
    for field in ("name", "alphabet_names", "class_names", "fingerprint"):
        assert getattr(found, field) == getattr(strokes, field)
    assert not found.images.flags.writeable
    assert [path.name for path in folder.iterdir()] == [cache_path("strokes", KEY).name]


def test_another_key_is_another_file(folder):
    assert cache_path("strokes", KEY) != cache_path("strokes", {**KEY, "seed": 4})
    assert cache_path("strokes", KEY) == cache_path("strokes", dict(reversed(KEY.items())))
    assert cache_path("strokes", KEY) != cache_path("glyphs", KEY)


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "flipped", "altered"])
def test_a_damaged_file_is_made_again(folder, strokes, damage):
    cached("strokes", KEY, lambda: strokes)
    path = cache_path("strokes", KEY)
    content = path.read_bytes()
    if damage == "altered":  # a sound npz that holds other drawings than it says
        with np.load(path) as stored:
            arrays = dict(stored)
        arrays["images"] = 255 - arrays["images"]
        np.savez_compressed(path, **arrays)
    else:
        middle = len(content) // 2
        path.write_bytes(
            {
                "empty": b"",
                "cut": content[:middle],
                "text": b"not an archive",
                "flipped": content[:middle]
                + bytes([content[middle] ^ 255])
                + content[middle + 1 :],
            }[damage]
        )
    calls = []
    made = cached("strokes", KEY, lambda: calls.append(1) or strokes)
    assert calls and made.fingerprint == strokes.fingerprint
    assert cached("strokes", KEY, never).fingerprint == strokes.fingerprint


def test_an_unwritable_folder_is_no_error(tmp_path, monkeypatch, strokes):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SHARP_LANDSCAPE_CACHE", str(tmp_path / "file"))
    assert cached("strokes", KEY, lambda: strokes) is strokes


def test_nothing_half_written_stays(folder, strokes, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached("strokes", KEY, lambda: strokes)
    assert list(folder.iterdir()) == []


def test_the_default_is_the_users_cache_folder(monkeypatch):
    monkeypatch.delenv("SHARP_LANDSCAPE_CACHE")
    assert cache_dir().name == "sharp-landscape"


def test_strokes_are_kept(folder):
    first = load_strokes(alphabets=3)
    assert len(list(folder.glob("strokes-*.npz"))) == 1
    assert load_strokes(alphabets=3, difficulty=1.25).fingerprint == first.fingerprint
    assert len(list(folder.iterdir())) == 1
    load_strokes(alphabets=3, difficulty=1)
    load_strokes(alphabets=3, difficulty=1.0)
    assert len(list(folder.iterdir())) == 2


def test_what_a_killed_process_left_is_removed(folder, strokes):
    path = cache_path("strokes", KEY)
    path.parent.mkdir()
    left = path.with_name(f".{path.name}.{socket.gethostname()}-{2**22 + 1}.tmp")
    left.write_bytes(b"half a file")
    cached("strokes", KEY, lambda: strokes)
    assert list(folder.iterdir()) == [path]
