"""The library against the naive computations of :mod:`naive`, on one random network: what disagrees by how much."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import naive
import naive_directions
import numpy as np
import torch
from kinks import sides
from random_networks import Case
from torch import Tensor, nn

import landscape
from landscape.data_objective import DataObjective
from landscape.directions import Plane, generator
from landscape.executors import Unsupported, candidates
from landscape.operators.gauss_newton import FisherOperator, GGNOperator
from landscape.operators.hessian import HessianOperator
from landscape.operators.selftest import check

Array = naive.Array

VALUE = 1e-9
"""Relative tolerance of values and surfaces, float64."""
CURVATURE = 1e-7
"""Relative tolerance of second derivatives, to the norm of the matrix."""
FEW = 25
"""Parameters up to which all eigenpairs are searched for."""
FINITE = 1e-5
"""Relative tolerance of differences of the gradient."""

RULES = (
    ("filter", ("bias", "norm")),
    ("layer", ("bias", "norm")),
    ("filter", ()),
    ("weight", ("norm",)),
    ("none", ()),
)
WAYS = ("plain", "chunked", "fused", "vmap")
COORDINATES = np.linspace(-0.5, 0.5, 5)


class Finding(NamedTuple):
    """One comparison: a quantity, how far the two are apart, and how far they may be."""

    quantity: str
    error: float
    tolerance: float

    @property
    def failed(self) -> bool:
        return not self.error <= self.tolerance


def relative(found: Any, expected: Any, scale: float | None = None) -> float:
    """The largest difference, relative to the largest entry expected (or ``scale``); NaN equals NaN."""
    a, b = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    if a.shape != b.shape:
        return float("inf")
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    finite = b[np.isfinite(b)]
    size = float(np.abs(finite).max(initial=0.0)) if scale is None else scale
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(a - b))
    worst = float(gap.max(initial=0.0))
    return worst / size if size > 0 else worst


class Subject:
    """A case with the library's objective of it, and the naive numbers that several checks need."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.objective = DataObjective(case.model, case.data, loss=case.task.loss, **case.options)
        self.theta: Tensor = self.objective.theta
        self.vector: Array = naive.weights(case.model)

    @cached_property
    def gradient(self) -> Array:
        return naive.gradient(naive.loss_of(self.case), self.case.model, self.vector)

    @cached_property
    def hessian(self) -> Array:
        return naive.hessian(naive.in_batches(self.case), self.case.model, self.vector)

    @cached_property
    def size(self) -> float:
        """Norm of the Hessian."""
        return float(np.linalg.norm(self.hessian, 2)) or 1.0

    @cached_property
    def spectrum(self) -> tuple[Array, Array]:
        """Eigenvalues, ascending, and eigenvectors in columns."""
        values, vectors = np.linalg.eigh((self.hessian + self.hessian.T) / 2)
        return values, vectors


def values(subject: Subject) -> Iterator[Finding]:
    """Loss, terms and gradient at the point; nothing of the user's is touched."""
    case, objective, theta = subject.case, subject.objective, subject.theta
    before = {name: t.clone() for name, t in case.model.state_dict().items()}
    modes = [m.training for m in case.model.modules()]
    yield Finding("coordinates", relative(theta, subject.vector), 0.0)
    expected = naive.value(case, subject.vector)
    found = objective.metrics(theta)
    scale = abs(expected) or 1.0
    yield Finding(
        "loss",
        relative([float(objective.value(theta)), found["loss"]], [expected] * 2, scale),
        VALUE,
    )
    yield Finding("gradient", relative(objective.gradient(theta), subject.gradient), VALUE)
    if not case.task.scalar:
        terms, together = objective.losses_and_gradient(theta)
        yield Finding("loss", relative(terms.mean(), expected, scale), VALUE)
        yield Finding("gradient", relative(together, subject.gradient), VALUE)
    if not case.coupled:
        single = naive.losses(case, subject.vector)
        yield Finding("loss of each example", relative(objective.losses(theta), single), VALUE)
        spread = single.std(ddof=1) / np.sqrt(len(single))
        yield Finding("standard error", relative(found["loss_stderr"], spread), 1e-7)
    same = all(torch.equal(t, before[name]) for name, t in case.model.state_dict().items())
    kept = same and modes == [m.training for m in case.model.modules()]
    yield Finding("the user's model", 0.0 if kept else 1.0, 0.0)


