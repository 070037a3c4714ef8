"""Networks whose loss over a given plane is a formula. NumPy and torch only: other tools are tried on them too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Problem:
    """A network, its data, two directions, and the loss over their plane by another way.

    Attributes:
        name: what it is.
        model: float64 and in eval mode; its parameters are the origin of the plane.
        x: inputs, the examples first.
        y: targets.
        loss: name of the loss in ``torch.nn.functional``; the value is its mean over the examples.
        directions: ``(2, params)`` in the order of ``model.parameters()``.
        surface: ``(alpha, beta) -> loss``, arrays of one shape; written without torch.
        batch_size: how the data are cut.
        span: half-width of the window in which the problem shows what it is about.
    """

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    loss: str
    directions: Array
    surface: Callable[[Array, Array], Array]
    batch_size: int = 4
    span: float = 1.0

    @property
    def theta(self) -> Array:
        """The parameters as one float64 vector ``(params,)``."""
        return flat(self.model)

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """The data cut into batches of ``batch_size``; the last one may be shorter."""
        size = self.batch_size
        return list(zip(torch.split(self.x, size), torch.split(self.y, size), strict=True))

    def criterion(self, output: Tensor, y: Tensor) -> Tensor:
        """The loss as other tools want it: one scalar, the mean over a batch."""
        value: Tensor = getattr(nn.functional, self.loss)(output, y)
        return value

    def grid(self, alpha: Array, beta: Array) -> Array:
        """The formula on a grid: rows ``beta``, columns ``alpha``."""
        columns, rows = np.meshgrid(alpha, beta)
        return self.surface(columns, rows)


def flat(model: nn.Module) -> Array:
    """The parameters of a module as one vector, a copy."""
    pieces = [p.detach().numpy().reshape(-1).copy() for p in model.parameters()]
    return np.concatenate(pieces)


def problems() -> Iterator[Problem]:
    """All of them, built anew."""
    yield quadratic()
    yield product()
    yield deep_linear()
    yield logistic()
    yield kink()
    yield normalized()
    yield short_batch()
    yield convolution()
    yield root()


def quadratic() -> Problem:
    """Least squares whose Hessian is ``2 A``, ``A`` rotated with eigenvalues 10, 3, 1 and 0.1."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    a = rotation @ np.diag([10.0, 3.0, 1.0, 0.1]) @ rotation.T
    frame = np.linalg.qr(rng.standard_normal((10, 5)))[
        0
    ]  # the fifth column is what cannot be fitted
    x = np.sqrt(10) * frame[:, :4] @ np.linalg.cholesky(a).T
    best, start = rng.standard_normal(4), rng.standard_normal(4)
    y = x @ best + 0.5 * frame[:, 4]
    model = module(nn.Linear(4, 1, bias=False), start[None])
    directions = rng.standard_normal((2, 4))

    def surface(alpha: Array, beta: Array) -> Array:
        places = alpha[..., None] * directions[0] + beta[..., None] * directions[1] + start - best
        return 0.25 / 10 + np.einsum("...i,ij,...j", places, a, places)

    return Problem(
        "quadratic", model, tensor(x), tensor(y).unsqueeze(1), "mse_loss", directions, surface
    )


