import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from problems import (
    conv_net,
    conv_objective,
    images,
    normal,
    quadratic,
    seeded,
    softmax_regression,
    symmetric,
)
from torch import nn

from landscape.data_objective import DataObjective
from landscape.directions import random_plane
from landscape.objective import FunctionObjective
from landscape.sharpness.average import (
    average,
    average_adaptive,
    filter_average,
    layer_relative,
    local_entropy,
)
from landscape.sharpness.draws import perturbation
from landscape.sharpness.measurement import NotApplicable
from landscape.sharpness.point import Point

SPECTRUM = [4.0, 2.0, 1.0, 0.5, -0.5]


def bowl(seed=8, spectrum=SPECTRUM):
    matrix = symmetric(spectrum)
    return quadratic(matrix, normal(len(spectrum), seed=seed)), matrix


def plain(point, z):
    return z


def adaptive(point, z):
    return z * point.theta.abs()


def by_tensor(rule):
    """Direction of a ConvNet, written out tensor by tensor."""

    def direction(point, z):
        made = {}
        weights = point.objective.space.unflatten(point.theta)
        for name, v in point.objective.space.unflatten(z).items():
            w = weights[name]
            if name.startswith("norm") or (rule == "filter" and "bias" in name):
                made[name] = torch.zeros_like(v)
            elif rule == "layer":
                made[name] = v * w.norm() / v.norm()
            else:
                made[name] = torch.stack(
                    [a * b.norm() / a.norm() for a, b in zip(v, w, strict=True)]
                )
        return point.objective.space.flatten(made)

    return direction


CASES = [
    (average, "sigma", plain, 16, [0.01, 0.001, 0.02, 0.05, 0.1]),
    (average_adaptive, "sigma", adaptive, 16, [0.1, 0.01, 0.05, 0.2, 0.4]),
    (filter_average, "radius", by_tensor("filter"), 16, [0.1, 0.25, 0.5, 1.0]),
    (layer_relative, "xi", by_tensor("layer"), 16, [0.5]),
]


@pytest.mark.parametrize(("measure", "key", "direction", "pairs", "radii"), CASES)
def test_every_average_is_that_of_an_explicit_loop(measure, key, direction, pairs, radii):
    objective = conv_objective()
    point = Point(objective, seed=3)
    row = measure(point)
    rows = [row, *row.variants][: len(radii)]
    here = objective.losses(objective.theta)
    for found, radius in zip(rows, radii, strict=True):
        assert found.name == measure.__name__ and found.settings[key] == radius
        assert found.settings["pairs"] == pairs
        samples = []
        for i in range(pairs):
            step = radius * direction(point, point.normal(i))
            both = objective.losses(point.theta + step) + objective.losses(point.theta - step)
            samples.append(both / 2 - here)
        rises = torch.stack(samples)
        assert found.value == pytest.approx(float(rises.mean()), rel=1e-9, abs=1e-14)
        draw = float(rises.mean(1).std()) / math.sqrt(pairs)
        data = float(rises.mean(0).std()) / math.sqrt(30)
        assert found.draw_error == pytest.approx(draw, rel=1e-7)
        assert found.data_error == pytest.approx(data, rel=1e-7)
        assert found.stderr == pytest.approx(math.hypot(draw, data), rel=1e-7)


def test_filters_are_those_of_surfaces():
    """The rule itself, on the numbers that a surface draws."""

    class Drawn(Point):
        def normal(self, i):
            return random_plane(self.objective, "none", ignore=(), axes=1).basis[0]

    objective = conv_objective()
    expected = random_plane(objective, "filter", axes=1).basis[0]
    found = perturbation(Drawn(objective), "filter", 0.5, 0)
    assert torch.allclose(found, 0.5 * expected, rtol=1e-12, atol=0)


