import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import ball_maximum, conv_net, images, normal, quadratic, seeded, symmetric
from torch import nn

from landscape.data_objective import DataObjective
from landscape.objective import FunctionObjective
from landscape.sharpness.ascent import asam, sam
from landscape.sharpness.corners import inside, turned
from landscape.sharpness.point import Point
from landscape.sharpness.worst import worst_l2, worst_l2_adaptive, worst_linf_adaptive

SPECTRUM = [4.0, 2.0, 1.0, 0.5, -0.5]
MEASURES = (worst_l2, worst_l2_adaptive, worst_linf_adaptive)


def rows(row):
    """Every radius and size of piece, the headline first."""
    return {(r.settings["rho"], r.settings["m"]): r for r in (row, *row.variants)}


def tiny(n=12, **options):
    """13 weights, of which one is zero; float64."""
    net = seeded(
        lambda: nn.Sequential(nn.Linear(2, 3, bias=False), nn.Tanh(), nn.Linear(3, 2))
    ).double()
    with torch.no_grad():
        net[0].weight[0, 0] = 0
    y = torch.from_numpy(np.random.default_rng(6).integers(0, 2, n))
    return DataObjective(net, (normal(n, 2, seed=5), y), **options)


def test_l2_of_a_quadratic_on_every_radius():
    matrix = symmetric(SPECTRUM)
    objective = quadratic(matrix, normal(5, seed=8))
    found = rows(worst_l2(Point(objective), steps=200))
    assert list(found) == [(rho, "all") for rho in (0.05, 0.01, 0.1, 0.25, 0.5)]
    for (rho, _), row in found.items():
        exact = ball_maximum(matrix, matrix @ objective.theta, rho)
        assert row.value == pytest.approx(exact, rel=1e-6) and row.value <= exact * (1 + 1e-12)
        assert row.stderr == 0 and row.converged


def test_adaptive_l2_of_a_quadratic_is_that_of_the_scaled_one():
    matrix = symmetric(SPECTRUM)
    w = normal(5, seed=8) * torch.tensor([10, 1, 0, 0.1, 2])
    d = torch.diag(w.abs())
    for (rho, _), row in rows(worst_l2_adaptive(Point(quadratic(matrix, w)), steps=200)).items():
        exact = ball_maximum(d @ matrix @ d, d @ matrix @ w, rho)
        assert row.value == pytest.approx(exact, rel=1e-6) and row.value <= exact * (1 + 1e-12)


def test_linf_of_a_line_and_of_a_bowl():
    slope, w = normal(6, seed=1), normal(6, seed=2)
    w[3] = 0
    line = FunctionObjective(lambda t: slope @ t, w)
    for (rho, _), row in rows(worst_linf_adaptive(Point(line))).items():
        assert row.value == pytest.approx(rho * float((slope * w).abs().sum()), rel=1e-9)
    matrix = normal(6, 6, seed=3).abs()
    matrix = matrix @ matrix.T
    bowl = FunctionObjective(lambda t: 0.5 * (t - w) @ matrix @ (t - w), w)
    for (rho, _), row in rows(worst_linf_adaptive(Point(bowl))).items():
        exact = 0.5 * rho**2 * float(w.abs() @ matrix @ w.abs())
        assert row.value == pytest.approx(exact, rel=1e-9)


def bowl_with_slope(matrix, seed, slope):
    n = len(matrix)
    w, g = normal(n, seed=seed + 1000), slope * normal(n, seed=seed + 2000)
    return w, g, FunctionObjective(lambda t: g @ (t - w) + 0.5 * (t - w) @ matrix @ (t - w), w)


def test_the_best_corner_of_a_small_box():
    """All 256 corners of 8 dimensions; hopping to the corner of the slope's signs finds few of these maxima."""
    corners = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=8))).double()
    found = 0
    for seed in range(20):
        x = normal(24, 8, seed=seed)
        matrix = x.T @ x / 24
        w, g, objective = bowl_with_slope(matrix, seed, 0.02)
        steps = 0.1 * corners * w.abs()
        exact = float((steps @ g + 0.5 * ((steps @ matrix) * steps).sum(1)).max())
        row = worst_linf_adaptive(Point(objective), rho=0.1, ladder=())
        assert 0.95 * exact <= row.value <= exact * (1 + 1e-12)
        found += row.value >= exact * (1 - 1e-9)
    assert found >= 19


