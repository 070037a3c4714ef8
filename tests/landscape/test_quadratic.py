"""The quadratic model along the axes of a plane."""

import json
import math

import numpy as np
import pytest
import torch
from problems import conv_objective, full_hessian, normal

import landscape
from landscape.directions import Plane
from landscape.objective import FunctionObjective
from landscape.quadratic import QuadraticModel, quadratic_from_slopes, quadratic_model


def test_against_the_dense_hessian():
    objective = conv_objective()
    plane = landscape.random_plane(objective, seed=3)
    found = quadratic_model(objective, plane)
    g, h = objective.gradient(objective.theta), full_hessian(objective)
    d1, d2 = plane.basis
    np.testing.assert_allclose(found.slope, [g @ d1, g @ d2], rtol=1e-9)
    np.testing.assert_allclose(found.curvature, [d1 @ h @ d1, d2 @ h @ d2], rtol=1e-9)
    assert found.mixed == pytest.approx(float(d1 @ h @ d2))
    assert found.loss == pytest.approx(float(objective.value(objective.theta)))


def test_slopes_give_the_same_model_and_the_surface_agrees():
    objective = conv_objective()
    plane = landscape.random_plane(objective, seed=3)
    surface = landscape.evaluate(objective, plane, points=9, span=0.05, slopes=True)
    direct, kept = quadratic_model(objective, plane), quadratic_from_slopes(surface)
    for name in ("loss", "slope", "curvature"):
        np.testing.assert_allclose(getattr(kept, name), getattr(direct, name), rtol=1e-9)
    assert math.isnan(kept.mixed)
    for i, one in enumerate(direct.agreement(surface)):
        assert one.axis == ("alpha", "beta")[i]
        assert one.difference == pytest.approx(direct.curvature[i], rel=1e-4)
        assert one.slope_difference == pytest.approx(direct.slope[i], rel=1e-4, abs=1e-6)
        assert one.agrees and "disagree" not in one.text()
    wrong = QuadraticModel(direct.loss, direct.slope, tuple(2 * c for c in direct.curvature))
    assert not any(one.agrees for one in wrong.agreement(surface))
    assert "disagree" in wrong.agreement(surface)[0].text()


def test_the_error_of_the_differences_bounds_what_they_are_off():
    steep = FunctionObjective(lambda t: torch.cosh(3 * t[0]), torch.zeros(1, dtype=torch.float64))
    plane = Plane(steep.theta, torch.ones(1, 1, dtype=torch.float64))
    for points in (9, 17, 33):
        surface = landscape.evaluate(steep, plane, points=points)
        (one,) = quadratic_model(steep, plane).agreement(surface)
        assert one.curvature == pytest.approx(9)
        assert abs(one.difference - 9) <= one.uncertainty
        assert one.agrees


def test_a_kink_at_the_centre_disagrees():
    kinked = FunctionObjective(lambda t: t[0].abs() + t[0] ** 2, torch.zeros(1).double())
    plane = Plane(kinked.theta, torch.ones(1, 1, dtype=torch.float64))
    surface = landscape.evaluate(kinked, plane, points=21)
    (one,) = quadratic_model(kinked, plane).agreement(surface)
    assert one.difference - 2 > 10  # 1 / h
    assert one.text().startswith("along alpha: curvature 2 by derivatives")


def test_the_model_is_written_to_the_file(tmp_path):
    bowl = FunctionObjective(lambda t: t[0] + 3 * t[0] ** 2 + t[1] ** 2, torch.zeros(2).double())
    plane = Plane(bowl.theta, torch.eye(2, dtype=torch.float64))
    surface = quadratic_model(bowl, plane).attached(landscape.evaluate(bowl, plane, points=5))
    landscape.save(surface, tmp_path / "s.nc")
    found = json.loads(landscape.load(tmp_path / "s.nc").attrs["quadratic"])
    assert (found["slope"], found["curvature"], found["mixed"]) == ([1, 0], [6, 2], 0)
    assert [one["axis"] for one in found["agreement"]] == ["alpha", "beta"]
    assert [one["difference"] for one in found["agreement"]] == pytest.approx([6, 2])


def test_where_the_centre_is_not_on_the_grid():
    bowl = FunctionObjective(lambda t: (t * t).sum(), torch.zeros(2).double())
    plane = Plane(bowl.theta, torch.eye(2, dtype=torch.float64))
    even = landscape.evaluate(bowl, plane, points=6, slopes=True)
    with pytest.raises(ValueError, match="odd number of points"):
        quadratic_from_slopes(even)
    line = Plane(bowl.theta, normal(1, 2))
    few = landscape.evaluate(bowl, line, points=3)
    assert quadratic_model(bowl, line).agreement(few) == []
    with pytest.raises(ValueError, match="slopes=True"):
        quadratic_from_slopes(few)
    unfinished = landscape.evaluate(bowl, line, points=5, slopes=True)
    unfinished["evaluated"].values[2] = 0
    with pytest.raises(ValueError, match="not evaluated yet"):
        quadratic_from_slopes(unfinished)
    assert quadratic_model(bowl, line).agreement(unfinished) == []
