"""Bits of many episodes at once are those that numpy draws for each."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpmaml.data import DataError
from sharpmaml.data.bits import FEW, LONG, bulk_bits
from sharpmaml.data.episodes import SPLITS, raw_bits

seeds = st.one_of(
    st.integers(0, 3),
    st.sampled_from([2**32 - 1, 2**32, 2**64 - 1, 2**64, 2**96, 2**128 + 5]),
    st.integers(0, 2**140),
)


def each(seed, split, first, count, values):
    return np.stack([raw_bits(seed, split, first + i).random_raw(values) for i in range(count)])


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    split=st.sampled_from(SPLITS),
    first=st.one_of(st.integers(0, 100), st.integers(2**32 - 60, 2**32 + 5), st.integers(0, 2**70)),
    count=st.sampled_from([1, FEW, FEW + 1, 40]),
    values=st.sampled_from([1, 3, 4, 5, 22, LONG, LONG + 1, 300]),
)
def test_the_bits_are_numpys_own(seed, split, first, count, values):
    found = bulk_bits(seed, split, first, count, values)
    assert found.dtype == np.uint64
    assert np.array_equal(found, each(seed, split, first, count, values))


def test_the_arithmetic_itself_is_numpys():
    # The two ways below and above LONG, not the loop over numpy's generators.
    for values in (LONG - 2, LONG + 2):
        assert np.array_equal(bulk_bits(7, "val", 5, 300, values), each(7, "val", 5, 300, values))


def test_written_down_once():
    found = bulk_bits(1, "train", 2, FEW + 1, 2)[0]
    # Changes here break the resuming of every run made before.
    assert [hex(value) for value in found] == ["0x5c9980f6b0391212", "0x940aa23795aedc82"]


def test_a_negative_index_is_refused():
    for count in (1, 100):
        with pytest.raises(DataError, match="index -3"):
            bulk_bits(0, "train", -3, count, 4)
