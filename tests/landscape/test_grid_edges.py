"""Where the points of a grid are, counted by hand: beyond both ends of a line, and around points named."""

import numpy as np
import pytest
import torch

from landscape import Plane
from landscape.grid import axis, order

ORIGIN = torch.zeros(2, dtype=torch.float64)


def plane(kind, *alphas):
    marks = [{"alpha": alpha, "beta": 0.0} for alpha in alphas]
    return Plane(ORIGIN, torch.eye(2, dtype=torch.float64), {"kind": kind, "marks": marks})


@pytest.mark.parametrize(
    "points, beyond", [(2, 0), (4, 0), (5, 1), (8, 1), (9, 2), (12, 2), (13, 3), (51, 12)]
)
def test_a_quarter_of_a_line_lies_beyond_either_end(points, beyond):
    grid, ends = axis(plane("interpolation"), None, points)
    between = points - 1 - 2 * beyond
    expected = [(i - beyond) / between for i in range(points)]
    assert grid.tolist() == expected and ends == (expected[0], expected[-1])
    assert expected[beyond] == 0 and expected[beyond + between] == 1


@pytest.mark.parametrize(
    "alphas, points, below, steps",
    [
        ((0, 1), 4, 1, 1),
        ((0, 1), 9, 1, 5),
        ((0, 1), 11, 2, 6),  # seven steps would need one point more
        ((0, 1), 21, 3, 14),
        ((0, 1), 22, 3, 15),  # a whole number of steps, but for rounding
        ((0, 1), 29, 4, 20),
        ((0, 1, 3), 20, 3, 4),
        ((0, 1, 3), 21, 4, 4),  # two to spare, one on each side
        ((0, 1, 3), 22, 3, 5),
        ((0, 5), 18, 3, 2),  # three to spare, one of them below
        ((0, 5), 21, 5, 2),
        ((-1, 0, 1), 15, 7, 5),
    ],
)
def test_around_points_named(alphas, points, below, steps):
    grid, ends = axis(plane("through", *alphas), None, points)
    expected = [(i - below) / steps for i in range(points)]
    assert grid.tolist() == expected and ends == (expected[0], expected[-1])
    reach = 0.2 * (max(alphas) - min(alphas)) - 1e-9
    assert expected[0] <= min(alphas) - reach and expected[-1] >= max(alphas) + reach


def test_too_few_points_to_meet_them_all():
    grid, ends = axis(plane("through", 0, 10), None, 10)
    np.testing.assert_allclose(grid, np.linspace(-2, 12, 10), rtol=1e-14)
    assert ends == (-2, 12)


def test_a_span_of_ones_own():
    grid, ends = axis(plane("random"), 0.3, 4)
    assert grid.tolist() == (-grid[::-1]).tolist() and ends == (-0.3, 0.3)
    assert axis(plane("random"), None, 3)[0].tolist() == [-1, 0, 1]
    assert axis(plane("interpolation"), (1, 4), 4)[0].tolist() == [1, 2, 3, 4]
    assert axis(plane("through", 0, 1), 2.0, 3)[0].tolist() == [-2, 0, 2]


def test_smallest_grids_in_order():
    assert order((1,)) == [(0,)]
    assert order((2,)) == [(0,), (1,)]
    assert order((3, 3))[0] == (1, 1) and sorted(order((3, 3))) == [
        (i, j) for i in range(3) for j in range(3)
    ]


@pytest.mark.parametrize(
    "points, expected",
    [
        (4, [1, 2, 0, 3]),
        (8, [3, 4, 2, 5, 1, 6, 0, 7]),  # too small for a coarse lattice: by distance alone
        (10, [4, 6, 2, 8, 0, 5, 3, 7, 1, 9]),  # every second point around the centre, then the rest
    ],
)
def test_an_even_number_of_points_in_order(points, expected):
    assert [index for (index,) in order((points,))] == expected
