"""The difference of two surfaces on one plane rule: where one solution's loss rises more than another's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr

from landscape.clock import created_at
from landscape.refusals import refusals
from landscape.sharpness.paired import same_data
from landscape.store import DIFFERENCE, json_text

_SHARED = ("normalize", "ignore", "seed", "span", "points", "axes", "axis_titles", "group")
_MUST_AGREE = ("normalize", "ignore", "seed", "span", "points", "axes")

Array = np.ndarray[Any, np.dtype[np.float64]]


def surface_difference(
    first: xr.Dataset, second: xr.Dataset, paired: bool | None = None
) -> xr.Dataset:
    """``second`` minus ``first``, point by point: of the losses, and of their rises above the centre.

    A surface of rises lower than another's everywhere is flatter, whatever the two losses at the centre. Where both
    files keep the terms of their means (``evaluate(..., keep_terms=True)``) of the same data, the errors are those
    of paired differences: what an example or a task adds to both cancels. Otherwise the two errors are added as if
    independent, which is too wide where the data are the same, and the result says so.

    Args:
        first: the surface or line that is subtracted.
        second: the one it is subtracted from.
        paired: whether the terms of the two are of the same examples or tasks, in the same order; None: where the
            objectives' digests of their data agree.

    Returns:
        Dataset of schema ``landscape.difference/1`` over the same coordinates: ``difference`` and
        ``rise_difference`` (NaN throughout where the centre is not on the grid), each with ``_stderr``;
        attributes ``first``, ``second``, ``paired`` (``terms`` or ``no``), those of the plane, and ``refusals``
        where one of the two cannot be vouched for.

    Raises:
        ValueError: surfaces whose directions or grids differ (the first setting that does is named), or
            ``paired=True`` of surfaces whose terms cannot be paired.

    >>> grid = np.linspace(-1, 1, 3)
    >>> a, b = (xr.Dataset({"loss": ("alpha", c + k * grid**2)}, {"alpha": grid}, {"label": n})
    ...         for n, c, k in (("a", 1.0, 1.0), ("b", 2.0, 3.0)))
    >>> found = surface_difference(a, b)
    >>> found["difference"].values.tolist(), found["rise_difference"].values.tolist()
    ([3.0, 1.0, 3.0], [2.0, 0.0, 2.0])
    """
    _require(first, second)
    dims = first["loss"].dims
    losses = [np.asarray(s["loss"].transpose(*dims).values, np.float64) for s in (first, second)]
    terms = _terms(first, second, dims, paired)
    centre = _centre(first)
    change = losses[1] - losses[0]
    rise = np.full_like(change, np.nan) if centre is None else change - change[centre]
    if terms is None:
        errors = np.hypot(_errors(first, "loss_stderr"), _errors(second, "loss_stderr"))
        rise_errors = np.hypot(_errors(first, "rise_stderr"), _errors(second, "rise_stderr"))
    else:
        each = terms[1] - terms[0]
        errors = _stderr(each)
        rise_errors = (
            np.full_like(errors, np.nan) if centre is None else _stderr(each - each[centre])
        )
    attrs = {name: first.attrs[name] for name in _SHARED if name in first.attrs}
    labels = [
        str(s.attrs.get("label") or name) for s, name in ((first, "first"), (second, "second"))
    ]
    refused = [
        f"{label}: {reason}"
        for label, s in zip(labels, (first, second), strict=True)
        for reason in refusals(s)
    ]
    if refused:
        attrs["refusals"] = json_text(refused)
    return xr.Dataset(
        {
            "difference": (dims, change),
            "difference_stderr": (dims, errors),
            "rise_difference": (dims, rise),
            "rise_difference_stderr": (dims, rise_errors),
        },
        coords={name: first[name].values for name in dims},
        attrs={
            "schema": DIFFERENCE,
            "label": f"{labels[1]} − {labels[0]}",
            "first": labels[0],
            "second": labels[1],
            "paired": "no" if terms is None else "terms",
            **attrs,
            "created_at": created_at(),
        },
    )


def _require(first: xr.Dataset, second: xr.Dataset) -> None:
    for name in _MUST_AGREE:
        a, b = (_plain(s.attrs.get(name)) for s in (first, second))
        if a != b:
            raise ValueError(
                f"surfaces must not be subtracted: {name} is {a!r} in one and {b!r} in the other; evaluate both "
                f"with the same {name}"
            )
    if set(first["loss"].dims) != set(second["loss"].dims):
        raise ValueError("a line and a surface cannot be subtracted: expected two of one kind")
    for axis in first["loss"].dims:
        if not np.array_equal(first[axis].values, second[axis].values):
            raise ValueError(f"surfaces must not be subtracted: their coordinates {axis} differ")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return (
        sorted(value)
        if isinstance(value, list) and all(isinstance(v, str) for v in value)
        else value
    )


def _terms(
    first: xr.Dataset, second: xr.Dataset, dims: tuple[Any, ...], paired: bool | None
) -> tuple[Array, Array] | None:
    """The terms ``(*grid, terms)`` of both, where they can be paired."""
    known = "terms" in first and "terms" in second
    same = known and first.sizes["term"] == second.sizes["term"]
    if paired and not same:
        raise ValueError(
            "paired=True needs the terms of both surfaces, of the same data: evaluate both with keep_terms=True"
        )
    if not same or not (paired or (paired is None and _same_data(first, second))):
        return None
    one, two = (
        np.asarray(s["terms"].transpose(*dims, "term").values, np.float64) for s in (first, second)
    )
    return one, two


def _same_data(first: xr.Dataset, second: xr.Dataset) -> bool:
    try:
        one, two = (json.loads(s.attrs["objective"]) for s in (first, second))
    except (KeyError, TypeError, ValueError):
        return False
    return isinstance(one, dict) and isinstance(two, dict) and not same_data(one, two)


def _centre(surface: xr.Dataset) -> tuple[int, ...] | None:
    at = [np.flatnonzero(surface[name].values == 0) for name in surface["loss"].dims]
    return tuple(int(where[0]) for where in at) if all(len(where) == 1 for where in at) else None


def _errors(surface: xr.Dataset, name: str) -> Array:
    if name not in surface:
        return np.full(surface["loss"].shape, np.nan)
    return np.asarray(surface[name].transpose(*surface["loss"].dims).values, np.float64)


def _stderr(terms: Array) -> Array:
    """Standard error of the mean over the last axis; NaN for a single term."""
    count = terms.shape[-1]
    if count < 2:
        return np.full(terms.shape[:-1], np.nan)
    return np.asarray(terms.std(-1, ddof=1) / np.sqrt(count))
