import numpy as np
import pytest

from sharpmaml.data import DataError, load_images
from sharpmaml.data.strokes import NOISE, build_strokes, noise_levels


def test_shape_range_and_ink(strokes):
    classes = len(strokes.class_names)
    assert strokes.images.shape == (classes, 20, 28, 28)
    assert strokes.images.dtype == np.uint8
    assert strokes.images.max(axis=(2, 3)).min() > 100  # nothing empty
    assert 0.06 < strokes.images.mean() / 255 < 0.085  # Omniglot has 0.081
    assert np.bincount(strokes.alphabet).min() >= 14
    assert np.bincount(strokes.alphabet).max() <= 50
    assert len(set(strokes.class_names)) == classes


def test_same_seed_same_bits(strokes):
    again = build_strokes(4, seed=0, difficulty=1.25)
    assert np.array_equal(again.images, strokes.images)
    assert again.fingerprint == strokes.fingerprint
    assert build_strokes(4, seed=1, difficulty=1.25).fingerprint != strokes.fingerprint


def test_first_alphabets_do_not_depend_on_later_ones(strokes):
    fewer = build_strokes(3, seed=0, difficulty=1.25)
    assert np.array_equal(fewer.images, strokes.images[: len(fewer.images)])
    assert fewer.class_names == strokes.class_names[: len(fewer.images)]


@pytest.mark.parametrize("alphabets", [3, 4, 8])
def test_splits_are_whole_alphabets(alphabets):
    made = build_strokes(alphabets, seed=2, difficulty=1.0)
    sides = [set(made.alphabet[made.splits[name]].tolist()) for name in ("train", "val", "test")]
    assert all(sides)
    assert sum(map(len, sides)) == alphabets == len(set.union(*sides))
    assert sorted(np.concatenate(list(made.splits.values()))) == list(range(len(made.images)))


def test_drawers_differ_and_classes_differ_more(strokes):
    x = strokes.images.reshape(*strokes.images.shape[:2], 14, 2, 14, 2).mean(axis=(3, 5))
    x = x.reshape(len(x), 20, -1)
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    within = np.einsum("cip,cjp->cij", x, x)
    assert (within[:, 0, 1:] < 0.999).all()
    means = x.mean(axis=1)
    correct = (
        np.einsum("cip,kp->cik", x, means).argmax(axis=2) == np.arange(len(x))[:, None]
    ).mean()
    assert 0.3 < correct < 0.95  # of 166 classes: neither noise nor trivial


def test_difficulty_is_noise():
    def spread(difficulty):
        images = build_strokes(3, seed=0, difficulty=difficulty).images / 255.0
        return images.std(axis=1).mean()

    assert spread(0.5) < spread(1.0) < spread(1.5)


def test_noise_is_linear_between_and_beyond_the_measured_columns():
    for column, difficulty in enumerate((1.0, 1.25, 1.5)):
        levels = noise_levels(difficulty)
        assert levels == pytest.approx({name: figures[column] for name, figures in NOISE.items()})
    assert noise_levels(1.125)["rotation"] == pytest.approx(0.115)
    assert noise_levels(0.5)["offset"] == pytest.approx(0.009)
    assert min(noise_levels(0.5).values()) > 0
    assert noise_levels(2.0)["scale_low"] < noise_levels(2.0)["scale_mean"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"alphabets": 2}, "at least 3"),
        ({"seed": -1}, "seed -1"),
        ({"difficulty": 0.1}, "0.5 to 2"),
        ({"difficulty": float("nan")}, "0.5 to 2"),
    ],
)
def test_settings_out_of_range(option, message):
    with pytest.raises(DataError, match=message):
        load_images("strokes", **option)
