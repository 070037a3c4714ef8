"""Sums over the whole spectrum, ``Σ f(λ)`` and what is made of them, from one density run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from landscape.spectra.density import Density
from landscape.spectra.quadrature import Array
from landscape.spectra.traces import half_width

Spectral = Callable[[Array], Array]

NAMES = (
    "trace",
    "absolute_trace",
    "frobenius",
    "schatten",
    "effective_dimension",
    "log_determinant",
    "negative_mass",
)


@dataclass(frozen=True)
class Estimate:
    """A number made of the spectrum; the error is that of the random probes, not of the data.

    Attributes:
        value: the estimate.
        stderr: standard error over the probes.
        interval: 95 % interval by Student's t with one degree of freedom less than probes.
        name: what it is, with its parameter.
        quadrature_change: how far the value moves if only the first half of each probe's Lanczos steps
            is used: large beside ``stderr`` means that ``steps`` is too small. Near 0 for polynomials of
            degree below ``steps``, which half of the steps integrate exactly (trace, Frobenius norm).
    """

    value: float
    stderr: float
    interval: tuple[float, float]
    name: str
    quadrature_change: float


def functional(
    density: Density,
    name: str | Spectral,
    *,
    alpha: float | None = None,
    gamma: float | None = None,
    p: float | None = None,
) -> Estimate:
    """A functional of the spectrum, with its interval, at no further product.

    ===========================  ==================================================================
    ``"trace"``                  ``Σ λ``
    ``"absolute_trace"``         ``Σ |λ|``
    ``"frobenius"``              ``(Σ λ²)^(1/2)``
    ``"schatten"``               ``(Σ |λ|^p)^(1/p)``
    ``"effective_dimension"``    ``Σ λ⁺ / (λ⁺ + alpha)`` (Maddox, Benton, Wilson 2020)
    ``"log_determinant"``        ``½ Σ log(1 + λ⁺ / gamma)``: what the local entropy of Chaudhari et
                                 al. 2017 is for a quadratic, up to the loss itself
    ``"negative_mass"``          ``Σ |λ⁻| / Σ |λ|``
    a callable                   ``Σ f(λ)``
    ===========================  ==================================================================

    ``λ⁺ = max(λ, 0)``: negative eigenvalues count as 0 there, since the Gaussian integrals that these
    two stand for have no value beyond ``-gamma``; look at ``"negative_mass"`` beside them.

    Outliers enter by their values, so the sum has, beside the interval, an error of the order of their
    residuals squared over their distance to the bulk. For the rest a probe gives
    ``(params - k) Σ τᵢ f(θᵢ)``; ratios and roots of means get their errors by the delta method.

    Args:
        density: from :func:`landscape.spectra.density.density`.
        name: one of the above, or ``f`` on arrays of eigenvalues.
        alpha: of the effective dimension: positive, in the units of the eigenvalues.
        gamma: of the log-determinant: positive, in the units of the eigenvalues.
        p: of the Schatten norm: at least 1.

    Raises:
        ValueError: an unknown name, or a parameter that is missing, superfluous or out of range.

    >>> import torch
    >>> from landscape.spectra.density import density
    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: t[0] ** 2 + t[1] ** 2, torch.zeros(2))
    >>> found = density(bowl, outliers=0)
    >>> round(functional(found, "frobenius").value, 5)  # two eigenvalues of 2
    2.82843
    >>> round(functional(found, "effective_dimension", alpha=2.0).value, 5)
    1.0
    """
    given = {"alpha": alpha, "gamma": gamma, "p": p}
    needed = {"effective_dimension": "alpha", "log_determinant": "gamma", "schatten": "p"}
    wanted = needed.get(name) if isinstance(name, str) else None
    if isinstance(name, str) and name not in NAMES:
        raise ValueError(f"unknown functional {name!r}: expected one of {', '.join(NAMES)}")
    for key, number in given.items():
        least = 1.0 if key == "p" else 0.0
        if (number is not None) != (key == wanted):
            raise ValueError(f"{key} is {number}: {_advice(key, wanted)}")
        if number is not None and not (number > least or number == least == 1.0):
            raise ValueError(f"{key} is {number}: expected {'1 or more' if least else 'above 0'}")
    if callable(name):
        return _power(density, name, 1.0, getattr(name, "__name__", "f"))
    if name == "negative_mass":
        return _ratio(density, lambda x: np.maximum(-x, 0.0), np.abs, name)
    label = name if wanted is None else f"{name}({wanted}={given[wanted]:g})"
    order = {"frobenius": 2.0, "schatten": p or 1.0}.get(name, 1.0)
    shapes: dict[str, Spectral] = {
        "trace": lambda x: x,
        "absolute_trace": np.abs,
        "frobenius": np.square,
        "schatten": lambda x: np.abs(x) ** order,
        "effective_dimension": lambda x: np.maximum(x, 0) / (np.maximum(x, 0) + (alpha or 1.0)),
        "log_determinant": lambda x: 0.5 * np.log1p(np.maximum(x, 0) / (gamma or 1.0)),
    }
    return _power(density, shapes[name], order, label)


def sums(density: Density, f: Spectral, steps: int | None = None) -> Array:
    """``Σ f(λ)`` as each probe sees it: outliers exactly, then ``(params - k) Σ τᵢ f(θᵢ)``.

    Args:
        density: the quadrature rules.
        f: of arrays.
        steps: Lanczos steps to use; all when left out.

    Returns:
        ``(probes,)``, or ``(1,)`` where every eigenvalue is an outlier.
    """
    known = float(np.sum(f(density.outliers)))
    rules = density.rules(steps)
    if not rules:
        return np.array([known])
    return np.array([known + density.complement * float(w @ f(x)) for x, w in rules])


def _power(density: Density, f: Spectral, order: float, name: str) -> Estimate:
    """``(Σ f(λ))^(1/order)``."""

    def root(steps: int | None) -> tuple[float, Array]:
        samples = sums(density, f, steps)
        mean = float(samples.mean())
        value = mean if order == 1.0 else max(mean, 0.0) ** (1 / order)
        slope = 1.0 if order == 1.0 else (value / (order * mean) if mean > 0 else 0.0)
        return value, slope * (samples - mean)

    return _estimate(density, root, name, -math.inf if order == 1.0 else 0.0, math.inf)


def _ratio(density: Density, above: Spectral, below: Spectral, name: str) -> Estimate:
    """``Σ above(λ) / Σ below(λ)``, between 0 and 1; NaN where the latter is 0."""

    def quotient(steps: int | None) -> tuple[float, Array]:
        up, down = sums(density, above, steps), sums(density, below, steps)
        if down.mean() == 0:
            return math.nan, np.full(len(up), math.nan)
        value = float(up.mean() / down.mean())
        return value, (up - value * down) / float(down.mean())

    return _estimate(density, quotient, name, 0.0, 1.0)


def _estimate(
    density: Density,
    found: Callable[[int | None], tuple[float, Array]],
    name: str,
    low: float,
    high: float,
) -> Estimate:
    """With ``found`` the value and the deviations of the probes, linearized, after so many steps."""
    value, deviations = found(None)
    count = len(deviations)
    stderr = float(deviations.std(ddof=1) / math.sqrt(count)) if count > 1 else 0.0
    half = half_width(stderr, count) if count > 1 else 0.0
    most = max((len(diagonal) for diagonal, _ in density.tridiagonals), default=2)
    change = abs(value - found(max(1, most // 2))[0])
    return Estimate(value, stderr, (max(low, value - half), min(high, value + half)), name, change)


def _advice(key: str, wanted: str | None) -> str:
    return "this functional needs it" if key == wanted else "this functional has no such parameter"
