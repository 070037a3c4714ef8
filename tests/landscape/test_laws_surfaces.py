"""Laws of objectives over data and of their surfaces: means over examples, restrictions, symmetries, units."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from laws import SCALES, SEEDS, classifiers, close, examples, matrices, relu_stack, vector
from problems import normal, quadratic
from torch import nn

from landscape.barriers import barrier
from landscape.contrast import surface_difference
from landscape.data_objective import DataObjective
from landscape.directions import Plane, interpolation, random_plane
from landscape.merge_tree import merge_tree
from landscape.objective import FunctionObjective, standard_error
from landscape.operators.hessian import HessianOperator
from landscape.quadratic import quadratic_from_slopes, quadratic_model
from landscape.surface import evaluate

LOSSES = st.sampled_from(["cross_entropy", "mse_loss"])


def surface_of(objective, plane, span=1.0, points=5, **options):
    return evaluate(objective, plane, span=span, points=points, executor="plain", **options)


@st.composite
def data_sets(draw):
    """A network, 1 to 12 examples, a loss, and the same data in another order."""
    n, seed, loss = draw(st.integers(1, 12)), draw(SEEDS), draw(LOSSES)
    x = normal(n, 3, seed=seed)
    y = normal(n, 2, seed=seed + 1) if loss == "mse_loss" else torch.arange(seed, seed + n) % 2
    model = relu_stack([3, 3, 2], seed, nn.Tanh)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(n))
    return model, (x, y), (x[order], y[order]), order, loss


@examples(40)
@given(data_sets(), st.integers(1, 13), st.integers(1, 13), SEEDS)
def test_batches_and_their_order_do_not_matter(made, one_size, other_size, seed):
    """Loss, terms, metrics, gradient and Hessian are means over examples, whatever the last batch holds."""
    model, data, mixed, order, loss = made
    one = DataObjective(model, data, loss=loss, batch_size=one_size)
    two = DataObjective(model, mixed, loss=loss, batch_size=other_size)
    theta, v = one.theta + normal(len(one.theta), seed=seed), normal(len(one.theta), seed=seed + 1)
    close(two.losses(theta), one.losses(theta)[order], 1e-12)
    close(one.losses(theta).mean(), one.value(theta), 1e-12)
    found, expected = two.metrics(theta), one.metrics(theta)
    assert found == pytest.approx(expected, rel=1e-10, nan_ok=True)
    terms = one.losses(theta).detach()
    assert expected["loss_stderr"] == pytest.approx(standard_error(terms), rel=1e-9, nan_ok=True)
    if len(terms) > 1:
        by_hand = float(terms.numpy().std(ddof=1)) / math.sqrt(len(terms))
        assert standard_error(terms) == pytest.approx(by_hand, rel=1e-12, abs=1e-300)
    close(two.gradient(theta), one.gradient(theta), 1e-11, 1e-15)
    close(two.hvp(theta, v), one.hvp(theta, v), 1e-10, 1e-15)
    images = [HessianOperator(o, theta) @ v for o in (one, two)]
    close(images[1], images[0], 1e-10, 1e-15)
    close(images[0], one.hvp(theta, v), 1e-10, 1e-15)


@examples(25)
@given(data_sets(), st.integers(1, 11), SEEDS)
def test_the_mean_of_parts_weighs_them_by_their_examples(made, cut, seed):
    model, (x, y), _, _, loss = made
    assume(cut < len(x))
    whole, *parts = (
        DataObjective(model, data, loss=loss)
        for data in ((x, y), (x[:cut], y[:cut]), (x[cut:], y[cut:]))
    )
    theta = whole.theta + normal(len(whole.theta), seed=seed)
    weights = [cut / len(x), 1 - cut / len(x)]
    for quantity in ("value", "gradient"):
        mean = sum(w * getattr(o, quantity)(theta) for w, o in zip(weights, parts, strict=True))
        close(getattr(whole, quantity)(theta).detach(), mean.detach(), 1e-11, 1e-15)


@st.composite
def functions(draw):
    """A smooth function that is no polynomial, and a plane."""
    size, seed = draw(st.integers(1, 6)), draw(SEEDS)
    matrix, w = normal(size, size, seed=seed), normal(size, seed=seed + 1)
    made = FunctionObjective(lambda t: torch.sin(matrix @ t).sum() + (t**2 / (1 + t**2)).sum(), w)
    return made, Plane(w, normal(2, size, seed=seed + 2))


@examples(30)
@given(functions(), st.floats(0.1, 3), st.integers(2, 6))
def test_a_point_of_a_surface_is_the_loss_there(made, span, points):
    objective, plane = made
    found = surface_of(objective, plane, span, points)
    for i, beta in enumerate(found["beta"].values):
        for j, alpha in enumerate(found["alpha"].values):
            assert float(found["loss"][i, j]) == float(objective.value(plane.point(alpha, beta)))
    close(found["alpha"].values, np.linspace(-span, span, points), 1e-14)


@examples(30)
@given(functions(), st.floats(0.1, 3))
def test_a_line_of_a_plane_is_the_curve_along_it(made, span):
    """To the bit: the surface at beta = 0 is the curve of the first direction alone, and so on."""
    objective, plane = made
    whole = surface_of(objective, plane, span)
    for axis, other in (("alpha", "beta"), ("beta", "alpha")):
        row = plane.basis[["alpha", "beta"].index(axis)]
        curve = surface_of(objective, Plane(plane.origin, row[None]), span)
        np.testing.assert_array_equal(whole["loss"].sel({other: 0.0}).values, curve["loss"].values)


@examples(30)
@given(functions(), st.floats(0.1, 2), st.sampled_from([0.01, 3.0, 1e4]))
def test_axes_may_be_exchanged_turned_and_measured_in_other_units(made, span, unit):
    objective, plane = made
    loss = surface_of(objective, plane, span)["loss"].values
    swapped = Plane(plane.origin, plane.basis.flip(0))
    close(surface_of(objective, swapped, span)["loss"].values, loss.T, 1e-13)
    turned = Plane(plane.origin, plane.basis * torch.tensor([[-1.0], [1.0]]))
    np.testing.assert_array_equal(surface_of(objective, turned, span)["loss"].values, loss[:, ::-1])
    longer = Plane(plane.origin, plane.basis * unit)
    close(surface_of(objective, longer, span / unit)["loss"].values, loss, 1e-9)


@examples(30)
@given(functions(), SCALES, st.floats(-3, 3))
def test_a_surface_follows_the_unit_of_the_loss(made, scale, shift):
    objective, plane = made
    loss = surface_of(objective, plane)["loss"].values
    other = FunctionObjective(lambda t: scale * (objective.value(t) + shift), objective.theta)
    close(surface_of(other, plane)["loss"].values, scale * (loss + shift), 1e-13, 1e-13 * scale)


@examples(30)
@given(matrices(), SEEDS, SCALES)
def test_the_surface_of_a_quadratic_is_its_quadratic_model(matrix, seed, scale):
    """Slopes, curvatures and the mixed term by derivatives are those of the surface, without an error."""
    size = len(matrix)
    objective = quadratic(scale * matrix, normal(size, seed=seed))
    plane = Plane(objective.theta, normal(2, size, seed=seed + 1))
    model = quadratic_model(objective, plane)
    x, y = plane.basis
    g = scale * matrix @ objective.theta
    close(model.slope, [x @ g, y @ g], 1e-10, 1e-14 * scale)
    close(
        (*model.curvature, model.mixed),
        [v @ (scale * matrix) @ w for v, w in ((x, x), (y, y), (x, y))],
        1e-10,
        1e-14 * scale,
    )
    found = surface_of(objective, plane, slopes=True)
    a, b = np.meshgrid(found["alpha"].values, found["beta"].values)
    p, q = model.slope
    r, s = model.curvature
    exact = model.loss + p * a + q * b + 0.5 * (r * a**2 + s * b**2) + model.mixed * a * b
    close(found["loss"].values, exact, 1e-10, 1e-13 * scale)
    close(quadratic_from_slopes(found).curvature, model.curvature, 1e-10, 1e-14 * scale)
    close(found["slope_alpha"].values, p + r * a + model.mixed * b, 1e-9, 1e-13 * scale)


@examples(30)
@given(SEEDS, st.floats(-1, 1), st.sampled_from([math.nan, math.inf]))
def test_losses_that_are_not_finite_stay_where_they_are(seed, edge, value):
    plane = Plane(torch.zeros(2).double(), torch.eye(2).double())
    objective = FunctionObjective(lambda t: torch.where(t[0] > edge, value, t.sum()), plane.origin)
    found = surface_of(objective, plane)
    beyond = np.broadcast_to(found["alpha"].values > edge, (5, 5))
    np.testing.assert_array_equal(np.isfinite(found["loss"].values), ~beyond)
    assert found["evaluated"].values.all()


@examples(25)
@given(functions(), functions(), SCALES)
def test_differences_of_surfaces_are_antisymmetric_and_follow_the_unit(first, second, scale):
    (f, plane), (other, _) = first, second
    g = FunctionObjective(lambda t: on_the_first(other, t), f.theta)

    def of(objective, factor):
        scaled = FunctionObjective(lambda t: factor * objective.value(t), f.theta)
        return surface_of(scaled, plane)

    one = surface_difference(of(f, 1.0), of(g, 1.0))
    back = surface_difference(of(g, 1.0), of(f, 1.0))
    large = surface_difference(of(f, scale), of(g, scale))
    for name in ("difference", "rise_difference"):
        np.testing.assert_array_equal(back[name].values, -one[name].values)
        close(large[name].values, scale * one[name].values, 1e-11, 1e-12 * scale)


def on_the_first(objective, t):
    """A function of another number of parameters, on the first of these."""
    size = len(objective.theta)
    return objective.value(torch.cat([t, t.new_zeros(size)])[:size])


@examples(30)
@given(st.lists(st.floats(-5, 5), min_size=3, max_size=12), SCALES, st.floats(-3, 3))
def test_a_barrier_follows_the_unit_of_the_loss_and_does_not_see_who_is_first(values, scale, shift):
    line = interpolation(quadratic(torch.eye(1)), torch.zeros(1), torch.ones(1))
    table = torch.tensor(values).double()

    def curve(t):
        return table[(t[0] * (len(values) - 1)).round().long().clamp(0, len(values) - 1)]

    def of(function):
        objective = FunctionObjective(function, torch.zeros(1).double())
        return barrier(surface_of(objective, line, (0, 1), len(values)))

    one, back = of(curve), of(lambda t: curve(1 - t))
    large = of(lambda t: scale * (curve(t) + shift))
    for name in ("height", "above_line"):
        if hasattr(one, name):
            assert getattr(back, name) == pytest.approx(getattr(one, name), rel=1e-9, abs=1e-12)
            assert getattr(large, name) == pytest.approx(
                scale * getattr(one, name), rel=1e-9, abs=1e-11 * scale
            )


@examples(30)
@given(st.integers(1, 6), st.integers(1, 6), SEEDS, SCALES, st.sampled_from([4, 8]))
def test_persistence_follows_the_unit_of_the_loss(rows, columns, seed, scale, connectivity):
    values = np.random.default_rng(seed).integers(-4, 5, (rows, columns)).astype(float)
    one, large = merge_tree(values, connectivity), merge_tree(scale * values, connectivity)
    assert one == large  # branches are named by their cells
    assert min(values.ravel()[b.minimum] for b in one) == values.min()
    assert sum(b.saddle is None for b in one) == 1


@examples(25)
@given(classifiers(), SEEDS)
def test_interpolations_are_symmetric_and_straight(objective, seed):
    a, b = objective.theta, vector(len(objective.theta), seed + 50_000)
    there, back = (
        surface_of(objective, interpolation(objective, *ends), (0, 1)) for ends in ((a, b), (b, a))
    )
    close(back["loss"].values[::-1], there["loss"].values, 1e-9)
    on = [float(objective.value(a + s * (b - a))) for s in there["alpha"].values]
    close(there["loss"].values, on, 1e-12)


@examples(20)
@given(classifiers(), SEEDS, st.booleans())
def test_a_surface_leaves_the_objective_as_it_was(objective, seed, orthogonal):
    theta, state = (
        objective.theta.clone(),
        {k: v.clone() for k, v in objective.module.state_dict().items()},
    )
    random = torch.get_rng_state()
    plane = random_plane(objective, "layer", seed=seed, orthogonal=orthogonal)
    found = surface_of(objective, plane, points=3)
    assert torch.equal(objective.theta, theta) and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(v, state[k]) for k, v in objective.module.state_dict().items())
    centre = float(found["loss"].sel(alpha=0, beta=0))
    assert centre == pytest.approx(float(objective.value(theta)), rel=1e-12)
