"""Fisher-Rao norm, relative flatness, edge of stability: closed forms and dense matrices."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from problems import (
    conv_net,
    conv_objective,
    full_hessian,
    images,
    normal,
    quadratic,
    relu_net,
    seeded,
)
from torch import nn

from landscape.data_objective import DataObjective
from landscape.directions import generator
from landscape.objective import FunctionObjective
from landscape.sharpness.curvature import lambda_max
from landscape.sharpness.edge import edge_of_stability
from landscape.sharpness.gradient import gradient_norm, slopes
from landscape.sharpness.head import Head
from landscape.sharpness.layers import _scatter_of_parts, fisher_rao, relative_flatness
from landscape.sharpness.measurement import NotApplicable
from landscape.sharpness.point import Point
from landscape.sharpness.skewness import corrected
from landscape.spectra.dynamics import dynamics
from landscape.spectra.eigenpairs import eigenpairs
from landscape.spectra.stability import Preconditioned, read_optimizer


def classes(n=24, inputs=3, outputs=3):
    return normal(n, inputs, seed=1) + 0.5, torch.arange(n) % outputs


class Wrong(DataObjective):
    """Forward mode sees another function than reverse mode."""

    def losses(self, theta):
        return super().losses(theta) * 2


def gradients(objective, x, y, model):
    rows = []
    for i in range(len(x)):
        single = DataObjective(model, (x[i : i + 1], y[i : i + 1]))
        rows.append(single.gradient(objective.theta))
    return torch.stack(rows)


def test_fisher_rao_is_the_mean_squared_slope():
    objective = conv_objective(batch_size=8)
    each = gradients(objective, *images(), conv_net())
    squares = (each @ objective.theta).square()
    row = fisher_rao(Point(objective))
    assert row.value == pytest.approx(float(squares.mean()), rel=1e-10)
    assert row.stderr == pytest.approx(float(squares.std()) / math.sqrt(30), rel=1e-10)
    assert row.influence.terms == pytest.approx((squares - squares.mean()).tolist())
    assert row.cost == 2  # the slopes, and the gradient that they are compared with


def test_the_interval_of_fisher_rao_reaches_further_up():
    row = fisher_rao(Point(conv_objective(batch_size=8)))
    low, high = row.value - row.interval[0], row.interval[1] - row.value
    assert high > 1.2 * low > 0
    half = 2.04523 * row.stderr  # Student's t, 29 degrees of freedom
    plain = replace(row, interval=(row.value - half, row.value + half))
    assert row.interval == pytest.approx(corrected(plain).interval, rel=1e-4)


def test_fisher_rao_of_a_homogeneous_network():
    """Σ w ∂f/∂w = depth · f, so the slope of the loss along w is depth · ⟨∂ℓ/∂f, f⟩ (Liang et al. 2019)."""
    x, y = classes()
    model = relu_net(3, 5, 4, 3, bias=False)
    out = model(x).detach()
    expected = (3 * ((torch.softmax(out, 1) - F.one_hot(y, 3)) * out).sum(1)).square().mean()
    row = fisher_rao(Point(DataObjective(model, (x, y))))
    assert row.value == pytest.approx(float(expected), rel=1e-10)


def test_slopes_fall_back_to_gradients_one_by_one():
    objective = Wrong(conv_net(), images(8))
    direction = normal(75)
    expected = gradients(objective, *images(8), conv_net()) @ direction
    found = slopes(Point(objective), direction)
    assert torch.allclose(found, expected, rtol=1e-8, atol=1e-10)
    reference = gradient_norm(Point(DataObjective(conv_net(), images(8))))
    row = gradient_norm(Point(objective))
    assert row.stderr == pytest.approx(reference.stderr, rel=1e-8) and row.note == ""
    assert row.cost == pytest.approx(3)  # the gradient, slopes in vain, gradients one by one

    class Raises(DataObjective):
        def losses(self, theta):
            raise NotImplementedError("no forward mode")

    assert fisher_rao(Point(Raises(conv_net(), images(8)))).value == pytest.approx(
        fisher_rao(Point(DataObjective(conv_net(), images(8)))).value, rel=1e-8
    )


def test_slopes_that_cannot_be_had():
    point = Point(Wrong(conv_net(), images(70)))
    with pytest.raises(NotApplicable, match="do not average"):
        fisher_rao(point)
    assert "do not average" in gradient_norm(point).note
    scalar = DataObjective(conv_net(), images(), loss=lambda o, y: F.cross_entropy(o, y))
    with pytest.raises(NotApplicable, match="no terms"):
        fisher_rao(Point(scalar))


def flatness(block, weight, scales=None):
    """``Σ ⟨w_s, w_s'⟩ tr H_{s,s'}`` by its definition, in scaled coordinates."""
    scales = torch.ones_like(weight[0]) if scales is None else scales
    o, m = weight.shape
    h = block.reshape(o, m, o, m) / scales[:, None, None] / scales
    w = weight * scales
    return float(torch.einsum("sktk,st->", h, w @ w.T))


def test_relative_flatness_of_least_squares():
    x, y = normal(40, 6, seed=1), normal(40, 2, seed=2)

    def squares(output, target):
        return (output - target).square().sum(1)

    model = seeded(lambda: nn.Linear(6, 2, bias=False)).double()
    row = relative_flatness(Point(DataObjective(model, (x, y), loss=squares)), scaled=False)
    w = model.weight.detach()
    expected = w.square().sum() * (2 / 40) * x.square().sum()
    assert row.value == pytest.approx(float(expected), rel=1e-10)
    each = w.square().sum() * 2 * x.square().sum(1)
    assert row.stderr == pytest.approx(float(each.std()) / math.sqrt(40), rel=1e-10)
    assert row.cost == pytest.approx(1 / 3) and row.draw_error is None


@pytest.mark.parametrize("scaled", [False, True])
def test_relative_flatness_against_the_dense_block(scaled):
    x, y = classes(outputs=5)
    model = relu_net(3, 6, 5)
    objective = DataObjective(model, (x, y), batch_size=7)
    block = full_hessian(objective)[24:54, 24:54]
    weight = model[2].weight.detach()
    features = model[:2](x).detach()
    spread = features.std(0, correction=0)
    spread = torch.where(spread > 0, spread, 1.0)
    exact = flatness(block, weight, spread if scaled else None)
    point = Point(objective)
    row = relative_flatness(point, scaled=scaled)
    assert row.value == pytest.approx(exact, rel=1e-9)
    assert row.settings["head"] == "2.weight" and row.influence.of == "examples"
    few = relative_flatness(point, draws=4, scaled=scaled)
    assert few.draw_error > 0 and abs(few.value - exact) < 30 * few.draw_error
    many = relative_flatness(Point(objective, seed=3), draws=4, scaled=scaled)
    assert many.value != few.value

    class Twice(nn.Module):  # the output of the head is not that of the network
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            return self.inner(x) * 1.0

    hidden = relative_flatness(
        Point(DataObjective(Twice(), (x, y), batch_size=7)), draws=200, scaled=scaled
    )
    assert hidden.settings["head"] == "inner.2.weight"
    assert abs(hidden.value - exact) < 4 * hidden.draw_error < 0.5 * exact
    assert hidden.influence.of == "parts" and "head take less" in hidden.note


class Hidden(nn.Module):
    """The output of the head is not that of the network."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) * 1.0


