"""The top of the spectrum and its density, as a comparison keeps and shows them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from landscape.objective import Objective
from landscape.operators import operator_of
from landscape.spectra.data_noise import spread_of
from landscape.spectra.density import density
from landscape.spectra.eigenpairs import ConvergenceWarning, eigenpairs
from landscape.wording import one_line

_GRID = 256
"""Points of the density's curve between the outliers: a page holds one of every solution."""


@dataclass(frozen=True)
class Asked:
    """What to compute of a spectrum.

    Attributes:
        k: largest eigenvalues.
        tol: largest residual, as a share of each eigenvalue's own magnitude.
        probes: random start vectors of the density; 0 leaves it out.
        steps: Lanczos steps of each probe.
    """

    k: int = 3
    tol: float = 1e-2
    probes: int = 0
    steps: int = 30

    def __post_init__(self) -> None:
        """Refuse settings that ask for nothing.

        Raises:
            ValueError: a number out of range.
        """
        if self.k < 1 or self.probes < 0 or self.probes == 1 or self.steps < 2 or not self.tol > 0:
            raise ValueError(
                f"k={self.k}, tol={self.tol}, probes={self.probes}, steps={self.steps}: expected k of at least 1, a "
                "positive tol, no probes or at least 2, and at least 2 steps"
            )


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of one solution, as plain numbers.

    Attributes:
        values: largest first.
        residuals: ``‖Hv − λv‖`` of each: an eigenvalue lies within.
        stderr: of each over the parts of the data; empty where the objective has one part.
        outcome: of the search, in words.
        converged: whether all residuals met the tolerance.
        products: Hessian-vector products made for all of it.
        density: Dataset of the density (``docs/schema.md``), or None.
        settings: of the search.
    """

    values: tuple[float, ...]
    residuals: tuple[float, ...]
    stderr: tuple[float, ...]
    outcome: str
    converged: bool
    products: int
    density: xr.Dataset | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[list[float], ...]:
        """What :func:`landscape.plot.spectrum` draws."""
        known = [list(self.values), list(self.residuals)]
        return (*known, list(self.stderr)) if self.stderr else tuple(known)

    def document(self) -> dict[str, Any]:
        """Everything, for JSON; :meth:`read` is its inverse."""
        told: dict[str, Any] = {
            "values": list(self.values), "residuals": list(self.residuals), "stderr": list(self.stderr),
            "outcome": self.outcome, "converged": self.converged, "products": self.products,
            "settings": dict(self.settings),
        }  # fmt: skip
        if self.density is not None:
            told["density"] = self.density.to_dict()
        return json.loads(json.dumps(told, default=_plain))  # type: ignore[no-any-return]

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Spectrum:
        """The spectrum of a document.

        Raises:
            ValueError: an entry is missing or damaged.
        """
        try:
            kept = document.get("density")
            found = cls(
                values=_numbers(document["values"]),
                residuals=_numbers(document["residuals"]),
                stderr=_numbers(document["stderr"]),
                outcome=str(document["outcome"]),
                converged=bool(document["converged"]),
                products=int(document["products"]),
                density=None if kept is None else xr.Dataset.from_dict(kept),
                settings={**document["settings"]},
            )
        except Exception as error:  # xarray raises many kinds
            raise ValueError(f"a damaged spectrum: {one_line(error)}") from None
        counts = {len(found.values), len(found.residuals), len(found.stderr or found.values)}
        if len(counts) > 1:
            raise ValueError("a damaged spectrum: not as many residuals as values")
        return found


def measure(objective: Objective, asked: Asked, seed: int = 0) -> Spectrum:
    """The largest eigenvalues at ``objective.theta``, and the density where it is asked for.

    What has not converged is told by ``converged`` and ``outcome``, not by a warning.

    Raises:
        OperatorError: the Hessian fails its self-test.
        ValueError: more eigenvalues than parameters, or a Hessian that is not finite.
    """
    operator = operator_of(objective)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        pairs = eigenpairs(
            operator, min(asked.k, operator.shape[0]), tol=asked.tol, seed=seed,
            spread=int(getattr(operator, "parts", 1)) > 1,
        )  # fmt: skip
        stderr: list[float] = []
        if pairs.quotients is not None and pairs.weights is not None:
            noise = spread_of(pairs.quotients, pairs.weights).stderr
            stderr = [] if noise.isnan().any() else noise.tolist()
        found = None
        if asked.probes:
            whole = density(
                operator, steps=asked.steps, probes=asked.probes, seed=seed, pairs=pairs
            )
            found = whole.to_dataset(whole.grid(_GRID))
    return Spectrum(
        tuple(pairs.values.tolist()),
        tuple(pairs.residuals.tolist()),
        tuple(stderr),
        pairs.outcome,
        pairs.converged,
        operator.products,
        found,
        dict(pairs.settings),
    )


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value)
