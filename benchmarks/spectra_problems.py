"""Trained networks whose spectra are compared: torch, NumPy and SciPy only, so that every interpreter loads the same.

Weights and reference eigenvalues are made once and kept in a folder. Everything is float32 on one thread, the
networks in eval mode; the reference is float64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nets
import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

Array = np.ndarray[Any, np.dtype[Any]]
TRAINED_ON = 1024  # examples, of which a problem takes the first
REFERENCE = 10  # eigenvalues in a reference


@dataclass
class Problem:
    """A network in eval mode and its data; the loss is the mean cross entropy."""

    name: str
    model: nn.Module
    batches: list[tuple[Tensor, Tensor]]

    @property
    def weights(self) -> list[Tensor]:
        """The trainable parameters in order."""
        return list(self.model.parameters())

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self.weights)

    @property
    def examples(self) -> int:
        """In all batches."""
        return sum(len(x) for x, _ in self.batches)

    def whole(self) -> tuple[Tensor, Tensor]:
        """All examples as one batch."""
        x, y = (torch.cat(column) for column in zip(*self.batches, strict=True))
        return x, y

    def gradient(self) -> Tensor:
        """Of the loss, ``(size,)``, a batch at a time. Its cost is one FB."""
        total = torch.zeros(self.size, dtype=self.weights[0].dtype)
        for x, y in self.batches:
            loss = cross_entropy(self.model(x), y) * (len(x) / self.examples)
            total += _flat(torch.autograd.grad(loss, self.weights))
        return total

    def products(self) -> Callable[[Tensor], Tensor]:
        """``v -> H v``, vectors ``(size,)``, with the graph of every batch's gradient kept."""
        gradients = []
        for x, y in self.batches:
            loss = cross_entropy(self.model(x), y) * (len(x) / self.examples)
            gradients.append(torch.autograd.grad(loss, self.weights, create_graph=True))
        sizes = [p.numel() for p in self.weights]

        def product(v: Tensor) -> Tensor:
            pairs = zip(v.split(sizes), self.weights, strict=True)
            pieces = [piece.view_as(p) for piece, p in pairs]
            total = torch.zeros_like(v)
            for gradient in gradients:
                total += _flat(
                    torch.autograd.grad(gradient, self.weights, pieces, retain_graph=True)
                )
            return total

        return product


def exact_attention() -> AbstractContextManager[None]:
    """Fused attention has no second derivative; without attention this changes nothing."""
    return sdpa_kernel(SDPBackend.MATH)


def load(folder: str | Path, name: str) -> Problem:
    """A problem of :data:`PROBLEMS`; trained on the first call, read from ``folder`` afterwards.

    Raises:
        ValueError: an unknown name.
    """
    if name not in PROBLEMS:
        raise ValueError(f"unknown problem {name!r}: expected one of {', '.join(PROBLEMS)}")
    recipe = PROBLEMS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = recipe.network()
        x, y = recipe.data()
        path = Path(folder) / f"{name}.pt"
        if path.exists():
            model.load_state_dict(torch.load(path, weights_only=True))
        else:
            _train(model, x, y, recipe)
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(model.state_dict(), path)
    batches = list(
        zip(
            x[: recipe.examples].split(recipe.batch),
            y[: recipe.examples].split(recipe.batch),
            strict=True,
        )
    )
    return Problem(name, model.eval(), batches)


def reference(folder: str | Path, name: str) -> dict[str, Any]:
    """The ten largest eigenvalues and the smallest one, in float64; made on the first call.

    ``eigsh`` in float32 to a tolerance of 1e-4 gives vectors, one Rayleigh-Ritz step on them in float64
    the values: their error is of the order of the residual squared over the gap, and all of the
    residuals are among what is returned.
    """
    path = Path(folder) / f"{name}-reference.npz"
    if not path.exists():
        problem = load(folder, name)
        with exact_attention():
            top = _eigsh(problem, REFERENCE, "LA", 1e-4)
            least = _eigsh(problem, 1, "SA", 1e-1)  # to know its magnitude is enough
            exact = copy.deepcopy(problem)
            exact.model.double()
            exact.batches = [
                (x.double() if x.is_floating_point() else x, y) for x, y in exact.batches
            ]
            values, errors = _ritz(exact, np.concatenate([top, least]))
        np.savez(path, values=values, residuals=errors)
    stored = np.load(path)
    values, errors = stored["values"], stored["residuals"]
    return {
        "values": values[:REFERENCE].tolist(),
        "least": float(values[-1]),
        "residual": float((errors[:REFERENCE] / np.abs(values[:REFERENCE])).max()),
    }


def _eigsh(problem: Problem, k: int, which: str, tol: float) -> Array:
    """Eigenvectors ``(k, size)``."""
    multiply = problem.products()

    def product(v: Array) -> Array:
        return multiply(torch.from_numpy(v.reshape(-1).astype(np.float32))).numpy()

    shape = (problem.size, problem.size)
    start = np.random.default_rng(1).standard_normal(problem.size).astype(np.float32)
    operator = LinearOperator(shape, matvec=product, dtype=np.float32)
    _, vectors = eigsh(operator, k=k, which=which, tol=tol, v0=start, ncv=40)
    return np.ascontiguousarray(vectors.T[::-1], dtype=np.float64)


