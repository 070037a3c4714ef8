"""Sharpness measures as their formulas say, in float64; nothing here is the library's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import naive
import naive_directions
import numpy as np
from scipy.optimize import minimize
from torch import nn

Array = naive.Array
Rise = Callable[[Array], float]


def rise_of(case: Any, vector: Array) -> Rise:
    """``δ -> L(w + δ) - L(w)``."""
    base = naive.value(case, vector)
    return lambda step: naive.value(case, vector + step) - base


def one_step(rise: Rise, gradient: Array, scale: Array, rho: float) -> float:
    """``L(w + ρ T²g/‖Tg‖) - L(w)``, ``T`` the identity (SAM) or ``|w|`` (ASAM)."""
    norm = np.sqrt(np.sum((scale * gradient) ** 2))
    return rise(rho * scale**2 * gradient / norm) if norm > 0 else 0.0


def largest_of_model(gradient: Array, hessian: Array, rho: float) -> float:
    """``max gᵀδ + ½ δᵀHδ`` over ``‖δ‖ ≤ ρ``: ``(μ - H) δ = g``, ``μ ≥ max(λ₁, 0)``, by bisection."""
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    g = vectors.T @ gradient
    low = max(values[-1], 0.0)
    high = low + np.linalg.norm(g) / rho + 1.0
    for _ in range(300):
        middle = (low + high) / 2
        longer = np.linalg.norm(g / (middle - values)) > rho
        low, high = (middle, high) if longer else (low, middle)
    step = g / (high - values)
    missing = rho**2 - step @ step
    if missing > 1e-6 * rho**2:  # g has nothing along the top eigenvector: add of it what is left
        step[-1] += np.sqrt(missing)
    return float(g @ step + 0.5 * step @ (values * step))


def keskar(case: Any, vector: Array, gradient: Array, epsilon: float) -> float:
    """``100 (max over |z| ≤ ε (|w| + 1) of L(w + z) - L(w)) / (1 + L(w))``, by L-BFGS-B in ``z`` itself."""
    half = epsilon * (np.abs(vector) + 1)
    function, base = naive.in_batches(case), naive.value(case, vector)

    def down(z: Array) -> tuple[float, Array]:
        slope = naive.gradient(function, case.model, vector + z)
        return -(naive.value(case, vector + z) - base), -slope

    best = 0.0
    for start in (half * np.sign(gradient), np.zeros_like(half)):
        found = minimize(
            down, start, jac=True, method="L-BFGS-B", bounds=list(zip(-half, half, strict=True)),
            options={"maxiter": 15, "maxfun": 30, "ftol": 1e-14, "gtol": 1e-14},
        )  # fmt: skip
        best = max(best, -down(start)[0], -float(found.fun))
    return 100 * best / (1 + base)


Noise = Callable[[np.random.Generator], Array]


def gaussian(sigma: float, scale: Array) -> Noise:
    """``δ ~ N(0, σ² diag(scale²))``."""
    return lambda draw: sigma * scale * draw.standard_normal(len(scale))


def by_filter(model: nn.Module, radius: float) -> Noise:
    """``d_i = z_i ‖w_i‖/‖z_i‖`` for each filter; biases and norms stay."""
    size = sum(p.numel() for p in naive.trained(model))
    return lambda draw: (
        radius
        * naive_directions.direction(model, draw.standard_normal(size), "filter", ("bias", "norm"))
    )


def by_layer(model: nn.Module, xi: float) -> Noise:
    """``‖δ_l‖ = ξ ‖w_l‖`` for each tensor but those of norms."""
    size = sum(p.numel() for p in naive.trained(model))
    return lambda draw: (
        xi * naive_directions.direction(model, draw.standard_normal(size), "layer", ("norm",))
    )


def sampled(rise: Rise, noise: Noise, pairs: int, seed: int) -> Array:
    """The mean rise of every pair ``±δ``: ``(pairs,)``."""
    draw = np.random.default_rng([seed, 77])
    return np.array(
        [(rise(step) + rise(-step)) / 2 for step in (noise(draw) for _ in range(pairs))]
    )


def gibbs(rise: Rise, noise: Noise, pairs: int, seed: int) -> Array:
    """``exp(-(L(w + τ) - L(w)))``, means of pairs: ``(pairs,)``."""
    draw = np.random.default_rng([seed, 78])
    steps = [noise(draw) for _ in range(pairs)]
    return np.array([(np.exp(-rise(step)) + np.exp(-rise(-step))) / 2 for step in steps])


def smallest_trace(model: nn.Module, hessian: Array) -> float | None:
    """``ℓ (Π tr H_l)^(1/ℓ)`` over the weight tensors; ``None`` where a trace is not positive."""
    traces, first = [], 0
    for name, parameter, module, _ in naive_directions.places(model):
        size = parameter.numel()
        if naive_directions.role(name, parameter, module) == "weight" and parameter.dim() > 1:
            traces.append(np.trace(hessian[first : first + size, first : first + size]))
        first += size
    if not traces or min(traces) <= 0:
        return None
    return float(len(traces) * np.exp(np.mean(np.log(traces))))


def relative_flatness(case: Any, vector: Array, hessian: Array, head: nn.Linear) -> float:
    """``Σ_{s,s'} <w_s, w_s'> tr H_{s,s'}`` of a linear layer, its inputs in units of their spread."""
    found, place, first = [], None, 0
    for parameter in naive.trained(case.model):
        if parameter is head.weight:
            place = slice(first, first + parameter.numel())
        first += parameter.numel()
    model = naive.written(case.model, vector)
    model.head.out.register_forward_hook(
        lambda module, args, output: found.append(args[0].detach())
    )
    naive.in_batches(case)(model)
    inputs = np.concatenate([t.reshape(-1, t.shape[-1]).numpy() for t in found[-len(case.pairs) :]])
    spread = inputs.std(0)
    spread[spread == 0] = 1.0
    rows, columns = head.weight.shape
    block = hessian[place, place].reshape(rows, columns, rows, columns)
    weight = vector[place].reshape(rows, columns) * spread
    total = 0.0
    for s in range(rows):
        for t in range(rows):
            total += (weight[s] @ weight[t]) * np.sum(np.diag(block[s, :, t, :]) / spread**2)
    return float(total)