def test_averages_of_a_quadratic():
    objective, matrix = bowl()
    w, many = objective.theta, {"pairs": 300, "ladder": ()}
    trace, size = float(matrix.trace()), float(w @ w)
    exact = {
        average: (0.2, 0.5 * 0.2**2 * trace),
        average_adaptive: (0.3, 0.5 * 0.3**2 * float((w**2 * matrix.diag()).sum())),
        filter_average: (0.7, 0.5 * 0.7**2 * size * trace / 5),
    }
    for measure, (radius, value) in exact.items():
        row = measure(Point(objective), radius, **many)
        assert abs(row.value - value) < 4 * row.stderr < 0.5 * value
        assert row.data_error == 0 and row.variants == ()
    row = layer_relative(Point(objective), xi=0.4, pairs=300, worst=0)
    assert abs(row.value - 0.5 * 0.4**2 * size * trace / 5) < 4 * row.stderr < 0.2
    assert row.variants == ()
    spread = 0.5 * 0.2**2 * math.sqrt(2 * sum(a * a for a in SPECTRUM) / 300)
    assert average(Point(objective), 0.2, **many).stderr == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize("gamma", [4.0, 100.0])
@pytest.mark.parametrize("minimum", [True, False])
def test_local_entropy_of_a_quadratic(gamma, minimum):
    objective, matrix = bowl()
    point = Point(objective, torch.zeros(5).double() if minimum else None)
    g = matrix @ point.theta
    shifted = matrix + gamma * torch.eye(5).double()
    exact = 0.5 * sum(math.log1p(a / gamma) for a in SPECTRUM)
    exact -= 0.5 * float(g @ torch.linalg.solve(shifted, g))
    row = local_entropy(point, gamma=gamma, pairs=600)
    assert abs(row.value - exact) < 4 * row.stderr < abs(exact)


def test_local_entropy_by_an_explicit_loop_and_its_influence():
    objective, _ = softmax_regression()
    point = Point(objective, seed=1)
    row = local_entropy(point, gamma=0.5, pairs=6)
    rises = []
    for i in range(6):
        for sign in (1, -1):
            theta = point.theta + sign * point.normal(i) / math.sqrt(0.5)
            rises.append(objective.losses(theta) - objective.losses(point.theta))
    rises = torch.stack(rises)
    assert float(rises.abs().mean()) > 0.1  # not a linear problem

    def entropy(weights, draws):
        gibbs = torch.exp(-(rises @ weights))
        return float(-torch.log((gibbs.view(6, 2).mean(1) * draws).sum()))

    terms, draws = torch.ones(50).double() / 50, torch.ones(6).double() / 6
    assert row.value == pytest.approx(entropy(terms, draws), rel=1e-12)

    def more_of(shares, i, h=1e-5):
        moved = shares * (1 - h)
        moved[i] += h
        return moved

    for i in (0, 7, 49):
        change = (entropy(more_of(terms, i), draws) - row.value) / 1e-5
        assert row.influence.terms[i] == pytest.approx(change, rel=1e-3)
    for i in range(6):
        change = (entropy(terms, more_of(draws, i)) - row.value) / 1e-5
        assert row.influence.draws[i] == pytest.approx(change, rel=1e-3)


def test_local_entropy_says_when_a_few_draws_carry_it():
    saddle = quadratic(torch.diag(torch.tensor([-300.0, 1.0])).double())
    assert "pairs carry the mean" in local_entropy(Point(saddle)).note
    assert local_entropy(Point(bowl()[0])).note == ""


def test_the_gradient_cancels_in_each_pair():
    slope = normal(5, seed=1)
    line = FunctionObjective(lambda t: t @ slope, normal(5, seed=2))
    for measure in (average, average_adaptive, filter_average, layer_relative):
        row = measure(Point(line))
        for found in [row, *row.variants]:
            if found.settings.get("case") != "worst":
                assert abs(found.value) < 1e-14 and found.draw_error < 1e-14
    steep = quadratic(torch.eye(5).double(), 1e4 * torch.ones(5).double())
    flat = quadratic(torch.eye(5).double())
    rows = [average(Point(objective), 0.1, ladder=()) for objective in (steep, flat)]
    assert rows[0].value == pytest.approx(rows[1].value, rel=1e-5)


class Counted(FunctionObjective):
    spent = 0.0

    def value(self, theta):
        self.spent += 1 / 3
        return super().value(theta)

    def gradient(self, theta):
        self.spent += 2 / 3  # and 1/3 for its value
        return super().gradient(theta)


