import unicodedata

import numpy as np
import pytest

from sharpmaml.data import DataError, glyphs

LETTERS = {"Latin": [0x41, 0x42], "Georgian": [0x10D0], "Canadian": [0x1401], "Cyrillic": [0x416],
           "Greek": [0x3A9, 0x3C8]}  # fmt: skip


@pytest.fixture(scope="module")
def few():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glyphs, "letters", lambda: LETTERS)
        return glyphs.build_glyphs(glyphs.find_faces())


def test_the_letter_list_keeps_its_rules():
    scripts = glyphs.letters()
    points = [point for script in scripts.values() for point in script]
    assert list(scripts)[:4] == ["Latin", "Canadian", "Georgian", "Cyrillic"]
    assert len(points) == len(set(points)) == 1241
    assert {unicodedata.category(chr(p)) for p in points} <= {"Lu", "Ll", "Lo"}
    assert not any(unicodedata.decomposition(chr(p)) for p in points)
    for script, members in scripts.items():
        word = script.split("_")[0].upper()
        assert all(unicodedata.name(chr(p)).startswith(word) for p in members)
    # Greek Alpha and Cyrillic A look like Latin A, and would be in another split.
    assert 0x41 in points and 0x391 not in points and 0x410 not in points


def test_instances(few):
    assert few.images.shape == (7, 20, 28, 28)
    assert few.images.max(axis=(2, 3)).min() > 150
    flat = few.images.reshape(7, 20, -1)
    assert all(len(np.unique(rows, axis=0)) == 20 for rows in flat)
    assert few.class_names[0] == "Latin/U+0041"


def test_a_letter_looks_like_itself(few):
    """An upright A: ink in its legs, none in the middle of the lower edge or the upper corners."""
    mean = few.images[0].astype(float).mean(axis=0)
    rows = np.flatnonzero(mean.max(axis=1) > 60)
    columns = np.flatnonzero(mean.max(axis=0) > 60)
    top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
    middle = (left + right) // 2
    assert mean[top + 2, middle] > 3 * mean[top + 2, left + 1]
    assert mean[bottom - 1, left + 1 : middle - 2].max() > 2 * mean[bottom - 1, middle]


def test_a_missing_letter_is_left_out(few, monkeypatch):
    with_unknown = {**LETTERS, "Latin": [0x41, 0x10FFFE, 0x42]}
    monkeypatch.setattr(glyphs, "letters", lambda: with_unknown)
    assert glyphs.build_glyphs(glyphs.find_faces()).fingerprint == few.fingerprint
    monkeypatch.setattr(glyphs, "letters", lambda: {**LETTERS, "Latin": [0x41]})
    fewer = glyphs.build_glyphs(glyphs.find_faces())
    assert fewer.fingerprint != few.fingerprint
    assert np.array_equal(fewer.images, few.images[[0, 2, 3, 4, 5, 6]])  # the others unchanged


def test_splits_by_script(monkeypatch):
    real = glyphs.letters()
    few_of_each = {script: points[:1] for script, points in real.items()}
    monkeypatch.setattr(glyphs, "letters", lambda: few_of_each)
    made = glyphs.build_glyphs(glyphs.find_faces())
    scripts = {
        split: [made.alphabet_names[a] for a in made.alphabet[rows]]
        for split, rows in made.splits.items()
    }
    assert scripts["train"] == ["Latin", "Canadian", "Georgian"]
    assert scripts["val"] == ["Cyrillic"]
    assert scripts["test"] == [*real][4:]
    assert "Greek" in scripts["test"]


def test_no_fonts(tmp_path, monkeypatch):
    import matplotlib

    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path))
    with pytest.raises(DataError, match="reinstall matplotlib"):
        glyphs.load_glyphs()
