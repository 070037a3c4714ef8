"""Mode connectivity: a curve of low loss between two solutions, trained bend by bend (Garipov et al. 2018)."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from landscape.barriers import Barrier, barrier
from landscape.directions import (
    Plane,
    generator,
    interpolation,
    named_point,
    require_points,
    stale_statistics,
)
from landscape.holding import held
from landscape.objective import Objective, digest
from landscape.planes import plane_through
from landscape.store import CURVE, json_text, load, save, writable
from landscape.surface import evaluate

KINDS = ("bezier", "chain")
_SAVE_EVERY = 10.0  # seconds
_GOLDEN = (5**0.5 - 1) / 2  # its multiples modulo 1 fill [0, 1] evenly, from the first few on
_JITTER = (
    0.01  # of the distance between the ends: on a ridge the gradient says nothing about the sides
)


@dataclass(frozen=True, eq=False)
class Curve(Plane):
    """A curve from ``origin`` (``alpha = 0``) to ``origin + basis[0]`` (``alpha = 1``), evaluated like a line.

    Attributes:
        controls: ``(bends + 2, params)``, ends included.
    """

    controls: Tensor = field(default_factory=lambda: torch.zeros(0))

    def point(self, alpha: float, beta: float = 0.0) -> Tensor:
        """The point of the curve at the parameter ``alpha`` in ``[0, 1]``, ``(params,)``."""
        weights = curve_weights(str(self.settings["curve"]), alpha, len(self.controls) - 2)
        # A sum over products, so that an end is met to the last bit: its weight is 1, the others 0.
        return sum(
            (w * c for w, c in zip(weights, self.controls, strict=True) if w), 0 * self.origin
        )


@dataclass(frozen=True, eq=False)
class Connection:
    """What :func:`connect` found.

    Attributes:
        kind: ``"bezier"`` or ``"chain"``.
        curve: the curve; ``curve.controls`` are the ends and the bends.
        line: surface Dataset along the curve, ``alpha`` its parameter ``t``.
        straight: the same along the straight line.
        barrier: along the curve.
        straight_barrier: along the straight line.
        plane: through both ends and the middle bend, with the curve as a path to draw; ``None`` where the
            bend stayed on the straight line.
        mean_loss: mean over ``t`` of the loss along the curve, which is what was minimized, and along the
            straight line.
        settings: how it was made.
    """

    kind: str
    curve: Curve
    line: xr.Dataset
    straight: xr.Dataset
    barrier: Barrier
    straight_barrier: Barrier
    plane: Plane | None
    mean_loss: tuple[float, float]
    settings: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """The numbers as plain values, for JSON."""
        return {
            "kind": self.kind,
            "barrier": self.barrier.document(),
            "straight_barrier": self.straight_barrier.document(),
            "mean_loss": self.mean_loss[0],
            "straight_mean_loss": self.mean_loss[1],
            "settings": self.settings,
        }


def connect(
    objective: Objective,
    theta_a: Tensor,
    theta_b: Tensor,
    kind: str = "bezier",
    bends: int = 1,
    iterations: int = 300,
    seed: int = 0,
    *,
    rate: float = 0.03,
    batch: int | None = None,
    points: int = 31,
    labels: tuple[str, str] = ("A", "B"),
    out: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Connection:
    """A curve of low loss between two solutions (Garipov et al. 2018, eqs. 2 to 5).

    The bends minimize ``E_t L(φ(t))`` with ``t`` uniform on [0, 1]: every iteration takes one ``t`` and a
    step of Adam along the gradient, which is the objective's own times the weight of the bend at ``t``.
    The values of ``t`` are an additive recurrence from a random start: each is uniform, and few of them cover
    [0, 1] more evenly than independent ones. Steps fall to zero along half a cosine.
    ``E_t`` over the parameter is not the mean over the length of the curve; Garipov et al. minimize it too.

    The bends begin on the straight line, beside it by one percent of the distance between the ends in a
    random direction. A curve is a local optimum: another seed may find another one, and a barrier that stays
    does not prove that no path exists.

    Args:
        objective: the function. Its norm mode holds along the curve; with stored batch-norm statistics the
            barrier is not to be trusted, use ``norm="recalibrate"``.
        theta_a: ``(params,)``, at ``t = 0``.
        theta_b: ``(params,)``, at ``t = 1``.
        kind: ``"bezier"``, a Bezier curve of degree ``bends + 1``, or ``"chain"``, straight pieces.
        bends: points that are trained between the ends.
        iterations: steps of the training, a gradient each.
        seed: of where ``t`` starts, of where the bends begin, and of the examples with ``batch``.
        rate: largest step of Adam, in units of the root mean square difference between the ends.
        batch: examples of each gradient, for a :class:`DataObjective`; all when left out.
        points: points of the lines, from 0 to 1.
        labels: names of the ends.
        out: NetCDF file with the state of the training: saved about every ten seconds, at the end and when
            it is interrupted; the same call continues it.
        progress: called as ``progress(done, iterations)``.

    Raises:
        ValueError: an argument out of range, ends that are equal or of another shape, a loss or gradient that
            is not finite, or a file of another run.

    >>> from landscape.objective import FunctionObjective
    >>> ring = FunctionObjective(lambda t: ((t * t).sum() - 1) ** 2, torch.tensor([1.0, 0.0]))
    >>> found = connect(ring, ring.theta, -ring.theta, points=11)
    >>> round(found.straight_barrier.height, 3), found.barrier.height < 0.2
    (1.0, True)
    """
    _require(objective, theta_a, theta_b, kind, bends, iterations, rate, points)
    a, b = (t.detach().to(objective.theta).clone() for t in (theta_a, theta_b))
    if torch.equal(a, b):
        raise ValueError("theta_a and theta_b are equal: there is nothing to connect")
    settings = {
        "kind": kind,
        "bends": bends,
        "iterations": iterations,
        "seed": seed,
        "rate": rate,
        "batch": batch,
        "ends_sha256": digest([a, b]),
        "objective": objective.settings,
    }
    path = None if out is None else writable(out)
    with held(path):
        training = _Training(objective, a, b, settings, path)
        training.run(progress)
    controls = torch.stack([a, *training.bends.detach(), b])
    return _described(objective, controls, settings, points, labels)


def curve_weights(kind: str, t: float, bends: int) -> list[float]:
    """Weights of the ends and bends at the parameter ``t``; they sum to 1.

    Bernstein polynomials of degree ``bends + 1`` for ``"bezier"``, hat functions for ``"chain"``.

    >>> curve_weights("bezier", 0.5, 1), curve_weights("chain", 0.75, 1)
    ([0.25, 0.5, 0.25], [0.0, 0.5, 0.5])
    """
    n = bends + 1
    if kind == "chain":
        return [max(0.0, 1.0 - abs(t * n - i)) for i in range(n + 1)]
    return [math.comb(n, i) * t**i * (1 - t) ** (n - i) for i in range(n + 1)]


def _require(
    objective: Objective,
    theta_a: Tensor,
    theta_b: Tensor,
    kind: str,
    bends: int,
    iterations: int,
    rate: float,
    points: int,
) -> None:
    require_points(objective, theta_a=theta_a, theta_b=theta_b)
    if kind not in KINDS:
        raise ValueError(f"unknown kind={kind!r}: expected one of {', '.join(KINDS)}")
    for name, value, least in (
        ("bends", bends, 1), ("iterations", iterations, 1), ("points", points, 3),
    ):  # fmt: skip
        if value < least:
            raise ValueError(f"{name} is {value}: expected at least {least}")
    if not rate > 0:
        raise ValueError(f"rate is {rate}: expected a positive number")
    if getattr(objective, "norm", None) == "interpolated":
        raise ValueError(
            "norm='interpolated' has no statistics off the straight line: use norm='recalibrate'"
        )


class _Training:
    """The bends, the state of Adam, and the file that keeps both."""

    def __init__(
        self,
        objective: Objective,
        a: Tensor,
        b: Tensor,
        settings: dict[str, Any],
        path: Path | None,
    ) -> None:
        self.objective, self.a, self.b, self.settings, self.path = objective, a, b, settings, path
        self.seed, self.count = settings["seed"], settings["bends"]
        self.done = 0
        self.start = float(generator(self.seed, "t").random())
        self.size = float((b - a).double().square().mean().sqrt())
        shares = torch.arange(1, self.count + 1).to(a)[:, None] / (self.count + 1)
        noise = generator(self.seed, "bends").standard_normal((self.count, a.numel()))
        jitter = torch.from_numpy(noise).to(a) * (_JITTER * self.size)
        self.bends = (a + shares * (b - a) + jitter).requires_grad_()
        self.adam = torch.optim.Adam([self.bends], lr=settings["rate"] * self.size)
        self.pieces: Sequence[Objective] = ()
        if settings["batch"] is not None:
            cut = getattr(objective, "pieces", None)
            if cut is None:
                raise ValueError(
                    "batch is for a DataObjective: this objective has no examples to cut"
                )
            self.pieces = cut(settings["batch"])
        if path is not None and path.exists():
            self._restore(path)

    def run(self, progress: Callable[[int, int], None] | None) -> None:
        """The iterations that are left; whatever ends them, the state is in the file."""
        total, saved = self.settings["iterations"], time.monotonic()
        try:
            while self.done < total:
                self._step(total)
                if progress is not None:
                    progress(self.done, total)
                if time.monotonic() - saved > _SAVE_EVERY:
                    self._save()
                    saved = time.monotonic()
        finally:
            self._save()

    def _step(self, total: int) -> None:
        t = (self.start + self.done * _GOLDEN) % 1.0
        weights = curve_weights(self.settings["kind"], t, self.count)
        with torch.no_grad():
            inner = (w * bend for w, bend in zip(weights[1:-1], self.bends, strict=True))
            theta = sum(inner, weights[0] * self.a + weights[-1] * self.b)
        gradient = self._objective().gradient(theta)
        if not bool(gradient.isfinite().all()):
            raise ValueError(
                f"the gradient at t = {t:.3g} is not finite after {self.done} iterations: use a smaller rate"
            )
        self.bends.grad = torch.stack([w * gradient for w in weights[1:-1]])
        falling = 0.5 * (1 + math.cos(math.pi * self.done / total))
        self.adam.param_groups[0]["lr"] = self.settings["rate"] * self.size * falling
        self.adam.step()
        self.done += 1

    def _objective(self) -> Objective:
        if not self.pieces:
            return self.objective
        draw = generator(self.seed, "examples", self.done)  # so that a resumed run draws the same
        sizes = np.array([getattr(piece, "examples", 1) for piece in self.pieces], np.float64)
        return self.pieces[int(draw.choice(len(sizes), p=sizes / sizes.sum()))]

    def _save(self) -> None:
        if self.path is None or not self.done:
            return
        state = self.adam.state[self.bends]
        parts = {"bends": self.bends, "mean": state["exp_avg"], "square": state["exp_avg_sq"]}
        columns = {
            name: (("bend", "param"), value.detach().cpu().numpy()) for name, value in parts.items()
        }
        attrs = {"schema": CURVE, "settings": json_text(self.settings), "done": self.done}
        save(xr.Dataset(columns, attrs=attrs), self.path)

    def _restore(self, path: Path) -> None:
        found = load(path, CURVE)
        theirs, ours = json.loads(found.attrs["settings"]), json.loads(json_text(self.settings))
        for name in ours:
            if theirs.get(name) != ours[name]:
                shown = (
                    ""
                    if name == "objective"
                    else f" is {theirs.get(name)} there and {ours[name]} here"
                )
                raise ValueError(
                    f"{path} holds another curve: {name}{shown or ' differs'}; give another out=, or delete it"
                )
        self.done = int(found.attrs["done"])
        with torch.no_grad():
            self.bends.copy_(torch.from_numpy(found["bends"].values).to(self.bends))
        self.adam.state[self.bends] = {
            "step": torch.tensor(float(self.done)),
            "exp_avg": torch.from_numpy(found["mean"].values).to(self.bends),
            "exp_avg_sq": torch.from_numpy(found["square"].values).to(self.bends),
        }


def _described(
    objective: Objective,
    controls: Tensor,
    settings: dict[str, Any],
    points: int,
    labels: tuple[str, str],
) -> Connection:
    """Both lines, both barriers, and the plane in which the curve is drawn."""
    first, last = labels
    kind, a, b = settings["kind"], controls[0], controls[-1]
    words = {"bezier": "Bezier curve", "chain": "chain of straight pieces"}[kind]
    made = {name: settings[name] for name in ("bends", "iterations", "seed", "rate", "batch")}
    curve = Curve(
        a,
        (b - a)[None],
        {
            "kind": "curve",
            "curve": kind,
            "normalize": "none",
            "axes": 1,
            "training": made,
            "controls_sha256": digest([controls]),
            "axis_titles": [f"t (0 at {first}, 1 at {last})"],
            "directions": f"{words} from {first} to {last}",
            "marks": [named_point(first, 0.0), named_point(last, 1.0)],
            "refusals": stale_statistics(objective, last),
        },
        controls=controls,
    )
    straight = interpolation(objective, a, b, labels=labels)
    # Terms, so that barriers have the error of paired differences.
    options: dict[str, Any] = {"span": (0.0, 1.0), "points": points, "keep_terms": True}
    along = evaluate(objective, curve, label=words, executor="plain", **options)
    line = evaluate(objective, straight, label="straight line", executor="repeatable", **options)
    return Connection(
        kind=kind,
        curve=curve,
        line=along,
        straight=line,
        barrier=barrier(along),
        straight_barrier=barrier(line),
        plane=_plane(objective, curve, along, labels, words),
        mean_loss=(_mean(along), _mean(line)),
        settings=settings,
    )


def _mean(line: xr.Dataset) -> float:
    return float(np.trapezoid(line["loss"].values, line["alpha"].values))


def _plane(
    objective: Objective, curve: Curve, line: xr.Dataset, labels: tuple[str, str], words: str
) -> Plane | None:
    a, *bends, b = curve.controls
    middle = bends[len(bends) // 2]
    try:
        plane = plane_through(objective, a, b, middle, labels=(*labels, "bend"))
    except ValueError:  # on the straight line: there is no plane to draw
        return None
    rows = plane.basis.double()
    lengths = rows.square().sum(dim=1)
    places, residuals = [], []
    for t in line["alpha"].values.tolist():
        delta = curve.point(t).double() - a.double()
        place = rows @ delta / lengths  # the axes are orthogonal
        places.append(place.tolist())
        residuals.append(float((delta - place @ rows).norm()))
    path = {
        "label": words,
        "alpha": [x for x, _ in places],
        "beta": [y for _, y in places],
        "residual": residuals,
        "loss": line["loss"].values.tolist(),
    }
    title = f"plane through {labels[0]}, {labels[1]} and the bend"
    return replace(plane, settings={**plane.settings, "path": path, "directions": title})
