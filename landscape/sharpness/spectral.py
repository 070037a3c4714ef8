"""Measures of the whole spectrum, from one run of Lanczos quadrature or from the probes of the trace."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal

from landscape.sharpness.curvature import TOP, top
from landscape.sharpness.measurement import Measurement, estimate
from landscape.sharpness.noise import over_parts
from landscape.sharpness.point import Point, measured, positive
from landscape.sharpness.probes import probed
from landscape.spectra.density import Density, density
from landscape.spectra.eigenpairs import Eigenpairs
from landscape.spectra.functionals import Spectral
from landscape.spectra.quadrature import Array, rule

_QUADRATURE = "bound: the error of the quadrature, see log_determinant"
_TINY = 1e-300


@measured
def frobenius(point: Point, probes: int = 16, tol: float = 1e-3, k: int = TOP) -> Measurement:
    """Frobenius norm of the Hessian.

    ``‖H‖_F = (Σ λ²)^(1/2) = (Σ λ₁²..λ_k² + E‖H(I − VVᵀ)z‖²)^(1/2), z random signs``

    From the products that :func:`landscape.sharpness.curvature.trace` makes, at none of its own beside
    it. The error holds that of the probes and, where there are several parts of the data (batches, tasks)
    and memory for their images, that over the parts: ``‖H‖_F`` moves by ``tr(H H_b) / ‖H‖_F``.

    Args:
        point: the point.
        probes: products to spend.
        tol: of the eigenpairs.
        k: eigenpairs to deflate.

    Raises:
        ValueError: a setting out of range, or a Hessian that is not finite.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: 1.5 * t[0] ** 2 + 2 * t[1] ** 2, torch.zeros(2).double())
    >>> round(frobenius(Point(bowl)).value, 9)  # eigenvalues 3 and 4
    5.0
    """
    found = probed(point, point.hessian, top(point, k, tol), probes, "hessian")
    value = math.sqrt(float(found.squares.mean()))
    settings = {"probes": probes, "tol": tol, "deflated": found.deflated}
    if value == 0:
        return estimate("frobenius", value, point.influence(), settings, note="the Hessian is zero")
    parts = None if found.square_parts is None else found.square_parts / value
    draws = None if found.exact else found.squares / (2 * value)
    influence = over_parts(point, parts, draws)
    note = "" if influence.data_error() is not None else "error over the probes, not over the data"
    return estimate("frobenius", value, influence, settings, note=note)


@measured
def effective_dimension(
    point: Point,
    alpha: float = 1.0,
    steps: int = 20,
    probes: int = 5,
    tol: float = 1e-3,
    k: int = TOP,
) -> Measurement:
    """Number of directions that the data determine, against a prior of precision ``alpha``.

    ``Σ λ⁺ / (λ⁺ + α), λ⁺ = max(λ, 0)``

    Maddox, Benton, Wilson 2020. ``α`` is in the units of the eigenvalues of the *mean* loss: a Gaussian
    prior of precision ``a`` over the weights and ``n`` examples make ``α = a / n``. Directions of less
    curvature than ``α`` hardly count. Errors as in :func:`log_determinant`.

    Args:
        point: the point.
        alpha: the prior's precision for each example.
        steps: Lanczos steps of a probe; each is one product.
        probes: random start vectors.
        tol: of the eigenpairs.
        k: eigenpairs to deflate.

    Raises:
        ValueError: a setting out of range, or a Hessian that is not finite.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: 1.5 * t[0] ** 2 + 2 * t[1] ** 2, torch.zeros(2).double())
    >>> round(effective_dimension(Point(bowl)).value, 9)  # 3 / 4 + 4 / 5
    1.55
    """
    positive("effective_dimension", alpha=alpha)

    def f(x: Array) -> Array:
        high = np.maximum(x, 0)
        return np.asarray(high / (high + alpha))

    def slope(x: Array) -> Array:
        return np.where(x > 0, alpha / (np.maximum(x, 0) + alpha) ** 2, 0.0)

    run = _run(point, steps, probes, tol, k)
    return _total("effective_dimension", point, run, f, slope, {"alpha": alpha})


@measured
def log_determinant(
    point: Point,
    gamma: float = 1.0,
    steps: int = 20,
    probes: int = 5,
    tol: float = 1e-3,
    k: int = TOP,
) -> Measurement:
    """Half the log-determinant of the Hessian plus a precision: local entropy of the quadratic model.

    ``½ Σ log(1 + λ⁺ / γ), λ⁺ = max(λ, 0)``

    What ``−log E exp(−(L(w + τ) − L(w)))``, ``τ ~ N(0, I/γ)``, is for a quadratic at its minimum (Chaudhari
    et al. 2017); ``γ`` is in the units of the eigenvalues. Negative eigenvalues count as 0.

    One run of stochastic Lanczos quadrature gives this, the effective dimension and the negative mass,
    with the eigenvectors of ``lambda_max`` taken out exactly. The error over the parts of the data
    comes from the same products: ``Σ f(λ)`` moves by ``tr(f'(H) H_b)``. ``bound`` is half the distance between
    the Gauss and the anti-Gauss rule (Laurie 1996), whose mean is the value: wide where many eigenvalues
    are small, for ``steps`` few.

    Args:
        point: the point.
        gamma: precision of the noise, positive.
        steps: Lanczos steps of a probe; each is one product.
        probes: random start vectors.
        tol: of the eigenpairs.
        k: eigenpairs to deflate.

    Raises:
        ValueError: a setting out of range, or a Hessian that is not finite.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: 1.5 * t[0] ** 2 + 2 * t[1] ** 2, torch.zeros(2).double())
    >>> found = log_determinant(Point(bowl)).value
    >>> abs(found - math.log(4 * 5) / 2) < 1e-9
    True
    """
    positive("log_determinant", gamma=gamma)

    def f(x: Array) -> Array:
        return np.asarray(0.5 * np.log1p(np.maximum(x, 0) / gamma))

    def slope(x: Array) -> Array:
        return np.where(x > 0, 0.5 / (gamma + np.maximum(x, 0)), 0.0)

    run = _run(point, steps, probes, tol, k)
    return _total("log_determinant", point, run, f, slope, {"gamma": gamma})


@measured
def negative_mass(
    point: Point, steps: int = 20, probes: int = 5, tol: float = 1e-3, k: int = TOP
) -> Measurement:
    """Share of the spectrum that is negative, by magnitude.

    ``Σ |λ⁻| / Σ |λ|, λ⁻ = min(λ, 0)``

    By quadrature weights, never by counts of Ritz values. Errors as in :func:`log_determinant`.

    Args:
        point: the point.
        steps: Lanczos steps of a probe; each is one product.
        probes: random start vectors.
        tol: of the eigenpairs.
        k: eigenpairs to deflate.

    Raises:
        ValueError: a setting out of range, or a Hessian that is not finite.

    >>> from landscape.objective import FunctionObjective
    >>> saddle = FunctionObjective(lambda t: 1.5 * t[0] ** 2 - 0.5 * t[1] ** 2, torch.zeros(2).double())
    >>> round(negative_mass(Point(saddle)).value, 9)
    0.25
    """
    run = _run(point, steps, probes, tol, k)

    def below(x: Array) -> Array:
        return np.maximum(-x, 0.0)

    up, down = run.sums(below), run.sums(np.abs)
    settings = run.settings
    if down.mean() == 0:
        note = "the Hessian is zero"
        return estimate("negative_mass", 0.0, point.influence(), settings, note=note)
    value = float(up.mean() / down.mean())
    bound = run.bound(
        lambda over: float(over(below).mean() / max(float(over(np.abs).mean()), _TINY))
    )
    parts = None
    slopes = run.parts(lambda x: np.where(x < 0, -1.0, 0.0)), run.parts(np.sign)
    if slopes[0] is not None and slopes[1] is not None:
        parts = torch.from_numpy((slopes[0] - value * slopes[1]) / down.mean())
    draws = torch.from_numpy((up - value * down) / down.mean())
    influence = over_parts(point, parts, draws)
    return estimate("negative_mass", value, influence, settings, bound=bound, note=_QUADRATURE)


@dataclass(frozen=True, eq=False)
class _Run:
    """A density with the eigenpairs that it deflates."""

    density: Density
    pairs: Eigenpairs
    settings: dict[str, Any]

    def sums(self, f: Spectral) -> Array:
        """``Σ f(λ)`` as each probe sees it ``(probes,)``: the mean of the two rules of :meth:`bound`."""
        return (self._over(f, 0, False) + self._over(f, 0, True)) / 2

    def bound(self, value: Callable[[Callable[[Spectral], Array]], float]) -> float:
        """How far a value may be off because the Lanczos steps are few.

        The error of the anti-Gauss rule (Laurie 1996) is nearly that of the Gauss rule with one step
        less, of opposite sign; so their mean is better than both, and half of their distance says how far
        they are off. As it may be small by chance, the largest of the last four steps counts.
        """

        def halves(less: int) -> float:
            ends = [value(lambda f, a=anti: self._over(f, less, a)) for anti in (False, True)]  # type: ignore[misc]
            return abs(ends[0] - ends[1]) / 2

        return max(halves(less) for less in range(4))

    def _over(self, f: Spectral, less: int, anti: bool) -> Array:
        found = self.density
        known = float(np.sum(f(found.outliers)))
        if not found.tridiagonals:
            return np.array([known])
        rows = []
        for diagonal, off in found.tridiagonals:
            steps = max(len(diagonal) - less, 2)
            # A space that was exhausted early says all of it: its Gauss rule is exact.
            if len(diagonal) < self.settings["steps"] or len(diagonal) >= found.complement:
                matrix = diagonal, off
            elif anti:
                scaled = np.append(off[: steps - 2], math.sqrt(2) * off[steps - 2])
                matrix = diagonal[:steps], scaled
            else:
                matrix = diagonal[: steps - 1], off[: steps - 2]
            nodes, weights = rule(matrix)
            rows.append(known + found.complement * float(weights @ f(nodes)))
        return np.array(rows)

    def parts(self, slope: Spectral) -> Array | None:
        """``tr(f'(H) H_b)`` of each part ``(parts,)``.

        ``f'(H)`` is block-diagonal in the deflated vectors and the rest, where Lanczos gives
        ``f'(H) q ≈ Q f'(T) e₁``, and ``q₁ᵀ H_b Q`` was noted with the products.
        """
        quotients = self.pairs.quotients
        if quotients is None:
            return None
        total: Array = quotients.numpy() @ slope(self.pairs.values.numpy())
        rows = zip(self.density.couplings, self.density.tridiagonals, strict=True)
        found = [c @ _first_column(slope, *matrix) for c, matrix in rows]
        if found:
            total = total + self.density.complement * np.mean(found, axis=0)
        return total


def _first_column(f: Callable[[Array], Array], diagonal: Array, off: Array) -> Array:
    """``f(T) e₁``."""
    nodes, vectors = eigh_tridiagonal(diagonal, off)
    column: Array = vectors @ (f(nodes) * vectors[0])
    return column


def _run(point: Point, steps: int, probes: int, tol: float, k: int) -> _Run:
    if steps < 2:
        raise ValueError(f"steps is {steps}: expected at least 2")
    pairs = top(point, k, tol)

    def compute() -> Density:
        with point.products(point.hessian) as operator:
            return density(
                operator, steps=steps, probes=probes, seed=point.seed, pairs=pairs, spread=True
            )

    found: Density = point.once(("density", steps, probes, tol, len(pairs.values)), compute)
    settings = {"steps": steps, "probes": probes, "tol": tol, "deflated": len(pairs.values)}
    return _Run(found, pairs, settings)


def _total(
    name: str, point: Point, run: _Run, f: Spectral, slope: Spectral, settings: dict[str, Any]
) -> Measurement:
    samples = run.sums(f)
    bound = run.bound(lambda over: float(over(f).mean()))
    found = run.parts(slope)
    parts = None if found is None else torch.from_numpy(found)
    influence = over_parts(point, parts, torch.from_numpy(samples))
    value, settings = float(samples.mean()), {**settings, **run.settings}
    return estimate(name, value, influence, settings, bound=bound, note=_QUADRATURE)
