"""Which rows of a report say less than they seem to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from landscape.objective import Objective
from landscape.sharpness.measurement import Measurement
from landscape.sharpness.point import Point, length

_CLASSES = ("cross_entropy", "logit_normalized_cross_entropy")
_MOSTLY = 0.5  # share of a rise that is of first order, above which the row is about the slope


@dataclass(frozen=True)
class Remark:
    """One thing to mind.

    Attributes:
        kind: ``"not finite"``, ``"unconverged"``, ``"beyond chance"``, ``"untrained"``, ``"slope"``,
            ``"no sign"`` or ``"not invariant"``.
        text: what it means.
        rows: the rows it holds for, as :func:`label` names them.
    """

    kind: str
    text: str
    rows: tuple[str, ...]


def remarks(
    rows: Sequence[Measurement],
    about: Mapping[str, Mapping[str, Any]],
    context: Mapping[str, float],
    invariance: Mapping[str, Mapping[str, Any]],
) -> list[Remark]:
    """What to mind, the gravest first; variants are judged like rows of their own."""
    chance = context.get("chance")
    texts = {
        "not finite": "the value is not a number to compare with",
        "unconverged": "the search ended before its tolerance was met",
        "beyond chance": f"the loss after the step is above {chance or 0:.3g}, that of guessing: a radius this "
        "large says nothing about the solution",
        "untrained": f"the loss at the point is above {chance or 0:.3g}, that of guessing: nothing was learned "
        "around which sharpness would mean something",
        "slope": "at least half of the rise is the slope's (radius times gradient): this is no minimum, and the "
        "value says more about the gradient than about curvature",
        "no sign": "the interval holds 0",
        "not invariant": "changes when the layers are rescaled without changing the function: compare it between "
        "networks that were trained alike",
    }
    found: dict[str, list[str]] = {kind: [] for kind in texts}
    if chance is not None and context.get("loss", -math.inf) >= chance:
        found["untrained"] = [row.name for row in rows]
    for row in rows:
        for variant in (row, *row.variants):
            for kind in _kinds(row, variant, about.get(row.name, {}), context):
                found[kind].append(label(row, variant))
        if False in (invariance.get(row.name, {}).get(key) for key in ("layers", "neurons")):
            found["not invariant"].append(row.name)
    return [Remark(kind, texts[kind], tuple(named)) for kind, named in found.items() if named]


def label(row: Measurement, variant: Measurement | None = None) -> str:
    """Name of a row, and of a variant with the settings that tell it apart.

    >>> sam = Measurement("sam", 1.0, settings={"rho": 0.05})
    >>> label(sam), label(sam, Measurement("sam", 1.0, settings={"rho": 0.1}))
    ('sam', 'sam rho=0.1')
    """
    if variant is None or variant is row:
        return row.name
    return " ".join((row.name, *settings_text(differing(row, variant))))


def differing(row: Measurement, variant: Measurement) -> dict[str, Any]:
    """Settings of a variant that its row does not have, or has otherwise."""
    absent = object()
    return {k: v for k, v in variant.settings.items() if row.settings.get(k, absent) != v}


def settings_text(settings: Mapping[str, Any]) -> list[str]:
    """``key=value`` of each setting, numbers in short.

    >>> settings_text({"rho": 0.05, "ladder": (0.1, 0.2), "m": None})
    ['rho=0.05', 'ladder=0.1,0.2', 'm=all']
    """
    return [f"{key}={_short(value)}" for key, value in settings.items()]


def context_of(point: Point, rises: Sequence[str]) -> dict[str, float]:
    """Numbers that rows are read against.

    Args:
        point: where the loss is taken, ⅓ FB unless it is known.
        rises: ``Entry.rise`` of the rows there are; the gradient is asked for where one needs it.
    """
    found = {"params": float(point.theta.numel()), "loss": float(point.terms.mean())}
    chance = loss_of_guessing(point.objective)
    if chance is not None:
        found["chance"] = chance
    if set(rises) & {"l2", "adaptive l2", "adaptive linf"}:
        slope = point.gradient.double()
        relative = point.theta.double().abs() * slope
        found["l2"] = length(slope)
        found["adaptive l2"] = length(relative)
        found["adaptive linf"] = float(relative.abs().sum())
    return found


def loss_of_guessing(objective: Objective) -> float | None:
    """The loss of the best answer that does not look at its input, where that is known.

    For cross-entropy over classes it is the entropy of the labels, ``log(classes)`` where they are equally
    frequent; an objective may know better (an attribute ``chance``).
    """
    known = getattr(objective, "chance", None)
    if known is not None:
        return float(known)
    batches = getattr(objective, "batches", None)
    if batches is None or objective.settings.get("loss") not in _CLASSES:
        return None
    targets = [batch.target for batch in batches]
    if not all(isinstance(t, Tensor) and not t.is_floating_point() for t in targets):
        return None
    labels = torch.cat([t.flatten() for t in targets])
    counts = torch.unique(labels[labels >= 0], return_counts=True)[1].double()
    shares = counts / counts.sum()
    return float(-(shares * shares.log()).sum())


def _kinds(
    row: Measurement,
    variant: Measurement,
    about: Mapping[str, Any],
    context: Mapping[str, float],
) -> Iterator[str]:
    value, settings = variant.value, {**row.settings, **variant.settings}
    if not abs(value) < float("inf"):
        yield "not finite"
    if not variant.converged:
        yield "unconverged"
    rise = about.get("rise", "")
    if (
        rise
        and {"chance", "loss"} <= set(context)
        and context["loss"] < context["chance"] < context["loss"] + value
    ):
        yield "beyond chance"
    pieces = settings.get("m", "all") not in ("all", None)
    # In pieces of m terms each climbs its own gradient, which is longer than that of the whole.
    rho = settings.get("rho")
    known = isinstance(rise, str) and rise in context
    if isinstance(rho, int | float) and known and not pieces and not settings.get("eta"):
        first_order = rho * context[rise]
        if value > 0 and first_order >= _MOSTLY * value:
            yield "slope"
    interval = variant.interval
    if about.get("orientation") and interval and interval[0] <= 0 <= interval[1]:
        yield "no sign"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ",".join(_short(item) for item in value) or "none"
    return "all" if value is None else str(value)
