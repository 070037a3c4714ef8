import numpy as np
import pytest
import torch

from sharpmaml.data import DataError, make_source


def test_shapes_and_types():
    episode = make_source("sinusoid", shots=10, queries=7).episode(0)
    assert episode.support_x.shape == episode.support_y.shape == (10, 1)
    assert episode.query_x.shape == episode.query_y.shape == (7, 1)
    assert {t.dtype for t in vars(episode).values()} == {torch.float32}
    assert make_source("sinusoid").kind == "regression"


def test_points_lie_on_one_sine_of_the_family():
    source = make_source("sinusoid", shots=30, queries=30, seed=1)
    amplitudes, phases, points = [], [], []
    for index in range(300):
        episode = source.episode(index)
        x = torch.cat([episode.support_x, episode.query_x]).double().numpy()
        y = torch.cat([episode.support_y, episode.query_y]).double().numpy()
        # a sin(x - p) = (a cos p) sin x - (a sin p) cos x: two unknowns, sixty equations
        design = np.concatenate([np.sin(x), -np.cos(x)], axis=1)
        solution, residual, *_ = np.linalg.lstsq(design, y[:, 0], rcond=None)
        assert residual[0] < 1e-9
        amplitudes.append(np.hypot(*solution))
        phases.append(np.arctan2(solution[1], solution[0]))
        points.append(x)
    assert 0.1 <= min(amplitudes) < 0.3 and 4.8 < max(amplitudes) <= 5.0
    assert 0 <= min(phases) < 0.1 and 3.0 < max(phases) <= np.pi
    assert -5 <= np.min(points) < -4.9 and 4.9 < np.max(points) <= 5
    assert np.mean(amplitudes) == pytest.approx(2.55, abs=0.3)
    assert np.mean(phases) == pytest.approx(np.pi / 2, abs=0.2)


def test_streams():
    def points(split, seed, index):
        return make_source("sinusoid", split=split, seed=seed).episode(index).query_x.tolist()

    assert points("train", 0, 3) == points("train", 0, 3)
    different = [points(*which) for which in (("train", 0, 3), ("train", 0, 4), ("train", 1, 3),
                                              ("val", 0, 3), ("test", 0, 3))]  # fmt: skip
    assert all(a != b for i, a in enumerate(different) for b in different[:i])


def test_wrong_settings():
    with pytest.raises(DataError, match="shots is 0"):
        make_source("sinusoid", shots=0)
    with pytest.raises(DataError, match="'dev'"):
        make_source("sinusoid", split="dev")
    with pytest.raises(DataError, match="no option 'amplitude'"):
        make_source("sinusoid", options={"amplitude": 3})