def reweighted(model, x, shares, draws=None, products=False):
    """The scaled flatness of softmax regression on the features, each example with its share.

    With ``draws`` the mean of its forms over these random signs, in the way of either path.
    """
    features, weight = model[:-1](x).detach(), model[-1].weight.detach()
    p = torch.softmax(model(x).detach(), 1)
    curvatures = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    s = (shares @ (features - shares @ features) ** 2).sqrt()
    if draws is None:
        q = torch.einsum("oj,iop,pj->i", weight * s, curvatures, weight * s)
        return float(shares @ ((features / s).square().sum(1) * q))
    if products:
        moved = ((weight * s) @ draws / s) @ features.T  # (draws, outputs, examples)
    else:
        lengths = (features / s).square().sum(1).sqrt()
        moved = ((weight * s) @ draws.T).T[:, :, None] * lengths
    return float(torch.einsum("doi,iop,dpi,i->", moved, curvatures, moved, shares)) / len(draws)


def slopes_in_shares(value, groups):
    """Derivatives of ``value(shares)`` towards each row of shares, by central differences."""
    whole, h, found = groups[0], 1e-4, []
    for group in groups[1:]:
        ends = [value(whole + e * (group - whole)) for e in (h, -h, 2 * h, -2 * h)]
        found.append((8 * (ends[0] - ends[1]) - (ends[2] - ends[3])) / (12 * h))
    return found


