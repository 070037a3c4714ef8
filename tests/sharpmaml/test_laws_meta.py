"""Laws of the meta-gradient and of the meta-Hessian on random quadratic tasks of any size."""

import dataclasses
import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from laws import SEEDS, close, examples
from problems import normal
from torch import Tensor

from landscape.space import ParameterSpace
from sharpmaml.adapt import adapt
from sharpmaml.curvature import split
from sharpmaml.execution.adjoint import Adjoint
from sharpmaml.execution.loop import Loop
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import meta_gradient
from sharpmaml.objective import MetaObjective
from sharpmaml.perturb import asam, sam
from sharpmaml.plan import PlainTasks, Plan, Task

F64, RATE = torch.float64, 0.1
RADII = st.sampled_from([0.0, 1e-4, 0.05, 0.5])


@dataclasses.dataclass(frozen=True)
class Quadratic:
    """Support ½(θ−a)ᵀA(θ−a), query ½(θ−b)ᵀB(θ−b)."""

    A: Tensor
    a: Tensor
    B: Tensor
    b: Tensor

    def task(self) -> Task:
        def value(M, c, t):
            return 0.5 * (t - c) @ M @ (t - c)

        return Task(lambda t: value(self.A, self.a, t), lambda t: (value(self.B, self.b, t), {}))


def symmetric_of(size, seed):
    m = normal(size, size, seed=seed)
    return (m + m.T) / 2


@st.composite
def batches(draw, least=1, most=4):
    """One to three tasks, definite or not, and an initialization."""
    size, seed = draw(st.integers(least, most)), draw(SEEDS)
    made = [
        Quadratic(
            symmetric_of(size, seed + 10 * k),
            normal(size, seed=seed + 10 * k + 1),
            symmetric_of(size, seed + 10 * k + 2),
            normal(size, seed=seed + 10 * k + 3),
        )
        for k in range(draw(st.integers(1, 3)))
    ]
    return made, normal(size, seed=seed + 9)


def tasks_of(batch):
    return [q.task() for q in batch]


def mean_of(values):
    return sum(values) / len(values)


def jacobian(q, steps):
    return torch.linalg.matrix_power(torch.eye(len(q.a), dtype=F64) - RATE * q.A, steps)


def by_hand(batch, theta, steps, lower, through, kept=None):
    """Mean meta-gradient by the chain rule written out, and the inner ascents; ``kept`` ones are constants."""
    eye, total, used = torch.eye(len(theta), dtype=F64), torch.zeros_like(theta), []
    for m, q in enumerate(batch):
        t, J, row = theta, eye, []
        for k in range(steps):
            g, D = q.A @ (t - q.a), eye
            epsilon = torch.zeros_like(t)
            if kept is not None:
                epsilon = kept[m][k]
            elif lower:
                unit = g / g.norm()
                epsilon = lower * unit
                if through:
                    D = eye + lower / g.norm() * (eye - torch.outer(unit, unit)) @ q.A
            row.append(epsilon)
            J = (eye - RATE * q.A @ D) @ J
            t = t - RATE * q.A @ (t + epsilon - q.a)
        used.append(row)
        total += J.T @ q.B @ (t - q.b)
    return total / len(batch), used


@examples(60)
@given(
    batches(),
    st.integers(0, 4),
    RADII,
    RADII,
    st.booleans(),
    st.sampled_from(["recompute", "reuse"]),
)
def test_every_corner_by_the_chain_rule(made, steps, lower, upper, through, eps_m):
    """MAML, low, up, both: ε of the radius along ∇h held constant, ε_m through or constant, anew or kept."""
    batch, theta = made
    assume(min(float((q.A @ (theta - q.a)).norm()) for q in batch) > 1e-2)
    inner = InnerLoop(steps, RATE, lower, "through" if through else "detach")
    got = meta_gradient(tasks_of(batch), theta, inner, upper=upper, eps_m=eps_m)
    expected, used = by_hand(batch, theta, steps, lower, through)
    norm = float(expected.norm())
    assume(norm > 1e-2)
    assert got.norm == pytest.approx(norm, rel=1e-8)
    if upper:
        assert got.predicted_rise == pytest.approx(upper * norm, rel=1e-8)
        at = theta + upper * expected / norm
        kept = used if eps_m == "reuse" and lower else None
        ascended = meta_gradient(tasks_of(batch), at, inner)
        if kept is None:
            assert got.rise == pytest.approx(ascended.loss - got.loss, rel=1e-6, abs=1e-12)
        expected, _ = by_hand(batch, at, steps, lower, through, kept)
    close(got.gradient, expected, 1e-7, 1e-9)


