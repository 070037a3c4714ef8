"""Laws of random directions and of planes: normalization, scales, projections, principal components."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from laws import (
    SCALES,
    SEEDS,
    classifiers,
    close,
    examples,
    matrices,
    rescaled_layers,
    vector,
)
from problems import conv_objective, normal, quadratic

from landscape.directions import Plane, generator, random_plane
from landscape.grouping import Grouping, whole
from landscape.normalization import RULES, normalized
from landscape.objective import FunctionObjective
from landscape.pca import pca_plane
from landscape.planes import eigen_plane
from landscape.projection import project
from landscape.space import ParameterSpace
from landscape.surface import evaluate

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


@st.composite
def tensors(draw):
    """Entries drawn, weights and their grouping; weights may be zero, as wholes or by groups."""
    shape = draw(SHAPES)
    within = tuple(i for i in range(len(shape)) if draw(st.booleans()))
    seed, size = draw(SEEDS), math.prod(shape)
    weights = vector(size, seed, draw(st.lists(st.integers(0, size), max_size=size)))
    return normal(*shape, seed=seed + 1), weights.view(shape), Grouping("any", shape, within)


@examples(60)
@given(tensors(), SCALES)
def test_layer_weight_and_none_are_their_formulas(made, scale):
    drawn, weights, grouping = made
    weights = weights * scale
    close(normalized(drawn, weights, "weight", grouping), drawn * weights, 0)
    assert torch.equal(normalized(drawn, weights, "none", grouping), drawn)
    layer = normalized(drawn, weights, "layer", grouping)
    close(layer, drawn * (weights.norm() / drawn.norm()), 1e-14)
    assert float(layer.norm()) == pytest.approx(float(weights.norm()), rel=1e-12)


@examples(60)
@given(tensors(), SCALES, st.sampled_from(RULES))
def test_directions_scale_with_the_weights_and_zero_filters_stay(made, scale, rule):
    """filter, layer, weight: d(cw) = c d(w), exactly where c is a power of two; none: not at all."""
    drawn, weights, grouping = made
    one = normalized(drawn, weights, rule, grouping)
    close(
        normalized(drawn, scale * weights, rule, grouping),
        one * (1 if rule == "none" else scale),
        1e-13,
    )
    if rule == "filter" and grouping.within:
        gone = weights.abs().sum(dim=grouping.within, keepdim=True) == 0
        assert not one[gone.expand_as(one)].any()
    assert bool(one.isfinite().all())


@examples(40)
@given(tensors(), SCALES)
def test_the_filter_rule_does_not_see_the_length_drawn(made, scale):
    drawn, weights, grouping = made
    assume(
        float(drawn.abs().min()) > 1e-2 and scale >= 0.5
    )  # the guard of 1e-10 is an absolute one
    one = normalized(drawn, weights, "filter", grouping)
    close(normalized(scale * drawn, weights, "filter", grouping), one, 1e-7)


@st.composite
def spaces(draw):
    """Named tensors of any shapes with their weights."""
    shapes = draw(st.lists(SHAPES, min_size=1, max_size=4))
    names = draw(st.permutations([f"t{i}" for i in range(len(shapes))]))
    seed = draw(SEEDS)
    return {
        name: normal(*shape, seed=seed + i)
        for i, (name, shape) in enumerate(zip(names, shapes, strict=True))
    }


def objective_on(weights):
    shapes = {name: tuple(w.shape) for name, w in weights.items()}
    space = ParameterSpace(
        names=tuple(shapes),
        shapes=tuple(shapes.values()),
        roles=("weight",) * len(shapes),
        groupings=tuple(whole(s) for s in shapes.values()),
    )
    return FunctionObjective(
        lambda t: (t * t).sum(), torch.cat([w.flatten() for w in weights.values()]), space
    )


@examples(40)
@given(spaces(), SEEDS, st.sampled_from(RULES), st.data())
def test_a_direction_is_a_function_of_seed_axis_and_name(weights, seed, rule, data):
    """Not of the other tensors, nor of their order."""
    some = data.draw(st.lists(st.sampled_from(sorted(weights)), min_size=1, unique=True))
    everything, part = (
        random_plane(objective_on(w), rule, seed=seed)
        for w in (weights, {n: weights[n] for n in some})
    )
    rows = dict(
        zip(weights, everything.basis.split([w.numel() for w in weights.values()], 1), strict=True)
    )
    for name, found in zip(
        some, part.basis.split([weights[n].numel() for n in some], 1), strict=True
    ):
        assert torch.equal(found, rows[name])
    drawn = generator(seed, 1, some[0]).standard_normal(weights[some[0]].shape)
    first = part.basis[1, : drawn.size].numpy()
    if rule == "none":
        np.testing.assert_array_equal(first, drawn.ravel())


@examples(30)
@given(SEEDS, st.sampled_from(["filter", "layer"]), st.booleans())
def test_directions_are_as_long_as_the_weights_that_move(seed, rule, biases):
    """With ‖d‖ = ‖w‖ of the tensors that move, a step of 1 is 100 % of them."""
    objective = conv_objective()
    plane = random_plane(
        objective, rule, ignore=("norm",) if biases else ("bias", "norm"), seed=seed
    )
    moving = [r == "weight" or (biases and r == "bias") for r in objective.space.roles]
    parts = objective.theta.split([math.prod(s) for s in objective.space.shapes])
    length = math.sqrt(
        sum(float(p.square().sum()) for p, m in zip(parts, moving, strict=True) if m)
    )
    assert plane.norms == pytest.approx((length, length), rel=1e-8)
    assert plane.settings["moved_share"] == pytest.approx(
        length / float(objective.theta.norm()), abs=1e-6
    )


@examples(30)
@given(SEEDS, st.integers(20, 400))
def test_independent_directions_are_orthogonal_to_one_over_root_n(seed, size):
    flat = FunctionObjective(lambda t: t.sum(), torch.ones(size, dtype=torch.float64))
    assert abs(random_plane(flat, "none", seed=seed).cosine) < 6.5 / math.sqrt(size)


@examples(15)
@given(
    classifiers(), st.lists(st.sampled_from([1e-3, 0.3, 4.0, 1e3]), min_size=3, max_size=3), SEEDS
)
def test_a_filter_normalized_surface_does_not_see_a_rescaling_of_whole_layers(
    objective, factors, seed
):
    """Of a ReLU network without biases; ‖w_i‖ of every filter of a layer moves by the layer's factor."""
    moved = rescaled_layers(objective, factors)
    one, two = (
        random_plane(objective, "filter", seed=seed, theta=t) for t in (objective.theta, moved)
    )
    surfaces = [evaluate(objective, p, span=1.0, points=3, executor="plain") for p in (one, two)]
    close(surfaces[1]["loss"].values, surfaces[0]["loss"].values, 1e-7)