def _ritz(problem: Problem, vectors: Array) -> tuple[Array, Array]:
    """Values, largest first, and residuals of the best pairs in the span of the rows of ``vectors``."""
    basis = np.linalg.qr(vectors.T)[0].T
    multiply = problem.products()
    images = np.stack([multiply(torch.from_numpy(row.copy())).numpy() for row in basis])
    values, mix = np.linalg.eigh((basis @ images.T + images @ basis.T) / 2)
    values, mix = values[::-1], mix[:, ::-1]
    errors = mix.T @ images - values[:, None] * (mix.T @ basis)
    return values, np.linalg.norm(errors, axis=1)


def dense(folder: str | Path) -> None:
    """Write the Hessian of ``tiny-conv`` and all of its eigenvalues, float64, where they are not there yet."""
    path = Path(folder) / "dense.npz"
    if path.exists():
        return
    problem = load(folder, "tiny-conv")
    problem.model.double()
    ((x, y),) = problem.batches
    loss = cross_entropy(problem.model(x.double()), y)
    gradient = _flat(torch.autograd.grad(loss, problem.weights, create_graph=True))
    rows = [
        _flat(torch.autograd.grad(gradient, problem.weights, unit, retain_graph=True))
        for unit in torch.eye(problem.size, dtype=torch.float64)
    ]
    matrix = torch.stack(rows).numpy()
    matrix = (matrix + matrix.T) / 2
    np.savez(path, matrix=matrix, values=np.linalg.eigvalsh(matrix))


def residuals(problem: Problem, values: Sequence[float], vectors: Tensor) -> list[float]:
    """``||H v - value v|| / |value|`` of every pair, the rows of ``vectors`` scaled to length 1 first."""
    found = []
    multiply = problem.products()
    for value, v in zip(values, vectors, strict=True):
        v = v / v.double().norm().to(v.dtype)
        error = multiply(v).double() - value * v.double()
        found.append(float(error.norm()) / abs(value))
    return found


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


@dataclass(frozen=True)
class Recipe:
    """How a problem is made: its network, ``TRAINED_ON`` examples, how it is trained, how it is cut."""

    network: Callable[[], nn.Module]
    data: Callable[[], tuple[Tensor, Tensor]]
    steps: int
    rate: float
    examples: int
    batch: int


def _train(model: nn.Module, x: Tensor, y: Tensor, recipe: Recipe) -> None:
    """Adam over shuffled batches of 64; then the norm layers' statistics over all of the data."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    order: list[Tensor] = []
    for _ in range(recipe.steps):
        order = order or list(torch.randperm(len(x)).split(64))
        rows = order.pop()
        optimizer.zero_grad()
        cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
        schedule.step()
    model.zero_grad()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        for rows in torch.arange(len(x)).split(128):
            model(x[rows])


def _images(classes: int, noise: float, *shape: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """A smooth prototype for each class, with noise on every image; one label in twenty is a guess."""

    def draw() -> tuple[Tensor, Tensor]:
        coarse = torch.randn(classes, shape[0], 7, 7)
        prototypes = nn.functional.interpolate(coarse, shape[1:], mode="bilinear")
        y = torch.randint(classes, (TRAINED_ON,))
        x = prototypes[y] + noise * torch.randn(TRAINED_ON, *shape)
        guess = torch.rand(TRAINED_ON) < 0.05
        return x, torch.where(guess, torch.randint(classes, y.shape), y)

    return draw


def _sentences() -> tuple[Tensor, Tensor]:
    """Each token fixes the next, but for one in five, which is random."""
    following = torch.randperm(64)
    tokens = torch.randint(64, (TRAINED_ON, 33))
    for place in range(32):
        known = torch.rand(TRAINED_ON) < 0.8
        tokens[:, place + 1] = torch.where(known, following[tokens[:, place]], tokens[:, place + 1])
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def _convolutions(size: int, *widths: int) -> Callable[[], nn.Module]:
    """Blocks of convolution, ReLU and 2x2 max-pooling on ``size x size`` images, for 10 classes."""

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for inputs, outputs in zip((1, *widths), widths, strict=False):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        side = size // 2 ** len(widths)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * side * side, 10))

    return build


PROBLEMS: dict[str, Recipe] = {
    "small-conv": Recipe(
        _convolutions(28, 16, 32, 48), _images(10, 2.0, 1, 28, 28), 300, 3e-3, 256, 64
    ),
    "mlp": Recipe(lambda: nets.mlp()[0], _images(10, 3.0, 1, 28, 28), 60, 1e-3, 1024, 256),
    "conv4": Recipe(lambda: nets.conv4()[0], _images(5, 2.0, 1, 28, 28), 200, 3e-3, 256, 64),
    "resnet20": Recipe(
        lambda: nets.resnet(3, 1, convolve=False)[0],
        _images(10, 2.0, 3, 32, 32),
        100,
        3e-3,
        128,
        64,
    ),
    "transformer": Recipe(lambda: nets.transformer()[0], _sentences, 300, 3e-3, 128, 64),
    "tiny-conv": Recipe(_convolutions(12, 8, 16), _images(10, 1.0, 1, 12, 12), 300, 3e-3, 64, 64),
}
"""``tiny-conv`` is small enough for its Hessian to be written down, which the traces are compared on."""
