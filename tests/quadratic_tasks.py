"""Tasks whose every derivative can be written by hand: support ½(θ−a)ᵀA(θ−a), query ½(θ−b)ᵀB(θ−b)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sharpmaml.execution.loop import Loop
from sharpmaml.plan import Pass, PlainTasks, Plan, Task, Tasks

F64 = torch.float64
BETA, ALPHA = 0.1, 0.05
THETA = torch.tensor([1.0, 1.0], dtype=F64)
EYE = torch.eye(2, dtype=F64)


def vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=F64)


@dataclass(frozen=True)
class Quadratic:
    A: Tensor
    a: Tensor
    B: Tensor
    b: Tensor
    scale: float = 1.0

    def task(self) -> Task:
        def value(M: Tensor, c: Tensor, t: Tensor) -> Tensor:
            return 0.5 * self.scale * (t - c) @ M @ (t - c)

        return Task(lambda t: value(self.A, self.a, t), lambda t: (value(self.B, self.b, t), {}))


ONE = Quadratic(torch.diag(vector(1, 3)), vector(0, 0), torch.diag(vector(1, 3)), vector(2, 0))
TWO = Quadratic(torch.tensor([[2.0, 1], [1, 2]], dtype=F64), vector(1, -1), EYE, vector(0, 1))
PAIR = (ONE, TWO)
BATCH = PlainTasks(tuple(q.task() for q in PAIR))


def power(q: Quadratic, steps: int, beta: float = BETA) -> Tensor:
    """J = (I − βA)^K."""
    return torch.linalg.matrix_power(EYE - beta * q.A, steps)


def adapted(q: Quadratic, theta: Tensor, steps: int) -> Tensor:
    return q.a + power(q, steps) @ (theta - q.a)


def maml(theta: Tensor, steps: int = 1) -> Tensor:
    """Mean of JᵀB(θ_K − b)."""
    each = [power(q, steps).T @ q.B @ (adapted(q, theta, steps) - q.b) for q in PAIR]
    return sum(each) / len(PAIR)


def fomaml(theta: Tensor, steps: int = 1) -> Tensor:
    """Mean of B(θ_K − b)."""
    return sum(q.B @ (adapted(q, theta, steps) - q.b) for q in PAIR) / len(PAIR)


def value(theta: Tensor, steps: int = 1) -> float:
    """Mean query loss after adaptation."""
    ends = [adapted(q, theta, steps) - q.b for q in PAIR]
    return float(sum(0.5 * e @ q.B @ e for e, q in zip(ends, PAIR, strict=True)) / len(PAIR))


def unit(v: Tensor) -> Tensor:
    return v / v.norm()


class Spy:
    """The loop, with a record of where it was asked for what."""

    name = "spy"

    def __init__(self) -> None:
        self.points: list[Tensor] = []
        self.plans: list[Plan] = []

    def __call__(
        self, batch: Tasks, theta: Tensor, plan: Plan, ascents: Tensor | None = None
    ) -> Pass:
        self.points.append(theta)
        self.plans.append(plan)
        return Loop()(batch, theta, plan, ascents)
