"""The drawings as one ordinary classification problem, for networks that were not trained on tasks.

The classes are those of the few-shot split `train`, numbered in their order, so that nothing of the
validation and test classes is touched. What splits such a problem is the drawer: of the 20 drawings of a
class the first 16 are `train`, the last 4 are `test`; of another number of images a class, the first four
fifths. This split is ours; no published number uses it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpmaml.data import DataError, load_images

TRAIN_SHARE = 0.8


def classification_set(
    name: str, split: str = "train", root: str | Path | None = None, **options: Any
) -> tuple[NDArray[np.uint8], NDArray[np.int64], dict[str, Any]]:
    """Return images `(n, channels, height, width)` uint8, their labels `(n,)`, and what to record.

    Drawings have ink = 255.

    Args:
        name: one of `sharpmaml.data.NAMES` but `"sinusoid"`.
        split: `"train"` or `"test"`: drawings 1 to 16 or 17 to 20 of every class.
        root: where the files of the set are.
        **options: options of the set, see `sharpmaml.data.load_images`.

    Raises:
        DataError: for an unknown set, split or option, or files that are missing or damaged.
    """
    if split not in ("train", "test"):
        raise DataError(f"split is {split!r}: drawings of {name} are split in train and test")
    made = load_images(name, root, **options)
    classes = made.splits["train"]
    first = round(TRAIN_SHARE * made.images.shape[1])
    drawings = slice(None, first) if split == "train" else slice(first, None)
    images = made.images[classes, drawings]
    count = images.shape[1]
    labels = np.repeat(np.arange(len(classes)), count)
    record = {"set": made.name, "classes": len(classes), "fingerprint": made.fingerprint}
    return images.reshape(-1, *made.image_shape), labels, record
