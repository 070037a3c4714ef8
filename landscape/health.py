"""What to know of a surface before believing it: recorded in its file, shown beside every figure."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import xarray as xr

from landscape.device import one_thread
from landscape.directions import Plane
from landscape.objective import Objective
from landscape.refusals import refusals


@one_thread()
def health_record(surface: xr.Dataset, objective: Objective, plane: Plane) -> dict[str, Any]:
    """The health of a surface that is complete.

    Returns:
        ``direction_cosine``; ``moved_share``, norm of the tensors that move over the norm of all;
        ``ignored``, how many tensors stay fixed; ``norm``, the mode of the norm layers (``None`` where the
        objective has none); ``points`` evaluated and ``not_finite`` among them; ``centre_loss`` of the
        objective itself and ``centre_difference``, the grid's value there minus that (``None`` where the
        centre is not on the grid); ``refusals``, why the surface cannot be vouched for
        (:func:`landscape.refusals.refusals`). NaN is written as ``None``.
    """
    space, moves = objective.space, plane.basis.any(dim=0)
    ignored = [name for name, part in space.unflatten(moves).items() if not bool(part.any())]
    whole = float(plane.origin.double().norm())
    return _plain(
        {
            "direction_cosine": plane.cosine,
            "moved_share": float((plane.origin * moves).double().norm()) / whole if whole else 1.0,
            "ignored": len(ignored),
            "tensors": len(space.names),
            "norm": objective.settings.get("norm"),
            **_counted(surface),
        }
    )


def recounted(surface: xr.Dataset) -> dict[str, Any]:
    """The record that a surface carries, brought up to date with its points."""
    return _plain(json.loads(surface.attrs["health"]) | _counted(surface))


def _counted(surface: xr.Dataset) -> dict[str, Any]:
    loss = np.asarray(surface["loss"].values, np.float64)
    done = surface["evaluated"].values != 0
    centre = [np.flatnonzero(surface[name].values == 0) for name in surface["loss"].dims]
    own = float(surface.attrs["centre_loss"])
    at = loss[tuple(int(where[0]) for where in centre)] if all(map(len, centre)) else math.nan
    return {
        "points": int(done.sum()),
        "not_finite": int((~np.isfinite(loss[done])).sum()),
        "centre_loss": own,
        "centre_difference": float(at) - own,
        "refusals": refusals(surface),
    }


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in record.items()
    }


def health_text(surface: xr.Dataset) -> str:
    """The record of a surface in one line for people; empty where there is none yet."""
    text = surface.attrs.get("health")
    if text is None:
        return ""
    record = json.loads(text)
    words = [f"executor {surface.attrs.get('executor', 'plain')}"]
    if record["direction_cosine"] is not None:
        words.append(f"cosine of the directions {record['direction_cosine']:.3f}")
    if record["moved_share"] is not None:
        words.append(f"{record['moved_share']:.1%} of the weights' norm moves")
    words.append(f"{record['ignored']} of {record['tensors']} tensors stay fixed")
    if record["norm"] is not None:
        words.append(f"norm layers: {record['norm']}")
    words.append(f"{record['not_finite']} of {record['points']} points not finite")
    if record["centre_difference"] is not None:
        words.append(f"centre off by {record['centre_difference']:.1g}")
    return "; ".join(words)
