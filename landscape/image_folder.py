"""Folders of pictures, one folder a class -> arrays of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landscape import pictures as decoding
from landscape.wording import one_line, printable

SUFFIXES = (".png", ".jpg", ".jpeg")
_GREY = ("1", "L")


def listed(root: Path) -> tuple[list[tuple[Path, int]], list[str]]:
    """Pictures with the number of their class, in the order of names, and the names of the classes.

    Classes are the subfolders of ``root``, numbered in the order of their names, as torchvision's
    ``ImageFolder`` does; pictures may lie deeper.

    Raises:
        ValueError: no class, or one without a picture.
    """
    classes = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        raise ValueError(f"--data {root} has no subfolders: expected one a class, with pictures")
    found: list[tuple[Path, int]] = []
    for number, name in enumerate(classes):
        pictures = [p for p in sorted((root / name).rglob("*")) if p.suffix.lower() in SUFFIXES]
        if not pictures:
            raise ValueError(
                f"--data {root}: class {name!r} has no picture ending in {', '.join(SUFFIXES)}"
            )
        found += [(picture, number) for picture in pictures]
    return found, classes


def pixels(pictures: Sequence[Path], size: int | None) -> NDArray[np.uint8]:
    """The pictures as uint8 ``(n, channels, height, width)``; grey ones have 1 channel if all are grey.

    Args:
        pictures: the files.
        size: the shorter side is resized to it (bilinear, averaging where it shrinks), and the middle
            square is cut out. Left out, pictures stay what they are and must agree in size.

    Raises:
        ValueError: a file that is no picture, of more than 8 bits, or of another size than the first.
    """
    opened = [_opened(path) for path in pictures]
    mode = "L" if all(image.mode in _GREY for image in opened) else "RGB"
    arrays = []
    for path, image in zip(pictures, opened, strict=True):
        converted = decoding.converted(image, mode)
        if size is not None:
            try:
                converted = _middle(converted, size)
            except ValueError as error:
                raise ValueError(f"{printable(path, 300)}: {error}") from None
        arrays.append(np.asarray(converted).reshape(converted.height, converted.width, -1))
        if arrays[-1].shape != arrays[0].shape:
            raise ValueError(
                f"{path} is {converted.width} x {converted.height}, {pictures[0]} is "
                f"{arrays[0].shape[1]} x {arrays[0].shape[0]}: give --image-size to resize them"
            )
    return np.ascontiguousarray(np.stack(arrays).transpose(0, 3, 1, 2))


def _opened(path: Path) -> Image.Image:
    try:
        image = decoding.opened(path.read_bytes())
        if image.mode[:1] in ("I", "F"):
            raise ValueError(f"it has more than 8 bits a channel (mode {image.mode})")
    except (OSError, ValueError) as error:
        text = one_line(error).removeprefix("it cannot be read as a picture: ")
        raise ValueError(f"{printable(path, 300)} cannot be read as a picture: {text}") from None
    return image


def _middle(image: Image.Image, size: int) -> Image.Image:
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    if width * height > decoding.PIXELS:
        raise ValueError(
            f"{image.width} x {image.height} is too far from a square: with a shorter side of {size} it would be "
            f"{width} x {height}, over {decoding.PIXELS} pixels"
        )
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return resized.crop((left, top, left + size, top + size))
