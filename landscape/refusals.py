"""Checks of its own that a surface can fail: its file, its figures and the exit status all say so."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import xarray as xr

CENTRE_TOLERANCE = 1e-3  # relative; the grid's centre and the objective's own value are one number
NOT_FINITE_SHARE = 0.05  # of the points: a few at the rim are where a network overflows

_NOT_NEGATIVE = {
    "cross_entropy", "logit_normalized_cross_entropy", "mse_loss", "l1_loss", "smooth_l1_loss",
    "huber_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "multi_margin_loss",
}  # fmt: skip


def refusals(surface: xr.Dataset) -> list[str]:
    """Why a surface or a line cannot be vouched for, one sentence each; empty where all of it can.

    What is checked: that the plane was made of what it says (``attrs["refusals"]``), that points that were
    interpolated are certified and lie where the loss can be, that the loss at the centre of the grid is the
    objective's own value, and that no more than 5 % of the points are NaN or infinite.

    >>> bowl = xr.Dataset({"loss": ("alpha", [2.0, 1.0, 2.0])}, {"alpha": [-1.0, 0.0, 1.0]}, {"centre_loss": 1.0})
    >>> refusals(bowl), refusals(bowl.assign_attrs(centre_loss=3.0))
    ([], ["the loss at the grid's centre is 1, the objective's own value there is 3; the two must be equal"])
    """
    found: list[str] = json.loads(surface.attrs.get("refusals", "[]"))
    if "loss" not in surface:  # a difference of surfaces: what they say is in its attributes
        return found
    if "refinement" in surface.attrs:
        outcome = json.loads(surface.attrs["refinement"])["outcome"]
        if outcome not in ("certified", "complete"):
            found.append(f"the interpolated points are not certified ({outcome})")
        dip = below_zero(surface)
        if dip is not None and dip[1]:
            found.append(dip[0])
    found += _centre(surface)
    loss, done = known(surface)
    if not_finite_share(loss, done) > NOT_FINITE_SHARE:
        found.append(not_finite_text(loss, done))
    return found


def below_zero(surface: xr.Dataset) -> tuple[str, bool] | None:
    """Interpolated losses below 0 where the loss cannot be, and whether they are so by more than their error.

    ``None`` where there are none, and for a loss of which it is not known.
    """
    if "interpolated" not in surface or not _cannot_be_negative(surface):
        return None
    dims = surface["loss"].dims
    loss = np.asarray(surface["loss"].values, np.float64)
    under = (np.asarray(surface["interpolated"].transpose(*dims).values) != 0) & (loss < 0)
    if not under.any():
        return None
    error = np.asarray(surface["loss_error"].transpose(*dims).values, np.float64)
    beyond = bool((-loss[under] > error[under]).any())
    tail = "further than their error allows" if beyond else "within their error"
    return (
        f"{np.count_nonzero(under)} interpolated points lie below 0, down to {loss[under].min():.3g}, where the "
        f"loss cannot be: {tail}",
        beyond,
    )


def known(surface: xr.Dataset) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The loss, and where there is one: computed, or interpolated with a known error."""
    loss = np.asarray(surface["loss"].values, np.float64)
    done = np.ones(loss.shape, bool)
    if "evaluated" in surface:
        done = np.asarray(surface["evaluated"].transpose(*surface["loss"].dims).values) != 0
    if "interpolated" in surface:
        done |= np.asarray(surface["interpolated"].transpose(*surface["loss"].dims).values) != 0
    return loss, done


def not_finite_share(loss: np.ndarray[Any, Any], done: np.ndarray[Any, Any]) -> float:
    """Share of all points that are evaluated and NaN or infinite."""
    return np.count_nonzero(done & ~np.isfinite(loss)) / max(loss.size, 1)


def not_finite_text(loss: np.ndarray[Any, Any], done: np.ndarray[Any, Any]) -> str:
    """The same in words."""
    bad, share = np.count_nonzero(done & ~np.isfinite(loss)), not_finite_share(loss, done)
    return f"{bad} of {loss.size} points ({share:.1%}) are NaN or infinite and drawn as gaps"


def centre_off(surface: xr.Dataset) -> float | None:
    """How far the grid's centre is from the objective's own value, relative to it; None where that cannot be told."""
    own, centre = surface.attrs.get("centre_loss"), _at_centre(surface)
    if own is None or centre is None:
        return None
    off = abs(centre - float(own)) / max(abs(float(own)), 1e-12)
    return off if math.isfinite(off) else math.inf


def _centre(surface: xr.Dataset) -> list[str]:
    if "centre_loss" not in surface.attrs:
        return []
    own, off = float(surface.attrs["centre_loss"]), centre_off(surface)
    if not math.isfinite(own):
        return [f"the objective's own value at the centre is {own}"]
    if off is None or off <= CENTRE_TOLERANCE:
        return []
    return [
        f"the loss at the grid's centre is {_at_centre(surface):.6g}, the objective's own value there is {own:.6g}; "
        "the two must be equal"
    ]


def _at_centre(surface: xr.Dataset) -> float | None:
    """The grid's value where all coordinates are 0; None where no point is, or it is not known yet."""
    at = [np.flatnonzero(surface[name].values == 0) for name in surface["loss"].dims]
    if not all(len(where) == 1 for where in at):
        return None
    place = tuple(int(where[0]) for where in at)
    loss, done = known(surface)
    return float(loss[place]) if done[place] else None


def _cannot_be_negative(surface: xr.Dataset) -> bool:
    try:
        settings = json.loads(surface.attrs.get("objective", "{}"))
    except (TypeError, json.JSONDecodeError):
        return False
    if not isinstance(settings, dict):
        return False
    return settings.get("objective") == "meta" or settings.get("loss") in _NOT_NEGATIVE
