"""Letters of matplotlib's own fonts: tasks that a reader can read in a report.

A class is a letter, an alphabet is a script, and the twenty instances of a letter cycle over the
faces that have it, each with a small rotation, shear, scale and offset of its own.

Which letters: `glyph_codepoints.txt` lists them, and states the rules it was made by. A letter
that the installed matplotlib no longer carries is left out, which changes the fingerprint.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFont

from sharpmaml.data.cache import cached
from sharpmaml.data.episodes import DataError
from sharpmaml.data.images import ImageSet, image_set, split_by_alphabet

VERSION = 1  # of the generator: raise it when a drawing changes, so that old caches are passed by
SEED = 20  # of the jitter, together with the code point of the letter
INSTANCES = 20
SIZE = 28
GRID = 2 * SIZE
POINTS = 72  # size at which a face is rasterized, before it is fitted to the grid

# Text faces only. LastResort draws a placeholder for all of Unicode, STIXSiz* and cmex10 hold
# brackets, cmmi10 and cmsy10 put mathematics under the letters' code points.
FACES = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmr10", "cmb10", "cmss10", "cmtt10"),
)

# Train, validation, test; the file has the scripts in this order.
SPLIT_SCRIPTS = (("Latin", "Canadian", "Georgian"), ("Cyrillic",))

# Standard deviations of the jitter, in units of the picture (radians for the rotation).
ROTATION, SHEAR, SCALE, OFFSET = 0.10, 0.12, 0.07, 0.035
SCALE_MEAN, SCALE_RANGE = 0.70, (0.50, 0.86)


def load_glyphs() -> ImageSet:
    """Return the letters as uint8 images `(classes, 20, 28, 28)`, from the cache when possible.

    Raises:
        DataError: if matplotlib's fonts are not where it says, or carry none of the letters.
    """
    fonts = find_faces()
    # Other fonts are other pictures: their bytes are part of the key.
    digest = hashlib.sha256()
    for path in fonts.values():
        digest.update(path.read_bytes())
    key = {"version": VERSION, "fonts": digest.hexdigest()}
    return cached("glyphs", key, lambda: build_glyphs(fonts))


def find_faces() -> dict[str, Path]:
    """Return the installed faces out of `FACES`, in that order.

    Raises:
        DataError: if none is there.
    """
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    found = {face: folder / f"{face}.ttf" for face in FACES if (folder / f"{face}.ttf").is_file()}
    if not found:
        raise DataError(
            f"{folder} has no DejaVu fonts: reinstall matplotlib, or use --data strokes"
        )
    return found


def letters() -> dict[str, list[int]]:
    """Return the code points of every script, in the order of the file."""
    text = resources.files("sharpmaml.data").joinpath("glyph_codepoints.txt").read_text("utf-8")
    scripts: dict[str, list[int]] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        script, _, ranges = line.partition(":")
        points = scripts.setdefault(script, [])
        for part in ranges.split():
            first, _, last = part.partition("-")
            points.extend(range(int(first, 16), int(last or first, 16) + 1))
    return scripts


def build_glyphs(fonts: dict[str, Path]) -> ImageSet:
    """Rasterize every listed letter in every face that has it, twenty instances a letter."""
    from matplotlib.ft2font import FT2Font

    carried = {face: set(FT2Font(str(path)).get_charmap()) for face, path in fonts.items()}
    opened = {
        face: ImageFont.truetype(str(path), POINTS, layout_engine=ImageFont.Layout.BASIC)
        for face, path in fonts.items()
    }
    drawn: list[NDArray[np.uint8]] = []
    alphabet: list[int] = []
    names: list[str] = []
    scripts = letters()
    for script, points in enumerate(scripts.values()):
        for point in points:
            faces = [opened[face] for face in fonts if point in carried[face]]
            if faces:
                drawn.append(_letter(point, faces))
                alphabet.append(script)
                names.append(f"{list(scripts)[script]}/U+{point:04X}")
    if not drawn:
        raise DataError("matplotlib's fonts carry no listed letter: use --data strokes")
    train, val = (len(part) for part in SPLIT_SCRIPTS)
    ids = np.array(alphabet, dtype=np.int64)
    splits = split_by_alphabet(ids, (train, val, len(scripts) - train - val))
    return image_set("glyphs", np.stack(drawn), ids, tuple(scripts), tuple(names), splits)


def fitted(point: int, face: ImageFont.FreeTypeFont) -> Image.Image:
    """Return one letter, cut to its ink and centred in a square; its longer side fills it."""
    mask, _ = face.getmask2(chr(point), mode="L")
    width, height = mask.size
    side = max(width, height, 1)
    square = Image.new("L", (side, side))
    if width and height:
        letter = Image.frombytes("L", (width, height), bytes(mask))
        square.paste(letter, ((side - width) // 2, (side - height) // 2))
    return square.resize((GRID, GRID), Image.Resampling.BILINEAR)


def _letter(point: int, faces: list[ImageFont.FreeTypeFont]) -> NDArray[np.uint8]:
    """Return the instances `(20, 28, 28)` of one letter; its jitter depends on nothing else."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([SEED, point])))
    squares = [fitted(point, face) for face in faces]
    images = np.empty((INSTANCES, SIZE, SIZE), dtype=np.uint8)
    for i in range(INSTANCES):
        angle, shear, size, dx, dy = rng.standard_normal(5)
        scale = float(np.clip(SCALE_MEAN + SCALE * size, *SCALE_RANGE))
        c, s = np.cos(ROTATION * angle), np.sin(ROTATION * angle)
        # PIL asks where a pixel comes from, hence the inverse of the drawing's transform.
        matrix = np.linalg.inv(np.array([[c, -s], [s, c]]) @ [[1, SHEAR * shear], [0, 1]] * scale)
        middle = GRID / 2
        origin = middle - matrix @ (middle + GRID * OFFSET * np.array([dx, dy]))
        coefficients = (*matrix[0], origin[0], *matrix[1], origin[1])
        moved = squares[i % len(squares)].transform(
            (GRID, GRID),
            Image.Transform.AFFINE,
            tuple(float(value) for value in coefficients),
            Image.Resampling.BILINEAR,
        )
        images[i] = np.asarray(moved.reduce(2))
    return images
