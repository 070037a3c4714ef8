"""``--data``: every form, the subset that is taken, and what images go through."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from landscape import cifar10, datasets, pixels
from landscape.datasets import Reading, read
from sharpmaml.data import load_strokes
from sharpmaml.data.classification import classification_set

SHARED = Path(__file__).parents[3] / "shared" / "data"


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(name, **options):
    with pytest.raises(ValueError) as caught:
        read(str(name), Reading(**options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rows(x, y):
    """Pairs of example and label, without their order."""
    return sorted((tuple(a.flatten().tolist()), b.tolist()) for a, b in zip(x, y, strict=True))


def test_all_examples_are_there_once(place):
    x, y = rng().standard_normal((20, 3)), rng().integers(0, 4, 20)
    np.savez("d.npz", x=x, y=y)
    (got, labels), notes = read("d.npz", Reading())
    assert rows(got, labels) == rows(torch.from_numpy(x), torch.from_numpy(y))
    assert got.dtype == torch.float64 and labels.dtype == torch.int64
    assert notes == {"population": 20, "order": "examples/0"}
    assert not np.array_equal(got.numpy(), x)  # shuffled: files are often sorted by class


def test_a_smaller_subset_is_part_of_a_larger_one_and_the_same_every_time(place):
    np.savez("d.npz", x=np.arange(3000.0), y=np.arange(3000))
    (default, _), _ = read("d.npz", Reading())
    assert len(default) == 1024 == len(set(default.tolist()))
    (few, labels), notes = read("d.npz", Reading(examples=100))
    assert torch.equal(few, default[:100]) and torch.equal(labels, few.long())
    assert notes["population"] == 3000
    assert len(read("d.npz", Reading(examples=0))[0][0]) == 3000
    assert len(read("d.npz", Reading(examples=9999))[0][0]) == 3000
    assert abs(float(default.mean()) - 1500) < 5 * 3000 / 12**0.5 / 1024**0.5
    assert "--examples is -1" in refusal("d.npz", examples=-1)


@pytest.mark.parametrize(
    "names", [("images", "labels"), ("x_test", "y_test"), ("test_images", "test_labels")]
)
def test_images_become_floats_with_channels_first(place, names):
    stored = rng().integers(0, 256, (5, 7, 6, 3)).astype(np.uint8)
    y = np.arange(5, dtype=np.uint8)
    np.savez("d.npz", **dict(zip(names, (stored, y), strict=True)))
    split = None if names[0] == "images" else "test"
    (x, labels), notes = read("d.npz", Reading(split=split))
    assert x.shape == (5, 3, 7, 6) and x.dtype == torch.float32
    for image, label in zip(x, labels, strict=True):
        expected = stored[int(label)].transpose(2, 0, 1) / 255
        np.testing.assert_allclose(image.numpy(), expected, rtol=1e-6)
    assert notes["scaled"] == "uint8 / 255" and notes["layout"] == "channels moved first"
    assert notes.get("split") == split


def test_grey_images_get_a_channel_and_flat_ones_are_images_where_called_so(place):
    np.savez("grey.npz", x=np.full((2, 5, 4), 255, np.uint8), y=[0, 1])
    assert torch.equal(read("grey.npz", Reading())[0][0], torch.ones(2, 1, 5, 4))
    np.savez("flat.npz", images=np.full((2, 6), 51, np.uint8), labels=[0, 1])
    torch.testing.assert_close(read("flat.npz", Reading())[0][0], torch.full((2, 6), 0.2))
    np.savez("tokens.npz", x=np.full((2, 6), 51, np.uint8), y=[0, 1])
    (x, _), notes = read("tokens.npz", Reading())
    assert torch.equal(x, torch.full((2, 6), 51)) and "scaled" not in notes


def test_tokens_are_their_own_labels(place):
    tokens = rng().integers(0, 9, (4, 5)).astype(np.int32)
    for name in ("tokens", "input_ids"):
        np.savez("t.npz", **{name: tokens})
        (x, y), _ = read("t.npz", Reading())
        assert torch.equal(x, y) and x.dtype == torch.int64
    np.savez("t.npz", input_ids=tokens, labels=tokens, attention_mask=tokens)
    assert "has an attention_mask" in refusal("t.npz")


def test_splits_of_a_file(place):
    parts = {"train_x": [[1.0]], "train_y": [1], "val_x": [[2.0]], "val_y": [2]}
    np.savez("d.npz", **parts)
    for split, expected in ((None, 1), ("train", 1), ("val", 2)):
        (x, y), notes = read("d.npz", Reading(split=split))
        assert (float(x), int(y), notes["split"]) == (expected, expected, split or "train")
    assert "has no split 'test': add --split train or val" in refusal("d.npz", split="test")
    np.savez("d.npz", x=[[1.0]], y=[1])
    assert "--split does not apply" in refusal("d.npz", split="test")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_tensors(place, suffix):
    x, y = torch.randn(6, 2), torch.arange(6, dtype=torch.int32)
    tensors = {"x": x, "y": y}
    (torch.save if suffix == ".pt" else save_file)(tensors, f"d{suffix}")
    (got, labels), _ = read(f"d{suffix}", Reading(examples=4))
    assert torch.equal(got, x[labels]) and labels.dtype == torch.int64
    (torch.save if suffix == ".pt" else save_file)({"x": x}, f"d{suffix}")
    assert f"is not a {suffix} file with arrays x and y" in refusal(f"d{suffix}")
    Path(f"d{suffix}").write_bytes(b"hello")
    assert f"--data d{suffix} holds no tensors" in refusal(f"d{suffix}")


def test_a_pickled_data_set_is_refused_and_not_run(place):
    class Evil:
        def __reduce__(self):
            return Path.touch, (Path("ran"),)

    torch.save({"x": torch.ones(1), "y": Evil()}, "d.pt")
    assert "--data d.pt holds no tensors" in refusal("d.pt")
    assert not Path("ran").exists()


def test_standardization(place):
    stored = rng().integers(0, 256, (3, 3, 2, 2)).astype(np.uint8)
    np.savez("d.npz", images=stored, labels=np.arange(3))
    mean, std = [125.3, 123.0, 113.9], [63.0, 62.1, 66.7]
    numbers = ",".join(str(v / 255) for v in mean + std)
    for name in ("li2018", numbers, numbers.replace(",", " ")):
        (x, y), notes = read("d.npz", Reading(standardize=name))
        for image, label in zip(x, y, strict=True):
            raw = stored[int(label)].astype(float)
            expected = (raw - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
            np.testing.assert_allclose(image.numpy(), expected, atol=1e-5)
        assert notes["standardize"] == "0.491373 0.482353 0.446667 / 0.247059 0.243529 0.261569"
    (x, _), notes = read("d.npz", Reading(standardize="none"))
    assert (float(x.min()), notes["standardize"]) == (stored.min() / np.float32(255), "none")


@pytest.mark.parametrize(
    "numbers",
    ["mean", "0.5", "1 2 3", "0.5,0.5,0.5,0.2,0.2,0", "125,123,114,63,62,67", "nan 1", ""],
)
def test_numbers_that_are_no_standardization(numbers):
    with pytest.raises(ValueError, match="--standardize is"):
        pixels.standardized(torch.ones(1, 3, 2, 2), numbers)


def test_standardization_of_other_channels_is_refused(place):
    np.savez("d.npz", images=np.zeros((2, 4, 4), np.uint8), labels=[0, 1])
    assert "is for 3 channels: the data are float32 of shape (2, 1, 4, 4)" in refusal(
        "d.npz", standardize="imagenet"
    )


def test_a_factory_makes_its_data_as_it_wants(place):
    Path("data.py").write_text(
        "import torch\ndef pairs(n=2):\n    return torch.ones(n, 1), torch.zeros(n)\n"
    )
    (x, _), notes = read("data.py:pairs(n=3)", Reading())
    assert (len(x), notes) == (3, {})
    for flag in ("split", "examples", "standardize", "image_size"):
        text = refusal("data.py:pairs", **{flag: 1 if flag in ("examples", "image_size") else "x"})
        assert f"--{flag.replace('_', '-')} does not apply: a factory" in text


def pictures(root, sizes=((8, 8),), mode="RGB"):
    """Two classes; the picture number ``i`` of class ``c`` has the value ``40 * (c + 1) + i``."""
    for c, name in enumerate(("b_dogs", "a_cats")):
        (root / name).mkdir(parents=True)
        for i, size in enumerate(sizes):
            value = 40 * (c + 1) + i
            Image.new(mode, size, value if mode == "L" else (value, 0, 255)).save(
                root / name / f"{i}.png"
            )
    (root / ".hidden").mkdir()
    (root / "a_cats" / "notes.txt").write_text("no picture")


def test_a_folder_of_pictures(place):
    pictures(place / "set", ((8, 8), (8, 8)))
    (x, y), notes = read("set", Reading())
    assert x.shape == (4, 3, 8, 8)
    found = {
        (round(float(image[0, 0, 0]) * 255), int(label)) for image, label in zip(x, y, strict=True)
    }
    assert found == {(40, 1), (41, 1), (80, 0), (81, 0)}  # classes in the order of their names
    assert torch.equal(x[:, 2], torch.ones(4, 8, 8))
    assert (notes["data_classes"], notes["image_size"]) == (2, None)
    assert "--split does not apply" in refusal("set", split="test")


def test_splits_and_grey_pictures_of_a_folder(place):
    pictures(place / "set" / "test", ((8, 8), (8, 8)), "L")
    assert "has no split 'train': add --split test" in refusal("set")
    (x, y), notes = read("set", Reading(split="test", examples=3))
    assert (x.shape, len(y), notes["split"], notes["population"]) == ((3, 1, 8, 8), 3, "test", 4)


def test_pictures_are_resized_by_the_shorter_side_and_cut_in_the_middle(place):
    pictures(place / "set", ((8, 8), (16, 8)))
    assert "give --image-size" in refusal("set")
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255  # its middle square
    Image.fromarray(wide).save(place / "set" / "a_cats" / "2.png")
    (x, _), notes = read("set", Reading(image_size=4))
    assert x.shape == (5, 3, 4, 4) and notes["image_size"] == 4
    assert any(bool((image == 1).all(0)[:, 1:3].all()) for image in x)
    assert "--image-size is 0" in refusal("set", image_size=0)


def test_a_picture_far_from_a_square_is_not_blown_up(place):
    pictures(place / "set", ((8, 8), (20_000, 1)))
    said = refusal("set", image_size=64)
    assert (
        "1.png: 20000 x 1 is too far from a square: with a shorter side of 64 it would be 1280000 x 64"
        in said
    )


def test_control_characters_of_standardize_are_not_printed():
    with pytest.raises(ValueError, match="is for 1 channels") as caught:
        pixels.standardized(torch.ones(1, 3, 2, 2), "0.\x1f0.25")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("damage", ["text", "truncated", "deep", "none", "no_class"])
def test_pictures_that_cannot_be_read(place, damage):
    pictures(place / "set")
    file = place / "set" / "a_cats" / "0.png"
    if damage == "text":
        file.write_text("hello")
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:40])
    elif damage == "deep":
        Image.fromarray(np.zeros((8, 8), np.uint16)).save(file)
    elif damage == "none":
        file.unlink()
    name = "set" if damage != "no_class" else "set/a_cats"
    told = {"none": "class 'a_cats' has no picture", "no_class": "has no subfolders"}
    assert told.get(damage, "0.png cannot be read as a picture") in refusal(name)


def batches(root, kind):
    """CIFAR-10 of 4 images a batch in one of its layouts, and its training images and labels."""
    images = rng(1).integers(0, 256, (24, 3, 32, 32)).astype(np.uint8)
    labels = rng(2).integers(0, 10, 24)
    names = [*cifar10.TRAIN, "test_batch"]
    folder = root / {"bin": cifar10.BINARY, "py": cifar10.PYTHON, "npz": "."}[kind]
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        x, y = images[4 * i : 4 * i + 4].reshape(4, -1), labels[4 * i : 4 * i + 4]
        if kind == "bin":
            np.hstack([y[:, None].astype(np.uint8), x]).tofile(folder / f"{name}.bin")
        elif kind == "py":
            content = {b"data": x, b"labels": y.tolist(), b"batch_label": name.encode()}
            (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    if kind == "npz":
        np.savez(
            folder / "cifar10.npz", train_images=images[:20], train_labels=labels[:20].astype(np.uint8),
            test_images=images[20:], test_labels=labels[20:].astype(np.uint8),
        )  # fmt: skip
    return images, labels


@pytest.mark.parametrize("kind", ["bin", "py", "npz"])
def test_cifar10_in_every_layout(place, kind):
    images, labels = batches(place, kind)
    for split, part in (("train", slice(20)), ("test", slice(20, None))):
        x, y = cifar10.read(place, split)
        assert np.array_equal(x, images[part]) and np.array_equal(y, labels[part])
    (x, y), notes = read("cifar10", Reading("test", 3, "cifar10", None, place))
    assert x.shape == (3, 3, 32, 32) and notes["split"] == "test" and notes["population"] == 4
    raw = (x * torch.tensor([0.2470, 0.2435, 0.2616]).view(3, 1, 1)
           + torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)) * 255  # fmt: skip
    assert rows(raw.round(), y)[0] in rows(
        torch.from_numpy(images).float(), torch.from_numpy(labels)
    )


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({b"data": Evil(), b"labels": [0]}, "it was not run"),
        ({b"data": np.array([Evil()], dtype=object), b"labels": [0]}, "it was not run"),
        ({b"data": np.zeros((1, 3072)), b"labels": [0]}, "expected uint8"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, "labels are not one of 0 to 9"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, "expected uint8 (1, 3072)"),
        ({b"labels": [1]}, "data"),
        ([1, 2], "no dictionary"),
    ],
)
def test_pickles_of_cifar10_hold_bytes_only(place, content, told):
    batches(place, "py")
    (place / cifar10.PYTHON / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
    text = refusal("cifar10", split="test", standardize="none", root=place)
    assert "test_batch is not a file of CIFAR-10" in text and told in text
    assert not Path("ran").exists()


def test_an_array_of_a_pickle_cannot_ask_for_memory(place):
    """Its size comes from its bytes, whatever it says."""
    batches(place, "py")
    huge = (
        b"\x80\x02}q\x00(U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        + (b"\x8a\x06\x00\x00\x00\x00\x00\x10\x85U\x01b\x87RU\x06labels]K\x01au.")
    )
    (place / cifar10.PYTHON / "test_batch").write_bytes(huge)
    assert "without content" in refusal("cifar10", split="test", standardize="none", root=place)


@pytest.mark.parametrize("damage", ["short", "empty", "gone"])
def test_damaged_binaries_of_cifar10(place, damage):
    batches(place, "bin")
    file = place / cifar10.BINARY / "data_batch_2.bin"
    file.unlink() if damage == "gone" else file.write_bytes(
        b"" if damage == "empty" else bytes(3000)
    )
    assert "data_batch_2.bin is not a file of CIFAR-10" in refusal(
        "cifar10", standardize="none", root=place
    )


def test_cifar10_asks_for_what_it_needs(place):
    assert "needs --data-root" in refusal("cifar10")
    assert "needs --standardize, what the network was trained with" in refusal(
        "cifar10", root=place
    )
    assert "has no CIFAR-10" in refusal("cifar10", root=place, standardize="none")
    batches(place, "npz")
    assert "CIFAR-10 has train and test" in refusal(
        "cifar10", split="val", root=place, standardize="none"
    )
    assert "--image-size does not apply" in refusal(
        "cifar10", root=place, standardize="none", image_size=8
    )


def test_strokes_are_one_problem_split_by_drawers():
    made = load_strokes(alphabets=3)
    classes = made.splits["train"]
    x, y, record = classification_set("strokes", "train", alphabets=3)
    held, other, _ = classification_set("strokes", "test", alphabets=3)
    assert (len(x), len(held)) == (16 * len(classes), 4 * len(classes))
    for label in (0, len(classes) - 1):
        drawn = made.images[classes[label]]
        assert np.array_equal(x[y == label][:, 0], drawn[:16])
        assert np.array_equal(held[other == label][:, 0], drawn[16:])
    assert record == {"set": "strokes", "classes": len(classes), "fingerprint": made.fingerprint}
    with pytest.raises(ValueError, match="split is 'val'"):
        classification_set("strokes", "val", alphabets=3)


def test_strokes_as_data(monkeypatch):
    (x, y), notes = read("strokes(alphabets=3)", Reading(examples=50))
    assert x.shape == (50, 1, 28, 28) and 0 <= float(x.min()) < float(x.max()) <= 1
    assert notes["data_set"] == "strokes" and notes["data_classes"] > int(y.max())
    assert notes["population"] == 16 * notes["data_classes"] and notes["split"] == "train"
    assert "strokes has no option 'colour'" in refusal("strokes(colour=1)")
    assert "named options only" in refusal("strokes(3)")
    assert "does not exist" in refusal("omniglot", root=Path("nowhere"))
    monkeypatch.setattr(datasets, "_DRAWINGS", "no_such_package:make")
    assert "needs the package sharpmaml" in refusal("strokes")


@pytest.mark.parametrize("name", ["mnist", "nowhere/at/all"])
def test_unknown_data(place, name):
    text = refusal(name)
    assert f"--data is {name!r}, and there is no such folder: expected an .npz" in text
    assert "cifar10, strokes, glyphs, omniglot" in text


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data")
def test_the_shared_files():
    x, y = cifar10.read(SHARED, "train")
    assert np.bincount(y).tolist() == [191, 222, 181, 199, 210, 182, 205, 209, 198, 203]
    assert x.shape == (2000, 3, 32, 32)
