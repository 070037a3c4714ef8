"""The table of all measures, and the report that runs them."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from landscape.objective import Objective
from landscape.sharpness.ascent import asam, sam, worst_l2
from landscape.sharpness.average import average
from landscape.sharpness.curvature import lambda_max, trace
from landscape.sharpness.gradient import gradient_norm
from landscape.sharpness.measurement import Measurement, Point

SCHEMA = "landscape.sharpness/1"

MEASURES: dict[str, Callable[..., Measurement]] = {
    measure.__name__: measure
    for measure in (gradient_norm, lambda_max, trace, sam, asam, worst_l2, average)
}
"""Every measure by name; its keyword arguments are its settings."""


@dataclass(frozen=True, eq=False)
class SharpnessReport(Mapping[str, Measurement]):
    """Measurements by name, in the order asked for.

    Attributes:
        rows: the measurements.
        objective: settings of the objective they belong to.
        seed: of every random draw.
    """

    rows: tuple[Measurement, ...]
    objective: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __getitem__(self, name: str) -> Measurement:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (row.name for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def table(self) -> str:
        """The rows as aligned text; ± is the standard error, else the half-width of the interval."""
        head = ("measure", "value", "±", "cost/FB", "settings", "note")
        body = [
            (
                row.name,
                f"{row.value:.5g}",
                _spread(row),
                f"{row.cost:.1f}",
                " ".join(f"{key}={value}" for key, value in row.settings.items()),
                row.note,
            )
            for row in self.rows
        ]
        widths = [max(len(line[column]) for line in [head, *body]) for column in range(len(head))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in [head, *body]
        ]
        return "\n".join(lines)

    def to_json(self) -> str:
        """One JSON document; numbers that JSON lacks are the strings ``NaN``, ``±Infinity``."""
        rows = [
            {
                "name": row.name,
                "value": _to_json(row.value),
                "stderr": None if row.stderr is None else _to_json(row.stderr),
                "interval": None if row.interval is None else [_to_json(x) for x in row.interval],
                "settings": dict(row.settings),
                "cost": row.cost,
                "note": row.note,
                "converged": row.converged,
            }
            for row in self.rows
        ]
        document = {
            "schema": SCHEMA,
            "objective": dict(self.objective),
            "seed": self.seed,
            "measures": rows,
        }
        return json.dumps(document, indent=2, allow_nan=False, default=str, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> SharpnessReport:
        """The report that :meth:`to_json` wrote.

        Raises:
            ValueError: not JSON, or another schema.
        """
        document = json.loads(text)
        schema = document.get("schema") if isinstance(document, dict) else None
        if schema != SCHEMA:
            raise ValueError(f"not a sharpness report: schema is {schema!r}, expected {SCHEMA!r}")
        rows = tuple(
            Measurement(
                name=row["name"],
                value=float(row["value"]),
                stderr=None if row["stderr"] is None else float(row["stderr"]),
                interval=None
                if row["interval"] is None
                else (float(row["interval"][0]), float(row["interval"][1])),
                settings=row["settings"],
                cost=float(row["cost"]),
                note=row["note"],
                converged=row.get("converged", True),
            )
            for row in document["measures"]
        )
        return cls(rows, document["objective"], document["seed"])


def sharpness(
    objective: Objective,
    measures: str | Iterable[str] = "all",
    seed: int = 0,
    theta: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> SharpnessReport:
    """Sharpness of an objective at a point, by every measure asked for.

    What measures share (the gradient, the top eigenvector) is computed once; the cost in a row is
    what that measure costs on its own.

    Args:
        objective: the function.
        measures: ``"all"``, one name, or names.
        seed: of every random draw; equal seeds give equal draws to any two objectives of one size.
        theta: the point ``(params,)``; ``objective.theta`` when left out.
        progress: called as ``progress(done, total)`` after each measure.
        settings: what to change, by measure: ``{"sam": {"rho": 0.1}}``.

    Raises:
        ValueError: an unknown measure or setting, or a setting out of range.

    >>> import torch
    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: (t * t).sum(), torch.tensor([3.0, 4.0]).double())
    >>> report = sharpness(bowl, ["gradient_norm", "sam"], settings={"sam": {"rho": 0.1}})
    >>> round(report["gradient_norm"].value, 9), round(report["sam"].value, 9)
    (10.0, 1.01)
    """
    if isinstance(measures, str):
        names = list(MEASURES) if measures == "all" else [measures]
    else:
        names = list(dict.fromkeys(measures))
    chosen = {name: dict(values) for name, values in (settings or {}).items()}
    for name in [*names, *chosen]:
        if name not in MEASURES:
            raise ValueError(f"unknown measure {name!r}: expected any of {', '.join(MEASURES)}")
    for name, values in chosen.items():
        known = list(inspect.signature(MEASURES[name]).parameters)[1:]
        unknown = [key for key in values if key not in known]
        if unknown:
            raise ValueError(
                f"unknown setting {unknown[0]!r} of {name}: "
                f"expected any of {', '.join(known) or '(it has none)'}"
            )
    point = Point(objective, theta, seed)
    rows = []
    for done, name in enumerate(names, start=1):
        rows.append(MEASURES[name](point, **chosen.get(name, {})))
        if progress is not None:
            progress(done, len(names))
    return SharpnessReport(tuple(rows), dict(objective.settings), seed)


def _spread(row: Measurement) -> str:
    if row.stderr is not None:
        return f"{row.stderr:.2g}"
    if row.interval is not None:
        return f"{(row.interval[1] - row.interval[0]) / 2:.2g}"
    return "-"


def _to_json(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
