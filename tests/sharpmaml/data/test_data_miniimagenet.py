"""mini-ImageNet: every layout gives the same set, and what is missing or damaged is named."""

import collections
import csv
import io
import json
import os
import pickle
import shutil
import zipfile

import numpy as np
import photo_layouts as layouts
import pytest
import torch
from PIL import Image

from sharpmaml.data import DataError, Feed, load_images, make_source, miniimagenet
from sharpmaml.data.miniimagenet import load_miniimagenet

MADE = layouts.drawn()
WRITERS = {
    "csv": layouts.write_lists,
    "zips": layouts.write_zips,
    "pickles": layouts.write_pickles,
    "hdf5": layouts.write_hdf5,
}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    base = tmp_path_factory.mktemp("mini")
    return {name: write(base / name, MADE) for name, write in WRITERS.items()}


@pytest.fixture
def copy(roots, tmp_path):
    return lambda name: shutil.copytree(roots[name], tmp_path / "copy")


@pytest.mark.parametrize("name", WRITERS)
def test_every_layout_gives_the_same_pixels(roots, name):
    made = load_miniimagenet(roots[name])
    assert made.images.shape == (7, 6, 3, 84, 84)
    assert made.image_shape == (3, 84, 84)
    assert made.class_names == ("n01", "n02", "n05", "n03", "n06", "n04", "n07")
    assert {k: v.tolist() for k, v in made.splits.items()} == {
        "train": [0, 1, 2], "val": [3, 4], "test": [5, 6],
    }  # fmt: skip
    for split, classes in MADE.items():
        for row, (label, pixels) in zip(made.splits[split], classes.items(), strict=True):
            assert made.class_names[row] == label
            assert np.array_equal(np.moveaxis(made.images[row], 1, -1), pixels)


@pytest.mark.parametrize("name", WRITERS)
def test_a_smaller_size_is_averaged_and_noted(roots, name):
    made = load_miniimagenet(roots[name], image_size=42)
    pixels = MADE["val"]["n06"][2]
    small = Image.fromarray(pixels).resize((42, 42), Image.Resampling.BILINEAR)
    assert np.array_equal(made.images[4, 2], np.moveaxis(np.asarray(small), -1, 0))
    assert made.notes["image_size"] == 42
    assert made.notes["resize"] == "Pillow bilinear, antialiased"
    # Antialiased: a checkerboard becomes grey, where picking pixels would keep it black and white.
    board = Image.fromarray((np.indices((84, 84)).sum(0) % 2 * 255).astype(np.uint8))
    grey = np.asarray(board.resize((42, 42), Image.Resampling.BILINEAR))
    assert np.abs(grey.astype(int) - 127).max() < 10


def test_the_name_tells_a_part_from_the_whole(roots, tmp_path):
    assert load_miniimagenet(roots["csv"]).name == "mini-ImageNet-6 (7 of 100 classes)"
    few = layouts.drawn(images=3)
    assert "mini-ImageNet-3 " in load_miniimagenet(layouts.write_hdf5(tmp_path, few)).name


def test_a_part_of_all_classes_is_named_after_its_images(tmp_path):
    fifty = {
        split: {f"n{split}{i:02d}": np.zeros((50, 8, 8, 3), np.uint8) for i in range(count)}
        for split, count in (("train", 64), ("val", 16), ("test", 20))
    }
    made = load_miniimagenet(layouts.write_hdf5(tmp_path, fifty), image_size=8)
    assert made.name == "mini-ImageNet-50"


def test_the_whole_has_its_own_name(tmp_path):
    whole = {
        split: {f"n{split}{i:02d}": np.zeros((600, 8, 8, 3), np.uint8) for i in range(count)}
        for split, count in (("train", 64), ("val", 16), ("test", 20))
    }
    made = load_miniimagenet(layouts.write_hdf5(tmp_path, whole), image_size=8)
    assert made.name == "mini-ImageNet"
    assert made.images.shape == (100, 600, 3, 8, 8)


def test_unequal_classes_are_cut_to_the_smallest(tmp_path):
    uneven = {s: dict(classes) for s, classes in MADE.items()}
    uneven["val"]["n03"] = uneven["val"]["n03"][:4]
    made = load_miniimagenet(layouts.write_pickles(tmp_path, uneven))
    assert made.images.shape[:2] == (7, 4)
    assert made.notes["images_per_class"] == 4
    assert made.notes["images_left_out"] == 6 * 2
    assert made.name.startswith("mini-ImageNet-4 ")