@examples(30)
@given(SEEDS, st.integers(2, 9), st.floats(-0.9, 0.9), SCALES, SCALES)
def test_a_projection_is_least_squares_and_pythagoras(seed, size, cosine, long, far):
    x, y = normal(2, size, seed=seed)
    across = y - (y @ x) / (x @ x) * x
    assume(float(across.norm()) > 1e-3)
    second = cosine * x / x.norm() + math.sqrt(1 - cosine**2) * across / across.norm()
    plane = Plane(normal(size, seed=seed + 1), torch.stack([long * x, second]))
    theta = plane.origin + far * normal(size, seed=seed + 2)
    found = project(plane, [theta])
    step = (theta - plane.origin).numpy()
    exact = np.linalg.lstsq(plane.basis.numpy().T / [long, 1], step, rcond=None)[0] / [long, 1]
    lengths = np.array(plane.norms)
    close(found.coordinates[0] * lengths, exact * lengths, 1e-9, 1e-9 * float(np.linalg.norm(step)))
    foot = found.coordinates[0] @ plane.basis.numpy()
    total = float(np.linalg.norm(step))
    assert math.hypot(float(np.linalg.norm(foot)), found.residuals[0]) == pytest.approx(
        total, rel=1e-9
    )
    assert found.shares[0] == pytest.approx(found.residuals[0] / total, abs=1e-9)


