"""What the property tests of the laws draw: awkward numbers, matrices, tasks and networks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from problems import normal, symmetric
from torch import Tensor, nn

from landscape.data_objective import DataObjective

SEEDS = st.integers(0, 10_000)

SCALES = st.sampled_from([1e-8, 1e-3, 0.7, 1.0, 12.0, 1e4, 1e8])
"""Factors between the smallest and the largest that a user's units may make."""

_EIGENVALUE = st.one_of(
    st.integers(-3, 5).map(float),
    st.floats(-3, 5).map(lambda x: round(x, 6)),  # no squares that underflow
)


def examples(count: int) -> settings:
    """``count`` examples, however long one takes; ``benchmarks/faults_laws.py`` asks for more."""
    return settings(max_examples=count, deadline=None)


def spectra(least: int = 1, most: int = 7, low: float = -3.0) -> st.SearchStrategy[list[float]]:
    """Eigenvalues: one alone, repeated ones, zeros, all of one sign; none below ``low``."""
    value = _EIGENVALUE.map(lambda x: max(x, low))
    return st.one_of(
        st.lists(value, min_size=least, max_size=most),
        st.tuples(value, st.integers(least, most)).map(lambda pair: [pair[0]] * pair[1]),
    )


@st.composite
def matrices(draw: Any, least: int = 1, most: int = 7, low: float = -3.0) -> Tensor:
    """Symmetric, float64, of such a spectrum and any eigenvectors."""
    return symmetric(draw(spectra(least, most, low)), draw(SEEDS))


def vector(size: int, seed: int, zeros: Sequence[int] = ()) -> Tensor:
    """Standard normal ``(size,)``, zero at some places."""
    made = normal(size, seed=seed)
    for i in zeros:
        made[i % size] = 0.0
    return made


def close(found: Any, expected: Any, rtol: float = 1e-9, atol: float = 0.0) -> None:
    """Equal up to ``rtol`` of the largest entry expected (entries that cancel are no smaller in error)."""
    found, expected = _numbers(found), _numbers(expected)
    assert found.shape == expected.shape
    largest = float(np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * largest + atol)


def _numbers(values: Any) -> np.ndarray:
    if isinstance(values, Sequence):  # of which torch would make float32
        return np.array([float(v) for v in values])
    return np.asarray(values.detach() if isinstance(values, Tensor) else values, dtype=float)


def relu_stack(widths: Sequence[int], seed: int, activation: Callable[[], nn.Module]) -> nn.Module:
    """Linear layers without biases, float64, with weights from ``seed``."""
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        layer = nn.Linear(inputs, outputs, bias=False, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(normal(outputs, inputs, seed=seed + 31 * i))
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1])


@st.composite
def classifiers(
    draw: Any,
    activation: Callable[[], nn.Module] = nn.ReLU,
    most: int = 9,
    batch_size: int | None = None,
) -> DataObjective:
    """Small networks without biases on 1 to ``most`` examples, in batches of any size."""
    widths = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    widths[-1] = max(widths[-1], 2)
    seed, n = draw(SEEDS), draw(st.integers(1, most))
    x = normal(n, widths[0], seed=seed + 1)
    y = torch.from_numpy(np.random.default_rng(seed + 2).integers(0, widths[-1], n))
    size = batch_size or draw(st.integers(1, most))
    return DataObjective(relu_stack(widths, seed, activation), (x, y), batch_size=size)


def layers_of(objective: Any, theta: Tensor) -> list[Tensor]:
    """The weight matrices at ``theta``, views."""
    return [
        part.view(shape)
        for part, shape in zip(
            theta.split([int(np.prod(s)) for s in objective.space.shapes]),
            objective.space.shapes,
            strict=True,
        )
    ]


def rescaled_layers(objective: Any, factors: Sequence[float]) -> Tensor:
    """``theta`` with each layer times a factor, the last one undoing the others: the same ReLU network."""
    theta = objective.theta.clone()
    layers = layers_of(objective, theta)
    rest = 1.0
    for layer, factor in zip(layers[:-1], factors, strict=False):
        layer *= factor
        rest /= factor
    layers[-1] *= rest
    return theta


def rescaled_neurons(objective: Any, seed: int) -> Tensor:
    """``theta`` with a factor for each hidden neuron, undone where it is read: the same ReLU network."""
    theta = objective.theta.clone()
    layers = layers_of(objective, theta)
    for i, (first, second) in enumerate(itertools.pairwise(layers)):
        factors = torch.exp(2 * normal(len(first), seed=seed + i))
        first *= factors[:, None]
        second /= factors
    return theta
