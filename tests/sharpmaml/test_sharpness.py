"""Sharpness of adapted weights and coherence of tasks, against formulas and plain loops over tasks."""

import gc
import math
import weakref

import pytest
import torch
from problems import normal, quadratic, symmetric
from torch import Tensor, nn

from landscape.objective import FunctionObjective
from landscape.sharpness.measurement import NotApplicable
from landscape.sharpness.point import Point
from landscape.sharpness.registry import available, defaults
from landscape.sharpness.running import sharpness
from landscape.space import ParameterSpace
from sharpmaml.data import Episode
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import Task
from sharpmaml.objective import MetaObjective
from sharpmaml.sharpness import Shares, adapted_points, coherence, gradient_inner_product, measures
from sharpmaml.tasks import NetworkTasks

BETA = 0.1
STEPS = 2
OWN = {
    "adapted_sam", "adapted_lambda_max", "adapted_trace", "adapted_average", "coherence",
    "gradient_inner_product",
}  # fmt: skip


class Bowl:
    """Support loss ½(θ−a)ᵀA(θ−a), query loss ½(θ−b)ᵀB(θ−b), in four dimensions."""

    def __init__(self, number: int):
        spectrum = [4.0, 2.0, 1.0, 0.5]
        self.A = symmetric(spectrum, seed=number)
        self.B = symmetric([x * (1 + 0.3 * number) for x in spectrum], seed=50 + number)
        self.a, self.b = normal(4, seed=100 + number), normal(4, seed=200 + number)

    def task(self) -> Task:
        def value(matrix: Tensor, centre: Tensor, t: Tensor) -> Tensor:
            return 0.5 * (t - centre) @ matrix @ (t - centre)

        return Task(lambda t: value(self.A, self.a, t), lambda t: (value(self.B, self.b, t), {}))

    def adapted(self, theta: Tensor, steps: int = STEPS) -> Tensor:
        step = torch.eye(4, dtype=torch.float64) - BETA * self.A
        return self.a + torch.linalg.matrix_power(step, steps) @ (theta - self.a)


BOWLS = [Bowl(i) for i in range(5)]
THETA = normal(4, seed=7)


def of_bowls(count=5, inner=None, **options) -> MetaObjective:
    tasks = [bowl.task() for bowl in BOWLS[:count]]
    inner = inner or InnerLoop(STEPS, BETA)
    return MetaObjective(tasks, THETA, ParameterSpace.of_vector(4), inner, **options)


def row(objective, name, seed=0, **options):
    return measures()[name](Point(objective, seed=seed), **options)


def assert_over_tasks(found, values):
    """The mean of the tasks' values, its error over them, and the values themselves."""
    values = torch.tensor(values, dtype=torch.float64)
    assert found.value == pytest.approx(float(values.mean()), rel=1e-6)
    assert found.data_error == pytest.approx(float(values.std()) / math.sqrt(len(values)), rel=1e-5)
    assert found.influence.of == "tasks"
    expected = (values - values.mean()).tolist()
    assert list(found.influence.terms) == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_a_report_offers_them_with_their_settings():
    table = available(of_bowls())
    assert set(table) >= OWN and set(measures()) == OWN
    assert defaults(table["adapted_sam"])["rho"] == 0.05
    assert "adapted weights" in table["adapted_sam"].title and table["adapted_sam"].orientation == 1
    assert table["coherence"].orientation == 0 and defaults(table["coherence"]) == {"of": "support"}
    assert all(table[name].family == "own" and table[name].forecast > 0 for name in OWN)
    assert not OWN & set(available(quadratic(symmetric([1.0, 2.0]))))


def test_rise_after_an_ascent_step_from_adapted_weights():
    rho, values = 0.3, []
    for bowl in BOWLS:
        g = bowl.B @ (bowl.adapted(THETA) - bowl.b)
        values.append(float(rho * g.norm() + rho**2 / 2 * (g @ bowl.B @ g) / g.norm() ** 2))
    found = row(of_bowls(), "adapted_sam", rho=rho)
    assert_over_tasks(found, values)
    assert found.name == "adapted_sam" and found.settings["rho"] == rho and found.draw_error is None


def test_eigenvalues_and_traces_are_those_of_the_query_losses():
    assert_over_tasks(row(of_bowls(), "adapted_lambda_max"), [4 * (1 + 0.3 * i) for i in range(5)])
    found = row(of_bowls(), "adapted_trace", probes=64)
    assert found.value == pytest.approx(7.5 * 1.6, abs=4 * (found.draw_error or 0) + 1e-6)