def test_normalization_is_the_training_splits_own(roots):
    plain = load_miniimagenet(roots["pickles"])
    made = load_miniimagenet(roots["pickles"], normalize="mean-std")
    train = np.concatenate(list(MADE["train"].values())) / 255
    mean, std = train.mean((0, 1, 2)), train.std((0, 1, 2))
    assert np.allclose(made.normalization.mean, mean, rtol=1e-12)
    assert np.allclose(made.normalization.std, std, rtol=1e-12)
    assert plain.normalization is None
    assert (plain.notes["normalize"], made.notes["normalize"]) == ("none", "mean-std")
    assert np.allclose(plain.notes["channel_mean"], mean, rtol=1e-12)
    assert plain.fingerprint == made.fingerprint

    settings = {"ways": 2, "shots": 1, "queries": 2, "root": roots["pickles"], "split": "test"}
    raw = make_source("miniimagenet", **settings)
    scaled = make_source("miniimagenet", **settings, options={"normalize": "mean-std"})
    expected = (raw.episode(3).query_x.double().numpy() - mean[:, None, None]) / std[:, None, None]
    assert np.allclose(scaled.episode(3).query_x.numpy(), expected, atol=1e-5)
    assert torch.equal(Feed(scaled).batch(3, 2).query_x, scaled.batch(3, 2).query_x)


def test_a_recipe_records_how_and_rebuilds(roots):
    source = make_source("miniimagenet", ways=2, queries=3, root=roots["csv"],
                         options={"image_size": 42, "normalize": "mean-std"})  # fmt: skip
    recipe = json.loads(json.dumps(source.recipe))
    assert recipe["record"]["resize"] == "Pillow bilinear, antialiased"
    assert recipe["record"]["source"] == "csv and images"
    assert len(recipe["record"]["channel_mean"]) == 3
    again = make_source(**recipe)
    assert again.recipe == source.recipe
    assert torch.equal(again.episode(5).query_x, source.episode(5).query_x)
    assert source.episode(5).query_x.shape == (6, 3, 42, 42)


def test_it_is_made_once_and_kept(roots, monkeypatch):
    first = load_miniimagenet(roots["csv"], image_size=24)
    decode = "sharpmaml.data.photographs.decoded"
    monkeypatch.setattr(decode, lambda *_: pytest.fail("a picture was read again"))
    again = load_miniimagenet(roots["csv"], image_size=24, normalize="mean-std")
    assert again.fingerprint == first.fingerprint
    assert again.notes == {**first.notes, "normalize": "mean-std"}
    path = roots["csv"] / "images" / layouts.file_name("n02", 1)
    os.utime(path, ns=(1, 1))
    with pytest.raises(pytest.fail.Exception):
        load_miniimagenet(roots["csv"], image_size=24)


def test_other_places_are_found(roots, tmp_path):
    expected = load_miniimagenet(roots["csv"]).fingerprint
    shutil.copytree(roots["pickles"], tmp_path / "a" / "miniimagenet")
    assert load_miniimagenet(tmp_path / "a").fingerprint == expected

    shutil.copytree(roots["pickles"], tmp_path / "b")  # learn2learn's name
    (tmp_path / "b" / "mini-imagenet-cache-val.pkl").rename(
        tmp_path / "b" / "mini-imagenet-cache-validation.pkl"
    )
    assert load_miniimagenet(tmp_path / "b").fingerprint == expected

    moved = shutil.copytree(roots["csv"], tmp_path / "c")  # MAML's script moves the images
    for split, classes in MADE.items():
        for name in classes:
            (moved / split / name).mkdir(parents=True)
            for path in (moved / "images").glob(f"{name}*"):
                path.rename(moved / split / name / path.name)
    (moved / "images").rmdir()
    assert load_miniimagenet(moved).fingerprint == expected


def test_one_zip_may_hold_everything(roots, tmp_path):
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        for path in sorted(roots["csv"].rglob("*")):
            if path.is_file():
                name = f"mini/{path.relative_to(roots['csv']).as_posix()}"
                archive.writestr(name, path.read_bytes())
    assert load_miniimagenet(whole).fingerprint == load_miniimagenet(roots["csv"]).fingerprint


def raises(message, root, **options):
    with pytest.raises(DataError, match=message) as caught:
        load_miniimagenet(root, **options)
    assert "\n" not in str(caught.value)


def test_missing_things_are_named(copy, tmp_path):
    raises("no official download", None)
    raises("nowhere does not exist", tmp_path / "nowhere")
    raises("has no mini-ImageNet .*train.csv.*pkl.*hdf5", tmp_path)
    root = copy("csv")
    (root / "images" / layouts.file_name("n03", 2)).unlink()
    (root / "images" / layouts.file_name("n06", 0)).unlink()
    raises(r"10 of the 12 images that val.csv lists.*first missing one is images/n0300000003", root)
    (root / "val.csv").unlink()
    raises(r"lacks val.csv", root)
    shutil.rmtree(root / "images")
    (root / "test.csv").unlink()
    raises(r"lacks val.csv, test.csv", root)


@pytest.mark.parametrize(
    ("name", "gone", "message"),
    [
        ("pickles", "mini-imagenet-cache-test.pkl", "lacks mini-imagenet-cache-test.pkl"),
        ("hdf5", "train_data.hdf5", "lacks train_data.hdf5"),
        ("zips", "mini_val.zip", "lacks val.csv"),
    ],
)
def test_a_missing_split_is_named(copy, name, gone, message):
    root = copy(name)
    (root / gone).unlink()
    raises(message, root)


def test_an_image_missing_in_a_zip_is_named(copy):
    root = copy("zips")
    with zipfile.ZipFile(root / "mini_val.zip", "w") as archive:
        archive.writestr("val.csv", layouts.list_text(MADE["val"]))
        archive.writestr("images/n0300000001.jpg", layouts.encoded(MADE["val"]["n03"][0]))
    raises(r"1 of the 12 images that val.csv lists.*images/n0300000002.jpg", root)


