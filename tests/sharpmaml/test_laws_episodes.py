"""Laws of episodes: pure functions of a recipe and an index, distinct draws, turns, stated ranges; strokes."""

import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from laws import examples

from sharpmaml.data.episodes import SPLITS
from sharpmaml.data.image_episodes import ImageEpisodes
from sharpmaml.data.images import image_set
from sharpmaml.data.sinusoid import AMPLITUDE, PHASE, SHIFTS, Sinusoids
from sharpmaml.data.strokes import build_strokes

SEEDS = st.integers(0, 2**40)
INDICES = st.integers(0, 2**40)
TURNS = {"none": 0, "rotate90": 1, "rotate180": 2, "rotate270": 3}


def tensors(episode):
    return episode.support_x, episode.support_y, episode.query_x, episode.query_y


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def labelled():
    """Twelve classes of eight drawings: two pixels tell class and drawer, the rest which way is up."""
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 28, 28), dtype=np.uint8)
    images[:, :, 0, 0], images[:, :, 0, 1] = np.arange(12)[:, None], np.arange(8)
    splits = {name: np.arange(4 * i, 4 * i + 4) for i, name in enumerate(SPLITS)}
    alphabet = np.repeat(np.arange(3), 4)
    return image_set(
        "labelled", images, alphabet, ("a", "b", "c"), tuple(map(str, range(12))), splits
    )


SET = labelled()


@st.composite
def sources(draw, **options):
    shots, queries = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    made = {
        "split": draw(st.sampled_from(SPLITS)),
        "shots": shots,
        "queries": queries,
        "seed": draw(SEEDS),
    }
    if draw(st.booleans()):
        return lambda **more: Sinusoids(**made, **more)
    ways = draw(st.integers(1, 4))
    return lambda **more: ImageEpisodes(SET, ways=ways, **made, **more)


@examples(40)
@given(sources(), st.lists(INDICES, min_size=1, max_size=4), st.integers(0, 3))
def test_an_episode_is_a_pure_function_of_recipe_and_index(make, indices, ahead):
    """Whatever was asked for before, in whatever order, alone or in a batch, by this source or by another."""
    source, other = make(), make()
    first = {i: source.episode(i) for i in indices}
    for i in reversed(indices):
        assert same(source.episode(i), first[i]) and same(other.episode(i), first[i])
    start = max(0, indices[0] - ahead)
    whole = other.batch(start, ahead + 2)
    for k in range(ahead + 2):
        alone = source.episode(start + k)
        assert all(
            torch.equal(t[k], a) for t, a in zip(tensors(whole), tensors(alone), strict=True)
        )


@examples(40)
@given(SEEDS, INDICES, st.integers(1, 2**20))
def test_seeds_splits_and_indices_are_streams_of_their_own(seed, index, more):
    made = [
        Sinusoids(split, 3, 3, s).episode(i)
        for split, s, i in (
            ("train", seed, index), ("val", seed, index), ("test", seed, index),
            ("train", seed + more, index), ("train", seed, index + more),
        )
    ]  # fmt: skip
    points = [tuple(e.support_x.flatten().tolist()) for e in made]
    assert len(set(points)) == len(points)


