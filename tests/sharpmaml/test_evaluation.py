"""Scores over seeded episodes: the same tasks for every checkpoint, an interval, paired differences."""

import numpy as np
import pytest

from sharpmaml.evaluation import Evaluation, evaluate

SETTINGS = {
    "data": "strokes", "split": "test", "episode_seed": 0, "ways": 5, "shots": 1, "queries": 5, "episodes": 4
}  # fmt: skip


def test_interval_is_the_normal_one():
    scores = np.array([0.2, 0.4, 0.6, 0.8])
    result = Evaluation("accuracy", scores, SETTINGS)
    assert result.mean == pytest.approx(0.5)
    assert result.ci95 == pytest.approx(1.959964 * np.std(scores, ddof=1) / 2, rel=1e-6)


def test_paired_difference_removes_what_tasks_share():
    base = np.array([0.1, 0.5, 0.9, 0.7])
    one, other = (Evaluation("accuracy", base + shift, SETTINGS) for shift in (0.05, 0.0))
    mean, ci = one.difference(other)
    assert mean == pytest.approx(0.05) and ci == pytest.approx(0, abs=1e-12)
    assert one.ci95 > 0.2


def test_other_episodes_are_not_paired():
    one = Evaluation("accuracy", np.zeros(4), SETTINGS)
    with pytest.raises(ValueError, match="episode_seed is 0 and 1"):
        one.difference(Evaluation("accuracy", np.zeros(4), {**SETTINGS, "episode_seed": 1}))


def test_same_seed_same_scores_and_splits_apart(images_run):
    one, again, other = (evaluate(images_run, episodes=6, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one.scores, again.scores) and not np.array_equal(one.scores, other.scores)
    assert not np.array_equal(one.scores, evaluate(images_run, episodes=6, split="train").scores)
    assert one.metric == "accuracy" and one.settings["inner_steps"] == 3


def test_another_data_set(images_run):
    glyphs = evaluate(images_run, episodes=3, data="glyphs")
    assert glyphs.settings["data"] == "glyphs"
    assert not np.array_equal(glyphs.scores, evaluate(images_run, episodes=3).scores)
