"""The raw bits of many episodes at once, equal to those that numpy draws for each alone.

`raw_bits(seed, split, index)` builds a `SeedSequence` and a `Philox` per episode, some 20 microseconds that
training on small tasks cannot spare. Both are fixed by published arithmetic, so a few hundred array
operations give the bits of a thousand episodes: the hash of O'Neill 2015, "Developing a seed_seq
Alternative", as numpy uses it, and Philox4x64-10 of Salmon et al. 2011, "Parallel Random Numbers: As
Easy as 1, 2, 3".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sharpmaml.data.episodes import SPLITS, raw_bits

Words = NDArray[np.uint64]

LONG = 64  # raw values an episode from which numpy's Philox is faster than arrays of its blocks
FEW = 8  # episodes up to which numpy's hash is faster too
WORD = 1 << 32  # indices from here on are two words of the hash, and numpy's own business

_POOL = 4
_LOW = np.uint64(WORD - 1)
_HALF = np.uint64(32)
_ROUNDS = 10
_FACTORS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_STEPS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B))


def bulk_bits(seed: int, split: str, first: int, count: int, values: int) -> Words:
    """Return `raw_bits(seed, split, i).random_raw(values)` for `count` indices from `first` on.

    >>> rows = bulk_bits(3, "val", 40, 20, 6)
    >>> bool((rows[7] == raw_bits(3, "val", 47).random_raw(6)).all())
    True

    Args:
        seed: of the source, 0 or more.
        split: `"train"`, `"val"` or `"test"`.
        first: index of the first episode.
        count: episodes.
        values: raw values of each.

    Returns:
        uint64 `(count, values)`.

    Raises:
        DataError: if `first` is negative.
    """
    rows = np.empty((count, values), dtype=np.uint64)
    if count <= FEW or first < 0 or first + count > WORD:
        for i in range(count):
            rows[i] = raw_bits(seed, split, first + i).random_raw(values)
        return rows
    keys = _keys([*_words(seed), SPLITS.index(split)], first, count)
    if values <= LONG:
        return _philox(keys, values)
    bits = np.random.Philox(0)
    fresh = bits.state
    for i in range(count):
        fresh["state"]["key"] = np.array((keys[0][i], keys[1][i]))
        bits.state = fresh
        rows[i] = bits.random_raw(values)
    return rows


def _words(number: int) -> list[int]:
    words = [number % WORD]
    while number := number // WORD:
        words.append(number % WORD)
    return words


class _Hash:
    """The running constant of numpy's `SeedSequence` and the step that uses it."""

    def __init__(self, start: int, factor: int) -> None:
        self.constant, self.factor = start, factor

    def __call__(self, value: NDArray[np.uint32]) -> NDArray[np.uint32]:
        mixed = value ^ np.uint32(self.constant)
        self.constant = self.constant * self.factor % WORD
        mixed *= np.uint32(self.constant)
        mixed ^= mixed >> np.uint32(16)
        return mixed


def _keys(head: list[int], first: int, count: int) -> tuple[Words, Words]:
    """Return the Philox keys `(count,)` that `SeedSequence([seed, split, index])` generates."""
    index = np.arange(first, first + count, dtype=np.uint64).astype(np.uint32)
    entropy = [np.full(count, word, dtype=np.uint32) for word in head] + [index]
    entropy += [np.zeros(count, dtype=np.uint32)] * (_POOL - len(entropy))
    step = _Hash(0x43B0D7E5, 0x931E8875)
    pool = [step(word) for word in entropy[:_POOL]]

    def stir(word: NDArray[np.uint32], target: int) -> None:
        mixed = np.uint32(0xCA01F9DD) * pool[target] - np.uint32(0x4973F715) * step(word)
        pool[target] = mixed ^ (mixed >> np.uint32(16))

    for source in range(_POOL):
        for target in range(_POOL):
            if target != source:
                stir(pool[source], target)
    for word in entropy[_POOL:]:
        for target in range(_POOL):
            stir(word, target)
    last = _Hash(0x8B51F9DD, 0x58F38DED)
    low0, high0, low1, high1 = (last(word).astype(np.uint64) for word in pool)
    return low0 | (high0 << _HALF), low1 | (high1 << _HALF)


def _philox(keys: tuple[Words, Words], values: int) -> Words:
    """Return the first `values` outputs `(count, values)` of Philox4x64-10 under each key."""
    blocks = -(-values // 4)
    key0, key1 = (key[:, None] for key in keys)
    counter = np.arange(1, blocks + 1, dtype=np.uint64)  # numpy counts before it draws
    a = np.repeat(counter[None], len(key0), axis=0)
    b, c, d = (np.zeros_like(a) for _ in range(3))
    for _ in range(_ROUNDS):
        high_a, low_a = _product(_FACTORS[0], a)
        high_c, low_c = _product(_FACTORS[1], c)
        high_c ^= b
        high_c ^= key0
        high_a ^= d
        high_a ^= key1
        a, b, c, d = high_c, low_c, high_a, low_a
        key0, key1 = key0 + _STEPS[0], key1 + _STEPS[1]
    return np.stack((a, b, c, d), axis=-1).reshape(len(a), 4 * blocks)[:, :values]


def _product(factor: int, x: Words) -> tuple[Words, Words]:
    """Return the high and low 64 bits of `factor * x`, from products of 32-bit halves."""
    left, right = np.uint64(factor >> 32), np.uint64(factor % WORD)
    upper, lower = x >> _HALF, x & _LOW
    middle = lower * left
    carry = lower * right
    carry >>= _HALF
    middle += carry  # below 2**64: (2**32 - 1)**2 + 2**32 - 1
    cross = upper * right
    np.bitwise_and(middle, _LOW, out=carry)
    cross += carry
    cross >>= _HALF
    upper *= left
    middle >>= _HALF
    upper += middle
    upper += cross
    return upper, x * np.uint64(factor)