@examples(40)
@given(SEEDS, INDICES, st.sampled_from(SHIFTS), st.sampled_from(SPLITS), st.integers(1, 20))
def test_sinusoids_lie_in_their_ranges_on_one_sine(seed, index, shift, split, shots):
    source = Sinusoids(split, shots, 5, seed, shift=shift)
    episode, plain = source.episode(index), Sinusoids(split, shots, 5, seed).episode(index)
    assert torch.equal(
        episode.support_x, plain.support_x
    )  # a shift moves what it names and no more
    x = torch.cat([episode.support_x, episode.query_x]).double()[:, 0]
    y = torch.cat([episode.support_y, episode.query_y]).double()[:, 0]
    assert float(x.abs().max()) <= 5
    if shift == "frequency":
        return
    # y = a sin(x - p) is linear in (a cos p, -a sin p).
    basis = torch.stack([x.sin(), x.cos()], 1)
    solved, values = (
        torch.linalg.lstsq(basis, y[:, None]).solution[:, 0],
        torch.linalg.svdvals(basis),
    )
    assume(float(values[-1]) > 1e-2)
    assert float((basis @ solved - y).abs().max()) < 1e-4
    amplitude = float(solved.norm())
    phase = float(torch.atan2(-solved[1], solved[0])) % (2 * np.pi)
    low, high = (5.0, 10.0) if shift == "amplitude" else AMPLITUDE
    assert low - 1e-3 <= amplitude <= high + 1e-3
    if amplitude > 0.5:
        low, high = (np.pi, 2 * np.pi) if shift == "phase" else PHASE
        inside = low - 1e-2 <= phase <= high + 1e-2
        assert inside or abs(phase - 2 * np.pi) < 1e-2 or phase < 1e-2


@examples(20)
@given(SEEDS, INDICES, st.sampled_from(SPLITS), st.sampled_from(sorted(TURNS)), st.integers(1, 4))
def test_shifts_of_images_are_turns_and_mirrors_of_the_grey_scale(seed, index, split, shift, ways):
    """Of the same drawings; a half turn is two quarter turns; to invert twice is nothing; the range is [0, 1]."""

    def images(which):
        episode = ImageEpisodes(SET, split, ways, 2, 3, seed, shift=which).episode(index)
        return torch.cat([episode.support_x, episode.query_x])

    plain = images("none")
    assert torch.equal(images(shift), torch.rot90(plain, TURNS[shift], dims=(2, 3)))
    torch.testing.assert_close(images("invert"), 1 - plain)
    assert float(plain.min()) >= 0 and float(plain.max()) <= 1


@examples(30)
@given(SEEDS, INDICES, st.integers(1, 16))
def test_rotated_classes_are_turns_of_training_classes(seed, index, ways):
    """Four times as many classes; every drawing is one of the set, turned as its class is."""
    source = ImageEpisodes(SET, "train", ways, 1, 2, seed, rotations=True)
    assert source.classes == 16
    episode = source.episode(index)
    x, y = (
        torch.cat([episode.support_x, episode.query_x]),
        torch.cat([episode.support_y, episode.query_y]),
    )
    kinds = set()
    for label in range(ways):
        found = set()
        for image in x[y == label]:
            for turn in range(4):
                back = (
                    (torch.rot90(image[0], -turn, dims=(0, 1)) * 255)
                    .round()
                    .to(torch.uint8)
                    .numpy()
                )
                drawn = SET.images[back[0, 0] % 12, back[0, 1] % 8]
                if np.array_equal(back, np.asarray(drawn).reshape(28, 28)):
                    assert back[0, 0] in SET.splits["train"]
                    found.add((int(back[0, 0]), turn))
        assert len(found) == 1
        kinds |= found
    assert len(kinds) == ways


@examples(3)
@given(st.integers(0, 2**20), st.integers(2, 3), st.sampled_from([0.5, 1.0, 1.25, 1.5]))
def test_strokes_are_a_pure_function_and_grow_at_the_end(seed, alphabets, difficulty):
    """Fewer alphabets are the first of more of them, bit for bit; splits are whole alphabets; ink is thin."""
    few, more = (build_strokes(n, seed, difficulty) for n in (alphabets - 1, alphabets))
    assert np.array_equal(few.images, more.images[: len(few.images)])
    assert np.array_equal(build_strokes(alphabets - 1, seed, difficulty).images, few.images)
    used = [set(np.asarray(more.alphabet)[rows].tolist()) for rows in more.splits.values()]
    assert sum(map(len, used)) == len(set().union(*used)) == alphabets
    counts = np.bincount(more.alphabet)
    assert counts.min() >= 14 and counts.max() <= 50
    assert 0.02 < float(more.images.mean()) / 255 < 0.25
