"""Every step of MAML and Sharp-MAML on quadratic tasks, where all of it can be written by hand.

Support loss ½(θ−a)ᵀA(θ−a), query loss ½(θ−b)ᵀB(θ−b). The numbers of `WORKED` were computed by hand-written
formulas, without automatic differentiation, for two tasks in two dimensions.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from landscape.space import ParameterSpace
from sharpmaml.adapt import adapt
from sharpmaml.inner import PERTURBATIONS, InnerLoop
from sharpmaml.meta import Task, meta_gradient
from sharpmaml.objective import MetaObjective
from sharpmaml.perturb import RULES, asam, sam

F64 = torch.float64
BETA = 0.1
ALPHA = 0.05
THETA = torch.tensor([1.0, 1.0], dtype=F64)


class Quadratic:
    def __init__(self, A, a, B, b):
        self.A, self.a, self.B, self.b = (torch.as_tensor(x, dtype=F64) for x in (A, a, B, b))

    def task(self) -> Task:
        def value(M: Tensor, c: Tensor, t: Tensor) -> Tensor:
            return 0.5 * (t - c) @ M @ (t - c)

        return Task(lambda t: value(self.A, self.a, t), lambda t: (value(self.B, self.b, t), {}))


ONE = Quadratic([[1.0, 0], [0, 3]], [0.0, 0], [[1.0, 0], [0, 3]], [2.0, 0])
TWO = Quadratic([[2.0, 1], [1, 2]], [1.0, -1], [[1.0, 0], [0, 1]], [0.0, 1])
PAIR = (ONE, TWO)
TASKS = [q.task() for q in PAIR]

WORKED = {
    "maml K=1": (dict(steps=1), 0.0, (-0.155, 0.535)),
    "fomaml K=1": (dict(steps=1, first_order=True), 0.0, (-0.150, 0.850)),
    "maml K=5": (dict(steps=5), 0.0, (-0.17551623755, -0.25405073015)),
    "fomaml K=5": (dict(steps=5, first_order=True), 0.0, (-0.415965, -0.368615)),
    "low through": (dict(lower=ALPHA, eps_grad="through"), 0.0, (-0.157278598800, 0.513785725781)),
    "low detach": (dict(lower=ALPHA), 0.0, (-0.158730204243, 0.516033315696)),
    "up": (dict(), ALPHA, (-0.168999079773, 0.587019664818)),
    "both through": (
        dict(lower=ALPHA, eps_grad="through"),
        ALPHA,
        (-0.171788375032, 0.565746016461),
    ),
    "both detach": (dict(lower=ALPHA), ALPHA, (-0.173234331443, 0.567778344135)),
}


@pytest.mark.parametrize("name", WORKED)
def test_worked_numbers(name):
    options, upper, expected = WORKED[name]
    inner = InnerLoop(rate=BETA, **options)
    result = meta_gradient(TASKS, THETA, inner, upper=upper)
    torch.testing.assert_close(
        result.gradient, torch.tensor(expected, dtype=F64), rtol=0, atol=2e-11
    )


def by_hand(theta: Tensor, steps: int, lower: float, upper: float, through: bool) -> Tensor:
    """Mean meta-gradient by the chain rule written out, no automatic differentiation."""

    def mean(at: Tensor) -> Tensor:
        total = torch.zeros_like(at)
        for q in PAIR:
            t, J = at, torch.eye(2, dtype=F64)
            for _ in range(steps):
                g = q.A @ (t - q.a)
                n = g.norm()
                D = torch.eye(2, dtype=F64)
                point = t
                if lower:
                    unit = g / n
                    point = t + lower * unit
                    if through:
                        P = torch.eye(2, dtype=F64) - torch.outer(unit, unit)
                        D = D + lower / n * P @ q.A
                t = t - BETA * q.A @ (point - q.a)
                J = (torch.eye(2, dtype=F64) - BETA * q.A @ D) @ J
            total += J.T @ q.B @ (t - q.b)
        return total / len(PAIR)

    G = mean(theta)
    return mean(theta + upper * G / G.norm()) if upper else G


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize(("lower", "upper"), [(0, 0), (0.05, 0), (0, 0.05), (0.05, 0.08)])
def test_four_methods_by_hand(steps, through, lower, upper):
    inner = InnerLoop(steps, BETA, lower, "through" if through else "detach")
    got = meta_gradient(TASKS, THETA, inner, upper=upper).gradient
    torch.testing.assert_close(
        got, by_hand(THETA, steps, lower, upper, through), rtol=1e-13, atol=1e-14
    )


def test_upper_ascent_and_its_by_products():
    result = meta_gradient(TASKS, THETA, InnerLoop(1, BETA), upper=ALPHA)
    plain = meta_gradient(TASKS, THETA, InnerLoop(1, BETA))
    epsilon = sam(plain.gradient, THETA, ALPHA)
    expected = torch.tensor([-0.013913801634, 0.048025057252], dtype=F64)
    torch.testing.assert_close(epsilon, expected, rtol=0, atol=1e-12)
    ascended = meta_gradient(TASKS, THETA + epsilon, InnerLoop(1, BETA))
    assert result.loss == plain.loss
    assert result.rise == pytest.approx(ascended.loss - plain.loss, abs=1e-15)
    assert result.predicted_rise == pytest.approx(ALPHA * plain.norm, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize("lower", [0.0, 0.05])
def test_central_differences_of_what_is_differentiated(steps, through, lower):
    """With the ascent through, the gradient is that of the meta loss; detached, of the loss with ε frozen."""
    if lower and not through:
        # The frozen ascents are recorded along the unperturbed path and replayed at each probe.
        def loss(theta: Tensor) -> Tensor:
            total = 0.0
            for q in PAIR:
                path, t = THETA, theta
                for _ in range(steps):
                    eps = lower * (q.A @ (path - q.a)) / (q.A @ (path - q.a)).norm()
                    path = path - BETA * q.A @ (path + eps - q.a)
                    t = t - BETA * q.A @ (t + eps - q.a)
                total = total + 0.5 * (t - q.b) @ q.B @ (t - q.b)
            return total / len(PAIR)
    else:
        inner = InnerLoop(steps, BETA, lower, "through")

        def loss(theta: Tensor) -> Tensor:
            return sum(t.query(adapt(t.support, theta, inner))[0] for t in TASKS) / len(TASKS)

    h = 1e-5
    numeric = torch.stack(
        [(loss(THETA + h * e) - loss(THETA - h * e)) / (2 * h) for e in torch.eye(2, dtype=F64)]
    )
    inner = InnerLoop(steps, BETA, lower, "through" if through else "detach")
    got = meta_gradient(TASKS, THETA, inner).gradient
    torch.testing.assert_close(got, numeric, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_meta_hessian_of_quadratics(steps):
    """∇²h = mean JᵀBJ, and its eigenvalues where the reference gives them."""
    objective = MetaObjective(TASKS, THETA, ParameterSpace.of_vector(2), InnerLoop(steps, BETA))
    H = torch.stack([objective.hvp(THETA, e) for e in torch.eye(2, dtype=F64)])
    J = [torch.linalg.matrix_power(torch.eye(2, dtype=F64) - BETA * q.A, steps) for q in PAIR]
    expected = sum(j.T @ q.B @ j for j, q in zip(J, PAIR, strict=True)) / 2
    torch.testing.assert_close(H, expected, rtol=1e-12, atol=1e-13)
    worked = {1: (0.711628791, 1.078371208), 5: (0.098802681, 0.306370809)}
    if steps in worked:
        torch.testing.assert_close(
            torch.linalg.eigvalsh(H), torch.tensor(worked[steps], dtype=F64), rtol=0, atol=2e-9
        )
    dense = torch.func.hessian(objective.value)(THETA)
    torch.testing.assert_close(dense, expected, rtol=1e-12, atol=1e-13)


def test_linear_regression_meta_gradient():
    """Linear least squares is a quadratic: A = 2XᵀX/n, and the meta-gradient is JᵀB(θ_K − b)."""
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, dtype=F64, generator=generator)  # noqa: E731
    Xs, ys, Xq, yq, theta = draw(6, 3), draw(6), draw(9, 3), draw(9), draw(3)
    task = Task(
        lambda t: (Xs @ t - ys).square().mean(), lambda t: ((Xq @ t - yq).square().mean(), {})
    )
    A, B = 2 / 6 * Xs.T @ Xs, 2 / 9 * Xq.T @ Xq
    for steps in (1, 4):
        J = torch.linalg.matrix_power(torch.eye(3, dtype=F64) - BETA * A, steps)
        a = torch.linalg.solve(A, 2 / 6 * Xs.T @ ys)
        adapted = a + J @ (theta - a)
        expected = J.T @ (B @ adapted - 2 / 9 * Xq.T @ yq)
        got = meta_gradient([task], theta, InnerLoop(steps, BETA)).gradient
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)


@given(
    steps=st.integers(0, 4),
    theta=st.lists(st.floats(-3, 3), min_size=2, max_size=2),
    eps_grad=st.sampled_from(["detach", "through"]),
)
@settings(max_examples=40, deadline=None)
def test_zero_radii_are_maml_bit_for_bit(steps, theta, eps_grad):
    point = torch.tensor(theta, dtype=F64)
    plain = meta_gradient(TASKS, point, InnerLoop(steps, BETA))
    zero = meta_gradient(TASKS, point, InnerLoop(steps, BETA, 0.0, eps_grad), upper=0.0)
    assert torch.equal(plain.gradient, zero.gradient)
    assert plain.loss == zero.loss


@given(scale=st.floats(1e-3, 1e3), g=st.lists(st.integers(-5000, 5000), min_size=3, max_size=3))
@settings(max_examples=50, deadline=None)
def test_ascent_ignores_the_scale_of_the_loss(scale, g):
    gradient = torch.tensor(g, dtype=F64) / 1000
    theta = torch.tensor([1.0, -2.0, 0.5], dtype=F64)
    for rule in (sam, asam):
        one, other = rule(gradient, theta, 0.1), rule(scale * gradient, theta, 0.1)
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    epsilon = sam(gradient, theta, 0.1)
    assert float(epsilon.norm()) == pytest.approx(0.1 if any(g) else 0.0, abs=1e-9)


@pytest.mark.parametrize("rule", [sam, asam])
def test_no_direction_at_a_stationary_point(rule):
    zero = torch.zeros(3, requires_grad=True)
    epsilon = rule(zero, torch.ones(3), 0.5)
    assert torch.equal(epsilon.detach(), torch.zeros(3))
    (slope,) = torch.autograd.grad(epsilon.sum(), zero)
    assert bool(torch.isfinite(slope).all())


def test_asam_lies_on_the_ellipsoid():
    g, w = torch.tensor([1.0, -2.0, 0.5], dtype=F64), torch.tensor([0.3, -1.5, 2.0], dtype=F64)
    epsilon = asam(g, w, 0.7)
    assert float((epsilon / w.abs()).norm()) == pytest.approx(0.7, rel=1e-12)


def test_detach_equals_through_in_one_dimension():
    task = Task(lambda t: (t**2).sum() * 1.7, lambda t: (((t - 1) ** 2).sum(), {}))
    theta = torch.tensor([0.8], dtype=F64)
    one, other = (
        meta_gradient([task], theta, InnerLoop(3, BETA, 0.05, mode)).gradient
        for mode in ("detach", "through")
    )
    torch.testing.assert_close(one, other, rtol=1e-13, atol=0)


def test_first_order_equals_second_order_without_curvature():
    slope = torch.tensor([0.4, -1.0], dtype=F64)
    task = Task(lambda t: slope @ t + 0 * (t * t).sum(), TASKS[0].query)
    one, other = (
        meta_gradient([task], THETA, InnerLoop(3, BETA, first_order=first)).gradient
        for first in (False, True)
    )
    torch.testing.assert_close(one, other)


def test_task_order_does_not_matter():
    one = meta_gradient(TASKS, THETA, InnerLoop(2, BETA), upper=0.1).gradient
    other = meta_gradient(TASKS[::-1], THETA, InnerLoop(2, BETA), upper=0.1).gradient
    torch.testing.assert_close(one, other, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: InnerLoop(eps_grad="both"), "detach, through"),
        (lambda: InnerLoop(perturbation="max"), "sam, asam"),
        (lambda: InnerLoop(steps=-1), "negative"),
        (lambda: meta_gradient([], THETA, InnerLoop()), "empty"),
        (lambda: meta_gradient(TASKS, THETA, InnerLoop(), upper=-0.1), "radius"),
        (
            lambda: MetaObjective([], THETA, ParameterSpace.of_vector(2), InnerLoop()),
            "at least one task",
        ),
    ],
)
def test_bad_settings_say_what_is_expected(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_every_named_rule_exists():
    assert tuple(RULES) == PERTURBATIONS