@pytest.mark.parametrize(
    ("measure", "values"),
    [
        (average, 1 + 32 * 5),
        (average_adaptive, 1 + 32 * 5),
        (filter_average, 1 + 32 * 4),
        (local_entropy, 1 + 32),
        # The gradient, 20 steps (value and gradient in one pass) and the rise at the end.
        (layer_relative, 1 + 32 + 3 * 21 + 1),
    ],
)
def test_the_law_of_costs(measure, values):
    matrix = symmetric(SPECTRUM)
    objective = Counted(lambda t: 0.5 * t @ matrix @ t, normal(5, seed=8))
    row = measure(Point(objective))
    assert row.cost == row.paid
    again = 20 / 3 if measure is layer_relative else 0  # a formula's value is computed once more
    assert objective.spent - row.cost in (pytest.approx(0, abs=1e-9), pytest.approx(again))
    assert row.cost == pytest.approx(values / 3 + again)


def test_a_draw_is_paid_once():
    objective = conv_objective()
    point = Point(objective)
    first = average(point)
    assert first.cost == first.paid == pytest.approx(161 / 3)
    entropy = local_entropy(point)  # γ = 100: the draws of the ladder's 0.1
    assert entropy.paid == 0 and entropy.cost == pytest.approx(33 / 3)
    assert average(point).paid == 0 and average(point).cost == pytest.approx(161 / 3)
    wider = average(point, 0.1, pairs=18, ladder=(0.3,))
    assert wider.paid == pytest.approx((4 + 36) / 3)
    fresh = local_entropy(Point(objective))
    assert (fresh.value, fresh.cost, fresh.paid) == (
        entropy.value,
        pytest.approx(entropy.cost),
        fresh.cost,
    )


def test_draws_of_one_radius_and_another_scaling_are_others():
    objective = conv_objective()
    shared = Point(objective)
    values = [m(shared, 0.1, ladder=()).value for m in (average, average_adaptive, filter_average)]
    assert len(set(values)) == 3
    assert values[2] == filter_average(Point(objective), 0.1, ladder=()).value


def test_variants_have_costs_of_their_own():
    row = average(Point(conv_objective()), pairs=4)
    assert [v.cost for v in row.variants] == [pytest.approx(3)] * 4
    assert sum(v.paid for v in row.variants) == pytest.approx(4 * 8 / 3)


def test_the_ladder():
    objective, _ = bowl()
    row = average(Point(objective), 0.05)
    assert [v.settings["sigma"] for v in row.variants] == [0.001, 0.02, 0.1]
    variant = average(Point(objective), 0.1, ladder=())
    assert row.variants[2].value == variant.value and variant.variants == ()
    assert row.variants[2].influence == variant.influence


def test_intervals_reach_further_up_where_squares_are_skewed():
    one = quadratic(torch.ones(1, 1).double())
    for row in (average(Point(one)), local_entropy(Point(one)), average(Point(one)).variants[0]):
        assert row.interval[1] - row.value > 1.2 * (row.value - row.interval[0]) > 0


def two_layers(scale):
    """A ReLU network of 3 hidden neurons, each scaled by a factor, with the same function."""
    net = seeded(lambda: nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))).double()
    factors = torch.tensor(scale).double()
    with torch.no_grad():
        net[0].weight.mul_(factors[:, None])
        net[0].bias.mul_(factors)
        net[2].weight.div_(factors)
    data = normal(20, 2, seed=2), torch.arange(20) % 2
    return DataObjective(net, data)


def test_the_adaptive_average_does_not_see_a_rescaling_of_neurons():
    one, two = two_layers([1.0, 1.0, 1.0]), two_layers([16.0, 0.125, 4.0])
    assert torch.equal(one.losses(one.theta), two.losses(two.theta))
    plain = [average(Point(objective)) for objective in (one, two)]
    assert abs(plain[1].value / plain[0].value - 1) > 0.05
    rows = [average_adaptive(Point(objective)) for objective in (one, two)]
    assert rows[0].value != 0 and rows[0].value == rows[1].value
    assert [v.value for v in rows[0].variants] == [v.value for v in rows[1].variants]
    by_filter = [filter_average(Point(objective)).value for objective in (one, two)]
    assert abs(by_filter[1] / by_filter[0] - 1) > 0.01


def test_whole_layers_do_not_matter_to_filters():
    net = seeded(lambda: nn.Sequential(nn.Linear(2, 3, False), nn.ReLU(), nn.Linear(3, 2, False)))
    data = normal(20, 2, seed=2), torch.arange(20) % 2
    plain = DataObjective(net.double(), data)
    moved = plain.theta * torch.tensor([4.0] * 6 + [0.25] * 6)
    for measure in (filter_average, layer_relative):
        rows = [measure(Point(plain, theta)) for theta in (plain.theta, moved)]
        assert rows[0].value == pytest.approx(rows[1].value, rel=1e-9)
        for a, b in zip(rows[0].variants, rows[1].variants, strict=True):
            assert a.value == pytest.approx(b.value, rel=1e-9)


