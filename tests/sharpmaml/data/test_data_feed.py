"""Batches equal stacked episodes, on the source and on a feed; and both equal a plain reading of the protocol."""

import dataclasses
from unittest import mock

import numpy as np
import pytest
import torch

from sharpmaml.data import (
    DataError,
    Episode,
    Feed,
    ImageEpisodes,
    Sinusoids,
    image_set,
    make_source,
)
from sharpmaml.data.episodes import SPLITS, raw_bits
from sharpmaml.data.feed import AHEAD, AHEAD_IMAGES
from sharpmaml.data.images import Normalization


def tensors(episode):
    return (episode.support_x, episode.support_y, episode.query_x, episode.query_y)


def same(one, other):
    pairs = list(zip(tensors(one), tensors(other), strict=True))
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def stacked(source, first, count):
    episodes = [source.episode(i) for i in range(first, first + count)]
    return Episode(*(torch.stack(column) for column in zip(*map(tensors, episodes), strict=True)))


@pytest.fixture(scope="module")
def colour():
    """Twelve classes of nine small colour images, all pixels random."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 9, 3, 6, 6), dtype=np.uint8)
    splits = {name: np.arange(11 - 4 * i, 7 - 4 * i, -1) for i, name in enumerate(SPLITS)}
    names = tuple(map(str, range(12)))
    made = image_set("colour", images, np.zeros(12, np.int64), ("",), names, splits)
    channels = Normalization((0.1, 0.5, 0.7), (0.3, 0.25, 0.2))
    return dataclasses.replace(made, normalization=channels)


def by_the_book(images, split, seed, index, ways, shots, queries, turns):
    """Support and query pixels of an episode in float64, class by class."""
    bits = raw_bits(seed, split, index)
    base = images.splits[split]
    chosen = sorted(enumerate(bits.random_raw(len(base) * turns)), key=lambda pair: pair[1])
    support, query = [], []
    instances = images.images.shape[1]
    for number, _ in chosen[:ways]:
        keys = bits.random_raw(instances)
        for place, drawing in enumerate(np.argsort(keys)[: shots + queries]):
            picture = images.images[base[number // turns], drawing].reshape(images.image_shape)
            turned = np.stack([np.rot90(channel, number % turns) for channel in picture])
            (support if place < shots else query).append(turned / 255)
    return np.stack(support), np.stack(query)


@pytest.mark.parametrize("rotations", [False, True])
def test_an_episode_is_what_the_protocol_says(colour, rotations):
    source = ImageEpisodes(colour, "train", 3, 2, 4, seed=5, rotations=rotations)
    mean, std = (np.array(n)[:, None, None] for n in ((0.1, 0.5, 0.7), (0.3, 0.25, 0.2)))
    for index in range(4):
        episode = source.episode(index)
        found = by_the_book(colour, "train", 5, index, 3, 2, 4, 4 if rotations else 1)
        for pixels, expected in zip((episode.support_x, episode.query_x), found, strict=True):
            assert np.allclose(pixels.numpy(), (expected - mean) / std, atol=1e-6)
        assert episode.support_y.tolist() == [0, 0, 1, 1, 2, 2]


SOURCES = {
    "drawings": lambda strokes, colour: ImageEpisodes(strokes, ways=3, queries=2, rotations=True),
    "colour": lambda strokes, colour: ImageEpisodes(colour, "val", 4, 3, 5, seed=2),
    "turned": lambda strokes, colour: ImageEpisodes(
        colour, "train", 5, 1, 2, rotations=True, shift="rotate90", label_noise=0.4
    ),
    "inverted": lambda strokes, colour: ImageEpisodes(colour, "test", 2, 1, 2, shift="invert"),
    "sinusoid": lambda strokes, colour: Sinusoids(shots=10, queries=10, seed=3),
    "frequency": lambda strokes, colour: Sinusoids(shots=5, queries=7, shift="frequency"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_batch_is_its_episodes(strokes, colour, name):
    source = SOURCES[name](strokes, colour)
    for first, count in ((0, 1), (3, 2), (5, 40)):
        expected = stacked(source, first, count)
        assert same(source.batch(first, count), expected)
        assert all(t.is_contiguous() for t in tensors(source.batch(first, count)))


@pytest.mark.parametrize("name", SOURCES)
def test_a_feed_is_its_source(strokes, colour, name):
    source = SOURCES[name](strokes, colour)
    feed = Feed(source)
    # In order, back, over the end of a block, and far away.
    for first, count in ((0, 25), (25, 25), (50, 90), (140, 2), (0, 3), (AHEAD - 2, 5), (10**6, 4)):
        assert same(feed.batch(first, count), source.batch(first, count)), (first, count)
    double = Feed(source, dtype=torch.float64).batch(4, 12)
    assert same(double, source.batch(4, 12).to(dtype=torch.float64))


def test_a_feed_reads_ahead_only_in_order(colour):
    source = ImageEpisodes(colour, ways=2, queries=2)
    feed = Feed(source)
    with mock.patch.object(source, "draws", wraps=source.draws) as draws:
        for step in range(AHEAD_IMAGES // 8):
            feed.batch(8 * step, 8)
        assert [call.args for call in draws.call_args_list] == [(0, AHEAD_IMAGES)]
        feed.batch(10_000, 8)
        assert draws.call_args.args == (10_000, 8)
        feed.batch(10_008, 8)
        assert draws.call_args.args == (10_008, AHEAD_IMAGES)


def test_a_feed_holds_its_split_as_bytes(colour):
    plain = Feed(ImageEpisodes(colour, "val", 2, 1, 1))._images._pixels
    assert (plain.dtype, plain.shape) == (torch.uint8, (4 * 9, 3 * 6 * 6))
    turned = Feed(ImageEpisodes(colour, "train", 2, 1, 1, rotations=True))._images._pixels
    assert turned.shape == (4 * 4 * 9, 3 * 6 * 6)


def test_every_byte_is_divided_alike():
    images = np.arange(256, dtype=np.uint8).reshape(1, 2, 1, 8, 16)
    splits = {"train": np.arange(1), "val": np.arange(0), "test": np.arange(0)}
    made = image_set("bytes", images, np.zeros(1, np.int64), ("",), ("a",), splits)
    source = ImageEpisodes(made, "train", 1, 1, 1)
    assert same(Feed(source).batch(0, 2), source.batch(0, 2))


def test_shapes_are_told(strokes, colour):
    assert ImageEpisodes(strokes).image_shape == (1, 28, 28)
    assert ImageEpisodes(colour, ways=2, queries=2).image_shape == (3, 6, 6)
    assert make_source("sinusoid").image_shape is None


def test_a_negative_index_is_refused(colour):
    for source in (ImageEpisodes(colour, ways=2, queries=2), Sinusoids()):
        for supply in (source, Feed(source)):
            with pytest.raises(DataError, match="index -1"):
                supply.batch(-1, 2)