def planes(subject: Subject, rules: Any = RULES) -> Iterator[tuple[str, Plane, list[Finding]]]:
    """Directions under every rule, made of the numbers that the library drew."""
    raw = landscape.random_plane(subject.objective, "none", ignore=(), seed=subject.case.seed)
    for rule, ignore in rules:
        plane = landscape.random_plane(subject.objective, rule, ignore, seed=subject.case.seed)
        rows = [
            naive_directions.direction(subject.case.model, row.numpy(), rule, ignore)
            for row in raw.basis
        ]
        yield (
            rule,
            plane,
            [Finding(f"direction, {rule}", relative(plane.basis, np.stack(rows)), VALUE)],
        )


def surfaces(
    subject: Subject, rules: Any = RULES, ways: tuple[str, ...] = WAYS
) -> Iterator[Finding]:
    """Surfaces of 5 x 5 points by every executor that takes the network."""
    case, objective = subject.case, subject.objective
    for rule, plane, found in planes(subject, rules):
        yield from found
        basis = [row.numpy() for row in plane.basis]
        expected = naive.surface(case, subject.vector, basis, COORDINATES)
        scale = float(np.abs(expected).max())
        for way in ways:
            if way == "plain":
                made = landscape.evaluate(objective, plane, span=0.5, points=5, executor=way)
                coordinates = relative(made["alpha"], COORDINATES)
                yield Finding("coordinates", coordinates, 1e-12)
                losses = made["loss"].transpose("beta", "alpha").values
            else:
                try:
                    evaluator = candidates(objective, plane)[way]()
                except Unsupported:
                    continue
                places = [(a, b) for b in COORDINATES for a in COORDINATES]
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    columns = evaluator(np.array(places))
                losses = np.asarray(columns["loss"]).reshape(5, 5)
            yield Finding(f"surface, {rule}", relative(losses, expected, scale), VALUE)
            yield Finding(f"surface, {way}", relative(losses, expected, scale), VALUE)


def smooth(subject: Subject, v: Array, step: float) -> bool:
    """Whether no input of a kinked layer changes sides on the way of a difference along ``v``."""
    case, function = subject.case, naive.in_batches(subject.case)

    def at(h: float) -> list[Tensor]:
        model = naive.written(case.model, subject.vector + h * v)
        return sides(lambda: function(model))

    here = at(0.0)
    return all(
        len(there) == len(here) and all(torch.equal(a, b) for a, b in zip(there, here, strict=True))
        for there in (at(2 * step), at(-2 * step))
    )


def differences(subject: Subject) -> Iterator[Finding]:
    """A product with a random direction against a difference of naive gradients, and the operator's own test."""
    v = np.random.default_rng(subject.case.seed).standard_normal(len(subject.vector))
    v /= np.linalg.norm(v)
    step = 1e-4
    if not np.abs(subject.gradient).any():
        return
    while not smooth(subject, v, step):
        step /= 4
        assert step > 1e-9, "the network is nearer to a kink than its margin"
    expected = naive.difference(
        naive.in_batches(subject.case), subject.case.model, subject.vector, v, step
    )
    operator = HessianOperator(subject.objective)
    product = (operator @ torch.from_numpy(v)).numpy()
    # The rounding of a gradient (1e-16 of its size or so) is divided by the step.
    floor = 1e-14 * max(np.abs(subject.gradient).max(), 1.0) / step
    gap = max(np.abs(product - expected).max() - floor, 0.0)
    yield Finding(
        "difference of gradients", relative(gap, 0.0, float(np.abs(expected).max()) or 1.0), FINITE
    )
    result = check(operator)
    yield Finding("self-test passes", 0.0 if result.passed else 1.0, 0.0)


