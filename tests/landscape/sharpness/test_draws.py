"""Draws of their own for each piece of the data."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from problems import conv_net, images, normal, quadratic, softmax_regression
from torch import nn

from landscape.data_objective import DataObjective
from landscape.sharpness.average import (
    average,
    average_adaptive,
    filter_average,
    layer_relative,
    local_entropy,
)
from landscape.sharpness.draws import even_parts, pair, rounds_of
from landscape.sharpness.measurement import estimate
from landscape.sharpness.pac_bayes import pac_bayes, pac_bayes_magnitude
from landscape.sharpness.point import Point
from landscape.sharpness.skewness import corrected

PIECES = (slice(0, 128), slice(128, 256), slice(256, 300))


def classes(kind=DataObjective):
    """300 examples, the last 44 larger than the others: 3 pieces that differ in size and curvature."""
    x, teacher = normal(300, 4, seed=1), normal(3, 4, seed=2)
    labels = (x @ teacher.T + normal(300, 3, seed=3)).argmax(1)
    x[256:] *= 3
    objective = kind(nn.Linear(4, 3, bias=False, dtype=torch.float64), (x, labels))
    return Point(objective, teacher.flatten(), seed=4)


def regression(n, seed=0, lead=3.0, batch_size=None):
    """Least squares on inputs of variances 1 and, in one coordinate, ``lead²``; ``H = 2 XᵀX / n``."""
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, 4)))
    x[:, 0] *= lead
    net = nn.Linear(4, 1, bias=False, dtype=torch.float64)
    data = x, torch.zeros(n, 1).double()
    point = Point(
        DataObjective(net, data, loss="mse_loss", batch_size=batch_size),
        torch.ones(4).double(),
        seed=seed,
    )
    return point, 2 * float((x**2).sum()) / n


def rises_by_hand(point, direction, rounds, column="loss"):
    """All terms at every draw, of which each piece keeps its own: ``(rounds, 300)``."""

    def score(theta):
        return point.objective.scores(theta)[column].double()

    here, rows = score(point.theta), []
    for r in range(rounds):
        row = torch.empty(300).double()
        for b, piece in enumerate(PIECES):
            step = direction(point.normal(3 * r + b))
            both = score(point.theta + step) + score(point.theta - step)
            row[piece] = (both / 2 - here)[piece]
        rows.append(row)
    return torch.stack(rows)


def by_rows(point, z):
    z, w = z.view(3, 4), point.theta.view(3, 4)
    return (z * w.norm(dim=1, keepdim=True) / z.norm(dim=1, keepdim=True)).flatten()


CASES = [
    (average, "sigma", 0.3, lambda point, z: z),
    (average_adaptive, "sigma", 0.3, lambda point, z: z * point.theta.abs()),
    (filter_average, "radius", 0.5, by_rows),
    (layer_relative, "xi", 0.5, lambda point, z: z * point.theta.norm() / z.norm()),
]


@pytest.mark.parametrize(("measure", "key", "radius", "direction"), CASES)
def test_each_piece_has_draws_of_its_own(measure, key, radius, direction):
    point = classes()
    none = {"worst": 0} if measure is layer_relative else {"ladder": ()}
    row = measure(point, radius, **none)
    rises = rises_by_hand(point, lambda z: radius * direction(point, z), 8)
    assert row.value == pytest.approx(float(rises.mean()), rel=1e-9)
    assert row.influence.draws == pytest.approx((rises.mean(1) - rises.mean()).tolist(), abs=1e-9)
    assert row.influence.terms == pytest.approx((rises.mean(0) - rises.mean()).tolist(), abs=1e-9)
    draw, data = float(rises.mean(1).std()) / 8**0.5, float(rises.mean(0).std()) / 300**0.5
    assert (row.draw_error, row.data_error) == (pytest.approx(draw), pytest.approx(data))
    assert row.stderr == pytest.approx(math.hypot(draw, data))
    settings = {key: radius, "pairs": 16, "rounds": 8, "pieces": 3}
    assert row.settings == settings | ({"case": "average"} if measure is layer_relative else {})


@pytest.mark.parametrize("quantity", ["error", "loss"])
@pytest.mark.parametrize("measure", [pac_bayes, pac_bayes_magnitude])
def test_the_radius_of_pac_bayes_is_that_of_all_pieces(measure, quantity):
    point = classes()
    row = measure(point, quantity=quantity, pairs=30, tol=1e-3)
    sigma, column = row.value**-0.5, {"error": "accuracy", "loss": "loss"}[quantity]

    def rises(sigma):
        scale = sigma
        if measure is pac_bayes_magnitude:
            scale = (sigma**2 * point.theta**2 + 1e-6).sqrt()
        found = rises_by_hand(point, lambda z: scale * z, 10, column)
        return -found if column == "accuracy" else found

    found = rises(sigma)
    assert abs(float(found.mean()) - 0.1) <= 1e-4 + 1e-9 or (
        float(found.mean()) <= 0.1 < float(rises(sigma * 1.0011).mean())
    )
    assert row.settings["pairs"] == 30 and row.settings["rounds"] == 10
    assert row.settings["pieces"] == 3 and row.settings["quantity"] == quantity
    for made, means in ((row.influence.draws, found.mean(1)), (row.influence.terms, found.mean(0))):
        made, means = np.asarray(made), (means - means.mean()).numpy()
        assert np.allclose(made, means * (made @ means) / (means @ means), atol=1e-9 * row.value)
        assert made @ means > 0


def test_rounds_hold_the_pairs_asked_for():
    assert [rounds_of(pairs, 1) for pairs in (2, 16)] == [2, 16]
    assert [rounds_of(16, pieces) for pieces in (2, 3, 4, 5, 400)] == [8, 8, 8, 8, 8]
    assert rounds_of(37, 4) == 10
    row = average(classes(), 0.1, pairs=2, ladder=(0.2,))
    for found in (row, *row.variants):
        assert (found.settings["pairs"], found.settings["rounds"]) == (2, 8)


def test_the_mean_is_that_of_the_data_whatever_the_sizes_of_the_pieces():
    x = normal(300, 4, seed=1)
    x[256:] *= 5  # the smallest piece has most of the curvature
    net = nn.Linear(4, 1, bias=False, dtype=torch.float64)
    objective = DataObjective(net, (x, torch.zeros(300, 1).double()), loss="mse_loss")
    row = average(Point(objective), 0.1, pairs=900, ladder=())
    exact = 0.1**2 * float((x**2).sum()) / 300
    assert row.settings["rounds"] == 300
    assert abs(row.value - exact) < 4 * row.draw_error < 0.25 * exact


def test_pieces_cost_nothing_and_cut_the_error_of_the_draws():
    point, _ = regression(512, lead=1.0)
    row = average(point, 0.1, pairs=800, ladder=())
    assert row.settings["rounds"] == 200
    one = torch.stack([pair(point, "plain", 0.1, i)["loss"].mean() for i in range(200)])
    # By √4: the pieces are of the same curvature. The ratio of two deviations of 200 is known to 7 %.
    assert row.draw_error / (float(one.std()) / 200**0.5) == pytest.approx(0.5, rel=0.25)
    assert row.cost == pytest.approx((1 + 2 * 200) / 3)


@pytest.mark.parametrize("n", [320, 640])
def test_intervals_hold_the_truth(n):
    """Of the data behind them, by the draws alone; of the population, with new data each time."""
    held = np.zeros(2)
    for seed in range(200):
        point, trace = regression(n, seed)
        row = average(point, 0.1, ladder=())
        assert row.settings["rounds"] == 8
        alone = replace(row.influence, terms=(), of="exact")
        drawn = corrected(estimate("average", row.value, alone, {}))
        for i, (made, exact) in enumerate(((drawn, trace), (row, 2 * (3**2 + 3)))):
            held[i] += made.interval[0] <= 0.5 * 0.1**2 * exact <= made.interval[1]
    assert np.all((held / 200 >= 0.91) & (held / 200 <= 0.985)), held


class Counted(DataObjective):
    examples_seen = 0

    def scores(self, theta):
        type(self).examples_seen += self.examples
        return super().scores(theta)


@pytest.mark.parametrize(
    ("measure", "values"),
    [(average, 1 + 8 * 2 * 5), (filter_average, 1 + 8 * 2 * 4), (pac_bayes, None)],
)
def test_pieces_pay_their_share(measure, values):
    Counted.examples_seen = 0
    point = classes(Counted)
    row = measure(point)
    assert row.cost == row.paid == pytest.approx(Counted.examples_seen / 300 / 3)
    # One value of each piece at the point, and whole rounds.
    assert (3 * row.cost - 1) / 16 == pytest.approx(round((3 * row.cost - 1) / 16))
    if values:
        assert row.cost == pytest.approx(values / 3)
        assert sum(v.cost for v in row.variants) == pytest.approx(len(row.variants) * (1 + 16) / 3)
    assert measure(point).paid == 0 and measure(point).cost == pytest.approx(row.cost)


def test_an_entropy_has_one_draw_for_all_the_data():
    """The exponential is of a mean over all the data: pieces of their own would change the value."""
    point = classes()
    average(point, 0.1, ladder=())
    row = local_entropy(point, pairs=5)
    assert row.paid == row.cost == pytest.approx((1 + 10) / 3)
    assert row.settings == {"gamma": 100.0, "pairs": 5}
    value, here = point.objective.value, float(point.objective.value(point.theta))
    gibbs = [
        math.exp(here - float(value(point.theta + sign * 0.1 * point.normal(i))))
        for i in range(5)
        for sign in (1, -1)
    ]
    assert row.value == pytest.approx(-math.log(sum(gibbs) / 10), rel=1e-9)


def test_checkpoints_have_the_same_draws():
    """A quadratic rises by the same amount everywhere, so what differs would be the draws."""
    point, _ = regression(300)
    other = Point(point.objective, 3 * point.theta, seed=point.seed)
    rows = [average(p, 0.1, ladder=()) for p in (point, other)]
    assert rows[0].influence.draws == pytest.approx(rows[1].influence.draws, abs=1e-12)
    assert rows[0].draw_error > 1e-3


def test_batches_are_pieces():
    point, _ = regression(300, batch_size=60)
    assert average(point, ladder=()).settings == {
        "sigma": 0.01, "pairs": 16, "rounds": 8, "pieces": 5,
    }  # fmt: skip
    assert even_parts(point, "plain", 0.01, 16).shape == (8, 300)


def test_a_loss_without_terms_stays_whole():
    net = conv_net()
    scalar = DataObjective(net, images(), loss=lambda o, y: F.cross_entropy(o, y), batch_size=10)
    point = Point(scalar)
    row = average(point, 0.1, pairs=3, ladder=())
    assert row.settings == {"sigma": 0.1, "pairs": 3}
    assert row.data_error is None and len(row.influence.draws) == 3
    steps = [sign * 0.1 * point.normal(i) for i in range(3) for sign in (1, -1)]
    rise = np.mean([float(scalar.value(point.theta + step)) for step in steps])
    assert row.value == pytest.approx(rise - float(scalar.value(point.theta)), rel=1e-9)
    assert average(Point(scalar), pairs=2).value == average(Point(scalar), pairs=2).value


def test_pairs_have_the_accuracy_and_are_rises():
    objective, _ = softmax_regression()
    point = Point(objective)
    rises = pair(point, "plain", 0.5, 2)
    assert sorted(rises) == ["accuracy", "loss"]
    step = 0.5 * point.normal(2)
    for side, sign in enumerate((1, -1)):
        moved = objective.scores(point.theta + sign * step)
        for name, found in rises.items():
            expected = moved[name].double() - objective.scores(point.theta)[name].double()
            assert torch.allclose(found[side], expected, rtol=1e-12, atol=1e-15)
    assert rises["accuracy"].any()
    assert sorted(pair(Point(quadratic(torch.eye(2))), "plain", 0.5, 2)) == ["loss"]
