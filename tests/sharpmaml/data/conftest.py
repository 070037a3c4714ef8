"""A cache of the tests' own, a small drawn set, and the real data where it is at hand."""

import os
from pathlib import Path

import pytest

from sharpmaml.data import ImageSet
from sharpmaml.data.strokes import build_strokes


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> Path:
    """Keep the user's cache folder out of the tests, and the tests out of it."""
    folder = tmp_path_factory.getbasetemp() / "sharp-landscape-cache"
    monkeypatch.setenv("SHARP_LANDSCAPE_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def strokes() -> ImageSet:
    return build_strokes(4, seed=0, difficulty=1.25)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets that may lie beside the checkout."""
    named = os.environ.get("SHARP_LANDSCAPE_SHARED")
    root = Path(named) if named else Path(__file__).resolve().parents[4] / "shared"
    folder = root / "data"
    if not (folder / "omniglot.npz").is_file():
        pytest.skip("no real data: set SHARP_LANDSCAPE_SHARED to its folder")
    return folder