class Product(nn.Module):
    """``x -> a * b * x``, both factors in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.ones(1, 2, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factors[0, 0] * self.factors[0, 1]


def product() -> Problem:
    """``(a b - 1)^2``: minima on a hyperbola, the saddle ``(0, 0)`` of height 1 between its two arms.

    The origin is the minimum ``(1, 1)``; the saddle lies at ``(-1, -1)`` and the other arm at ``(-2, -2)``.
    """
    x = tensor([[1.0], [-1.0], [1.0], [-1.0], [1.0], [1.0]])
    return Problem(
        "product a*b",
        Product().eval(),
        x,
        x.clone(),
        "mse_loss",
        np.eye(2),
        lambda alpha, beta: ((1 + alpha) * (1 + beta) - 1) ** 2,
        span=2.0,
    )


def deep_linear() -> Problem:
    """A product of three matrices: over the plane the loss is a polynomial of degree 6 in two variables."""
    rng = np.random.default_rng(1)
    shapes = [(3, 2), (3, 3), (2, 3)]
    weights, first, second = ([rng.standard_normal(s) for s in shapes] for _ in range(3))
    x, y = rng.standard_normal((7, 2)), rng.standard_normal((7, 2))
    model = nn.Sequential(*(nn.Linear(s[1], s[0], bias=False) for s in shapes))
    # Entries (i, j) of a coefficient array belong to alpha^i beta^j: first each layer, then their product.
    layers = []
    for w, u, v in zip(weights, first, second, strict=True):
        layer = np.zeros((2, 2, *w.shape))
        layer[0, 0], layer[1, 0], layer[0, 1] = w, u, v
        layers.append(layer)
    output = layers[0]
    for layer in layers[1:]:
        output = times(layer, output, "ab,bc->ac")
    residual = np.einsum("ijac,nc->ijna", output, x)
    residual[0, 0] -= y
    coefficients = times(residual, residual, "na,na->") / y.size

    def surface(alpha: Array, beta: Array) -> Array:
        return np.asarray(np.polynomial.polynomial.polyval2d(alpha, beta, coefficients))

    return Problem(
        "deep linear net",
        module(model, *weights),
        tensor(x),
        tensor(y),
        "mse_loss",
        np.stack([vector(first), vector(second)]),
        surface,
    )


def times(left: Array, right: Array, rule: str) -> Array:
    """The product of two polynomials in two variables whose coefficients are matrices."""
    shape = np.einsum(rule, left[0, 0], right[0, 0]).shape
    result = np.zeros(
        (left.shape[0] + right.shape[0] - 1, left.shape[1] + right.shape[1] - 1, *shape)
    )
    for i, j in np.ndindex(left.shape[:2]):
        for k, m in np.ndindex(right.shape[:2]):
            result[i + k, j + m] += np.einsum(rule, left[i, j], right[k, m])
    return result


def logistic() -> Problem:
    """Logistic regression on two points: the mean of two softplus functions."""
    x, labels = np.array([[1.0, 2.0], [-1.5, 0.5]]), np.array([1.0, 0.0])
    weight, bias = np.array([0.4, -0.3]), 0.2
    directions = np.array([[1.0, 0.5, -0.7], [0.3, -1.1, 0.9]])

    def surface(alpha: Array, beta: Array) -> Array:
        logits = x @ weight + bias
        moves = x @ directions[:, :2].T + directions[:, 2]  # (examples, 2)
        z = logits + alpha[..., None] * moves[:, 0] + beta[..., None] * moves[:, 1]
        return np.asarray(np.logaddexp(0, np.where(labels == 1, -z, z)).mean(-1))

    return Problem(
        "logistic regression",
        module(nn.Linear(2, 1), weight[None], np.array([bias])),
        tensor(x),
        tensor(labels).unsqueeze(1),
        "binary_cross_entropy_with_logits",
        directions,
        surface,
        span=3.0,
    )


def kink() -> Problem:
    """``|v| max(w, 0)``: flat beyond ``w = 0``, which is at ``alpha = -0.3``, and folded at ``v = 0``."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    return Problem(
        "ReLU kink",
        module(model, np.array([[0.3]]), np.array([[0.5]])),
        tensor([[1.0], [2.0], [3.0]]),
        torch.zeros(3, 1, dtype=torch.float64),
        "l1_loss",
        np.eye(2),
        lambda alpha, beta: 2 * np.abs(0.5 + beta) * np.maximum(0.3 + alpha, 0),
        batch_size=2,
    )


