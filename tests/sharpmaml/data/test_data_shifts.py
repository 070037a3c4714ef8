"""Domain shifts and label noise change what they say, and nothing else."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpmaml.data import DataError, ImageEpisodes, Sinusoids, image_set, make_source
from sharpmaml.data.episodes import SPLITS

SMALL = {"alphabets": 4}


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("shift", "turns"), [("rotate90", 1), ("rotate180", 2), ("rotate270", 3)])
def test_a_turn_turns_every_image(strokes, split, shift, turns):
    arguments = {"split": split, "ways": 3, "queries": 2, "rotations": True}
    plain = ImageEpisodes(strokes, **arguments).batch(0, 6)
    turned = ImageEpisodes(strokes, **arguments, shift=shift).batch(0, 6)
    for name in ("support_x", "query_x"):
        expected = torch.rot90(getattr(plain, name), turns, (-2, -1))
        assert torch.equal(getattr(turned, name), expected)
    assert torch.equal(plain.query_y, turned.query_y)


def test_inversion_exchanges_ink_and_paper(strokes):
    plain = ImageEpisodes(strokes, "val", 3).episode(4)
    inverted = ImageEpisodes(strokes, "val", 3, shift="invert").episode(4)
    bytes_of = [(255 * e.query_x).round().int() for e in (plain, inverted)]
    assert torch.equal(bytes_of[1], 255 - bytes_of[0])


def test_sinusoid_shifts_leave_the_rest_alone():
    for shift in ("amplitude", "phase", "frequency"):
        plain = Sinusoids(shots=40, queries=40, seed=1).batch(0, 60)
        other = Sinusoids(shots=40, queries=40, seed=1, shift=shift).batch(0, 60)
        assert torch.equal(plain.support_x, other.support_x)
        assert torch.equal(plain.query_x, other.query_x)
        assert not torch.equal(plain.query_y, other.query_y)


def fitted(source, index, frequency):
    """Amplitude and phase of a task of known frequency, and the largest residual, by least squares."""
    episode = source.episode(index)
    x, y = (torch.cat(pair)[:, 0].double().numpy() for pair in (
        (episode.support_x, episode.query_x), (episode.support_y, episode.query_y)))  # fmt: skip
    basis = np.stack([np.sin(frequency * x), -np.cos(frequency * x)], axis=1)
    (c, s), *_ = np.linalg.lstsq(basis, y, rcond=None)
    return np.hypot(c, s), np.arctan2(s, c) % (2 * np.pi), np.abs(basis @ (c, s) - y).max()


RANGES = {
    "none": ((0.1, 5), (0, np.pi)),
    "amplitude": ((5, 10), (0, np.pi)),
    "phase": ((0.1, 5), (np.pi, 2 * np.pi)),
}


@pytest.mark.parametrize("shift", RANGES)
def test_sinusoids_have_the_stated_ranges(shift):
    source = Sinusoids(shots=20, queries=20, shift=shift)
    found = np.array([fitted(source, i, 1.0) for i in range(200)])
    assert found[:, 2].max() < 1e-5
    for column, (low, high) in zip(found.T, RANGES[shift], strict=False):
        assert low - 1e-4 < column.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < column.max() < high + 1e-4


def test_the_shifted_frequency_has_the_stated_range():
    source = Sinusoids(shots=40, queries=40, shift="frequency")
    grid = np.linspace(1.3, 2.2, 46)
    best = [grid[np.argmin([fitted(source, i, w)[2] for w in grid])] for i in range(25)]
    assert 1.49 <= min(best) < 1.6
    assert 1.9 < max(best) <= 2.01


@pytest.fixture(scope="module")
def plain_set():
    images = np.zeros((10, 20, 28, 28), dtype=np.uint8)
    images[:, :, 0, 0] = np.arange(10)[:, None]
    images[:, :, 0, 1] = np.arange(20)
    splits = {"train": np.arange(8), "val": np.array([8]), "test": np.array([9])}
    return image_set("plain", images, np.zeros(10, np.int64), ("",), tuple("abcdefghij"), splits)


@settings(max_examples=60, deadline=None)
@given(
    ways=st.integers(2, 8),
    shots=st.integers(1, 6),
    share=st.floats(0.01, 1),
    seed=st.integers(0, 2**40),
    index=st.integers(0, 2**40),
)
def test_exactly_the_share_of_support_labels_is_wrong(plain_set, ways, shots, share, seed, index):
    wrong = round(share * ways * shots)
    arguments = (plain_set, "train", ways, shots, 3, seed)
    if not wrong:
        with pytest.raises(DataError, match="rounds to none"):
            ImageEpisodes(*arguments, label_noise=share)
        return
    source = ImageEpisodes(*arguments, label_noise=share)
    plain, noisy = ImageEpisodes(*arguments).episode(index), source.episode(index)
    assert source.wrong_labels == wrong
    assert int((plain.support_y != noisy.support_y).sum()) == wrong
    assert noisy.support_y.min() >= 0
    assert noisy.support_y.max() < ways
    assert torch.equal(plain.support_x, noisy.support_x)
    assert torch.equal(plain.query_x, noisy.query_x)
    assert torch.equal(plain.query_y, noisy.query_y)


def test_wrong_labels_are_uniform(plain_set):
    noisy = ImageEpisodes(plain_set, "train", 4, 5, 1, label_noise=0.3)
    labels = noisy.batch(0, 3000).support_y
    right = torch.arange(4).repeat_interleave(5)
    wrong = labels != right
    assert wrong.sum(1).unique().tolist() == [6]
    # 3000 * 6 / 20 = 900 at every place, each of the 3 other classes a third of a class's 4500
    assert (wrong.float().mean(0) - 0.3).abs().max() < 0.04
    for label in range(4):
        chosen = labels[(right == label) & wrong]
        share = torch.bincount(chosen, minlength=4) / len(chosen)
        others = [n for n in range(4) if n != label]
        assert share[label] == 0
        assert (share[others] - 1 / 3).abs().max() < 0.03


def test_noise_is_the_episodes_own(plain_set):
    noisy = ImageEpisodes(plain_set, "train", 4, 5, 1, label_noise=0.3)
    assert torch.equal(noisy.episode(8).support_y, noisy.episode(8).support_y)
    assert not torch.equal(noisy.episode(8).support_y, noisy.episode(9).support_y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"data": "sinusoid", "label_noise": 0.2},
            "label_noise is 0.2 but sinusoid has no classes",
        ),
        ({"data": "sinusoid", "shift": "invert"}, "'invert'.*none, amplitude, phase, frequency"),
        ({"data": "strokes", "shift": "phase"}, "'phase'.*none, rotate90.*invert"),
        ({"data": "strokes", "label_noise": -0.1}, "label_noise is -0.1"),
        ({"data": "strokes", "label_noise": 1.5}, "label_noise is 1.5"),
        ({"data": "strokes", "label_noise": float("nan")}, "label_noise is nan"),
        ({"data": "strokes", "label_noise": 0.2, "ways": 1, "shots": 5}, "no wrong class"),
        ({"data": "strokes", "label_noise": 0.05}, "of 5 support labels.* at least 0.2"),
    ],
)
def test_wrong_settings_are_named(arguments, message):
    options = {"options": SMALL} if arguments["data"] == "strokes" else {}
    with pytest.raises(DataError, match=message):
        make_source(**arguments, **options)


def test_quarter_turns_need_squares():
    splits = {name: np.arange(3) for name in SPLITS}
    wide = image_set("wide", np.zeros((3, 4, 1, 6, 8), np.uint8), np.zeros(3, np.int64), ("",),
                     ("a", "b", "c"), splits)  # fmt: skip
    for wrong in ({"shift": "rotate90"}, {"shift": "rotate270"}, {"rotations": True}):
        with pytest.raises(DataError, match="6x8"):
            ImageEpisodes(wide, "train", 2, 1, 1, **wrong)
    for right in ({"shift": "rotate180"}, {"shift": "invert"}):
        source = ImageEpisodes(wide, "train", 2, 1, 1, **right)
        assert source.episode(0).query_x.shape == (2, 1, 6, 8)


@pytest.mark.parametrize(
    "arguments",
    [
        {"data": "strokes", "options": SMALL, "shift": "rotate90", "label_noise": 0.2},
        {"data": "sinusoid", "shift": "frequency"},
    ],
)
def test_recipes_keep_shift_and_noise(arguments):
    source = make_source(**arguments, seed=2)
    again = make_source(**json.loads(json.dumps(source.recipe)))
    assert again.recipe == source.recipe
    one, other = source.episode(3), again.episode(3)
    assert torch.equal(one.support_x, other.support_x)
    assert torch.equal(one.query_y, other.query_y)
    assert torch.equal(one.support_y, other.support_y)


def test_recipes_without_are_as_they_were():
    drawn = make_source("strokes", options=SMALL).recipe
    assert set(drawn) == {
        "data", "split", "ways", "shots", "queries", "seed", "root", "rotations", "options",
    }  # fmt: skip
    assert set(make_source("sinusoid").recipe) == {"data", "split", "shots", "queries", "seed"}