def test_a_path_inside_the_box_beats_signs():
    better = []
    for seed in range(6):
        rho, matrix = 0.1, symmetric(0.95 ** np.arange(100), seed)
        w, g, objective = bowl_with_slope(matrix, seed, 1e-3)
        u, best = g.sign() * w.abs() * rho, 0.0
        for _ in range(20):
            best = max(best, float(objective.value(w + u) - objective.value(w)))
            u = (g + matrix @ u).sign() * w.abs() * rho
        better.append(worst_linf_adaptive(Point(objective), rho=rho, ladder=()).value / best)
    assert np.mean(better) > 1.04


def test_turning_single_coordinates():
    matrix = symmetric([3.0, 2.0, 1.0, 0.5, -0.5, 0.2])
    calls = []

    def rise(u):
        calls.append(u)
        return torch.stack([0.5 * u @ matrix @ u - 1, 0.5 * u @ matrix @ u + 1])

    start = torch.tensor([1.0, 1, 1, -1, 1, 0.3]).double()
    free = [0, 1, 2, 3, 5]
    u, found = turned(rise, start, rise(start), 1.0, free, 10)
    assert u[4] == 1 and set(u[free].abs().tolist()) == {1.0}
    assert torch.equal(found, rise(u)) and float(found.mean()) > float(rise(start).mean())
    for i in free:
        other = u.clone()
        other[i] = -other[i]
        assert float(rise(other).mean()) <= float(found.mean())
    calls.clear()
    assert torch.equal(turned(rise, u, found, 1.0, free, 10)[0], u) and len(calls) == len(free)
    assert turned(rise, u, found, 1.0, [], 10)[0] is u


def test_a_place_inside_the_box():
    slope = torch.tensor([8.0, -1.0, 0.0, 3.0])
    assert inside(slope, 0.5, 1.0).tolist() == [0.5, -0.125, 0.0, 0.375]
    assert not inside(torch.zeros(3), 0.5, 1.0).any()
    assert not inside(torch.tensor([math.inf, 1.0]), 0.5, 1.0).any()


def test_a_gradient_that_misses_the_sharp_direction():
    matrix = torch.diag(torch.tensor([8.0, 1.0]).double())
    objective = quadratic(matrix, torch.tensor([0.0, 1.0]).double())
    row = worst_l2(Point(objective), rho=1.0, steps=100, ladder=())
    # μ = λ₁ = 8, the second coordinate is 1/7, and the first fills the sphere.
    exact = 1 / 7 + 0.5 / 49 + 4 * (1 - 1 / 49)
    assert row.value == pytest.approx(exact, rel=1e-6)
    assert row.variants == ()


def test_a_maximum_inside_the_ball():
    for measure in MEASURES:
        point = Point(FunctionObjective(lambda t: -((t - 1.3) ** 2).sum(), torch.ones(3).double()))
        row = measure(point, rho=1.0, steps=60, ladder=())
        assert row.value == pytest.approx(3 * 0.09, rel=0.03) and row.value <= 0.27 + 1e-12


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.floats(-3, 5), min_size=2, max_size=5),
    st.lists(st.floats(0.01, 2), min_size=2, max_size=4, unique=True),
    st.integers(0, 100),
    st.sampled_from(MEASURES),
)
def test_the_value_rises_with_the_radius(spectrum, radii, seed, measure):
    objective = quadratic(symmetric(spectrum, seed), normal(len(spectrum), seed=seed))
    point = Point(objective)
    found = rows(measure(point, rho=radii[0], steps=4, ladder=radii[1:]))
    values = [found[rho, "all"].value for rho in sorted(radii)]
    assert values[0] >= 0 and values == sorted(values)
    single = {worst_l2: sam, worst_l2_adaptive: asam}.get(measure)
    for rho in radii if single else ():
        assert found[rho, "all"].value >= single(point, rho=rho).value * (1 - 1e-12)


