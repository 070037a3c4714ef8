"""The sharpness of Keskar et al. 2017: the largest rise within a box, in percent of the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from landscape.directions import generator
from landscape.sharpness.measurement import Measurement, NotApplicable, estimate
from landscape.sharpness.point import Point, measured, positive

ITERATIONS = 10
"""Of L-BFGS-B, as in the paper."""

EVALUATIONS = 20
"""Of the loss and its gradient in one search, at most."""

Array = np.ndarray[Any, np.dtype[np.float64]]


@measured
def keskar(point: Point, epsilon: float = 1e-3, ladder: Sequence[float] = (5e-4,)) -> Measurement:
    """Largest rise within a small box, in percent of one plus the loss.

    ``100 (max over C of L(w + z) − L(w)) / (1 + L(w)), C = {|zᵢ| ≤ ε (|wᵢ| + 1)}``

    Keskar et al. 2017 (On Large-Batch Training), eq. 2 to 4 with ``A = I``: ten iterations of L-BFGS-B.
    They do not say where these start. Here it is the corner that the gradient points at, with random
    signs where it is zero: at the point itself the gradient of a trained network nearly vanishes, and
    the search would not move. A wider box starts at the best place of a narrower one. The best
    place seen counts, so the value is a lower bound. At a minimum ``w`` of
    ``½ (θ−w)ᵀ diag(a) (θ−w) + f`` it is ``50 ε² Σ aᵢ (|wᵢ| + 1)² / (1 + f)``.

    Args:
        point: where; its loss is expected not to be negative.
        epsilon: half-width of the box, relative to ``|w| + 1``.
        ladder: further half-widths, each a variant.

    The error is over the data at the place found (envelope theorem), through the quotient.

    Raises:
        ValueError: a half-width that is not positive.
        NotApplicable: a loss of -1 or less.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: 0.5 * (t * t).sum() + 1, torch.zeros(4).double())
    >>> round(keskar(Point(bowl), epsilon=0.1).value, 9)  # 50 * 0.1 ** 2 * 4 / (1 + 1)
    1.0
    """
    widths = _widths("keskar", epsilon, ladder)

    def compute() -> list[dict[float, _Found]]:
        return [_searches(point, _Frame(point.theta.abs().double() + 1, None), widths, 0)]

    found = point.once(("keskar", widths), compute)
    return _measurement(point, "keskar", found, epsilon, widths, {})


@measured
def keskar_subspace(
    point: Point,
    epsilon: float = 1e-3,
    dims: int = 100,
    repeats: int = 5,
    ladder: Sequence[float] = (5e-4,),
) -> Measurement:
    """As ``keskar``, within random subspaces.

    ``100 (max over C of L(w + Ay) − L(w)) / (1 + L(w)), C = {|yⱼ| ≤ ε (|(A⁺w)ⱼ| + 1)}``

    Keskar et al. 2017 (On Large-Batch Training), eq. 2 to 4, 100 dimensions, 5 repetitions. The columns
    of ``A`` are standard normal, and ``A⁺w`` is the least-squares solution of ``Ay = w``. The searches are
    those of ``keskar``, in ``y``. The value is the mean over the repetitions, each with its own ``A``; their
    scatter is part of the error.

    Args:
        point: where; its loss is expected not to be negative.
        epsilon: half-width of the box, relative to ``|A⁺w| + 1``.
        dims: columns of ``A``, at most the number of parameters; ``A`` takes ``dims`` times their memory.
        repeats: how many subspaces.
        ladder: further half-widths, each a variant.

    Raises:
        ValueError: a half-width that is not positive, dims below 1, repeats below 2.
        NotApplicable: a loss of -1 or less.

    >>> from landscape.objective import FunctionObjective
    >>> flat = FunctionObjective(lambda t: 0 * t.sum(), torch.ones(3).double())
    >>> keskar_subspace(Point(flat), dims=2).value
    0.0
    """
    widths = _widths("keskar_subspace", epsilon, ladder)
    if dims < 1:
        raise ValueError(f"keskar_subspace: dims is {dims}, expected at least 1")
    if repeats < 2:
        raise ValueError(f"keskar_subspace: repeats is {repeats}, expected at least 2 for an error")

    def compute() -> list[dict[float, _Found]]:
        # One subspace in memory at a time, for all half-widths.
        return [
            _searches(point, _subspace(point, dims, repeat), widths, repeat)
            for repeat in range(repeats)
        ]

    found = point.once(("keskar_subspace", widths, dims, repeats), compute)
    settings = {"dims": dims, "repeats": repeats}
    return _measurement(point, "keskar_subspace", found, epsilon, widths, settings)


@dataclass(frozen=True)
class _Frame:
    """Coordinates ``x`` in ``[-1, 1]`` of a box of half-widths ``ε · half``, in the rows of ``basis``."""

    half: Tensor
    basis: Tensor | None

    def step(self, x: Array, width: float, like: Tensor) -> Tensor:
        y = (width * self.half * torch.from_numpy(x).to(self.half)).to(like)
        return y if self.basis is None else y @ self.basis

    def slope(self, gradient: Tensor, width: float) -> Array:
        along = gradient if self.basis is None else self.basis @ gradient
        slope: Array = (width * self.half * along.double()).cpu().numpy()
        return slope


@dataclass(frozen=True)
class _Found:
    """The outcome in one box: the rise of every term, and what was seen on the way that is not finite."""

    rises: Tensor
    seen: float


def _subspace(point: Point, dims: int, repeat: int) -> _Frame:
    size = point.theta.numel()
    shape = (min(dims, size), size)
    dtype = np.float64 if point.theta.dtype == torch.float64 else np.float32
    drawn = generator(point.seed, "keskar", repeat).standard_normal(shape, dtype=dtype)
    basis = torch.from_numpy(drawn).to(point.theta)
    # A⁺w = (AᵀA)⁻¹Aᵀw, A being the transpose of the basis.
    gram, image = (basis @ basis.T).double(), (basis @ point.theta).double()
    return _Frame(torch.linalg.solve(gram, image).abs() + 1, basis)


def _searches(
    point: Point, frame: _Frame, widths: Sequence[float], repeat: int
) -> dict[float, _Found]:
    """The maxima by increasing half-width."""
    slope = frame.slope(point.gradient, 1.0)
    signs = generator(point.seed, "keskar signs", repeat).choice([-1.0, 1.0], len(slope))
    x = np.where(slope == 0, signs, np.sign(slope))
    best, found = torch.zeros_like(point.terms), {}
    for width in widths:
        x, seen = _search(point, frame, width, x)
        rises = point.rise(frame.step(x, width, point.theta))
        best = max(best, rises, key=lambda r: -math.inf if r.mean().isnan() else float(r.mean()))
        found[width] = _Found(best, seen)
    return found


def _search(point: Point, frame: _Frame, width: float, start: Array) -> tuple[Array, float]:
    """The best place seen by L-BFGS-B, and the sum of what was not finite (0, infinity or NaN)."""
    base = float(point.terms.mean())
    best, place, seen, unit = -math.inf, start, 0.0, 0.0

    def descent(x: Array) -> tuple[float, Array]:
        nonlocal best, place, seen, unit
        loss, gradient = point.loss_and_gradient(point.theta + frame.step(x, width, point.theta))
        rise, slope = loss - base, frame.slope(gradient, width)
        if not (math.isfinite(rise) and np.isfinite(slope).all()):
            seen += rise if rise == math.inf else math.nan
            if rise == math.inf:
                best, place = rise, x.copy()
            return 0.0, np.zeros_like(x)  # as if nothing were gained
        if rise > best:
            best, place = rise, x.copy()
        # The rule that ends L-BFGS-B is about numbers of order one.
        unit = unit or abs(rise) or float(np.abs(slope).sum()) or 1.0
        return -rise / unit, -slope / unit

    minimize(
        descent,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(-1.0, 1.0)] * len(start),
        options={"maxiter": ITERATIONS, "maxfun": EVALUATIONS, "ftol": 1e-6, "gtol": 1e-9},
    )
    return place, seen


def _measurement(
    point: Point,
    name: str,
    found: Sequence[dict[float, _Found]],
    epsilon: float,
    widths: Sequence[float],
    settings: Mapping[str, float],
) -> Measurement:
    terms = point.terms
    loss = 1 + float(terms.mean())
    if loss <= 0:
        raise NotApplicable(f"the loss is {loss - 1:.3g}, and this measure divides by 1 + loss")
    rows = []
    for width in [epsilon, *(width for width in widths if width != epsilon)]:
        rises = torch.stack([each[width].rises for each in found])
        values = 100 * rises.mean(1) / loss
        value = float(values.mean())
        note = "lower bound of the maximum"
        if any(each[width].seen for each in found):
            note = f"{note}; the loss is not finite in a part of the box"
        mean = rises.mean(0)
        influence = point.influence()
        if math.isfinite(value):
            # d(R/(1+L)) = dR/(1+L) - R dL/(1+L)².
            quotient = 100 * (mean / loss - float(mean.mean()) * terms / loss**2)
            influence = point.influence(quotient, values if len(found) > 1 else None)
        row = estimate(name, value, influence, {"epsilon": width, **settings}, note=note)
        rows.append(row)
    return replace(rows[0], variants=tuple(rows[1:]))


def _widths(name: str, epsilon: float, ladder: Sequence[float]) -> tuple[float, ...]:
    positive(name, epsilon=epsilon)
    for width in ladder:
        positive(name, **{"a half-width of the ladder": width})
    return tuple(sorted({epsilon, *ladder}))