@pytest.mark.parametrize(("outputs", "draws"), [(3, 64), (6, 64), (6, 2)])
def test_the_influence_on_scaled_flatness_is_that_of_the_weights_of_the_data(outputs, draws):
    """The standard deviations of the inputs move with the data as well."""
    x, y = classes(outputs=outputs)
    model = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, outputs)))
    model = model.double()
    row = relative_flatness(Point(DataObjective(model, (x, y), batch_size=7)), draws=draws)
    fixed = None
    if draws == 2:
        drawn = generator(0, "relative_flatness").integers(0, 2, (2, 4)) * 2.0 - 1.0
        fixed = torch.from_numpy(drawn)
    uniform = torch.full((1, 24), 1 / 24, dtype=torch.float64)
    groups = torch.cat([uniform, torch.eye(24).double()])
    assert row.value == pytest.approx(reweighted(model, x, groups[0], fixed), rel=1e-9)
    expected = slopes_in_shares(lambda shares: reweighted(model, x, shares, fixed), groups)
    assert row.influence.terms == pytest.approx(expected, rel=1e-5, abs=1e-5 * row.value)
    alone = relative_flatness(Point(DataObjective(model, (x, y))), draws=draws, scaled=False)
    assert alone.influence.terms != pytest.approx(expected, rel=0.1)


def test_the_same_by_products_over_batches():
    x, y = classes(outputs=6)
    model = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 6))).double()
    row = relative_flatness(Point(DataObjective(Hidden(model), (x, y), batch_size=7)), draws=10)
    drawn = [
        generator(0, "relative_flatness", i).integers(0, 2, (4, 4)) * 2.0 - 1.0 for i in range(10)
    ]
    fixed = torch.stack([torch.from_numpy(signs) for signs in drawn])
    groups = torch.zeros(5, 24).double()
    groups[0] = 1 / 24
    for i in range(4):  # of 7, 7, 7 and 3
        groups[1 + i, 7 * i : 7 * i + 7] = 1 / (7 if i < 3 else 3)
    assert row.value == pytest.approx(reweighted(model, x, groups[0], fixed, True), rel=1e-9)
    expected = slopes_in_shares(lambda shares: reweighted(model, x, shares, fixed, True), groups)
    assert row.influence.terms == pytest.approx(expected, rel=1e-5, abs=1e-5 * row.value)


def test_parts_count_in_the_spreads_by_their_rows():
    rows, weights = torch.tensor([4.0, 12.0]).double(), torch.tensor([0.5, 0.5]).double()
    squares = torch.tensor([[1.0, 4.0], [3.0, 2.0]]).double()  # means over the rows of each part

    def spread(w, j):
        counts = w / weights * rows
        return float(counts @ squares[:, j] / counts.sum())

    groups = torch.cat([weights[None], torch.eye(2).double()])
    whole = torch.tensor([spread(weights, j) for j in (0, 1)]).double()
    found = _scatter_of_parts(Head("w", rows=rows, scatter=squares / whole), weights)
    for j in (0, 1):
        expected = slopes_in_shares(lambda w, j=j: math.log(spread(w, j)), groups)
        assert found[:, j].tolist() == pytest.approx(expected, rel=1e-6)


def test_scaled_relative_flatness_does_not_see_the_scale_of_neurons():
    x, y = classes()
    one, two = relu_net(3, 5, 3), relu_net(3, 5, 3)
    s = torch.tensor([4.0, 0.5, 2.0, 0.25, 8.0]).double()
    with torch.no_grad():
        two[0].weight.mul_(s[:, None])
        two[0].bias.mul_(s)
        two[2].weight.div_(s)
    values = [
        [relative_flatness(Point(DataObjective(m, (x, y))), scaled=f).value for m in (one, two)]
        for f in (True, False)
    ]
    assert values[0][0] == pytest.approx(values[0][1], rel=1e-9)
    assert abs(values[1][0] / values[1][1] - 1) > 0.1


