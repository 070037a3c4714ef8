"""One reader, files that it reads, and how input number ``i`` is made of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzzing.packed import damaged_as

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Target:
    """A reader under test.

    Attributes:
        name: in the table.
        seeds: makes whole files, by name, in folders by themselves; the first ones must be accepted.
        read: the reader, given the folder.
        fixed: names of files that stay whole.
        names_file: whether a refusal must name the file or folder.
    """

    name: str
    seeds: Callable[[], Sequence[Files]]
    read: Callable[[Path], Any]
    fixed: tuple[str, ...] = ()
    names_file: bool = True


def changed(
    target: Target, seeds: Sequence[Files], index: int
) -> tuple[int, dict[str, bytes | None]]:
    """Number of the seed that input ``index`` starts from, and its changed files; ``None`` for one left out."""
    rng = random.Random(f"{target.name}/{index}")
    which = rng.randrange(len(seeds))
    names = sorted(name for name in seeds[which] if not name.endswith(target.fixed or ("\0",)))
    made: dict[str, bytes | None] = {}
    for name in rng.sample(names, min(len(names), rng.choice((1, 1, 1, 1, 2)))):
        other = rng.choice(seeds)
        piece = other[rng.choice(sorted(other))]
        made[name] = damaged_as(rng, name, seeds[which][name], piece)
    if len(names) > 1 and rng.random() < 0.01:
        made[rng.choice(names)] = None
    return which, made