def test_a_larger_ball_holds_the_maximum_of_a_smaller_one():
    wave = FunctionObjective(lambda t: (t * math.pi / 0.2).sin().sum(), torch.zeros(1).double())
    found = rows(worst_l2(Point(wave), rho=0.1, steps=1, ladder=(0.3, 0.35)))
    assert found[0.1, "all"].value == pytest.approx(1)
    assert found[0.3, "all"].value >= found[0.1, "all"].value


@pytest.mark.parametrize("measure", MEASURES)
def test_against_many_restarts_on_a_small_network(measure):
    """Projected gradient ascent from 8 places, an implementation that is not ours."""
    objective, rho = tiny(), 0.6
    w = objective.theta
    c = torch.ones_like(w) if measure is worst_l2 else w.abs()
    moved = c > 0
    best = 0.0
    for restart in range(8):
        u = normal(len(w), seed=restart)
        for step in range(30):
            size = u[moved].norm()
            box = measure is worst_linf_adaptive
            u = u.clamp(-rho, rho) if box else u * min(1.0, rho / float(size))
            g = c * objective.gradient(w + c * u)
            best = max(best, float(objective.value(w + c * u) - objective.value(w)))
            u = u + rho * 0.85**step * (g.sign() if box else g / g.norm())
    row = measure(Point(objective), rho=rho, ladder=())
    assert 0.995 * best <= row.value <= 1.005 * best


@pytest.mark.parametrize("measure", MEASURES)
def test_pieces_have_maxima_of_their_own(measure):
    objective = tiny(11, batch_size=11)
    found = rows(measure(Point(objective), ladder=(), m=4, steps=60))
    rho = next(iter(found))[0]
    assert list(found) == [(rho, "all"), (rho, 4)]
    own = [
        measure(Point(piece), rho=rho, ladder=(), steps=60).value for piece in objective.pieces(4)
    ]
    assert len(own) == 3
    expected = (4 * own[0] + 4 * own[1] + 3 * own[2]) / 11
    assert found[rho, 4].value == pytest.approx(expected, rel=1e-5)
    assert found[rho, 4].value > found[rho, "all"].value
    assert len(found[rho, 4].influence.terms) == 11 and found[rho, 4].influence.of == "examples"


@pytest.mark.parametrize("measure", MEASURES)
def test_a_piece_is_never_below_the_maximum_of_all(measure):
    found = rows(measure(Point(tiny(12)), steps=1, m=3))
    for (rho, m), row in found.items():
        assert m == "all" or row.value >= found[rho, "all"].value


def test_the_error_is_that_of_the_rises_at_the_maximum():
    objective = tiny(30)
    row = worst_l2(Point(objective), ladder=(), steps=200, m=None)
    w, u = objective.theta, torch.zeros_like(objective.theta)
    for _ in range(500):
        g = objective.gradient(w + u)
        u = 0.05 * g / g.norm()
    rises = objective.losses(w + u) - objective.losses(w)
    assert row.value == pytest.approx(float(rises.mean()), rel=1e-6)
    assert row.stderr == pytest.approx(float(rises.std()) / math.sqrt(30), rel=1e-3)


@pytest.mark.parametrize("measure", [worst_l2_adaptive, worst_linf_adaptive])
def test_neurons_can_be_rescaled(measure):
    w, x = normal(6, seed=1), normal(20, 2, seed=2)

    def loss(t):
        return ((torch.relu(x @ t[:4].view(2, 2)) @ t[4:] - 1) ** 2).mean()

    by = torch.tensor([4.0, 0.5])
    scaled = torch.cat([(w[:4].view(2, 2) * by).flatten(), w[4:] / by])
    plain, rescaled = (
        rows(measure(Point(FunctionObjective(loss, t)), steps=6)) for t in (w, scaled)
    )
    for key, row in plain.items():
        assert rescaled[key].value == pytest.approx(row.value, rel=1e-9)
    one, other = (worst_l2(Point(FunctionObjective(loss, t))).value for t in (w, scaled))
    assert abs(one / other - 1) > 0.05


