"""CIFAR-FS: every layout gives the same set, and no split is guessed."""

import pickle
import shutil

import numpy as np
import photo_layouts as layouts
import pytest
from PIL import Image

from sharpmaml.data import DataError, load_cifarfs, make_source

MADE = layouts.drawn(images=4, size=32, seed=3)
WHERE = {name: split for split, classes in MADE.items() for name in classes}


def write_splits(root):
    (root / "splits" / "bertinetto").mkdir(parents=True)
    for split, classes in MADE.items():
        (root / "splits" / "bertinetto" / f"{split}.txt").write_text("\n".join(classes) + "\n")


def write_data(root):
    everything = {"data": {n: x for classes in MADE.values() for n, x in classes.items()}}
    layouts.write_tree(root, everything, names=("data",))
    write_splits(root)
    return root


def write_pickles(root):
    root.mkdir(parents=True)
    for split, classes in MADE.items():
        stored = {
            "data": np.concatenate(list(classes.values())),
            "labels": [i for i, x in enumerate(classes.values()) for _ in x],
        }
        (root / f"CIFAR_FS_{split}.pickle").write_bytes(pickle.dumps(stored, 2))
    return root


def write_official(root):
    """The python version: half of each class in `train`, half in `test`, planes in rows, bytes as keys."""
    place = root / "cifar-100-python"
    place.mkdir(parents=True)
    names = sorted(WHERE)
    (place / "meta").write_bytes(
        pickle.dumps({b"fine_label_names": [n.encode() for n in names]}, 2)
    )
    for part, rows in (("train", slice(0, 2)), ("test", slice(2, 4))):
        pixels = [np.moveaxis(MADE[WHERE[n]][n][rows], -1, 1).reshape(2, -1) for n in names]
        stored = {
            b"data": np.concatenate(pixels),
            b"fine_labels": [i for i in range(len(names)) for _ in range(2)],
        }
        (place / part).write_bytes(pickle.dumps(stored, 2))
    write_splits(root)
    return root


def write_meta(root):
    return layouts.write_tree(root, MADE, names=("meta-train", "meta-val", "meta-test"))


WRITERS = {
    "data": write_data,
    "pickles": write_pickles,
    "official": write_official,
    "meta": write_meta,
}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    base = tmp_path_factory.mktemp("cifar")
    return {name: write(base / name / "root") for name, write in WRITERS.items()}


@pytest.mark.parametrize("name", WRITERS)
def test_every_layout_gives_the_same_pixels(roots, name):
    made = load_cifarfs(roots[name])
    assert made.name == "CIFAR-FS-4 (7 of 100 classes)"
    assert made.images.shape == (7, 4, 3, 32, 32)
    for split, classes in MADE.items():
        rows = zip(made.splits[split], sorted(classes), strict=True)
        for row, label in rows:
            assert np.array_equal(np.moveaxis(made.images[row], 1, -1), classes[label])
    if name != "pickles":  # which know numbers only
        assert made.class_names == ("n01", "n02", "n05", "n03", "n06", "n04", "n07")


@pytest.mark.parametrize("name", WRITERS)
def test_another_size(roots, name):
    made = load_cifarfs(roots[name], image_size=24, normalize="mean-std")
    small = Image.fromarray(MADE["test"]["n07"][3]).resize((24, 24), Image.Resampling.BILINEAR)
    assert np.array_equal(made.images[6, 3], np.moveaxis(np.asarray(small), -1, 0))
    assert made.normalization is not None


def test_it_is_found_below(roots, tmp_path):
    shutil.copytree(roots["data"], tmp_path / "cifar100")
    source = make_source("cifarfs", ways=2, queries=2, root=tmp_path)
    assert source.image_set.fingerprint == load_cifarfs(roots["data"]).fingerprint


def raises(message, root, **options):
    with pytest.raises(DataError, match=message) as caught:
        load_cifarfs(root, **options)
    assert "\n" not in str(caught.value)


def test_missing_things_are_named(roots, tmp_path):
    raises("not downloaded", None)
    raises("nowhere does not exist", tmp_path / "nowhere")
    raises("has no CIFAR-FS .*bertinetto.*pickle", tmp_path)
    raises("'crop'", tmp_path, normalize="crop")
    root = shutil.copytree(roots["data"], tmp_path / "data")
    shutil.rmtree(root / "data" / "n06")
    raises(r"6 of the 7 classes .*first missing one is n06", root)
    (root / "splits" / "bertinetto" / "test.txt").write_text("n04\nn01\n")
    raises("listed twice", root)
    (root / "splits" / "bertinetto" / "test.txt").unlink()
    raises("lacks splits/bertinetto/test.txt", root)
    shutil.rmtree(root / "splits")
    raises("not splits/bertinetto/train.txt, which says what classes", root)


def test_official_files_need_their_split(roots, tmp_path):
    root = shutil.copytree(roots["official"], tmp_path / "o")
    (root / "cifar-100-python" / "test").unlink()
    raises("cifar-100-python lacks test", root)
    shutil.rmtree(root / "splits")
    raises("which says what classes", root)


def test_other_gaps_are_named(roots, tmp_path):
    root = shutil.copytree(roots["pickles"], tmp_path / "p")
    (root / "CIFAR_FS_val.pickle").unlink()
    raises("lacks CIFAR_FS_val.pickle", root)
    root = shutil.copytree(roots["meta"], tmp_path / "m")
    shutil.rmtree(root / "meta-test")
    raises("lacks meta-test", root)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ([1], "no dictionary"),
        ({"labels": [1]}, "data is no uint8 array"),
        ({"data": np.zeros((2, 32, 32, 3)), "labels": [0, 1]}, "data is no uint8 array"),
        ({"data": np.zeros((2, 32, 32, 3), np.uint8), "labels": [0]}, "do not number the 2 images"),
        ({"data": np.zeros((2, 32, 32, 3), np.uint8), "labels": ["x", 1]}, "labels"),
        ({"data": np.zeros((2, 32, 32, 3), np.uint8)}, "labels"),
    ],
)
def test_pickles_of_other_things_are_named(roots, tmp_path, stored, message):
    root = shutil.copytree(roots["pickles"], tmp_path / "p")
    (root / "CIFAR_FS_val.pickle").write_bytes(pickle.dumps(stored))
    raises(f"CIFAR_FS_val.pickle.*{message}", root)


def test_a_list_may_not_name_unknown_classes(roots, tmp_path):
    root = shutil.copytree(roots["official"], tmp_path / "o")
    (root / "splits" / "bertinetto" / "val.txt").write_text("n03\nn99\n")
    raises("meta cannot be used .*no class n99", root)


@pytest.mark.parametrize("kind", ["tuples", "number"])
def test_names_of_classes_are_texts(roots, tmp_path, kind):
    names = ()
    for _ in range(60):  # its text would have 2 ** 60 pairs of brackets
        names = (names, names)
    root = shutil.copytree(roots["official"], tmp_path / "o")
    stored = {b"fine_label_names": [names] if kind == "tuples" else 7}
    (root / "cifar-100-python" / "meta").write_bytes(pickle.dumps(stored, 2))
    raises("fine_label_names are no list of texts", root)


def test_a_class_without_images_is_named(roots, tmp_path):
    root = shutil.copytree(roots["official"], tmp_path / "o")
    for part in ("train", "test"):
        file = root / "cifar-100-python" / part
        stored = pickle.loads(file.read_bytes())
        stored[b"fine_labels"] = [1 for _ in stored[b"fine_labels"]]
        file.write_bytes(pickle.dumps(stored, 2))
    raises("class .* has no images", root)