@examples(40)
@given(batches(), st.integers(0, 5))
def test_the_closed_forms_of_maml(made, steps):
    """``θ_K = a + J(θ−a)``; gradient ``JᵀB(θ_K−b)``, first order ``B(θ_K−b)``, Reptile ``(I−J)(θ−a)``."""
    batch, theta = made
    ends = [q.a + jacobian(q, steps) @ (theta - q.a) for q in batch]
    for q, end in zip(batch, ends, strict=True):
        close(adapt(q.task().support, theta, InnerLoop(steps, RATE)), end, 1e-11, 1e-13)
    second = mean_of(
        [jacobian(q, steps).T @ q.B @ (e - q.b) for q, e in zip(batch, ends, strict=True)]
    )
    first = mean_of([q.B @ (e - q.b) for q, e in zip(batch, ends, strict=True)])
    close(
        meta_gradient(tasks_of(batch), theta, InnerLoop(steps, RATE)).gradient, second, 1e-10, 1e-12
    )
    found = meta_gradient(tasks_of(batch), theta, InnerLoop(steps, RATE, first_order=True))
    close(found.gradient, first, 1e-10, 1e-12)
    reptile = mean_of(
        [(torch.eye(len(theta), dtype=F64) - jacobian(q, steps)) @ (theta - q.a) for q in batch]
    )
    plan = Plan(InnerLoop(steps, RATE), estimator="reptile")
    close(Loop()(PlainTasks(tuple(tasks_of(batch))), theta, plan).gradient, reptile, 1e-10, 1e-12)
    joint = mean_of([q.B @ (theta - q.b) for q in batch])
    for still in (InnerLoop(0, RATE), InnerLoop(steps, 0.0)):  # no adaptation is joint training
        close(meta_gradient(tasks_of(batch), theta, still).gradient, joint, 1e-10, 1e-12)


@examples(12)
@given(batches(), st.sampled_from([1.0, 4.0]))
def test_the_closed_form_of_the_implicit_gradient(made, weight):
    """``φ = (A+λI)⁻¹(Aa+λθ)``, gradient ``λ(A+λI)⁻¹B(φ−b)``; conjugate gradients are exact after P steps."""
    batch, theta = made
    eye = torch.eye(len(theta), dtype=F64)
    batch = [
        dataclasses.replace(q, A=q.A @ q.A.T / (1 + q.A.square().sum())) for q in batch
    ]  # definite, below 1
    expected = []
    for q in batch:
        phi = torch.linalg.solve(q.A + weight * eye, q.A @ q.a + weight * theta)
        expected.append(weight * torch.linalg.solve(q.A + weight * eye, q.B @ (phi - q.b)))
    plan = Plan(
        InnerLoop(250, RATE, proximal=weight), estimator="implicit", solver_steps=len(theta) + 2
    )
    got = Loop()(PlainTasks(tuple(tasks_of(batch))), theta, plan).gradient
    close(got, mean_of(expected), 1e-8, 1e-9)


@examples(30)
@given(batches(), st.integers(0, 4), RADII, st.booleans())
def test_executors_agree(made, steps, lower, through):
    """The chain of Hessian products walked backwards gives the passes of the unrolled loop."""
    batch, theta = made
    assume(min(float((q.A @ (theta - q.a)).norm()) for q in batch) > 1e-3)
    plan = Plan(InnerLoop(steps, RATE, lower, "through" if through else "detach"))
    passes = [make()(PlainTasks(tuple(tasks_of(batch))), theta, plan) for make in (Loop, Adjoint)]
    close(passes[1].gradient, passes[0].gradient, 1e-10, 1e-12)
    close(passes[1].losses, passes[0].losses, 1e-12, 1e-14)


@examples(30)
@given(batches(), st.integers(1, 3), RADII, RADII, SEEDS)
def test_order_copies_places_and_turns(made, steps, lower, upper, seed):
    """Tasks in any order, each twice, moved with θ, turned with θ: the same meta-gradient, turned."""
    batch, theta = made
    assume(min(float((q.A @ (theta - q.a)).norm()) for q in batch) > 1e-2)
    inner = InnerLoop(steps, RATE, lower, "through")

    def gradient(tasks, at):
        return meta_gradient(tasks_of(tasks), at, inner, upper=upper)

    here = gradient(batch, theta)
    assume(here.norm > 1e-2)
    unit = 1e-7 * (1 + float(here.gradient.norm()))
    close(gradient(batch[::-1] + batch, theta).gradient, here.gradient, 0, unit)
    shift, turn = (
        normal(len(theta), seed=seed),
        torch.linalg.qr(normal(len(theta), len(theta), seed=seed + 1))[0],
    )
    moved = [dataclasses.replace(q, a=q.a + shift, b=q.b + shift) for q in batch]
    close(gradient(moved, theta + shift).gradient, here.gradient, 0, unit)
    turned = [
        Quadratic(turn @ q.A @ turn.T, turn @ q.a, turn @ q.B @ turn.T, turn @ q.b) for q in batch
    ]
    close(gradient(turned, turn @ theta).gradient, turn @ here.gradient, 0, unit)