def test_a_weight_of_zero_stays_zero():
    theta = torch.tensor([0.0, 1.0, -2.0]).double()
    objective = FunctionObjective(lambda t: 1e6 * t[0].abs() + t[1:] @ t[1:], theta)
    step = perturbation(Point(objective), "adaptive", 0.3, 0)
    assert step[0] == 0 and step[1:].abs().min() > 0
    assert average_adaptive(Point(objective)).value < 10 < average(Point(objective)).value
    floored = perturbation(Point(objective), "adaptive", 0.3, 0, floor=0.1)
    z = Point(objective).normal(0)
    assert torch.allclose(floored, z * (0.09 * theta**2 + 0.01).sqrt(), rtol=1e-12)


@pytest.mark.parametrize("measure", [average_adaptive, filter_average, layer_relative])
def test_nothing_to_move(measure):
    with pytest.raises(NotApplicable, match="the weights that could are all zero"):
        measure(Point(quadratic(torch.eye(3))))


def test_a_loss_without_terms():
    scalar = DataObjective(conv_net(), images(), loss=lambda o, y: F.cross_entropy(o, y))
    for measure in (average, average_adaptive, filter_average, layer_relative, local_entropy):
        row, reference = (measure(Point(f), pairs=2) for f in (scalar, conv_objective()))
        assert row.value == pytest.approx(reference.value, rel=1e-7)
        assert row.data_error is None and row.draw_error == pytest.approx(
            reference.draw_error, rel=1e-6
        )
        assert row.stderr == row.draw_error and row.cost == reference.cost


def test_intervals_hold_the_truth():
    """Sixteen pairs, noise of the draws alone, then of the data too; within what so many tries can tell."""
    objective, matrix = bowl()
    exact = 0.5 * 0.1**2 * float(matrix.trace())
    held = 0
    for seed in range(200):
        row = average(Point(objective, seed=seed), 0.1, ladder=())
        held += row.interval[0] <= exact <= row.interval[1]
    assert 0.9 <= held / 200 <= 0.99

    rng, held = np.random.default_rng(5), 0
    net = nn.Linear(4, 1, bias=False, dtype=torch.float64)
    for seed in range(200):  # f = (x·w)² with x ~ N(0, I): the mean Hessian is 2 I
        x = torch.from_numpy(rng.standard_normal((25, 4)))
        data = DataObjective(net, (x, torch.zeros(25, 1).double()), loss="mse_loss")
        row = average(Point(data, torch.ones(4).double(), seed=seed), 0.1, pairs=4, ladder=())
        held += row.interval[0] <= 0.1**2 * 4 <= row.interval[1]
    assert 0.9 <= held / 200 <= 0.995


def test_a_loss_that_overflows_is_said():
    wall = FunctionObjective(
        lambda t: torch.where(t.abs() > 0.1, math.inf, t**2).sum(), torch.zeros(2).double()
    )
    row = average(Point(wall), 0.01)
    assert row.note == "" and row.variants[-1].value == math.inf
    assert "not finite" in row.variants[-1].note
    assert math.isfinite(local_entropy(Point(wall)).value)


@pytest.mark.parametrize(
    ("measure", "options", "message"),
    [
        (average, {"sigma": 0}, "average: sigma is 0"),
        (average, {"ladder": (0.1, -1)}, "average: sigma is -1"),
        (average_adaptive, {"pairs": 1}, "average_adaptive: pairs is 1"),
        (filter_average, {"radius": -1}, "filter_average: radius is -1"),
        (layer_relative, {"xi": 0}, "layer_relative: xi is 0"),
        (layer_relative, {"worst": -1}, "worst is -1"),
        (layer_relative, {"steps": 0}, "steps is 0"),
        (layer_relative, {"pairs": 0}, "pairs is 0"),
        (local_entropy, {"gamma": 0}, "gamma is 0"),
        (local_entropy, {"pairs": 1}, "pairs is 1"),
    ],
)
def test_bad_settings(measure, options, message):
    with pytest.raises(ValueError, match=message):
        measure(Point(bowl()[0]), **options)
