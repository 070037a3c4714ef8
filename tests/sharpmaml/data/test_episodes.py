import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpmaml.data import (
    NAMES,
    DataError,
    ImageEpisodes,
    image_set,
    load_images,
    make_source,
)
from sharpmaml.data.episodes import SPLITS

SMALL = {"alphabets": 4}


def tensors(episode):
    return (episode.support_x, episode.support_y, episode.query_x, episode.query_y)


def numpy_state():
    return str(np.random.get_state(legacy=False))  # noqa: NPY002, the global one is meant


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


@pytest.fixture(scope="module")
def labelled():
    """A set whose every drawing says which class and drawer it is: corner pixels hold the ids."""
    images = np.zeros((12, 20, 28, 28), dtype=np.uint8)
    images[:, :, 0, 0] = 1 + np.arange(12)[:, None]
    images[:, :, 0, 1] = 1 + np.arange(20)
    alphabet = np.repeat(np.arange(3), 4)
    splits = {name: np.arange(4 * i, 4 * i + 4) for i, name in enumerate(SPLITS)}
    names = tuple(map(str, range(12)))
    return image_set("labelled", images, alphabet, ("a", "b", "c"), names, splits)


def identify(x):
    """Class and drawer of the labelled set's drawings, from the floats of an episode."""
    ids = (x[:, 0, 0, :2] * 255).round().long() - 1
    return ids[:, 0], ids[:, 1]


def test_shapes_types_and_range(strokes):
    episode = ImageEpisodes(strokes, "train", ways=3, shots=2, queries=4).episode(0)
    assert episode.support_x.shape == (6, 1, 28, 28)
    assert episode.query_x.shape == (12, 1, 28, 28)
    assert episode.support_y.tolist() == [0, 0, 1, 1, 2, 2]
    assert episode.query_y.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert episode.support_x.dtype == torch.float32
    assert episode.support_y.dtype == torch.int64
    assert episode.support_x.min() == 0
    assert 0.9 < episode.query_x.max() <= 1


@settings(max_examples=60, deadline=None)
@given(
    ways=st.integers(1, 4),
    shots=st.integers(1, 19),
    queries=st.integers(1, 19),
    seed=st.integers(0, 2**40),
    index=st.integers(0, 2**40),
    split=st.sampled_from(SPLITS),
)
def test_classes_and_drawings_are_distinct(labelled, ways, shots, queries, seed, index, split):
    if shots + queries > 20:
        with pytest.raises(DataError, match=f"{shots} \\+ {queries}"):
            ImageEpisodes(labelled, split, ways, shots, queries, seed)
        return
    episode = ImageEpisodes(labelled, split, ways, shots, queries, seed).episode(index)
    support_class, support_drawer = identify(episode.support_x)
    query_class, query_drawer = identify(episode.query_x)
    assert episode.support_x.shape == (ways * shots, 1, 28, 28)
    assert episode.query_x.shape == (ways * queries, 1, 28, 28)
    assert len(support_class.unique()) == ways
    for label in range(ways):
        in_support, in_query = episode.support_y == label, episode.query_y == label
        classes = torch.cat([support_class[in_support], query_class[in_query]]).unique()
        assert len(classes) == 1  # one label, one class, on both sides
        assert classes.item() in labelled.splits[split]
        drawers = torch.cat([support_drawer[in_support], query_drawer[in_query]])
        assert len(drawers.unique()) == shots + queries


def test_an_episode_is_a_pure_function_of_recipe_and_index(strokes):
    source = ImageEpisodes(strokes, "train", seed=3)
    seventh = source.episode(7)
    before = numpy_state(), torch.get_rng_state()
    source.episode(0)
    assert same(source.episode(7), seventh)
    assert same(ImageEpisodes(strokes, "train", seed=3).episode(7), seventh)
    assert not same(source.episode(8), seventh)
    assert not same(ImageEpisodes(strokes, "train", seed=4).episode(7), seventh)
    assert numpy_state() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_episode_draws_are_the_same_on_every_platform(labelled):
    rows, _, drawings = ImageEpisodes(labelled, "train", ways=3, seed=1).draw(2)
    # Written down once: a change here breaks the resuming of every run made before it.
    assert rows.tolist() == [2, 0, 1]
    assert drawings[:, :4].tolist() == [[0, 4, 14, 6], [13, 0, 3, 12], [6, 3, 9, 18]]


def test_splits_are_different_streams(labelled):
    streams = {
        split: [ImageEpisodes(labelled, split, ways=3).draw(i)[2].tolist() for i in range(5)]
        for split in SPLITS
    }
    assert streams["train"] != streams["val"] != streams["test"] != streams["train"]


def test_every_class_and_drawing_is_used(labelled):
    source = ImageEpisodes(labelled, "val", ways=2, shots=1, queries=1)
    draws = [source.draw(i) for i in range(200)]
    assert {int(row) for rows, _, _ in draws for row in rows} == {4, 5, 6, 7}
    first = np.bincount([int(d) for _, _, drawn in draws for d in drawn[:, 0]], minlength=20)
    assert first.min() > 0
    assert first.max() < 60  # 20 expected of 400