def normalized() -> Problem:
    """A linear layer and batch norm with stored statistics 0.7 and 2.5, scale and shift in the plane."""
    x, y = np.array([0.5, -1.0, 2.0, 1.5, -0.3]), np.array([1.0, 0.0, -1.0, 2.0, 0.5])
    weight, scale, shift = 1.2, 0.8, 0.3
    directions = np.array([[1.0, -0.4, 0.2], [0.5, 0.6, -0.9]])
    norm = nn.BatchNorm1d(1).double()
    norm.running_mean.fill_(0.7)  # type: ignore[union-attr]
    norm.running_var.fill_(2.5)  # type: ignore[union-attr]

    def surface(alpha: Array, beta: Array) -> Array:
        (dw, du, db), (ew, eu, eb) = directions
        total = np.zeros(np.broadcast_shapes(alpha.shape, beta.shape))
        for xi, yi in zip(x, y, strict=True):
            hidden = ((weight + alpha * dw + beta * ew) * xi - 0.7) / np.sqrt(2.5 + 1e-5)
            output = (scale + alpha * du + beta * eu) * hidden + shift + alpha * db + beta * eb
            total += (output - yi) ** 2
        return np.asarray(total / len(x))

    model = nn.Sequential(nn.Linear(1, 1, bias=False), norm)
    values = np.array([[weight]]), np.array([scale]), np.array([shift])
    return Problem(
        "batch norm, stored statistics",
        module(model, *values),
        tensor(x).unsqueeze(1),
        tensor(y).unsqueeze(1),
        "mse_loss",
        directions,
        surface,
        batch_size=3,
    )


def short_batch() -> Problem:
    """Eight small examples and two large ones in a last batch of two: means of batch means are far off."""
    x = tensor([[1.0, 0.0]] * 8 + [[0.0, 10.0]] * 2)
    return Problem(
        "short last batch",
        module(nn.Linear(2, 1, bias=False), np.array([[0.5, 0.25]])),
        x,
        torch.zeros(10, 1, dtype=torch.float64),
        "mse_loss",
        np.eye(2),
        lambda alpha, beta: 0.8 * (0.5 + alpha) ** 2 + 0.2 * 100 * (0.25 + beta) ** 2,
    )


def convolution() -> Problem:
    """A convolution with a bias against targets of its own shape: windows, weights, a sum of squares."""
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((5, 2, 3, 3)), rng.standard_normal((5, 3, 2, 2))
    weight, bias = rng.standard_normal((3, 2, 2, 2)), rng.standard_normal(3)
    directions = rng.standard_normal((2, weight.size + bias.size))
    windows = np.lib.stride_tricks.sliding_window_view(x, (2, 2), axis=(2, 3))

    def output(theta: Array) -> Array:
        kernel, shift = theta[: weight.size].reshape(weight.shape), theta[weight.size :]
        return np.einsum("nchwij,ocij->nohw", windows, kernel) + shift[:, None, None]

    def surface(alpha: Array, beta: Array) -> Array:
        # The output is affine in theta, so three outputs give the whole plane.
        start = output(vector([weight, bias])) - y
        along = [output(row) for row in directions]
        parts = [start, *along]
        gram = [[float((p * q).mean()) for q in parts] for p in parts]
        scales = [np.ones_like(alpha), alpha, beta]
        terms = [scales[i] * scales[j] * gram[i][j] for i in range(3) for j in range(3)]
        return np.asarray(sum(terms))

    return Problem(
        "convolution",
        module(nn.Conv2d(2, 3, 2), weight, bias),
        tensor(x),
        tensor(y),
        "mse_loss",
        directions,
        surface,
        batch_size=3,
    )


class Root(nn.Module):
    """``x -> (sqrt(a) + b) x``: not a number where ``a < 0``."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([[1.0, 0.5]], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.sqrt(self.weights[0, 0]) + self.weights[0, 1])


def root() -> Problem:
    """``(sqrt(1 + alpha) + 0.5 + beta)^2``, which is NaN exactly where ``alpha < -1``."""
    x = tensor([[1.0], [-1.0]])

    def surface(alpha: Array, beta: Array) -> Array:
        inside = np.where(alpha < -1, np.nan, 1 + alpha)
        return np.asarray((np.sqrt(inside) + 0.5 + beta) ** 2)

    zeros = torch.zeros(2, 1, dtype=torch.float64)
    return Problem("NaN region", Root().eval(), x, zeros, "mse_loss", np.eye(2), surface, span=2.0)


def module(model: nn.Module, *values: Array) -> nn.Module:
    """The module in float64 and eval mode with these parameters, in their order."""
    model = model.double().eval()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(tensor(value))
    return model


def tensor(values: Any) -> Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float64)


def vector(arrays: list[Array]) -> Array:
    return np.concatenate([a.reshape(-1) for a in arrays])
