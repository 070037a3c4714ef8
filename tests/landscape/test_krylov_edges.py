"""What a search concludes from a single run of Lanczos, by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from problems import quadratic, symmetric

from landscape.directions import random_plane
from landscape.krylov.calibration import choose_method
from landscape.krylov.extremes import extremes
from landscape.krylov.lanczos import Complement, Search
from landscape.krylov.wanted import Wanted, best_first
from landscape.operators.symmetric import MatrixOperator
from landscape.spectra import along_training as along
from landscape.spectra import plane_map
from landscape.spectra.density import density


@pytest.mark.parametrize(("sign", "bounds"), [(1, (-20.0, math.inf)), (-1, (-math.inf, 20.0))])
@pytest.mark.parametrize(("bound", "may_pass"), [(1.75, True), (1.8, False), (1.6, True)])
def test_a_ritz_value_may_pass_a_bound_by_its_error(sign, bounds, bound, may_pass):
    """``[[0, 1], [1, 1]]``: the Ritz value 1.618 has the error 0.2 · 0.851 = 0.170."""
    low, high = (bounds[0], bound) if sign > 0 else (-bound, bounds[1])
    run = Complement(50, (low, high), [0.0, sign * 1.0], [1.0, 0.2])
    assert run.suspicious() == may_pass


def test_a_ritz_value_nearer_to_its_first_quotient_is_not_suspected():
    assert not Complement(50, (-20.0, 3.4), [0.0, 1.0], [1.0, 9.0]).suspicious()
    assert Complement(50, (-20.0, 3.2), [0.0, 1.0], [1.0, 9.0]).suspicious()


def test_in_one_dimension_all_of_the_start_is_its_eigenvector():
    assert Complement(1, (-0.5, 0.5)).chance == 1.0
    assert Complement(1, (-0.5, 0.5), [0.0], [1.0]).chance == 0.0  # it is not beyond the bounds
    assert Complement(1, (-0.05, 0.05), [0.0], [1.0]).chance == 1.0
    assert Complement(9, (-0.5, 0.5), [0.0], [0.0]).chance == 0.0
    assert Complement(9, (-math.inf, math.inf), [0.0], [1.0]).chance == 0.0
    # Of 3 dimensions the share of one coordinate is below x with probability √x.
    assert Complement(3, (-math.inf, 0.5), [0.0], [1.0]).chance == pytest.approx(math.sqrt(0.8))


@pytest.mark.parametrize("seed", [0, 7])
def test_searches_start_where_the_seed_says(monkeypatch, seed):
    """Of maps and of training: the point, or the step, is the rest of the key."""
    objective = quadratic(symmetric([3.0, 1.0, -2.0], 0))
    asked = []

    def noted(operator, *args, **options):
        asked.append((options["seed"], options["key"]))
        return extremes(operator, *args, **options)

    monkeypatch.setattr(plane_map, "extremes", noted)
    monkeypatch.setattr(along, "extremes", noted)
    plane = random_plane(objective, "none", seed=0)
    plane_map.curvature_map(objective, plane, points=2, seed=seed)
    assert sorted(asked) == [(seed, (i, j)) for i in (0, 1) for j in (0, 1)]
    asked.clear()
    along.along_training([(5, objective.theta)], 1, objective=objective, seed=seed)
    assert asked == [(seed, 5)]


@pytest.mark.parametrize("width", [1e-3, 0.5, 1.0])
def test_a_density_may_be_as_narrow_as_one_likes(width):
    matrix = MatrixOperator(symmetric([1.0, 2.0, 3.0, 4.0], 0))
    assert density(matrix, steps=3, outliers=0, width=width).width == width


@pytest.mark.parametrize("which", ["LA", "SA", "LM", "BE"])
def test_equal_eigenvalues_stay_in_their_order(which):
    values = np.repeat([1.0, 3.0, -3.0, 2.0], 50)
    found = best_first(values, which)
    assert sorted(found.tolist()) == list(range(200))
    if which == "BE":
        falling = sorted(range(200), key=lambda i: -values[i])
        assert found[::2].tolist() == falling[:100] and found[1::2].tolist() == falling[:99:-1]
    else:
        key = {"LA": values, "SA": -values, "LM": np.abs(values)}[which]
        assert found.tolist() == sorted(range(200), key=lambda i: -key[i])


@pytest.mark.parametrize(
    ("which", "now", "moved"),
    [("LM", -3.0, False), ("LA", -3.0, True), ("LA", 3.05, False), ("LM", 3.2, True)],
)
def test_of_opposite_eigenvalues_either_may_come_first(which, now, moved):
    search = SimpleNamespace(
        wanted=SimpleNamespace(which=which), _accepted=lambda pairs: np.array([0.1])
    )
    before, after = (SimpleNamespace(values=np.array([value])) for value in (3.0, now))
    assert Search._moved(search, before, after) == moved


@pytest.mark.parametrize(
    ("which", "k", "copies"), [("BE", 2, False), ("BE", 3, True), ("LA", 2, True), ("LA", 1, False)]
)
def test_a_second_copy_needs_two_of_one_end(which, k, copies):
    assert Wanted(k, which, 1e-3, torch.float64).repeatable == copies


def test_a_calibration_says_what_it_measured():
    found = choose_method(MatrixOperator(symmetric([float(i) for i in range(20)], 0)), k=5)
    assert found.single > 0 and found.block > 0