@pytest.mark.parametrize("measure", MEASURES)
def test_costs_are_what_was_done(measure):
    spent = [0.0]

    class Counted(DataObjective):
        def scores(self, theta):
            spent[0] += self.examples / 30 / 3
            return super().scores(theta)

        def losses_and_gradient(self, theta):
            spent[0] += self.examples / 30
            return super().losses_and_gradient(theta)

        def gradient(self, theta):
            spent[0] += self.examples / 30
            return super().gradient(theta)

    point = Point(Counted(conv_net(), images(), batch_size=8))
    row = measure(point, steps=3, m=8)
    assert row.cost == pytest.approx(spent[0]) and row.paid == row.cost
    again = measure(point, steps=3, m=8)
    assert again.paid == 0 and again.value == row.value
    assert again.cost == pytest.approx(row.cost)


def test_a_search_that_stalls_ends():
    matrix = symmetric([4.0, 1.0])
    row = worst_l2(Point(quadratic(matrix, normal(2))), steps=20)
    assert row.cost < 4 * 10 and row.converged
    short = worst_l2(Point(quadratic(symmetric(SPECTRUM), normal(5))), steps=1)
    assert not short.converged


def test_a_loss_without_terms_tells_its_pieces_apart():
    x, y = images()
    plain = DataObjective(conv_net(), (x, y), batch_size=8)
    scalar = DataObjective(
        conv_net(), (x, y), batch_size=8, loss=lambda o, t: nn.functional.cross_entropy(o, t)
    )
    found, expected = (rows(worst_l2(Point(o), ladder=(), m=8, steps=5)) for o in (scalar, plain))
    for key, row in found.items():
        assert row.value == pytest.approx(expected[key].value, rel=1e-4)
    assert found[0.05, "all"].stderr is None
    assert found[0.05, 8].influence.of == "parts" and found[0.05, 8].stderr > 0


def test_a_loss_that_is_not_finite():
    wall = FunctionObjective(
        lambda t: torch.where(t.sum() > 0.2, math.inf, t.sum()), torch.zeros(2).double()
    )
    found = rows(worst_l2(Point(wall)))
    assert found[0.05, "all"].value == pytest.approx(0.05 * 2**0.5, rel=1e-3)
    assert found[0.5, "all"].value == math.inf and "overflows" in found[0.5, "all"].note
    cliff = FunctionObjective(
        lambda t: (0.1 - t).log().sum() + 30 * t.sum(), torch.zeros(1).double()
    )
    row = worst_l2(Point(cliff), rho=0.3, ladder=())
    assert 0 < row.value < 1 and "not a number" in row.note
    nowhere = FunctionObjective(lambda t: t.sum() * math.nan, torch.zeros(2).double())
    row = worst_l2(Point(nowhere))
    assert math.isnan(row.value) and "at the point itself" in row.note


@pytest.mark.parametrize("measure", MEASURES)
def test_a_seed_fixes_everything(measure):
    before = torch.get_rng_state()
    first, second = (measure(Point(tiny(), seed=3), m=5, steps=4) for _ in range(2))
    assert first == second
    assert torch.equal(before, torch.get_rng_state())
    single = measure(Point(DataObjective(conv_net(torch.float32), images())), steps=2, ladder=())
    assert math.isfinite(single.value) and single.value > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rho": 0.0}, "rho is 0.0"),
        ({"ladder": (0.1, -1.0)}, "a radius of the ladder is -1.0"),
        ({"steps": 0}, "steps is 0, expected at least 1"),
        ({"m": 0}, "m is 0, expected at least 1, or None"),
    ],
)
def test_bad_settings(arguments, message):
    for measure in MEASURES:
        with pytest.raises(ValueError, match=f"{measure.__name__}: {message}"):
            measure(Point(tiny()), **arguments)
