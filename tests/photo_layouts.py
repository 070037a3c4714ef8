"""Small copies of photograph sets in the layouts that people have, drawn at random."""

import csv
import io
import json
import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

CLASSES = {
    "train": ("n01", "n02", "n05"),
    "val": ("n03", "n06"),
    "test": ("n04", "n07"),
}


def drawn(images=6, size=84, seed=0):
    """Random smooth images, by split and class: uint8 `(images, size, size, 3)`."""
    rng = np.random.default_rng(seed)
    made = {}
    for split, names in CLASSES.items():
        made[split] = {}
        for name in names:
            coarse = rng.integers(0, 256, (images, 6, 6, 3), dtype=np.uint8)
            made[split][name] = np.stack(
                [np.asarray(Image.fromarray(one).resize((size, size))) for one in coarse]
            )
    return made


def encoded(pixels, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def file_name(name, number, suffix="jpg"):
    return f"{name}{number + 1:08d}.{suffix}"


def list_text(classes):
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(("filename", "label"))
    rows = [(file_name(n, i), n) for n, images in classes.items() for i in range(len(images))]
    writer.writerows(rows)
    return stream.getvalue()


def write_lists(root, made):
    """The csv layout. The files are PNGs under the official `.jpg` names, so that pixels survive."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    for split, classes in made.items():
        (root / f"{split}.csv").write_text(list_text(classes))
        for name, images in classes.items():
            for i, pixels in enumerate(images):
                (root / "images" / file_name(name, i)).write_bytes(encoded(pixels))
    return root


def write_zips(root, made):
    root.mkdir(parents=True, exist_ok=True)
    for split, classes in made.items():
        with zipfile.ZipFile(root / f"mini_{split}.zip", "w") as archive:
            archive.writestr(f"{split}.csv", list_text(classes))
            for name, images in classes.items():
                for i, pixels in enumerate(images):
                    archive.writestr(f"images/{file_name(name, i)}", encoded(pixels))
    return root


def write_pickles(root, made, pattern="mini-imagenet-cache-{}.pkl", protocol=2):
    root.mkdir(parents=True, exist_ok=True)
    for split, classes in made.items():
        index, start = {}, 0
        for name, images in classes.items():
            index[name] = list(range(start, start + len(images)))
            start += len(images)
        stored = {"image_data": np.concatenate(list(classes.values())), "class_dict": index}
        (root / pattern.format(split)).write_bytes(pickle.dumps(stored, protocol))
    return root


def write_hdf5(root, made):
    root.mkdir(parents=True, exist_ok=True)
    for split, classes in made.items():
        with h5py.File(root / f"{split}_data.hdf5", "w") as stored:
            group = stored.create_group("datasets")
            for name, images in classes.items():
                group.create_dataset(name, data=images)
        (root / f"{split}_labels.json").write_text(json.dumps(sorted(classes)))
    return root


def write_tree(root: Path, made, names=("train", "val", "test")):
    """A folder a split, a folder a class."""
    for (_, classes), folder in zip(made.items(), names, strict=True):
        for name, images in classes.items():
            place = root / folder / name
            place.mkdir(parents=True, exist_ok=True)
            for i, pixels in enumerate(images):
                (place / file_name(name, i, "png")).write_bytes(encoded(pixels))
    return root