@st.composite
def paths(draw):
    count, size = draw(st.integers(4, 9)), draw(st.integers(3, 12))
    return normal(count, size, seed=draw(SEEDS))


def spanned(plane):
    """The orthogonal projector on the two directions."""
    q = torch.linalg.qr(plane.basis.T)[0]
    return q @ q.T


@examples(30)
@given(paths(), SEEDS, st.sampled_from([1e-4, 1.0, 1e4]))
def test_principal_components_are_those_of_the_centred_path(path, seed, scale):
    """Shifting all checkpoints, scaling them and reordering all but the last change nothing else."""
    singular = torch.linalg.svdvals(path - path.mean(0))
    assume(float(singular[1] - singular[2]) > 0.05 * float(singular[0]))
    flat = FunctionObjective(lambda t: t.sum(), path[-1])
    plane = pca_plane(flat, path, scale="unit")
    right = torch.linalg.svd(path - path.mean(0))[2][:2]
    close(spanned(plane), right.T @ right, 1e-9)
    shares = (singular**2 / (singular**2).sum())[:2]
    assert plane.settings["variance"] == pytest.approx(shares.tolist(), rel=1e-5)
    assert torch.equal(plane.origin, path[-1])
    order = [*np.random.default_rng(seed).permutation(len(path) - 1), len(path) - 1]
    other = pca_plane(
        flat, (scale * (path + normal(path.shape[1], seed=seed)))[order], scale="unit"
    )
    close(spanned(other), spanned(plane), 1e-8)
    assert other.settings["variance"] == pytest.approx(plane.settings["variance"], rel=1e-5)


@examples(30)
@given(SEEDS, st.integers(3, 10), SCALES)
def test_a_path_in_a_plane_is_recovered(seed, count, scale):
    places = normal(count, 2, seed=seed)
    frame = torch.linalg.qr(normal(7, 2, seed=seed + 1))[0].T
    singular = torch.linalg.svdvals(places - places.mean(0))
    assume(float(singular[1]) > 1e-2 * float(singular[0]))
    path = scale * places @ frame + normal(7, seed=seed + 2) * min(scale, 1.0)
    plane = pca_plane(FunctionObjective(lambda t: t.sum(), path[-1]), path)
    assert sum(plane.settings["variance"]) == pytest.approx(1, abs=1e-5)
    found = project(plane, path)
    assert found.shares.max() < 1e-6
    assert np.abs(found.coordinates).max() == pytest.approx(1)  # the path fills the square


@examples(25)
@given(matrices(2, 6), st.sampled_from([1e-6, 0.1, 10.0]), SEEDS)
def test_a_step_along_an_eigenvector_is_a_rise(matrix, rise, seed):
    values = torch.linalg.eigvalsh(matrix)
    assume(float(values[[0, -1]].abs().min()) > 0.1 and float(values[-1] - values[0]) > 0.1)
    bowl = quadratic(matrix)
    plane = eigen_plane(bowl, which="extremes", rise=rise, seed=seed, tol=1e-8)
    for place, value in (((1, 0), values[-1]), ((0, 1), values[0])):
        assert float(bowl.value(plane.point(*place))) == pytest.approx(
            rise * float(value.sign()), rel=1e-5
        )
    lengths = [math.sqrt(2 * rise / abs(float(v))) for v in values[[-1, 0]]]
    assert plane.norms == pytest.approx(lengths, rel=1e-5)