def test_heads_that_are_none():
    formula = Point(FunctionObjective(lambda t: (t * t).sum(), torch.ones(3)))
    with pytest.raises(NotApplicable, match="no head"):
        relative_flatness(formula)
    x, y = classes()

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(3, 3), nn.Linear(3, 3)
            self.head.weight = self.inner.weight

        def forward(self, x):
            return self.head(torch.relu(self.inner(x)))

    with pytest.raises(NotApplicable, match=r"shares its weight: inner.weight, head.weight"):
        relative_flatness(Point(DataObjective(Tied().double(), (x, y))))
    frozen = relu_net(3, 5, 3)
    frozen[2].requires_grad_(False)
    with pytest.raises(NotApplicable, match="2.weight, is not among"):
        relative_flatness(Point(DataObjective(frozen, (x, y))))
    objective = DataObjective(relu_net(3, 5, 3), (x, y))
    relative_flatness(Point(objective))
    assert not any(m._forward_hooks for m in objective.module.modules())


def test_edge_of_stability_of_closed_forms(tmp_path):
    matrix = torch.diag(torch.tensor([19.0, 2.0, 1.0]))
    point = Point(quadratic(matrix, normal(3)))
    for settings, expected in (
        ({"lr": 0.1}, 19 * 0.1 / 2),
        ({"lr": 0.1, "momentum": 0.9}, 19 * 0.1 / 3.8),
        ({"lr": 0.1, "momentum": 0.9, "nesterov": True}, 19 * 0.1 * 2.8 / 3.8),
        ({"lr": 0.1, "weight_decay": 0.5}, 19.5 * 0.1 / 2),
    ):
        row = edge_of_stability(point, settings)
        assert row.value == pytest.approx(expected, rel=1e-6) and row.data_error == 0
    objective = conv_objective(batch_size=10)
    module = conv_net()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.3)
    torch.save({"model": module.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "c")
    shared = Point(objective)
    top = lambda_max(shared)
    row = edge_of_stability(shared, tmp_path / "c")
    assert row.value == pytest.approx(0.15 * top.value) and row.paid == 0
    assert row.bound == pytest.approx(0.15 * top.bound) and row.influence.of == "parts"
    assert row.settings["optimizer"] == str(tmp_path / "c")


def test_edge_of_stability_under_adam(tmp_path):
    module = conv_net()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(module(images()[0]), images()[1]).backward()
        optimizer.step()
    objective = DataObjective(module.eval(), images(), batch_size=10)
    torch.save({"optimizer": optimizer.state_dict()}, tmp_path / "c.pt")
    v = torch.cat([optimizer.state[p]["exp_avg_sq"].reshape(-1) for p in module.parameters()]) / (
        1 - 0.999**3
    )
    r = (1 / (v.sqrt() + 1e-8) / (1 - 0.9**3)).sqrt()
    dense = r[:, None] * full_hessian(objective) * r
    values = torch.linalg.eigvalsh(dense)
    point = Point(objective)
    row = edge_of_stability(point, tmp_path / "c.pt", tol=1e-6)
    assert row.value == pytest.approx(float(values[-1]) * 0.01 * 0.1 / 3.8, rel=1e-5)
    assert row.data_error > 0
    rule = dynamics(read_optimizer(tmp_path / "c.pt"), objective.space)
    metric = Preconditioned(Point(objective).hessian, rule.scale, rule.decay)
    residual = float(eigenpairs(metric, k=1, which="LA", tol=1e-6).residuals[0])
    assert row.bound == pytest.approx(residual * 0.01 * 0.1 / 3.8, rel=1e-3) and residual > 0
    assert row.cost == pytest.approx(point.hessian.products * point.hessian.product_cost)


def test_edge_of_stability_without_an_optimizer(tmp_path):
    point = Point(conv_objective())
    with pytest.raises(NotApplicable, match="no optimizer state: set optimizer"):
        edge_of_stability(point)
    torch.save({"model": {}}, tmp_path / "c.pt")
    with pytest.raises(NotApplicable, match="holds no optimizer state"):
        edge_of_stability(point, tmp_path / "c.pt")
    with pytest.raises(NotApplicable, match="does not exist"):
        edge_of_stability(point, tmp_path / "none.pt")
