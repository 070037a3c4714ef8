"""The embedded default: procedural handwriting, made with numpy alone.

An alphabet is a pool of 6 to 10 sub-strokes; a character is one to four of them, attached to one
another; a drawer wobbles the control points, places and sizes of a character's strokes and then
slants, stretches and moves the whole. The compositional idea is that of Lake, Salakhutdinov &
Tenenbaum 2015, "Human-level concept learning through probabilistic program induction"; no
drawing of theirs is used, and results on this set are never results on Omniglot.

Every alphabet has a child seed of its own, so the first k alphabets are the same bits however
many are made after them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sharpmaml.data.cache import cached
from sharpmaml.data.episodes import DataError
from sharpmaml.data.images import ImageSet, image_set, split_by_alphabet

VERSION = 1  # of the generator: raise it when a drawing changes, so that old caches are passed by
DRAWERS = 20
SIZE = 28
GRID = 2 * SIZE  # drawn at twice the size, then averaged
SAMPLES = 64  # points along a stroke: closer than one grid cell
INK = 2.1  # makes a line of pressure 1 reach about full ink at its middle
LOOK_ALIKE = 0.86  # cosine of two clean characters above which the second is not used

Floats = NDArray[np.float64]

KINDS = ("bar", "arc", "hook", "loop", "s", "zigzag")
KIND_SHARES = (0.34, 0.22, 0.14, 0.14, 0.10, 0.06)
KNOTS_OF = {"bar": 3, "arc": 5, "hook": 5, "loop": 7, "s": 6, "zigzag": 4}  # control points
KNOTS = max(KNOTS_OF.values())
STROKE_SHARES = (0.10, 0.35, 0.38, 0.17)  # of characters with one, two, three, four strokes
JOINT_SHARES = (0.45, 0.35, 0.20)  # at an end, at a middle, free

DIFFICULTIES = (1.0, 1.25, 1.5)
# Standard deviations at these three difficulties, in units of the character's unit box.
NOISE: dict[str, tuple[float, float, float]] = {
    "rotation": (0.10, 0.13, 0.16),  # radians
    "shear": (0.12, 0.15, 0.18),
    "scale": (0.07, 0.085, 0.10),
    "scale_mean": (0.70, 0.68, 0.66),
    "scale_low": (0.50, 0.46, 0.42),
    "log_aspect": (0.09, 0.11, 0.13),
    "offset": (0.035, 0.048, 0.06),
    "knot": (0.035, 0.043, 0.05),
    "place": (0.03, 0.038, 0.045),
    "log_size": (0.08, 0.10, 0.12),
}
SCALE_HIGH = 0.86
PRESSURE = (0.85, 1.35)


@dataclass(frozen=True)
class _Strokes:
    """The strokes of one alphabet's characters, flat: `owner[i]` is the character of stroke i."""

    owner: NDArray[np.int64]
    kind: NDArray[np.int64]
    knots: Floats  # (strokes, KNOTS, 2), each around its own origin
    place: Floats  # (strokes, 2)


def load_strokes(*, alphabets: int = 50, seed: int = 0, difficulty: float = 1.25) -> ImageSet:
    """Return the procedural set, from the cache when it has been made before.

    Args:
        alphabets: how many, at least 3; 50 give about 1,600 classes.
        seed: chooses the alphabets.
        difficulty: noise multiplier in [0.5, 2]; 1.25 is about as hard as Omniglot.

    Raises:
        DataError: for a setting outside its range.
    """
    if alphabets < 3:
        raise DataError(f"alphabets is {alphabets}: the three splits need at least 3")
    if seed < 0:
        raise DataError(f"strokes seed {seed} is negative: choose 0 or more")
    if not 0.5 <= difficulty <= 2:
        raise DataError(f"difficulty is {difficulty}: choose a number from 0.5 to 2")
    difficulty = float(difficulty)  # 1 and 1.0 are one setting and one cache file
    key = {"version": VERSION, "alphabets": alphabets, "seed": seed, "difficulty": difficulty}
    return cached("strokes", key, lambda: build_strokes(alphabets, seed, difficulty))