def test_damage_is_named(copy):
    root = copy("csv")
    broken = root / "images" / layouts.file_name("n05", 3)
    broken.write_bytes(broken.read_bytes()[:100])
    raises(r"n0500000004.jpg cannot be used", root)
    broken.write_bytes(b"no picture")
    raises(r"n0500000004.jpg cannot be used", root)
    (root / "train.csv").write_text("file,class\na,b\n")
    raises(r"train.csv cannot be used .*expected filename,label", root)
    (root / "train.csv").write_text("filename,label\na\n")
    raises(r"train.csv cannot be used .*line 2", root)
    (root / "train.csv").write_bytes(b"filename,label\n\xff\xfe,x\n")
    raises(r"train.csv cannot be used", root)


def test_damaged_archives_are_named(copy):
    root = copy("zips")
    archive = root / "mini_train.zip"
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 255
    archive.write_bytes(content)
    raises(r"mini_train.zip cannot be used", root)
    archive.write_bytes(b"PK nothing")
    raises(r"mini_train.zip cannot be used", root)


def test_damaged_hdf5_is_named(copy):
    root = copy("hdf5")
    (root / "val_labels.json").write_text('["n03", "n99"]')
    raises(r"val_data.hdf5 cannot be used .*class n99 of val_labels.json", root)
    (root / "val_labels.json").write_text("{")
    raises(r"val_data.hdf5 cannot be used", root)
    (root / "val_data.hdf5").write_bytes(b"no hdf5")
    raises(r"val_data.hdf5 cannot be used", root)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"class_dict": {}}, "no image_data"),
        ([1], "no image_data"),
        ({"image_data": np.zeros((2, 4, 4), np.uint8), "class_dict": {}}, "expected uint8"),
        ({"image_data": np.zeros((2, 4, 4, 3)), "class_dict": {}}, "float64 .*expected uint8"),
        (
            {"image_data": np.zeros((2, 4, 4, 3), np.uint8), "class_dict": {"a": [0, 2]}},
            "names rows",
        ),
        ({"image_data": np.zeros((2, 4, 4, 3), np.uint8), "class_dict": {"a": [-1]}}, "names rows"),
        ({"image_data": np.zeros((2, 4, 4, 3), np.uint8), "class_dict": {"a": ["x"]}}, "class a"),
        ({"image_data": np.zeros((2, 4, 4, 3), np.uint8), "class_dict": [1]}, "no dictionary"),
        (
            {"image_data": np.zeros((2, 4, 4, 3), np.uint8), "class_dict": {}},
            "'val' has no classes",
        ),
    ],
)
def test_pickles_of_other_things_are_named(copy, stored, message):
    root = copy("pickles")
    (root / "mini-imagenet-cache-val.pkl").write_bytes(pickle.dumps(stored))
    raises(message, root)


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_a_hostile_pickle_is_not_run(copy, tmp_path):
    root, mark = copy("pickles"), tmp_path / "mark"
    stored = {"image_data": Evil(mark), "class_dict": {}}
    (root / "mini-imagenet-cache-test.pkl").write_bytes(pickle.dumps(stored))
    raises(r"cache-test.pkl.*system.*not run", root)
    assert not mark.exists()


def test_options_are_checked(roots):
    for options, message in (
        ({"image_size": 4}, "image_size of miniimagenet is 4"),
        ({"normalize": "zscore"}, "'zscore': choose none or mean-std"),
    ):
        raises(message, roots["csv"], **options)
    with pytest.raises(DataError, match="no option 'split'.*image_size, normalize"):
        load_images("miniimagenet", roots["csv"], split="x")
    with pytest.raises(DataError, match="no download"):
        load_images("miniimagenet", roots["csv"], download=True)


def test_the_real_subset(real_data):
    if not (real_data / "mini_imagenet_train_50.zip").is_file():
        pytest.skip("no mini-ImageNet beside the checkout")
    # Decoding all of it takes 5 seconds of an idle core: what it consists of, and one class.
    layout = miniimagenet._locate(real_data, 42)
    classes = {one.name: one for one in layout.classes()}
    counts = collections.Counter(one.split for one in classes.values())
    assert counts == {"train": 64, "val": 16, "test": 20}
    assert {one.count for one in classes.values()} == {50}
    with zipfile.ZipFile(real_data / "mini_imagenet_test_50.zip") as archive:
        rows = list(csv.DictReader(io.TextIOWrapper(archive.open("test.csv"))))
        row = rows[777]
        with Image.open(io.BytesIO(archive.read(f"images/{row['filename']}"))) as picture:
            small = picture.convert("RGB").resize((42, 42), Image.Resampling.BILINEAR)
    same = [r for r in rows if r["label"] == row["label"]]
    pixels = classes[row["label"]].read(50)
    assert pixels.shape == (50, 3, 42, 42)
    assert np.array_equal(pixels[same.index(row)], np.moveaxis(np.asarray(small), -1, 0))
