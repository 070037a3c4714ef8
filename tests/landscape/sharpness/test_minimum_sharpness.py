"""Minimum sharpness and its traces by layer and part, against dense matrices."""

import math

import pytest
import torch
from problems import full_hessian, normal, quadratic, relu_net

from landscape.data_objective import DataObjective
from landscape.directions import generator
from landscape.sharpness.curvature import top
from landscape.sharpness.layers import minimum_sharpness
from landscape.sharpness.measurement import NotApplicable
from landscape.sharpness.point import Point
from landscape.sharpness.probes import deflated_blocks, probed


def classes(n=24, inputs=3, outputs=3):
    return normal(n, inputs, seed=1) + 0.5, torch.arange(n) % outputs


def slopes_in_shares(value, shares):
    """Derivatives of ``value(shares)`` as one share grows at the cost of all."""
    slopes = torch.func.grad(value)(shares)
    return (slopes - shares @ slopes).tolist()


def test_minimum_sharpness_is_that_of_the_best_scales():
    x, y = classes()
    objective = DataObjective(relu_net(3, 5, 4, 3), (x, y), batch_size=8)
    dense = full_hessian(objective).diag()
    blocks = torch.stack(
        [
            piece.sum()
            for name, piece in objective.space.unflatten(dense).items()
            if "weight" in name
        ]
    )
    row = minimum_sharpness(Point(objective), probes=200)
    assert row.value == pytest.approx(3 * float(blocks.prod()) ** (1 / 3), rel=1e-9)
    for scales in ((1.0, 1.0, 1.0), (2.0, 0.5, 1.0), (1.1, 1.0, 1 / 1.1)):  # of product 1
        assert row.value <= float((blocks / torch.tensor(scales) ** 2).sum()) + 1e-9
    few = minimum_sharpness(Point(objective), probes=40)
    assert few.draw_error > 0 and abs(few.value - row.value) < 5 * few.draw_error
    moved = DataObjective(relu_net(3, 5, 4, 3), (x, y), batch_size=8)
    w = {k: t.clone() for k, t in moved.space.unflatten(moved.theta).items()}
    w["0.weight"] *= 4
    w["0.bias"] *= 4
    w["2.weight"] /= 4
    moved.theta = moved.space.flatten(w)
    again = minimum_sharpness(Point(moved), probes=200)
    assert again.value == pytest.approx(row.value, rel=1e-9)


def in_parts(model, x, y, batch_size):
    """The objective, the dense Hessian of each batch, and the shares of the batches."""
    objective = DataObjective(model, (x, y), batch_size=batch_size)
    pieces = [(x[i : i + batch_size], y[i : i + batch_size]) for i in range(0, len(x), batch_size)]
    dense = torch.stack([full_hessian(DataObjective(model, piece)) for piece in pieces])
    shares = torch.tensor([len(piece[1]) for piece in pieces]).double() / len(x)
    return objective, dense, shares


def by_tensor(diagonals, objective):
    pieces = torch.split(diagonals, list(objective.space.sizes), -1)
    return torch.stack([piece.sum(-1) for piece in pieces], -1)


def test_the_traces_of_blocks_by_part():
    objective, dense, shares = in_parts(relu_net(3, 5, 4, 3), *classes(), 9)
    point, size = Point(objective, seed=3), dense.shape[1]
    pairs = top(point, 4, 1e-6)
    v = pairs.vectors
    across = torch.eye(size).double() - v.T @ v
    expected = by_tensor(dense.diagonal(dim1=1, dim2=2), objective)
    before = point.hessian.products
    deflated = deflated_blocks(point, point.hessian, pairs)
    assert point.hessian.products == before + 4
    assert deflated_blocks(point, point.hessian, pairs) is deflated
    whole = probed(point, point.hessian, pairs, size, "hessian")
    assert torch.allclose(deflated + whole.block_parts, expected, atol=1e-9)
    few = probed(point, point.hessian, pairs, 11, "hessian")
    z = [generator(3, "trace", i).integers(0, 2, size, dtype="int8") * 2.0 - 1 for i in range(11)]
    z = torch.stack([torch.from_numpy(each) for each in z])
    forms = (z * (z @ across @ dense)).mean(1)  # (parts, params)
    assert torch.allclose(few.block_parts, by_tensor(forms, objective), atol=1e-9)
    assert torch.allclose(shares @ (deflated + few.block_parts), few.blocks.mean(0), atol=1e-5)
    single = Point(DataObjective(relu_net(3, 5, 4, 3), classes()))
    assert deflated_blocks(single, single.hessian, pairs) is None


def test_the_data_error_of_minimum_sharpness():
    objective, dense, shares = in_parts(relu_net(3, 5, 4, 3), *classes(), 5)
    chosen = [i for i, name in enumerate(objective.space.names) if "weight" in name]
    blocks = by_tensor(dense.diagonal(dim1=1, dim2=2), objective)[:, chosen]

    def value(w):
        return 3 * (w @ blocks).prod() ** (1 / 3)

    expected = slopes_in_shares(value, shares)
    row = minimum_sharpness(Point(objective), probes=200)
    assert row.influence.of == "parts" and row.note == ""
    assert row.influence.terms == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert row.influence.weights == pytest.approx(shares.tolist())
    assert row.stderr == row.data_error > 0
    sampled = minimum_sharpness(Point(objective), probes=40)
    assert sampled.stderr == pytest.approx(math.hypot(sampled.data_error, sampled.draw_error))


def test_the_draws_of_minimum_sharpness_are_its_derivative():
    """Of the mean over the probes, with one probe weighted more."""
    point = Point(DataObjective(relu_net(3, 5, 4, 3), classes(), batch_size=8))
    row = minimum_sharpness(point, probes=40)
    found = probed(point, point.hessian, top(point, 5, 1e-3), 40, "hessian")
    names = point.objective.space.names
    blocks = found.blocks[:, [i for i, name in enumerate(names) if "weight" in name]]

    def value(w):
        return 3 * (w @ blocks).prod() ** (1 / 3)

    shares = torch.full((40,), 1 / 40, dtype=torch.float64)
    assert row.influence.draws == pytest.approx(slopes_in_shares(value, shares), rel=1e-6)


def test_minimum_sharpness_of_a_layer_that_curves_down():
    point = Point(quadratic(torch.diag(torch.tensor([1.0, -3.0]))))
    with pytest.raises(NotApplicable, match="trace of the block of theta is -2"):
        minimum_sharpness(point)
