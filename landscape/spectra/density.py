"""The spectral density of a symmetric operator: outliers exactly, the rest by Lanczos quadrature."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from landscape.directions import generator
from landscape.objective import Objective
from landscape.operators import operator_of
from landscape.operators.symmetric import SymmetricOperator
from landscape.spectra.eigenpairs import ConvergenceWarning, Eigenpairs, eigenpairs
from landscape.spectra.estimators import without
from landscape.spectra.quadrature import Array, Tridiagonal, rule, tridiagonals
from landscape.spectra.traces import deflated, half_width
from landscape.store import json_text

_TOL = 1e-2  # residual over the largest outlier up to which a pair found here counts as a spike
_SHARE = 1e-2  # default width, as a share of the range of the bulk


@dataclass(frozen=True, eq=False)
class Density:
    """The spectrum as a probability measure: spikes at the outliers, a quadrature rule for the rest.

    Each outlier has the mass ``1 / params``, exactly. Each probe gives the bulk nodes and weights, and
    the mass ``(params - k) / params`` in all: the total is 1.

    Attributes:
        outliers: deflated eigenvalues ``(k,)``, largest magnitude first.
        residuals: of the outliers ``(k,)``: an eigenvalue lies within each.
        tridiagonals: the Lanczos matrix of each probe; they may differ in size.
        params: number of eigenvalues.
        width: standard deviation of the Gaussian that :meth:`curve` puts on each node.
        products: products made, those for the outliers included if they were found here.
        settings: steps, probes, seed, and the operator's.
        couplings: ``q₁ᵀ A_b q_j`` of every part ``b`` and Lanczos vector ``j`` of each probe,
            ``(parts, steps)`` each; empty unless ``spread`` was asked for and the operator has parts.
    """

    outliers: Array
    residuals: Array
    tridiagonals: tuple[Tridiagonal, ...]
    params: int
    width: float
    products: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    couplings: tuple[Array, ...] = ()

    @property
    def complement(self) -> int:
        """Number of eigenvalues that are not outliers."""
        return self.params - len(self.outliers)

    @cached_property
    def nodes(self) -> tuple[Array, ...]:
        """Quadrature nodes of each probe, ascending."""
        return tuple(nodes for nodes, _ in self.rules())

    @cached_property
    def weights(self) -> tuple[Array, ...]:
        """Quadrature weights of each probe, of sum 1."""
        return tuple(weights for _, weights in self.rules())

    def rules(self, steps: int | None = None) -> tuple[tuple[Array, Array], ...]:
        """Nodes and weights of each probe after ``steps`` Lanczos steps; after all when left out."""
        return tuple(
            rule((a[:steps], b[: None if steps is None else steps - 1]))
            for a, b in self.tridiagonals
        )

    def grid(self, points: int = 512) -> Array:
        """Eigenvalues to draw the curve at: ``points`` over the bulk, and a fine patch at each outlier."""
        if points < 2:
            raise ValueError(f"points is {points}: expected at least 2")
        reach = 6 * self.width
        ends = [np.linspace(value - reach, value + reach, 49) for value in self.outliers]
        if self.tridiagonals:
            nodes = np.concatenate(self.nodes)
            ends.append(np.linspace(nodes.min() - reach, nodes.max() + reach, points))
        return np.unique(np.concatenate(ends))

    def curve(self, grid: Array) -> Array:
        """Density at ``grid``, every node spread by a Gaussian of :attr:`width`: ``grid.shape``."""
        return self.band(grid)[0]

    def band(self, grid: Array) -> tuple[Array, Array, Array]:
        """:meth:`curve` with its 95 % interval over the probes, point by point: mean, low, high."""

        def bump(x: Array) -> Array:
            height: Array = np.exp(-0.5 * (x / self.width) ** 2)
            height /= self.width * np.sqrt(2 * np.pi)
            return height

        return self._over_probes(grid, bump, np.inf)

    def cumulative(self, grid: Array) -> tuple[Array, Array, Array]:
        """Share of eigenvalues at or below ``grid``, with its 95 % interval: mean, low, high.

        It needs no width.
        """
        return self._over_probes(grid, lambda x: (x >= 0).astype(float), 1.0)

    def _over_probes(
        self, grid: Array, shape: Callable[[Array], Array], top: float
    ) -> tuple[Array, Array, Array]:
        spikes = np.zeros(len(grid))
        for value in self.outliers:
            spikes += shape(grid - value) / self.params
        if not self.tridiagonals:
            return spikes, spikes, spikes
        share = self.complement / self.params
        rows = np.stack(
            [
                sum((w * shape(grid - x) for x, w in zip(nodes, weights, strict=True)), 0 * grid)
                for nodes, weights in zip(self.nodes, self.weights, strict=True)
            ]
        )
        mean = spikes + share * rows.mean(0)
        deviation = share * rows.std(0, ddof=1) / np.sqrt(len(rows))
        half = half_width(1.0, len(rows)) * deviation
        return mean, np.clip(mean - half, 0.0, top), np.clip(mean + half, 0.0, top)

    def to_dataset(self, grid: Array | None = None) -> xr.Dataset:
        """The curves for plotting and for saving.

        Returns:
            ``density``, ``cumulative`` and their ``_low`` and ``_high`` over ``grid``; ``outlier`` and
            ``outlier_residual`` over ``outliers``; attributes ``width``, ``params``, ``products``,
            ``seed``, and ``settings`` as JSON.
        """
        grid = self.grid() if grid is None else np.asarray(grid, dtype=float)
        columns = {}
        for name, found in (("density", self.band(grid)), ("cumulative", self.cumulative(grid))):
            for suffix, values in zip(("", "_low", "_high"), found, strict=True):
                columns[name + suffix] = ("grid", values)
        columns["outlier"] = ("outliers", self.outliers)
        columns["outlier_residual"] = ("outliers", self.residuals)
        attrs = {
            "width": self.width,
            "params": self.params,
            "products": self.products,
            "seed": self.settings.get("seed", 0),
            "settings": json_text(dict(self.settings)),
        }
        return xr.Dataset(columns, {"grid": grid}, attrs)


def density(
    objective: Objective | SymmetricOperator,
    *,
    steps: int = 80,
    probes: int = 10,
    seed: int = 0,
    theta: Tensor | None = None,
    pairs: Eigenpairs | None = None,
    outliers: int = 10,
    width: float | None = None,
    block: int = 1,
    spread: bool = False,
    **operator_options: Any,
) -> Density:
    """Spectral density of the Hessian by stochastic Lanczos quadrature, its outliers deflated.

    From a random unit vector ``q``, Lanczos' tridiagonal matrix gives nodes ``θᵢ`` and weights
    ``τᵢ = (e₁ᵀ yᵢ)²`` (Golub and Welsch 1969) with ``Σ τᵢ f(θᵢ) = qᵀ f(H) q``, exactly for polynomials
    of degree below ``2 steps``; the mean over ``q`` is ``tr f(H) / params`` (Ubaru, Chen, Saad 2017).
    The weight that a probe gives a single eigenvalue is random, though (χ² over ``params``), so the
    eigenvalues that stand out are found first and taken out: they enter as spikes of their true mass,
    and the probes sample the rest. What remains unsaid is how the mass lies between nodes.

    Lanczos vectors are orthogonalized twice against all before them, and an iteration ends where the
    next one would be rounding noise, so no node is invented. Memory is ``block (steps + 2) + k`` vectors.

    Args:
        objective: the function, or an operator.
        steps: Lanczos steps for each probe; each is one product.
        probes: random start vectors, at least 2.
        seed: of the start vectors.
        theta: the point ``(params,)``; ``objective.theta`` when left out.
        pairs: eigenpairs of the same operator to deflate; searched for when left out.
        outliers: how many to search for, largest magnitude first. Only those whose residual is at
            most 1 % of the largest are deflated, so a spectrum without outliers may have none.
        width: standard deviation of the smoothing; 1 % of the range of the bulk when left out.
        block: probes that go through the data together.
        spread: note the couplings of every part, at no extra product.
        operator_options: see :func:`landscape.operators.operator_of`.

    Raises:
        ValueError: an option out of range, pairs of another size, or a Hessian that is not finite.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: 1.5 * (t * t).sum(), torch.zeros(50))
    >>> found = density(bowl, outliers=0)
    >>> found.nodes[0].round(5).tolist(), found.products  # one step of each probe says it all
    ([3.0], 10)
    """
    operator = operator_of(objective, theta, **operator_options)
    params, begin = operator.shape[0], operator.products
    if steps < 1 or block < 1:
        raise ValueError(f"steps is {steps} and block {block}: expected positive numbers")
    if probes < 2:
        raise ValueError(f"probes is {probes}: expected at least 2, or there is no error estimate")
    if outliers < 0:
        raise ValueError(f"outliers is {outliers}: expected 0 or more")
    if width is not None and not width > 0:
        raise ValueError(f"width is {width}: expected a positive number")
    if pairs is None:
        locked, values, residuals = _outliers(operator, min(outliers, params), steps, seed)
    else:
        locked, values = deflated(operator, pairs)
        residuals = pairs.residuals.double().cpu().numpy()
    scale = float(np.abs(values).max(initial=0.0))
    found: list[Tridiagonal] = []
    couplings: list[Array] = []
    spread = spread and getattr(operator, "weights", None) is not None
    rank = params - len(values)
    for first in range(0, probes if rank else 0, block):
        numbers = range(first, min(first + block, probes))
        drawn = [generator(seed, "density", i).standard_normal(params) for i in numbers]
        starts = without(locked, torch.from_numpy(np.stack(drawn)).to(operator.theta))
        starts = starts / starts.double().norm(dim=1, keepdim=True).to(starts)
        depth = min(steps, rank)
        if not spread:
            found += tridiagonals(operator, starts, locked, depth, scale)
            continue
        table = torch.zeros(len(starts), len(operator.weights), depth, dtype=torch.float64)  # type: ignore[attr-defined]

        def note(part: int, start: int, step: int, value: float, table: Tensor = table) -> None:
            table[start, part, step] = value

        made = tridiagonals(operator, starts, locked, depth, scale, note)
        whole = operator.team.sum(table).numpy()  # type: ignore[attr-defined]
        couplings += [rows[:, : len(a)] for rows, (a, _) in zip(whole, made, strict=True)]
        found += made
    settings = {
        "steps": steps,
        "probes": probes,
        "seed": seed,
        "outliers": len(values),
        **operator.settings,
    }
    return Density(
        values,
        residuals,
        tuple(found),
        params,
        width or _width(found, values, torch.finfo(operator.dtype).eps),
        operator.products - begin,
        settings,
        tuple(couplings),
    )


def _outliers(
    operator: SymmetricOperator, k: int, steps: int, seed: int
) -> tuple[Tensor, Array, Array]:
    """Up to ``k`` eigenvectors, values and residuals of largest magnitude: those that were found."""
    locked, values = deflated(operator, None)
    if k == 0:
        return locked, values, values
    with warnings.catch_warnings():  # what has not converged stays in the bulk
        warnings.simplefilter("ignore", ConvergenceWarning)
        pairs = eigenpairs(
            operator, k=k, which="LM", tol=_TOL, seed=seed, max_products=steps + 2 * k
        )
    locked, values = deflated(operator, pairs)
    residuals = pairs.residuals.double().cpu().numpy()
    kept = residuals <= _TOL * np.abs(values).max()
    return locked[torch.from_numpy(kept).to(locked.device)], values[kept], residuals[kept]


def _width(found: list[Tridiagonal], outliers: Array, eps: float) -> float:
    """A hundredth of the range of the bulk; where that is rounding only, of the largest magnitude."""
    nodes = np.concatenate([rule(matrix)[0] for matrix in found] or [outliers])
    size = float(np.abs(np.concatenate([nodes, outliers])).max())
    spread = float(np.ptp(nodes))
    if spread > 100 * eps * size:
        return _SHARE * spread
    return _SHARE * size or 1.0  # a matrix of zeros has no scale