def build_strokes(alphabets: int, seed: int, difficulty: float) -> ImageSet:
    """Draw the set: uint8 images `(classes, 20, 28, 28)`, split 34/6/10 of 50 by alphabet."""
    noise = noise_levels(difficulty)
    children = np.random.SeedSequence(seed).spawn(alphabets)
    drawn = [_draw_alphabet(np.random.Generator(np.random.PCG64(c)), noise) for c in children]
    sizes = [len(images) for images in drawn]
    alphabet = np.repeat(np.arange(alphabets, dtype=np.int64), sizes)
    val, test = max(1, round(alphabets * 6 / 50)), max(1, round(alphabets * 10 / 50))
    names = tuple(f"strokes{a:02d}" for a in range(alphabets))
    return image_set(
        "strokes",
        np.concatenate(drawn),
        alphabet,
        names,
        tuple(
            f"{names[a]}/character{i + 1:02d}" for a in range(alphabets) for i in range(sizes[a])
        ),
        split_by_alphabet(alphabet, (alphabets - val - test, val, test)),
    )


def noise_levels(difficulty: float) -> dict[str, float]:
    """Return the noise figures at `difficulty`, on the line through the two nearest columns."""
    left = 0 if difficulty < DIFFICULTIES[1] else 1
    share = (difficulty - DIFFICULTIES[left]) / (DIFFICULTIES[left + 1] - DIFFICULTIES[left])
    return {
        name: column[left] + share * (column[left + 1] - column[left])
        for name, column in NOISE.items()
    }


