"""What a sharpness measure returns: a number, what it depends on, and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import t as student
from torch import Tensor


class NotApplicable(ValueError):
    """The measure has no meaning for this objective; the message says why."""


@dataclass(frozen=True)
class Influence:
    """How a value moves, to first order, with each term of the data and each random draw behind it.

    ``value - truth ≈ Σ wᵢ termsᵢ + mean(draws)``: deviations of mean zero (the infinitesimal jackknife of
    Jaeckel 1972; Efron & Tibshirani 1993, chapter 21). Their scatter is the error of the value, and the
    scatter of the differences of two influences is the error of a *paired* difference.

    Attributes:
        terms: one number a term of the data, ``(terms,)``; empty where there are none.
        weights: share of each term, of sum 1; empty for equal shares.
        of: what a term is: ``"examples"``, ``"tasks"``, ``"parts"`` (batches); ``"exact"`` where nothing was
            sampled (a formula), ``"unknown"`` where the terms cannot be told apart.
        draws: one number a random draw, ``(draws,)``; empty where nothing was drawn.
    """

    terms: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    of: str = "unknown"
    draws: tuple[float, ...] = ()

    @classmethod
    def made(
        cls,
        terms: Tensor | None = None,
        of: str = "unknown",
        weights: Tensor | None = None,
        draws: Tensor | None = None,
    ) -> Influence:
        """From values that still have their mean, which is taken off.

        Args:
            terms: ``(terms,)``; fewer than two say nothing.
            of: what a term is.
            weights: ``(terms,)``, positive; equal when left out.
            draws: ``(draws,)``; fewer than two say nothing.
        """
        shares = () if weights is None else _numbers(weights.double() / weights.double().sum())
        if terms is None or terms.numel() < 2:
            return cls(of="exact" if of == "exact" else "unknown", draws=_centred(draws))
        return cls(_centred(terms, weights), shares, of, _centred(draws))

    def data_error(self) -> float | None:
        """Standard error over the data; 0 for a formula, ``None`` where it is not known."""
        if self.of == "exact":
            return 0.0
        if len(self.terms) < 2:
            return None
        values = np.asarray(self.terms)
        shares = np.asarray(self.weights) if self.weights else np.full(len(values), 1 / len(values))
        # Σ w d² / (n - 1): unbiased also where the last batch is short, see data_noise.spread_of.
        return math.sqrt(float(shares @ values**2) / (len(values) - 1))

    def draw_error(self) -> float | None:
        """Standard error over the random draws; ``None`` where nothing was drawn."""
        if len(self.draws) < 2:
            return None
        return float(np.std(self.draws, ddof=1)) / math.sqrt(len(self.draws))


@dataclass(frozen=True)
class Measurement:
    """One row of a sharpness report.

    Attributes:
        name: name of the measure.
        value: the number.
        stderr: standard error of ``value``, over the data and the random draws together, or ``None``
            where neither is known.
        interval: 95 % interval: Student's t of ``stderr``, widened by ``bound`` on both sides; ``None``
            where nothing is known.
        settings: every setting that changes the number.
        cost: what the measure costs on its own, in gradients over the same data (FB).
        note: what the reader must know: where the error comes from, or what went wrong.
        converged: whether the iteration behind it met its tolerance.
        data_error: standard error over the data (examples, tasks, batches) alone.
        draw_error: standard error over the random draws alone.
        bound: how far the value can be off for numerical reasons, such as the residual of an eigenvalue.
        influence: of the terms and draws on the value.
        variants: the same measure at other settings, such as the other radii of a ladder; their own
            ``settings`` hold what differs.
        paid: what was spent on it in its report, where other measures had paid for a part, in FB.
    """

    name: str
    value: float
    stderr: float | None = None
    interval: tuple[float, float] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    cost: float = 0.0
    note: str = ""
    converged: bool = True
    data_error: float | None = None
    draw_error: float | None = None
    bound: float = 0.0
    influence: Influence = field(default_factory=Influence)
    variants: tuple[Measurement, ...] = ()
    paid: float = 0.0


def estimate(
    name: str,
    value: float,
    influence: Influence,
    settings: Mapping[str, Any],
    *,
    bound: float = 0.0,
    note: str = "",
    converged: bool = True,
    variants: Sequence[Measurement] = (),
) -> Measurement:
    """A measurement with the errors and the interval that its influence gives.

    Variances over data and draws add; Student's t has the degrees of freedom of Welch and Satterthwaite.

    >>> row = estimate("x", 2.0, Influence(of="exact", draws=(-1.0, 1.0)), {})
    >>> row.stderr, row.data_error, [round(end, 3) for end in row.interval]
    (1.0, 0.0, [-10.706, 14.706])
    """
    data, draws = influence.data_error(), influence.draw_error()
    known = [error for error in (data, draws) if error is not None]
    stderr = math.hypot(*known) if known else None
    interval = None
    if stderr is not None or bound > 0:
        freedom = [
            (error, count - 1)
            for error, count in ((data, len(influence.terms)), (draws, len(influence.draws)))
            if error and count > 1
        ]
        half = bound + t_quantile(freedom) * (stderr or 0.0)
        interval = (value - half, value + half)
    return Measurement(
        name, value, stderr, interval, dict(settings), 0.0, note, converged,
        data, draws, bound, influence, tuple(variants),
    )  # fmt: skip


def t_quantile(parts: Sequence[tuple[float, int]]) -> float:
    """97.5 % quantile of a sum of independent errors: ``(standard error, degrees of freedom)`` each.

    Satterthwaite 1946; 1.96 where nothing varies.
    """
    largest = max((error for error, _ in parts), default=0.0)
    if not largest or not math.isfinite(largest):
        return 1.96
    # Only their ratios count, and fourth powers of very large or small errors would overflow.
    shares = [((error / largest) ** 2, count) for error, count in parts]
    freedom = sum(v for v, _ in shares) ** 2 / sum(v**2 / count for v, count in shares)
    return float(student.ppf(0.975, freedom))


def _centred(values: Tensor | None, weights: Tensor | None = None) -> tuple[float, ...]:
    if values is None or values.numel() < 2:
        return ()
    x = values.detach().double().cpu()
    if weights is None:
        return _numbers(x - x.mean())
    w = weights.detach().double().cpu()
    return _numbers(x - (w @ x) / w.sum())


def _numbers(values: Tensor) -> tuple[float, ...]:
    return tuple(values.tolist())