def test_all_tasks_share_their_draws():
    """The mean over tasks at each draw is one quadratic form: its scatter is the error over the draws."""
    found = row(of_bowls(), "adapted_average", sigma=0.2, pairs=8, ladder=(0.4,))
    mean = sum(bowl.B for bowl in BOWLS) / 5
    draws = [Point(FunctionObjective(torch.sum, THETA)).normal(i) for i in range(8)]
    forms = torch.stack([0.5 * 0.2**2 * z @ mean @ z for z in draws])
    assert found.value == pytest.approx(float(forms.mean()), rel=1e-9)
    assert found.draw_error == pytest.approx(float(forms.std()) / math.sqrt(8), rel=1e-6)
    assert list(found.influence.draws) == pytest.approx((forms - forms.mean()).tolist(), rel=1e-6)
    (wider,) = found.variants
    assert wider.value == pytest.approx(4 * found.value, rel=1e-9)
    assert wider.name == "adapted_average" and wider.settings["sigma"] == 0.4
    assert wider.influence.of == "tasks" and len(wider.influence.terms) == 5


def test_linear_regression_by_hand():
    """Adapted weights by normal equations, eigenvalues of 2/n XᵀX of the query sets."""
    model = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    sizes = [(5, 8)] * 3
    episodes = tuple(
        Episode(normal(s, 3, seed=i), normal(s, 1, seed=10 + i), normal(q, 3, seed=20 + i), normal(q, 1, seed=30 + i))
        for i, (s, q) in enumerate(sizes)
    )  # fmt: skip
    space = ParameterSpace.from_module(model)
    network = NetworkTasks(model, space, episodes, "regression")
    theta = normal(3, seed=40)
    objective = MetaObjective(network.tasks(), theta, space, InnerLoop(1, 0.05), {}, network)
    tops, rises = [], []
    for e in episodes:
        slope = 2 / 5 * e.support_x.T @ (e.support_x @ theta - e.support_y[:, 0])
        end, hessian = theta - 0.05 * slope, 2 / 8 * e.query_x.T @ e.query_x
        g = 2 / 8 * e.query_x.T @ (e.query_x @ end - e.query_y[:, 0])
        tops.append(float(torch.linalg.eigvalsh(hessian)[-1]))
        rises.append(float(0.05 * g.norm() + 0.05**2 / 2 * (g @ hessian @ g) / g.norm() ** 2))
    assert_over_tasks(row(objective, "adapted_lambda_max"), tops)
    assert_over_tasks(row(objective, "adapted_sam"), rises)
    # Support 5, query 8, one step: a query gradient is 3·8 of 9·5 + 3·8 passes.
    assert Shares.of(objective).query == pytest.approx(24 / 69)
    assert row(objective, "coherence").cost == pytest.approx(15 / 69)


def pairs_by_hand(vectors, unit):
    """Mean over pairs, and the mean of each task with the others."""
    count = len(vectors)
    table = [
        [float(a @ b) / (float(a.norm() * b.norm()) if unit else 1) for b in vectors]
        for a in vectors
    ]
    each = [sum(table[i][j] for j in range(count) if j != i) / (count - 1) for i in range(count)]
    return sum(each) / count, each


@pytest.mark.parametrize("of", ["support", "displacement", "meta"])
@pytest.mark.parametrize("measure", [coherence, gradient_inner_product])
def test_pairs_of_tasks_by_hand(measure, of):
    eye, vectors = torch.eye(4, dtype=torch.float64), []
    for bowl in BOWLS:
        way = torch.linalg.matrix_power(eye - BETA * bowl.A, STEPS)
        vectors.append({
            "support": bowl.A @ (THETA - bowl.a),
            "displacement": (eye - way) @ (THETA - bowl.a),
            "meta": way.T @ bowl.B @ (bowl.adapted(THETA) - bowl.b),
        }[of])  # fmt: skip
    expected, each = pairs_by_hand(vectors, measure is coherence)
    found = measure(Point(of_bowls()), of=of)
    assert found.value == pytest.approx(expected, rel=1e-10)
    assert found.settings == {"of": of}
    assert list(found.influence.terms) == pytest.approx(
        [2 * (e - expected) for e in each], abs=1e-12
    )


def fixed(gradients) -> MetaObjective:
    """Tasks whose support gradients are given."""
    tasks = [Task(lambda t, g=g: g @ t, lambda t: (t @ t, {})) for g in gradients]
    return MetaObjective(tasks, THETA, ParameterSpace.of_vector(4), InnerLoop(1, BETA))


def test_coherence_of_known_gradients():
    one, two, three = torch.eye(4, dtype=torch.float64)[:3]
    assert row(fixed([one, 5 * one, 2 * one]), "coherence").value == pytest.approx(1)
    assert row(fixed([one, two, three]), "coherence").value == pytest.approx(0)
    assert row(fixed([one, -3 * one]), "coherence").value == pytest.approx(-1)
    assert row(fixed([one, 5 * one, 2 * one]), "gradient_inner_product").value == pytest.approx(
        17 / 3
    )
    assert row(fixed([one, one, 0 * one]), "coherence").value == pytest.approx(1 / 3)


def test_the_error_over_tasks_is_that_of_many_draws_of_tasks():
    """Gradients μ + noise: ⟨gᵢ, gⱼ⟩ of 12 tasks, 150 times; the errors it reports match their scatter."""
    centre = torch.tensor([1.0, 0.5, 0.0, 0.0], dtype=torch.float64)
    found = [
        row(fixed(centre + 0.5 * normal(12, 4, seed=1000 + i)), "gradient_inner_product")
        for i in range(150)
    ]
    values = torch.tensor([f.value for f in found])
    assert float(values.mean()) == pytest.approx(1.25, abs=4 * float(values.std()) / math.sqrt(150))
    reported = math.sqrt(sum(f.data_error**2 for f in found) / 150)
    assert reported == pytest.approx(float(values.std()), rel=0.2)


