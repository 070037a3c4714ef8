"""Planes that lie somewhere in particular: along Hessian eigenvectors, or through three points."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from landscape.directions import (
    Plane,
    moving_buffers,
    named_point,
    require_points,
    stale_statistics,
)
from landscape.objective import Objective
from landscape.spectra.eigenpairs import Eigenpairs, eigenpairs

UNITS = ("curvature", "norm")
_ENDS = {"top": "LA", "extremes": "BE"}
_SUBSCRIPT = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def eigen_plane(
    objective: Objective,
    pairs: Eigenpairs | None = None,
    which: str | tuple[int, ...] = "top",
    units: str = "curvature",
    theta: Tensor | None = None,
    seed: int = 0,
    *,
    rise: float = 0.1,
    tol: float = 1e-3,
    max_products: int | None = None,
) -> Plane:
    """A plane along two eigenvectors of the Hessian, or a line along one.

    Directions stay eigenvectors: nothing is normalized afterwards. In curvature units the direction of
    the eigenvalue ``λ`` is ``v √(2 rise / |λ|)``, so that one step along it changes the quadratic model of the
    loss by ``rise`` (by ``-rise`` where ``λ < 0``): a quadratic bowl has round contours whatever its
    condition, and what is not round is not quadratic. Steps are then small where the loss is steep;
    the axes say what one step means.

    The sign of an eigenvector is arbitrary; here its entry of largest magnitude is positive.

    Args:
        objective: the function; a meta objective as well.
        pairs: eigenpairs found before, at ``theta``; of the Gauss-Newton matrix if you like.
        which: ``"top"``, the two largest eigenvalues; ``"extremes"``, the largest and the smallest; or
            indices into ``pairs`` (or into the largest eigenvalues, without ``pairs``), such as ``(0, 2)``;
            one index makes a line.
        units: ``"curvature"``, or ``"norm"`` for directions of length 1.
        theta: the origin ``(params,)``; ``objective.theta`` when left out.
        seed: of the search for eigenpairs.
        rise: change of the loss that one step along an axis stands for, in curvature units.
        tol: tolerance of that search, see :func:`landscape.eigenpairs`.
        max_products: bound on its Hessian-vector products.

    Returns:
        The plane. Its settings hold eigenvalues, residuals, whether they are converged, and units;
        what to distrust is in ``cautions`` and ``refusals``, which surfaces repeat.

    Raises:
        ValueError: unknown names, indices that are not there, pairs of another objective, or in
            curvature units an eigenvalue that its residual cannot tell from 0.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: 50 * t[0] ** 2 + t[1] ** 2, torch.zeros(2, dtype=torch.float64))
    >>> plane = eigen_plane(bowl, rise=0.5)
    >>> [round(float(bowl.value(plane.point(*at))), 6) for at in ((1, 0), (0, 1), (0.6, 0.8))]
    [0.5, 0.5, 0.5]
    """
    if units not in UNITS:
        raise ValueError(f"unknown units={units!r}: expected one of {', '.join(UNITS)}")
    if not rise > 0:
        raise ValueError(f"rise is {rise}: expected a positive change of the loss")
    if isinstance(which, str) and which not in _ENDS:
        raise ValueError(f"unknown which={which!r}: expected {', '.join(_ENDS)}, or indices")
    origin = (objective.theta if theta is None else theta).detach().clone()
    require_points(objective, theta=origin)
    chosen = _indices(which, pairs)
    if pairs is None:
        pairs = eigenpairs(
            objective,
            k=max(chosen) + 1,
            which="LA" if not isinstance(which, str) else _ENDS[which],
            tol=tol,
            seed=seed,
            theta=origin,
            max_products=max_products,
        )
    if pairs.vectors.shape[1] != origin.numel():
        raise ValueError(
            f"pairs are of {pairs.vectors.shape[1]} parameters, the objective has {origin.numel()}: "
            "expected eigenpairs of this objective"
        )
    values = [float(pairs.values[i]) for i in chosen]
    residuals = [float(pairs.residuals[i]) for i in chosen]
    names = ["max", "min"] if which == "extremes" else [str(i + 1) for i in chosen]
    scales = [1.0] * len(values)
    if units == "curvature":
        for value, residual, name in zip(values, residuals, names, strict=True):
            if not abs(value) > residual:
                raise ValueError(
                    f"eigenvalue {name} is {value:.3g} with a residual of {residual:.2g}, not told from 0: it "
                    "has no curvature unit; use units='norm', or a smaller tol"
                )
        scales = [math.sqrt(2 * rise / abs(value)) for value in values]
    vectors = torch.stack([_signed(pairs.vectors[i]) for i in chosen])
    basis = vectors.to(origin) * torch.tensor(scales).to(origin)[:, None]
    matrix = str(pairs.settings.get("operator", "hessian"))
    settings = {
        "kind": "eigen",
        "normalize": "none",
        "axes": len(chosen),
        "units": units,
        "which": which if isinstance(which, str) else [int(i) for i in which],
        "operator": matrix,
        "search": {
            name: pairs.settings[name] for name in ("tol", "seed") if name in pairs.settings
        },
        "eigenvalues": values,
        "residuals": residuals,
        "converged": pairs.converged,
        "axis_titles": [
            _title(letter, name, value, units, rise)
            for letter, name, value in zip("αβ", names, values, strict=False)
        ],
        "directions": _words(matrix, names, units),
        "refusals": _refusals(pairs, residuals),
        "cautions": _cautions(values, residuals, names),
    }
    if units == "curvature":
        settings["rise"] = rise
    return Plane(origin, basis, settings)


def plane_through(
    objective: Objective,
    theta_a: Tensor,
    theta_b: Tensor,
    theta_c: Tensor,
    buffers: tuple[Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Tensor]] | None = None,
    labels: tuple[str, str, str] = ("A", "B", "C"),
) -> Plane:
    """The plane through three points, in one unit of length on both axes (Garipov et al. 2018, sec. 3).

    ``theta_a`` is the origin and ``theta_b`` lies at ``(1, 0)``; the second axis is what remains of ``theta_c -
    theta_a`` without its part along the first, made as long as the first. A step of 1 is the distance from A
    to B on both axes, so that angles and distances on the figure are those of the parameter space.

    Args:
        objective: the function to look at; gives dtype and device. With ``norm="recalibrate"`` its norm
            statistics are recomputed at every point.
        theta_a: ``(params,)``, the origin.
        theta_b: ``(params,)``.
        theta_c: ``(params,)``.
        buffers: the networks' ``state_dict()`` at the three points, for an objective with
            ``norm="interpolated"``: statistics are those of A, B and C there, and affine in between. Far
            outside of the triangle a variance may come out negative; the loss is then NaN.
        labels: names of the points, for figures.

    Raises:
        ValueError: a shape that is not the objective's, equal points, three points on one line, or buffers
            that do not agree in names and shapes.

    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: (t * t).sum(), torch.zeros(2))
    >>> plane = plane_through(bowl, *torch.tensor([[1.0, 1.0], [3.0, 1.0], [2.0, 4.0]]))
    >>> [(m["label"], m["alpha"], m["beta"]) for m in plane.settings["marks"]]
    [('A', 0.0, 0.0), ('B', 1.0, 0.0), ('C', 0.5, 1.5)]
    """
    require_points(objective, theta_a=theta_a, theta_b=theta_b, theta_c=theta_c)
    a, b, c = (t.detach().to(objective.theta) for t in (theta_a, theta_b, theta_c))
    first, second = (b.double() - a.double()), (c.double() - a.double())
    length, reach = float(first.norm()), float(second.norm())
    if not length or not reach or torch.equal(b, c):
        raise ValueError("two of the three points are equal: there is no one plane through them")
    along = float(second @ first) / length**2
    across = second - along * first
    height = float(across.norm())
    rounding = 8 * torch.finfo(a.dtype).eps * float(a.double().norm() + c.double().norm())
    if height <= max(rounding, 1e-6 * reach):
        raise ValueError(
            f"the three points lie on one line ({labels[2]} is off it by {height / reach:.1g} of its distance "
            f"from {labels[0]}): use interpolation, or another third point"
        )
    scale = length / height
    basis = torch.stack([first, across * scale]).to(a)
    moving = {}
    if buffers is not None:
        moving = {
            name: torch.stack([start, to_b, scale * (to_c - along * to_b)])
            for name, (start, to_b, to_c) in moving_buffers(objective, *buffers).items()
        }
    places = ((0.0, 0.0), (1.0, 0.0), (along, height / length))
    settings = {
        "kind": "through",
        "normalize": "none",
        "axes": 2,
        "axis_titles": [f"{name} (1 = from {labels[0]} to {labels[1]})" for name in ("α", "β")],
        "directions": f"plane through {labels[0]}, {labels[1]} and {labels[2]}",
        "marks": [
            named_point(label, *place, residual=_missed(basis, a, theta, place))
            for label, place, theta in zip(labels, places, (a, b, c), strict=True)
        ],
        "refusals": stale_statistics(objective, *labels[1:]),
    }
    return Plane(a.clone(), basis, settings, moving)


def _missed(basis: Tensor, origin: Tensor, theta: Tensor, place: tuple[float, float]) -> float:
    """Distance between a point and where the plane draws it: what rounding leaves."""
    drawn = origin.double() + place[0] * basis[0].double() + place[1] * basis[1].double()
    return float((theta.double() - drawn).norm())


def _indices(which: str | tuple[int, ...], pairs: Eigenpairs | None) -> list[int]:
    """Indices into the pairs."""
    there = None if pairs is None else len(pairs.values)
    if isinstance(which, str):
        if there is not None and there < 2:
            raise ValueError("pairs hold one eigenpair: expected at least two, or which=(0,)")
        if which == "extremes" and pairs is not None:
            order = pairs.values.argsort(descending=True).tolist()
            return [order[0], order[-1]]
        if pairs is not None:
            return pairs.values.argsort(descending=True, stable=True).tolist()[:2]
        return [0, 1]
    chosen = [int(i) for i in which]
    bad = [i for i in chosen if i < 0 or (there is not None and i >= there)]
    if len(chosen) not in (1, 2) or len(set(chosen)) != len(chosen) or bad:
        have = "" if there is None else f" below {there}, the number of pairs"
        raise ValueError(f"which is {which}: expected one or two different indices{have}")
    return chosen


def _signed(vector: Tensor) -> Tensor:
    """The vector of which the entry of largest magnitude is positive."""
    return vector if vector[vector.abs().argmax()] >= 0 else -vector


def _title(letter: str, name: str, value: float, units: str, rise: float) -> str:
    index = name.translate(_SUBSCRIPT) if name.isdigit() else name
    change = "rise" if value > 0 else "fall"
    unit = f"{change} of {rise:g}" if units == "curvature" else "distance 1"
    return f"{letter} along v{index} (λ{index} = {value:.3g}; 1 = {unit})"


def _words(matrix: str, names: list[str], units: str) -> str:
    if names == ["max", "min"]:
        numbers = "s of the largest and the smallest eigenvalue"
    else:
        numbers = f"{'s' if len(names) > 1 else ''} {' and '.join(names)}"
    kind = {"hessian": "Hessian", "ggn": "Gauss-Newton", "fisher": "Fisher"}.get(matrix, matrix)
    unit = "curvature units" if units == "curvature" else "unit length"
    return f"{kind} eigenvector{numbers}, in {unit}"


def _refusals(pairs: Eigenpairs, residuals: list[float]) -> list[str]:
    if pairs.converged:
        return []
    return [
        f"the eigenvectors are not converged (largest residual {max(residuals):.2g}): {pairs.outcome}"
    ]


def _cautions(values: list[float], residuals: list[float], names: list[str]) -> list[str]:
    found = []
    if len(values) == 2 and abs(values[0] - values[1]) <= sum(residuals):
        found.append(
            f"eigenvalues {names[0]} and {names[1]} are not told apart, so the axes are any two directions of "
            "the plane that they share"
        )
    return found