def _draw_alphabet(rng: np.random.Generator, noise: dict[str, float]) -> NDArray[np.uint8]:
    """Invent an alphabet of 14 to 50 characters and let 20 drawers draw it."""
    count = int(rng.integers(14, 51))
    pool = [_sub_stroke(rng) for _ in range(int(rng.integers(6, 11)))]
    # Some characters turn out alike (two bars joined at an end are the same two bars): invent
    # half as many again, and leave out those that repeat an earlier one.
    characters = [_character(rng, pool) for _ in range(count + count // 2)]
    clean = _flatten(characters)
    curves = _curves(clean.kind, clean.knots) + clean.place[:, None]
    pictures = _rasterize(curves * 0.7, clean.owner, len(characters), np.ones(len(clean.owner)))
    kept = _distinct(pictures.reshape(len(characters), -1).astype(np.float64), count)
    strokes = _flatten([characters[i] for i in kept])
    return _perform(rng, strokes, count, noise)


def _sub_stroke(rng: np.random.Generator) -> tuple[int, Floats]:
    """Return a random kind and its control points `(KNOTS, 2)`, unused rows zero."""
    kind = int(rng.choice(len(KINDS), p=KIND_SHARES))
    name = KINDS[kind]
    t = np.linspace(-0.5, 0.5, KNOTS_OF[name])
    if name == "bar":
        points = np.stack([t, np.zeros_like(t)], axis=1)
    elif name == "arc":
        angle = t * rng.uniform(0.6, 1.6) * np.pi
        points = np.stack([np.sin(angle), np.cos(angle)], axis=1)
        points *= 1 / np.ptp(points, axis=0).max()
    elif name == "hook":
        bend = rng.choice((-1.0, 1.0)) * rng.uniform(0.22, 0.42)
        points = np.array([[-0.5, 0.0], [-0.1, 0.0], [0.25, 0.0], [0.5, 0.12], [0.38, 0.75]])
        points[:, 1] *= bend / 0.75
    elif name == "loop":
        angle = 2 * np.pi * t
        points = np.stack([0.5 * np.cos(angle), rng.uniform(0.25, 0.45) * np.sin(angle)], axis=1)
    elif name == "s":
        points = np.stack([t, rng.uniform(0.16, 0.30) * np.sin(2 * np.pi * t)], axis=1)
        points[:, 0] += 0.12 * np.sin(4 * np.pi * t)
    else:
        points = np.stack([t, rng.uniform(0.14, 0.26) * np.array([-1.0, 1.0, -1.0, 1.0])], axis=1)
    points -= points.mean(axis=0)
    direction = np.array(int(rng.integers(8)) * np.pi / 4)
    points = points @ _turn(direction) * rng.uniform(0.55, 1.25)
    return kind, np.concatenate([points, np.zeros((KNOTS - len(points), 2))])


def _character(
    rng: np.random.Generator, pool: list[tuple[int, Floats]]
) -> list[tuple[int, Floats, Floats]]:
    """Compose one to four sub-strokes and fit them into the unit box around the origin."""
    parts: list[tuple[int, Floats, Floats]] = []
    drawn: list[Floats] = []
    for _ in range(1 + int(rng.choice(4, p=STROKE_SHARES))):
        kind, knots = pool[int(rng.integers(len(pool)))]
        if rng.random() < 0.3:
            knots = knots * rng.uniform(0.45, 0.75)
        curve = _curves(np.array([kind]), knots[None])[0]
        place = np.zeros(2)
        if drawn:
            other = drawn[int(rng.integers(len(drawn)))]
            joint = int(rng.choice(3, p=JOINT_SHARES))
            own = curve[int(rng.choice((0, SAMPLES // 2, SAMPLES - 1)))]
            if joint == 0:
                place = other[int(rng.choice((0, SAMPLES - 1)))] - own
            elif joint == 1:
                place = other[SAMPLES // 2] - own
            else:
                place = other.mean(axis=0) + rng.uniform(-0.6, 0.6, size=2)
        parts.append((kind, knots, place))
        drawn.append(curve + place)
    points = np.concatenate(drawn)
    low, high = points.min(axis=0), points.max(axis=0)
    scale, middle = 1 / (high - low).max(), (high + low) / 2
    return [(kind, knots * scale, (place - middle) * scale) for kind, knots, place in parts]


def _flatten(characters: list[list[tuple[int, Floats, Floats]]]) -> _Strokes:
    parts = [(i, *part) for i, character in enumerate(characters) for part in character]
    return _Strokes(
        np.array([p[0] for p in parts]),
        np.array([p[1] for p in parts]),
        np.stack([p[2] for p in parts]),
        np.stack([p[3] for p in parts]),
    )


def _distinct(pictures: Floats, count: int) -> list[int]:
    """Return `count` rows, each unlike every earlier one; look-alikes only to fill up."""
    unit = pictures / np.linalg.norm(pictures, axis=1, keepdims=True)
    likeness = unit @ unit.T
    kept: list[int] = []
    spare: list[int] = []
    for row in range(len(pictures)):
        alike = bool(kept) and float(likeness[row, kept].max()) > LOOK_ALIKE
        (spare if alike else kept).append(row)
    return sorted((kept + spare)[:count])


def _perform(
    rng: np.random.Generator, strokes: _Strokes, count: int, noise: dict[str, float]
) -> NDArray[np.uint8]:
    """Let every drawer draw every character: uint8 `(count, DRAWERS, 28, 28)`."""
    shape = (len(strokes.owner), DRAWERS)
    knots = strokes.knots[:, None] + noise["knot"] * rng.standard_normal((*shape, KNOTS, 2))
    size = np.exp(noise["log_size"] * rng.standard_normal(shape))
    place = strokes.place[:, None] + noise["place"] * rng.standard_normal((*shape, 2))
    kind = np.repeat(strokes.kind, DRAWERS)
    curves = _curves(kind, (knots * size[..., None, None]).reshape(-1, KNOTS, 2))
    curves += place.reshape(-1, 1, 2)

    drawings = count * DRAWERS
    rotation = _turn(noise["rotation"] * rng.standard_normal(drawings))
    shear = np.tile(np.eye(2), (drawings, 1, 1))
    shear[:, 1, 0] = noise["shear"] * rng.standard_normal(drawings)
    scale = noise["scale_mean"] + noise["scale"] * rng.standard_normal(drawings)
    scale = np.clip(scale, noise["scale_low"], SCALE_HIGH)
    aspect = np.exp(noise["log_aspect"] * rng.standard_normal(drawings) / 2)
    stretch = scale[:, None, None] * np.stack([aspect, 1 / aspect], axis=1)[:, None, :]
    affine = (shear @ rotation) * stretch
    offset = noise["offset"] * rng.standard_normal((drawings, 1, 2))
    pressure = rng.uniform(*PRESSURE, size=drawings)

    owner = (strokes.owner[:, None] * DRAWERS + np.arange(DRAWERS)).reshape(-1)
    pictures = _rasterize(curves @ affine[owner] + offset[owner], owner, drawings, pressure[owner])
    return np.rint(pictures * 255).astype(np.uint8).reshape(count, DRAWERS, SIZE, SIZE)


def _turn(angle: Floats) -> Floats:
    """Return rotation matrices `(..., 2, 2)` that act on row vectors."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([c, s], -1), np.stack([-s, c], -1)], -2)


def _spline(knots: int, straight: bool) -> Floats:
    """Return the `(SAMPLES, KNOTS)` matrix from control points to points of the curve.

    Catmull-Rom curves (and polylines) are linear in their control points, so one matrix product
    draws all strokes of an alphabet.
    """
    position = np.linspace(0, knots - 1, SAMPLES)
    piece = np.minimum(position.astype(np.int64), knots - 2)
    u = (position - piece)[:, None]
    if straight:
        weights, first = np.concatenate([1 - u, u], axis=1), piece
    else:
        basis = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
        weights, first = u ** np.arange(4) @ basis, piece - 1
    # Beyond the ends, continue in a straight line: p[-1] = 2 p[0] - p[1], and so on.
    extended = np.zeros((knots + 2, KNOTS))
    extended[1:-1, :knots] = np.eye(knots)
    extended[0], extended[-1] = 2 * extended[1] - extended[2], 2 * extended[-2] - extended[-3]
    rows = first[:, None] + np.arange(weights.shape[1]) + 1
    result: Floats = np.einsum("sw,swk->sk", weights, extended[rows])
    return result


_SPLINES = np.stack([_spline(KNOTS_OF[name], name == "zigzag") for name in KINDS])


def _curves(kind: NDArray[np.int64], knots: Floats) -> Floats:
    """Return the points `(strokes, SAMPLES, 2)` of strokes with control points `knots`."""
    result: Floats = _SPLINES[kind] @ knots
    return result


def _rasterize(
    curves: Floats, owner: NDArray[np.int64], pictures: int, pressure: Floats
) -> NDArray[np.float32]:
    """Draw strokes in the unit box around the origin as `(pictures, 28, 28)` ink in [0, 1]."""
    cells = np.clip((curves + 0.5) * GRID - 0.5, 0, GRID - 1.001)
    steps = np.linalg.norm(np.diff(cells, axis=1), axis=2)
    # Ink by length, not by sample: short and long strokes come out equally dark.
    ink = np.zeros(cells.shape[:2])
    ink[:, 1:] += steps / 2
    ink[:, :-1] += steps / 2
    ink *= pressure[:, None] * INK
    corner = cells.astype(np.int64)
    part = cells - corner
    index = (owner[:, None] * GRID + corner[..., 1]) * GRID + corner[..., 0]
    canvas = np.zeros(pictures * GRID * GRID)
    for dy in (0, 1):
        for dx in (0, 1):
            weight = np.where(dx, part[..., 0], 1 - part[..., 0]) * np.where(
                dy, part[..., 1], 1 - part[..., 1]
            )
            canvas += np.bincount(
                (index + dy * GRID + dx).ravel(), (weight * ink).ravel(), len(canvas)
            )
    blurred = canvas.reshape(pictures, GRID, GRID).astype(np.float32)
    for axis in (1, 2):
        blurred = np.moveaxis(blurred, axis, -1)
        padded = np.pad(blurred, ((0, 0), (0, 0), (1, 1)))
        blurred = 0.25 * padded[..., :-2] + 0.5 * padded[..., 1:-1] + 0.25 * padded[..., 2:]
        blurred = np.moveaxis(blurred, -1, axis)
    full = np.minimum(blurred, 1).reshape(pictures, SIZE, 2, SIZE, 2)
    result: NDArray[np.float32] = full.mean(axis=(2, 4))
    return result