def products(subject: Subject, forward: bool = True) -> Iterator[Finding]:
    """All columns of every operator, by every way to make them, against naive matrices."""
    objective, expected, n = subject.objective, subject.hessian, len(subject.vector)
    eye = torch.eye(n, dtype=torch.float64)
    yield Finding(
        "symmetry of the naive Hessian", relative(expected, expected.T, subject.size), CURVATURE
    )
    modules = list(subject.case.model.modules())
    ways: dict[str, dict[str, Any]] = {"kept graph": {"keep_graph": True}}
    if not any(isinstance(m, nn.GroupNorm) for m in modules):  # see test_chunks_through_group_norm
        ways["graph anew, in chunks"] = {"keep_graph": False, "chunk": 5}
    if forward and not any(isinstance(m, nn.RNNBase) for m in modules):
        ways["forward"] = {"mode": "forward"}
    for way, options in ways.items():
        rows = eye if way == "kept graph" else eye[:: max(n // 20, 1)]
        made = HessianOperator(objective, **options).rows(rows)
        yield Finding(
            f"Hessian, {way}", relative(made, rows.numpy() @ expected, subject.size), CURVATURE
        )
    part = [
        name
        for name, size in zip(objective.space.names, objective.space.sizes, strict=True)
        if size
    ][::2]
    block = HessianOperator(objective, params=part)
    inside = np.concatenate(
        [
            np.full(s, name in part)
            for name, s in zip(objective.space.names, objective.space.sizes, strict=True)
        ]
    )
    made = block.rows(torch.eye(block.shape[0], dtype=torch.float64))
    yield Finding(
        "Hessian, a block",
        relative(made, expected[np.ix_(inside, inside)], subject.size),
        CURVATURE,
    )


def other_operators(subject: Subject) -> Iterator[Finding]:
    """GGN and empirical Fisher against their definitions."""
    case, objective, n = subject.case, subject.objective, len(subject.vector)
    eye = torch.eye(n, dtype=torch.float64)
    if case.norm != "recalibrate" and case.task.name != "complex output":
        expected = naive.gauss_newton(case, subject.vector)
        made = GGNOperator(objective).rows(eye)
        yield Finding("GGN", relative(made, expected), CURVATURE)
    if not case.coupled:
        gradients = naive.gradients(case, subject.vector)
        expected = gradients.T @ gradients / len(gradients)
        yield Finding("Fisher", relative(FisherOperator(objective).rows(eye), expected), CURVATURE)


def spectra(subject: Subject) -> Iterator[Finding]:
    """Eigenvalues of both ends and all, traces, and moments of the density."""
    eigenvalues, vectors = subject.spectrum
    n, size = len(eigenvalues), subject.size
    operator = HessianOperator(subject.objective, keep_graph=True)
    k = min(3, n)
    for which, expected in (("LA", eigenvalues[::-1][:k]), ("SA", eigenvalues[:k])):
        found = landscape.eigenpairs(operator, k=k, which=which, tol=1e-6, multiplicity="full")
        yield Finding(f"eigenvalues, {which}", relative(found.values, expected, size), CURVATURE)
        together = operator.weights @ operator.quotients(found.vectors)
        yield Finding("quotients of the parts", relative(together, expected, size), CURVATURE)
        defect = (
            subject.hessian @ found.vectors.numpy().T
            - found.vectors.numpy().T * found.values.numpy()
        )
        bound = np.linalg.norm(defect, axis=0) - found.residuals.numpy()
        yield Finding("residuals of eigenpairs", float(max(bound.max(), 0.0)) / size, CURVATURE)
    largest = eigenvalues[np.argsort(-np.abs(eigenvalues))][:1]
    block = landscape.eigenpairs(operator, k=1, which="LM", method="block", tol=1e-6)
    yield Finding(
        "eigenvalues, LM by blocks",
        relative(np.abs(block.values), np.abs(largest), size),
        CURVATURE,
    )
    if n <= FEW:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of eigenvalues of 0 no relative residual is small
            every = landscape.eigenpairs(
                operator, k=n, tol=1e-6, max_vectors=2 * n + 10, max_products=4 * n + 100
            )
        yield Finding(
            "eigenvalues, all", relative(np.sort(every.values), eigenvalues, size), CURVATURE
        )
    total, absolute = float(eigenvalues.sum()), float(np.abs(eigenvalues).sum())
    exact = landscape.trace(operator, probes=max(n, 60), method="auto")
    yield Finding("trace, exact", relative(exact.value, total, absolute), CURVATURE)
    if n > 2:
        sampled = landscape.trace(operator, probes=32, method="hutchinson", seed=subject.case.seed)
        half = 3 * max(
            sampled.interval[1] - sampled.value, 1e-12 * absolute
        )  # three times the half-width of 95 %
        yield Finding(
            "trace, Hutchinson, in half-widths", abs(sampled.value - total) / half * 3, 3.0
        )
    yield from moments(subject, operator, eigenvalues, vectors)


def moments(
    subject: Subject, operator: Any, eigenvalues: Array, vectors: Array
) -> Iterator[Finding]:
    """``Σ τ θ^k = qᵀ A^k q`` for every probe of the density, with ``A`` the naive Hessian without its outliers."""
    n, seed = len(eigenvalues), subject.case.seed
    for steps in (n, 6):
        found = landscape.density(
            operator, steps=steps, probes=2, seed=seed, outliers=min(2, n - 1)
        )
        away = np.abs(found.outliers[:, None] - eigenvalues[None]).min(1, initial=np.inf)
        yield Finding(
            "density, outliers, beyond their residuals",
            float(np.maximum(away - found.residuals, 0.0).max(initial=0.0)) / subject.size,
            1e-7,
        )
        if steps == n and len(found.outliers):
            # The others are located, and may be of the next largest ones where these lie close.
            gap = relative(
                np.abs(found.outliers[:1]), np.abs(eigenvalues).max(keepdims=True), subject.size
            )
            yield Finding("density, largest outlier", gap, 1e-3)
    found = landscape.density(operator, steps=6, probes=2, seed=seed, outliers=0)
    for i, (nodes, shares) in enumerate(zip(found.nodes, found.weights, strict=True)):
        q = generator(seed, "density", i).standard_normal(n)
        q /= np.linalg.norm(q)
        exact = 2 * len(nodes) if len(nodes) == 6 else 12
        image = q
        for k in range(exact):
            expected = float(q @ image)
            gap = relative(float(shares @ nodes**k), expected, subject.size**k)
            yield Finding("density, moments", gap, CURVATURE)
            image = subject.hessian @ image
    if n > FEW:
        return
    full = landscape.density(operator, steps=n, probes=2, seed=seed, outliers=0)
    nodes, shares = np.concatenate(full.nodes), np.concatenate(full.weights)
    far = max(float(np.abs(eigenvalues - x).min()) for x in nodes[shares > 1e-6])
    yield Finding("density, nodes", far / subject.size, 1e-6)


CHECKS: dict[str, Callable[[Subject], Iterator[Finding]]] = {
    "values": values,
    "surfaces": surfaces,
    "differences": differences,
    "products": products,
    "other_operators": other_operators,
    "spectra": spectra,
}


def agree(findings: Iterable[Finding]) -> None:
    """Assert that something was compared and that nothing disagrees; all that does is named."""
    found = list(findings)
    assert found
    failed = [f"{f.quantity}: {f.error:.1e}, allowed {f.tolerance:.0e}" for f in found if f.failed]
    assert not failed, "; ".join(failed)