def test_rotations_multiply_training_classes_only(labelled):
    assert ImageEpisodes(labelled, "train", ways=5, rotations=True).classes == 16
    assert ImageEpisodes(labelled, "train", ways=4, rotations=False).classes == 4
    for split in ("val", "test"):
        source = ImageEpisodes(labelled, split, ways=4, rotations=True)
        assert source.classes == 4
        assert all(not source.draw(i)[1].any() for i in range(10))


def test_a_rotated_class_holds_turned_drawings(labelled):
    source = ImageEpisodes(labelled, "train", ways=16, shots=1, queries=2, rotations=True)
    rows, turns, drawings = source.draw(0)
    assert sorted(zip(rows.tolist(), turns.tolist(), strict=True)) == [
        (row, turn) for row in range(4) for turn in range(4)
    ]
    query = source.episode(0).query_x.reshape(16, 2, 28, 28)
    for way in range(16):
        upright = torch.from_numpy(labelled.images[rows[way], drawings[way, 2]] / 255.0).float()
        assert torch.equal(query[way, 1], torch.rot90(upright, int(turns[way])))


def test_to_changes_floats_only(strokes):
    episode = ImageEpisodes(strokes).episode(0)
    double = episode.to("cpu", torch.float64)
    assert double.support_x.dtype == double.query_x.dtype == torch.float64
    assert double.support_y.dtype == double.query_y.dtype == torch.int64
    assert torch.equal(double.query_x.float(), episode.query_x)
    assert episode.to("meta").query_y.device.type == "meta"


def test_drawings_are_protected(strokes):
    with pytest.raises(ValueError, match="read-only"):
        strokes.images[0] = 0
    episode = ImageEpisodes(strokes).episode(0)
    episode.support_x.zero_()  # a user's own copy
    assert ImageEpisodes(strokes).episode(0).support_x.max() > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ways": 5}, "ways is 5 .* 4 classes"),
        ({"ways": 17, "rotations": True, "split": "train"}, "ways is 17 .* 16 classes"),
        ({"shots": 10, "queries": 11}, "10 \\+ 11 = 21 .* 20 drawings"),
        ({"ways": 0}, "ways is 0"),
        ({"shots": 0}, "shots is 0"),
        ({"queries": -1}, "queries is -1"),
        ({"seed": -1}, "seed -1"),
        ({"split": "valid"}, "'valid'.*train, val, test"),
    ],
)
def test_wrong_settings_are_named(labelled, wrong, message):
    settings = {"split": "test", "ways": 2, **wrong}
    with pytest.raises(DataError, match=message):
        ImageEpisodes(labelled, **settings)


def test_a_negative_index_is_refused(labelled):
    with pytest.raises(DataError, match="index -1"):
        ImageEpisodes(labelled, ways=2).episode(-1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"data": "strokes", "split": "val", "ways": 4, "queries": 3, "options": SMALL, "seed": 9},
        {"data": "strokes", "rotations": True, "options": SMALL},
        {"data": "sinusoid", "shots": 10, "seed": 5},
    ],
)
def test_a_recipe_survives_json_and_rebuilds_the_source(arguments):
    source = make_source(**arguments)
    recipe = json.loads(json.dumps(source.recipe))
    again = make_source(**recipe)
    assert again.recipe == source.recipe
    assert same(again.episode(11), source.episode(11))


def test_strokes_are_not_rotated_unless_asked():
    assert make_source("strokes", options=SMALL).recipe["rotations"] is False
    assert make_source("strokes", options=SMALL, rotations=True).recipe["rotations"] is True


def test_images_are_loaded_once():
    first = load_images("strokes", alphabets=4)
    assert load_images("strokes", alphabets=4, seed=0) is first
    assert load_images("strokes", alphabets=4, seed=1) is not first


def test_unknown_names_and_options():
    assert NAMES == (
        "strokes", "glyphs", "omniglot", "sinusoid", "miniimagenet", "cifarfs", "folder",
    )  # fmt: skip
    with pytest.raises(DataError, match=r"'mnist'.*strokes, glyphs, omniglot, sinusoid"):
        make_source("mnist")
    with pytest.raises(DataError, match="no images"):
        load_images("sinusoid")
    with pytest.raises(DataError, match=r"no option 'alphabet'.*alphabets, seed, difficulty"):
        load_images("strokes", alphabet=4)
    with pytest.raises(DataError, match=r"alphabets of strokes is '4'.*int"):
        load_images("strokes", alphabets="4")
    with pytest.raises(DataError, match="none at all"):
        load_images("glyphs", size=3)
    with pytest.raises(DataError, match="rotations"):
        make_source("sinusoid", rotations=True)


def test_fingerprint_sees_pixels_and_splits(labelled):
    def remade(images, splits):
        return image_set(
            "x", images, labelled.alphabet, ("a", "b", "c"), labelled.class_names, splits
        ).fingerprint

    assert remade(labelled.images, labelled.splits) == labelled.fingerprint
    pixel = labelled.images.copy()
    pixel[3, 4, 5, 6] ^= 1
    assert remade(pixel, labelled.splits) != labelled.fingerprint
    moved = {**labelled.splits, "train": np.arange(5), "val": np.arange(5, 8)}
    assert remade(labelled.images, moved) != labelled.fingerprint
