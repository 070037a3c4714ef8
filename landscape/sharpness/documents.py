"""Measurements as plain values and back, exactly."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from landscape.sharpness.measurement import Influence, Measurement

_ODD = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def text(document: Mapping[str, Any]) -> str:
    """JSON with one line for each entry, and one for each entry of a list of mappings.

    >>> print(text({"a": [1, 2], "rows": [{"x": 1}, {"x": 2}]}))
    {
     "a": [1, 2],
     "rows": [
      {"x": 1},
      {"x": 2}
     ]
    }
    """
    parts = []
    for key, value in document.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            rows = ",\n".join(f"  {_line(item)}" for item in value)
            parts.append(f" {_line(key)}: [\n{rows}\n ]")
        else:
            parts.append(f" {_line(key)}: {_line(value)}")
    return "{\n" + ",\n".join(parts) + "\n}"


def canonical(value: Any) -> Any:
    """A setting as it comes back from JSON: tuples for lists, Python's own numbers, text for the rest.

    >>> canonical({"ladder": [0.1, 0.2]}), canonical("NaN")
    ({'ladder': (0.1, 0.2)}, nan)
    """
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(canonical(item) for item in value)
    if isinstance(value, str):
        return _ODD.get(value, value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return canonical(value.tolist()) if hasattr(value, "tolist") else str(value)


def plain(value: Any) -> Any:
    """The same for JSON: what is not finite is the text ``NaN``, ``Infinity`` or ``-Infinity``."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def to_plain(row: Measurement) -> dict[str, Any]:
    """One row, its variants within."""
    influence = row.influence
    return {
        "name": row.name,
        "value": plain(row.value),
        "stderr": plain(row.stderr),
        "interval": plain(row.interval),
        "settings": plain(canonical(row.settings)),
        "cost": plain(row.cost),
        "note": row.note,
        "converged": row.converged,
        "data_error": plain(row.data_error),
        "draw_error": plain(row.draw_error),
        "bound": plain(row.bound),
        "paid": plain(row.paid),
        "influence": {
            "of": influence.of,
            "terms": plain(influence.terms),
            "weights": plain(influence.weights),
            "draws": plain(influence.draws),
        },
        "variants": [to_plain(variant) for variant in row.variants],
    }


def from_plain(row: Mapping[str, Any]) -> Measurement:
    """The row that :func:`to_plain` made; what older documents lack is unknown.

    Raises:
        LookupError, TypeError, AttributeError, ValueError, OverflowError, RecursionError: damaged.
    """
    interval = row["interval"]
    influence = row.get("influence", {})
    return Measurement(
        name=str(row["name"]),
        value=float(row["value"]),
        stderr=_number(row["stderr"]),
        interval=None if interval is None else (float(interval[0]), float(interval[1])),
        settings=canonical(dict(row["settings"])),
        cost=float(row["cost"]),
        note=str(row["note"]),
        converged=bool(row.get("converged", True)),
        data_error=_number(row.get("data_error")),
        draw_error=_number(row.get("draw_error")),
        bound=float(row.get("bound", 0.0)),
        influence=Influence(
            _numbers(influence.get("terms", ())),
            _numbers(influence.get("weights", ())),
            str(influence.get("of", "unknown")),
            _numbers(influence.get("draws", ())),
        ),
        variants=tuple(from_plain(variant) for variant in row.get("variants", ())),
        paid=float(row.get("paid", 0.0)),
    )


def _line(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, default=str)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