@examples(25)
@given(batches(1, 1), st.integers(1, 4), RADII, RADII)
def test_in_one_dimension_through_is_detach(made, steps, lower, upper):
    batch, theta = made
    assume(min(abs(float(q.A * (theta - q.a))) for q in batch) > 0.3 * (1 + lower))
    one, two = (
        meta_gradient(tasks_of(batch), theta, InnerLoop(steps, RATE, lower, mode), upper=upper)
        for mode in ("detach", "through")
    )
    close(one.gradient, two.gradient, 1e-9, 1e-12)


@examples(25)
@given(batches(), st.integers(1, 4), RADII)
def test_without_support_curvature_first_order_is_second_order(made, steps, upper):
    batch, theta = made
    flat = [Task(lambda t, q=q: q.a @ t + 0 * (t * t).sum(), q.task().query) for q in batch]
    one, two = (
        meta_gradient(flat, theta, InnerLoop(steps, RATE, first_order=first), upper=upper).gradient
        for first in (False, True)
    )
    close(one, two, 1e-10, 1e-13)


@examples(30)
@given(batches(), st.integers(0, 4), SEEDS)
def test_the_meta_hessian_of_quadratics(made, steps, seed):
    """``mean JᵀBJ``: symmetric, without a third-derivative part, ``λ(1−βλ)^{2K}`` where A = B."""
    batch, theta = made
    objective = MetaObjective(
        tasks_of(batch), theta, ParameterSpace.of_vector(len(theta)), InnerLoop(steps, RATE)
    )
    expected = mean_of([jacobian(q, steps).T @ q.B @ jacobian(q, steps) for q in batch])
    v = normal(len(theta), seed=seed)
    close(objective.hvp(theta, v), expected @ v, 1e-10, 1e-13)
    parts = split(objective)
    close(parts.adapted @ v, expected @ v, 1e-10, 1e-13)
    close(parts.third @ v, 0 * v, 0, 1e-11 * float(v.norm()))
    same = dataclasses.replace(batch[0], B=batch[0].A)
    alone = MetaObjective(
        [same.task()], theta, ParameterSpace.of_vector(len(theta)), InnerLoop(steps, RATE)
    )
    hessian = torch.stack([alone.hvp(theta, e) for e in torch.eye(len(theta), dtype=F64)])
    values = torch.linalg.eigvalsh(same.A)
    exact = (values * (1 - RATE * values) ** (2 * steps)).sort().values
    close(torch.linalg.eigvalsh((hessian + hessian.T) / 2), exact, 1e-9, 1e-12)


@examples(60)
@given(
    st.integers(1, 6),
    SEEDS,
    st.integers(-140, 140),
    st.floats(1e-6, 10),
    st.lists(st.integers(0, 5), max_size=3),
)
def test_the_ascent_has_its_radius_whatever_the_unit_of_the_loss(
    size, seed, exponent, radius, zeros
):
    """``‖ε‖ = ρ`` (ASAM: ``‖ε/|w|‖ = ρ``) for gradients of 1e-140 to 1e140; zero without a gradient."""
    g, w = normal(size, seed=seed), normal(size, seed=seed + 1)
    w[[i for i in zeros if i < size]] = 0.0
    for rule in (sam, asam):
        small, one = rule(g * 10.0**exponent, w, radius), rule(g, w, radius)
        close(small, one, 1e-12)
        assert float(one @ g) >= 0 and not rule(0 * g, w, radius).any()
        close(rule(g, w, 3 * radius), 3 * one, 1e-13)
    assert float(sam(g, w, radius).norm()) == pytest.approx(radius, rel=1e-12)
    epsilon, moves = asam(g, w, radius), w != 0
    assert not epsilon[~moves].any()
    if moves.any():
        assert float((epsilon[moves] / w[moves]).norm()) == pytest.approx(radius, rel=1e-12)
        units = torch.exp(normal(size, seed=seed + 2))  # w' = Dw, g' = D⁻¹g: the same relative step
        close(asam(g / units, units * w, radius), units * epsilon, 1e-10)


@examples(25)
@given(st.floats(0.5, 5), st.floats(0.05, 0.19), st.floats(0.01, 1))
def test_sam_with_a_fixed_radius_ends_in_a_cycle(curvature, rate, radius):
    """In one dimension ``x ← x − ηλ(x + ρ sign x)`` swings with ``ηλρ/(2 − ηλ)``."""
    x = torch.tensor([3.0], dtype=F64)
    for _ in range(math.ceil(20 / (rate * curvature))):
        x = x - rate * curvature * (x + sam(curvature * x, x, radius))
    swing = rate * curvature * radius / (2 - rate * curvature)
    assert abs(float(x)) == pytest.approx(swing, rel=1e-4)