def test_two_tasks_at_least():
    with pytest.raises(NotApplicable, match="no pair of tasks"):
        row(of_bowls(1), "coherence")
    assert row(of_bowls(1), "adapted_sam").data_error is None
    with pytest.raises(NotApplicable, match="no tasks"):
        coherence(Point(quadratic(symmetric([1.0, 2.0]))))
    with pytest.raises(ValueError, match="of is 'query': expected one of support, displacement"):
        row(of_bowls(), "coherence", of="query")


def test_another_initialization_than_that_of_the_objective():
    point = Point(of_bowls(), THETA + 1)
    for task, bowl in zip(adapted_points(point), BOWLS, strict=True):
        torch.testing.assert_close(task.theta, bowl.adapted(THETA + 1))


class Counted:
    """Evaluations of a task, by kind."""

    def __init__(self, bowl: Bowl):
        self.bowl, self.support, self.query = bowl.task(), 0, 0

    def task(self) -> Task:
        def support(t: Tensor) -> Tensor:
            self.support += 1
            return self.bowl.support(t)

        def query(t: Tensor) -> tuple[Tensor, dict]:
            self.query += 1
            return self.bowl.query(t)

        return Task(support, query)


def test_adaptation_is_paid_once_and_costs_are_what_was_done():
    counted = [Counted(bowl) for bowl in BOWLS]
    objective = MetaObjective(
        [c.task() for c in counted], THETA, ParameterSpace.of_vector(4), InnerLoop(STEPS, BETA)
    )
    point, shares = Point(objective), Shares(steps=STEPS)
    assert shares.adaptation == pytest.approx(6 / 21) and shares.query == pytest.approx(3 / 21)
    first = measures()["adapted_sam"](point)
    assert [(c.support, c.query) for c in counted] == [(STEPS, 3)] * 5  # a gradient, two values
    assert first.cost == first.paid == pytest.approx(shares.adaptation + (1 + 2 / 3) * shares.query)
    second = measures()["adapted_average"](point, pairs=4, ladder=())
    assert [(c.support, c.query) for c in counted] == [(STEPS, 3 + 8)] * 5
    assert second.paid == pytest.approx(8 / 3 * shares.query)
    assert second.cost == pytest.approx(shares.adaptation + 9 / 3 * shares.query)
    third = coherence(point)
    assert third.paid == pytest.approx(shares.support) == pytest.approx(3 / 21)
    assert [c.support for c in counted] == [STEPS + 1] * 5
    assert gradient_inner_product(point).paid == 0


@pytest.mark.parametrize(
    ("inner", "passes"),
    [
        (dict(steps=0), 3),
        (dict(steps=3), 3 * 9 + 3),
        (dict(steps=3, first_order=True), 3 * 3 + 3),
        (dict(steps=3, lower=0.1), 3 * 12 + 3),
        (dict(steps=3, lower=0.1, eps_grad="through"), 3 * 18 + 3),
        (dict(steps=3, upper=0.1), 4 * (3 * 9 + 3)),
    ],
)
def test_passes_of_a_meta_gradient(inner, passes):
    assert Shares(**inner).query == pytest.approx(3 / passes)
    assert Shares.of(of_bowls(upper=inner.get("upper", 0.0), inner=InnerLoop(rate=BETA, **{
        key: value for key, value in inner.items() if key != "upper"
    }))).query == pytest.approx(3 / passes)  # fmt: skip


def test_the_upper_ascent_is_not_part_of_the_adaptation():
    plain, ascended = row(of_bowls(), "adapted_sam"), row(of_bowls(upper=0.1), "adapted_sam")
    assert ascended.value == plain.value
    assert ascended.cost == pytest.approx(plain.cost / 4)
    meta = coherence(Point(of_bowls(upper=0.1)), of="meta")
    assert meta.value == coherence(Point(of_bowls()), of="meta").value and meta.cost == 0.25


def test_nothing_outlives_a_report_and_no_task_keeps_its_graph():
    names = ["lambda_max", "adapted_lambda_max", "adapted_trace", "adapted_sam"]
    sharpness(of_bowls(), names)  # what torch imports at first use keeps frames of its callers
    objective = of_bowls()
    gone = weakref.ref(objective)
    gc.collect()
    gc.disable()
    try:
        sharpness(objective, names)
        del objective
        assert gone() is None  # without waiting for Python to look for cycles
    finally:
        gc.enable()
    point, table = Point(of_bowls()), measures()
    rows = [table[name](point).value for name in ("adapted_lambda_max", "adapted_trace")]
    assert not any(task.hessian._maps for task in adapted_points(point))
    assert rows == [table[name](point).value for name in ("adapted_lambda_max", "adapted_trace")]
