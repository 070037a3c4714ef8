"""Damage that knows nothing of the format: bits, lengths, cuts, splices, words."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

INTEGERS = (0, 1, 2, 7, 8, 127, 128, 255, 256, 1 << 15, (1 << 16) - 1, 1 << 16, (1 << 31) - 1, 1 << 31,
            (1 << 32) - 1, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip

WORDS = (
    b"", b"\x00", b"\n", b"\r\n", b"\x1b[31m", b"\xff\xfe", b"\xef\xbb\xbf", b"../../../../etc/passwd",
    b"/etc/passwd", b"C:\\x", b"NaN", b"Infinity", b"-1", b"1e999", b"9" * 400, b"null", b"true", b"{}",
    b"[]", b"__class__", b"\xed\xa0\x80", "\u2028".encode(), b"%s%n{0}", b"'\"", b"A" * 5000,
)  # fmt: skip
"""Words that some reader may stumble over."""

Damage = Callable[[random.Random, bytearray, bytes], None]


def damaged(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """``data`` after one to sixteen small damages; ``other`` is a file to take pieces from."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4, 16))):
        if not made:
            break
        rng.choice(_ALL)(rng, made, other)
    return bytes(made)


def _bit(rng: random.Random, made: bytearray, other: bytes) -> None:
    made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)


def _byte(rng: random.Random, made: bytearray, other: bytes) -> None:
    made[rng.randrange(len(made))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _integer(rng: random.Random, made: bytearray, other: bytes) -> None:
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice((*INTEGERS, rng.randrange(len(made)), len(made)))
    start = rng.randrange(len(made))
    start -= start % rng.choice((1, size))
    made[start : start + size] = (value % (1 << 8 * size)).to_bytes(
        size, rng.choice(("little", "little", "big"))
    )


def _cut(rng: random.Random, made: bytearray, other: bytes) -> None:
    del made[rng.randrange(len(made)) :]


def _hole(rng: random.Random, made: bytearray, other: bytes) -> None:
    start = rng.randrange(len(made))
    del made[start : start + rng.choice((1, 2, 8, 100))]


def _copy(rng: random.Random, made: bytearray, other: bytes) -> None:
    source, start = rng.randrange(len(made)), rng.randrange(len(made))
    size = rng.choice((1, 8, 16, 64, 512))
    made[start : start + rng.choice((0, size))] = made[source : source + size]


def _splice(rng: random.Random, made: bytearray, other: bytes) -> None:
    if other:
        source, start = rng.randrange(len(other)), rng.randrange(len(made))
        size = rng.choice((4, 16, 64, 1024))
        made[start : start + size] = other[source : source + size]


def _word(rng: random.Random, made: bytearray, other: bytes) -> None:
    start = rng.randrange(len(made))
    made[start : start + rng.choice((0, 1, 4))] = rng.choice(WORDS)


def _number(rng: random.Random, made: bytearray, other: bytes) -> None:
    """A number written in digits becomes another one."""
    found = [m.span() for m in re.finditer(rb"\d+", bytes(made[:20000]))]
    if found:
        start, end = rng.choice(found)
        made[start:end] = str(rng.choice((*INTEGERS, -1, 10**30))).encode()


def _grow(rng: random.Random, made: bytearray, other: bytes) -> None:
    made += rng.choice((b"\0" * 8, b"x", b"\0" * 4096, other[:64], bytes(made[:64])))


_ALL: tuple[Damage, ...] = (
    _bit, _bit, _byte, _byte, _integer, _integer, _integer, _cut, _hole, _copy, _splice, _word, _number, _grow,
)  # fmt: skip
