"""Any folder of images: splits by folder or by name, and messages that name what is wrong."""

import os
import shutil

import numpy as np
import photo_layouts as layouts
import pytest
from PIL import Image

from sharpmaml.data import DataError, load_folder, load_images, make_source
from sharpmaml.data.classification import classification_set

MADE = layouts.drawn(images=5, size=20)
SMALL = {"image_size": 16, "min_images": 3}


@pytest.fixture(scope="module")
def split_root(tmp_path_factory):
    return layouts.write_tree(tmp_path_factory.mktemp("folder") / "birds", MADE)


@pytest.fixture
def flat_root(tmp_path):
    """Ten classes c0 to c9; a picture says its class in its grey."""
    for i in range(10):
        place = tmp_path / "flat" / f"c{i}"
        place.mkdir(parents=True)
        for number in range(4):
            picture = Image.fromarray(np.full((9, 12), 10 * i + number, np.uint8))
            picture.save(place / f"{number}.png")
    return tmp_path / "flat"


def test_split_folders(split_root):
    made = load_folder(split_root, **{**SMALL, "image_size": 20})
    assert made.name == "birds"
    assert made.images.shape == (7, 5, 3, 20, 20)
    assert [len(made.splits[s]) for s in ("train", "val", "test")] == [3, 2, 2]
    assert np.array_equal(np.moveaxis(made.images[3], 1, -1), MADE["val"]["n03"])
    assert made.notes["source"] == "split folders"


def test_classes_are_split_by_name(flat_root):
    made = load_folder(flat_root, channels=1, **SMALL)
    assert made.image_shape == (1, 16, 16)
    names = {s: [made.class_names[i] for i in rows] for s, rows in made.splits.items()}
    assert names == {
        "train": ["c0", "c1", "c2", "c3", "c4", "c5"], "val": ["c6", "c7"], "test": ["c8", "c9"],
    }  # fmt: skip
    assert made.images[:, :, 0, 0, 0].tolist() == [
        [10 * i + n for n in range(4)] for i in range(10)
    ]
    assert made.notes["source"] == "classes by name, 60/20/20"
    colour = load_folder(flat_root, **SMALL)
    assert np.array_equal(colour.images, np.repeat(made.images, 3, axis=2))


def test_small_classes_are_left_out_and_the_rest_cut(flat_root):
    (flat_root / "c3" / "0.png").unlink()
    for number in (0, 1):
        (flat_root / "c5" / f"{number}.png").unlink()
    made = load_folder(flat_root, **SMALL)
    assert "c5" not in made.class_names
    assert made.images.shape[:2] == (9, 3)
    assert made.notes["classes_left_out"] == 1
    assert made.notes["images_left_out"] == 8
    assert made.images[3, :, 0, 0, 0].tolist() == [31, 32, 33]


def test_what_is_no_picture_is_passed_by(flat_root):
    expected = load_folder(flat_root, **SMALL).fingerprint
    (flat_root / "c1" / "notes.txt").write_text("x")
    (flat_root / "c1" / ".hidden.png").write_text("x")
    (flat_root / "README.md").write_text("x")
    (flat_root / ".git").mkdir()
    (flat_root / "empty").mkdir()
    assert load_folder(flat_root, **SMALL).fingerprint == expected


def test_formats_go_by_their_suffix(flat_root):
    for number, suffix in enumerate((".JPG", ".bmp", ".gif", ".webp")):
        path = flat_root / "c0" / f"{number}.png"
        with Image.open(path) as picture:
            picture.save(path.with_suffix(suffix))
        path.unlink()
    made = load_folder(flat_root, channels=1, **SMALL)
    assert np.abs(made.images[0, :, 0].astype(int).mean((1, 2)) - np.arange(4)).max() < 2


def test_transparency_and_palettes_are_read(flat_root):
    for mode in ("RGBA", "P", "1", "LA"):
        Image.new(mode, (5, 5)).save(flat_root / "c0" / f"x{mode}.png")
    assert load_folder(flat_root, **{**SMALL, "min_images": 2}).images.shape[0] == 10


def test_it_is_made_again_when_a_file_changes(flat_root, monkeypatch):
    first = load_folder(flat_root, **SMALL)
    path = flat_root / "c7" / "2.png"
    Image.fromarray(np.full((9, 12), 200, np.uint8)).save(path)
    os.utime(path, ns=(5, 5))
    second = load_folder(flat_root, **SMALL)
    assert second.images[7, 2].max() == 200
    assert first.fingerprint != second.fingerprint
    monkeypatch.setattr("sharpmaml.data.photographs.decoded", lambda *_: pytest.fail("read again"))
    assert load_folder(flat_root, **SMALL).fingerprint == second.fingerprint


def test_episodes_and_classification(split_root):
    source = make_source("folder", ways=2, shots=1, queries=2, root=split_root, options=SMALL)
    assert source.episode(0).query_x.shape == (4, 3, 16, 16)
    assert source.recipe["record"]["classes_left_out"] == 0
    assert load_images("folder", split_root, **SMALL) is source.image_set
    images, labels, record = classification_set("folder", "train", split_root, **SMALL)
    assert images.shape == (3 * 4, 3, 16, 16)  # four fifths of five
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert record["set"] == "birds"
    assert classification_set("folder", "test", split_root, **SMALL)[0].shape[0] == 3


def raises(message, root, **options):
    with pytest.raises(DataError, match=message) as caught:
        load_folder(root, **{**SMALL, **options})
    assert "\n" not in str(caught.value)


def test_errors_name_the_folder_and_what_was_expected(split_root, tmp_path):
    raises("needs a folder: pass --data-root", None)
    raises(r"nowhere is no folder: expected train/<class>", tmp_path / "nowhere")
    raises(r"has no folders with images: expected train/<class>", tmp_path)
    root = shutil.copytree(split_root, tmp_path / "copy")
    (root / "val" / "n03" / "n0300000002.png").write_bytes(b"\x89PNG broken")
    raises(r"n0300000002.png cannot be used", root)
    shutil.rmtree(root / "val")
    raises(r"has train but lacks val", root)
    (root / "val" / "n03").mkdir(parents=True)
    raises(r"split 'val' of .* has no class with 3 images", root)


def test_options_are_checked(split_root):
    raises("image_size of folder is 5000", split_root, image_size=5000)
    raises("channels of folder is 4: choose 1 or 3", split_root, channels=4)
    raises("min_images is 1", split_root, min_images=1)
    raises("min_images = 50 images, the largest has 5", split_root, min_images=50)
    raises("'unit'", split_root, normalize="unit")


def test_a_constant_channel_cannot_be_normalized(tmp_path):
    blank = {s: {n: np.zeros_like(x) for n, x in c.items()} for s, c in MADE.items()}
    root = layouts.write_tree(tmp_path, blank)
    raises("constant", root, normalize="mean-std")


def test_a_picture_of_absurd_size_is_refused(split_root, tmp_path, monkeypatch):
    root = shutil.copytree(split_root, tmp_path / "copy")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # 20x20 is more, but not twice as many
    raises("n0100000001.png cannot be used .*bomb", root, image_size=12)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    raises("n0100000001.png cannot be used .*bomb", root, image_size=12)
    monkeypatch.undo()
    monkeypatch.setattr("sharpmaml.data.photographs.MAX_BYTES", 10)
    raises("more than 10 bytes", root, image_size=12)
