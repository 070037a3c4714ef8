"""Objectives with known answers, shared by the tests."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from landscape.data_objective import DataObjective
from landscape.objective import FunctionObjective


def symmetric(eigenvalues: Sequence[float], seed: int = 0) -> Tensor:
    """A dense float64 matrix with these eigenvalues."""
    n = len(eigenvalues)
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]
    matrix = torch.from_numpy(rotation @ np.diag(np.asarray(eigenvalues, dtype=float)) @ rotation.T)
    return (matrix + matrix.T) / 2


def quadratic(
    matrix: Tensor, theta: Tensor | None = None, dtype: torch.dtype = torch.float64
) -> FunctionObjective:
    """``½ wᵀ A w`` at ``theta`` (zero, the minimum, when left out)."""
    a = matrix.to(dtype)
    point = torch.zeros(len(a), dtype=dtype) if theta is None else theta.to(dtype)
    return FunctionObjective(lambda t: 0.5 * t @ (a @ t), point)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def linear_regression(outputs: int = 1, n: int = 40, d: int = 6) -> tuple[DataObjective, Tensor]:
    """Least squares without a bias, and its inputs: the Hessian is ``(2/n/outputs) XᵀX ⊗ I``."""
    x, y = normal(n, d, seed=1), normal(n, outputs, seed=2)
    model = nn.Linear(d, outputs, bias=False, dtype=torch.float64)
    return DataObjective(model, (x, y), loss="mse_loss"), x


def softmax_regression(n: int = 50, d: int = 4, classes: int = 3) -> tuple[DataObjective, Tensor]:
    x = normal(n, d, seed=3)
    y = torch.from_numpy(np.random.default_rng(4).integers(0, classes, n))
    model = seeded(lambda: nn.Linear(d, classes, bias=False, dtype=torch.float64))
    return DataObjective(model, (x, y)), x


def seeded(make):
    """What ``make()`` builds from a fixed random state, the global one left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


class ConvNet(nn.Module):
    """Convolution, batch norm, tanh, linear: 4 roles of parameters and buffers, 75 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.norm(self.conv(x)))
        return self.head(nn.functional.avg_pool2d(hidden, 2).flatten(1))


def conv_net(dtype: torch.dtype = torch.float64) -> ConvNet:
    """A :class:`ConvNet` with stored statistics that are not the initial ones."""
    net = seeded(ConvNet)
    with torch.no_grad():
        net.norm.running_mean.copy_(torch.tensor([0.1, -0.2, 0.3]))
        net.norm.running_var.copy_(torch.tensor([0.5, 1.5, 1.0]))
        net.norm.weight.copy_(torch.tensor([1.0, 0.7, 1.3]))
    return net.to(dtype)


def images(n: int = 30) -> tuple[Tensor, Tensor]:
    return normal(n, 1, 6, 6, seed=5), torch.from_numpy(np.random.default_rng(6).integers(0, 3, n))


def conv_objective(dtype: torch.dtype = torch.float64, **options) -> DataObjective:
    return DataObjective(conv_net(dtype), images(), **options)


def full_hessian(objective) -> Tensor:
    """The dense Hessian by ``torch.func``, an implementation that is not ours.

    Not ``torch.func.hessian``: in torch 2.13 its forward-over-reverse is wrong for batch norm with
    batch statistics (7 % of the norm of this Hessian, and not symmetric).
    """
    return torch.func.jacrev(torch.func.grad(objective.value))(objective.theta)


def ball_maximum(matrix: Tensor, g: Tensor, rho: float) -> float:
    """max gᵀδ + ½ δᵀAδ on ‖δ‖ ≤ ρ for λ₁ > 0: (μ - A) δ = g with ‖δ‖ = ρ, μ ≥ λ₁, by bisection."""
    values, vectors = torch.linalg.eigh(matrix)
    g = vectors.T @ g
    low, high = float(values[-1]), float(values[-1]) + float(g.norm()) / rho + 1
    for _ in range(200):
        middle = (low + high) / 2
        if float((g / (middle - values)).norm()) > rho:
            low = middle
        else:
            high = middle
    step = g / (high - values)
    return float(g @ step + 0.5 * step @ (values * step))


def relu_net(*widths: int, bias: bool = True) -> nn.Module:
    """A ReLU network in float64."""

    def make() -> nn.Module:
        pairs = list(itertools.pairwise(widths))
        layers = [m for a, b in pairs for m in (nn.Linear(a, b, bias=bias), nn.ReLU())]
        return nn.Sequential(*layers[:-1])

    return seeded(make).double()
