"""An axis for eigenvalues: linear, or logarithmic on both sides of zero.

Eigenvalues of a Hessian have both signs and range over many decades, so a plain logarithmic axis
cannot hold them. The signed one places ``x`` at ``asinh(x / 2u) / ln 10``: proportional to ``x``
within its unit ``u``, and ``±log10(|x| / u)`` beyond.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscape.plot import style

Values = NDArray[np.float64]

_NOTHING = 1e-300
MAX_DECADES = 6  # on one side: more would leave no room for what is large


@dataclass(frozen=True)
class Axis:
    """A range of values on an axis.

    Attributes:
        log: whether the axis is logarithmic on both sides of zero.
        low: lower end, in the unit of the values.
        high: upper end, above ``low``.
        unit: half-width of the linear part of a logarithmic axis.
    """

    log: bool
    low: float
    high: float
    unit: float = 1.0

    def place(self, values: Any) -> Values:
        """Positions on the axis.

        >>> axis = Axis(True, -10.0, 1000.0, unit=1.0)
        >>> axis.place([-100.0, 0.0, 1000.0]).round(3).tolist()
        [-2.0, 0.0, 3.0]
        """
        given: Values = np.asarray(values, np.float64)
        placed: Values = np.arcsinh(given / (2 * self.unit)) / math.log(10)
        return placed if self.log else given

    def unplace(self, positions: Any) -> Values:
        """The values at positions on the axis.

        >>> axis = Axis(True, -10.0, 1000.0, unit=0.1)
        >>> axis.unplace(axis.place([-3.0, 0.0, 500.0])).round(9).tolist()
        [-3.0, 0.0, 500.0]
        """
        placed: Values = np.asarray(positions, np.float64)
        if not self.log:
            return placed
        with np.errstate(over="ignore"):  # matplotlib asks for places far outside the axis
            values: Values = 2 * self.unit * np.sinh(placed * math.log(10))
        return values

    def reach(self, below: float = 0.04, above: float = 0.06) -> list[float]:
        """Positions of both ends, moved outwards by fractions of the length."""
        low, high = (float(v) for v in self.place([self.low, self.high]))
        return [low - below * (high - low), high + above * (high - low)]

    def bars(self, values: Values, errors: Values) -> tuple[Values, Values]:
        """Lengths of error bars on the axis, up and down; NaN where an error is not finite.

        >>> [part.tolist() for part in Axis(False, 0.0, 9.0).bars(np.array([4.0]), np.array([1.0]))]
        [[1.0], [1.0]]
        """
        errors = np.where(np.isfinite(errors), errors, np.nan)
        if not self.log:
            return errors, errors
        centre = self.place(values)
        return self.place(values + errors) - centre, centre - self.place(values - errors)

    def ticks(self, count: int = 6, gap: float = 0.09) -> tuple[list[float], list[str]]:
        """Round values inside the range and their labels.

        Args:
            count: about how many.
            gap: least distance of two on a logarithmic axis, as a share of its length.

        >>> Axis(False, 0.0, 40.0).ticks(4)
        ([0.0, 10.0, 20.0, 30.0, 40.0], ['0', '10', '20', '30', '40'])
        >>> Axis(True, -20.0, 2000.0, unit=0.1).ticks()
        ([-10.0, 0.0, 10.0, 1000.0], ['−10', '0', '10', '1000'])
        """
        values = self._decades(count, gap) if self.log else self._even(count)
        return values, ["−" * (v < 0) + style.number(abs(v)) for v in values]

    def _even(self, count: int) -> list[float]:
        values = style.linear_ticks(self.low, self.high, count)[0]
        while len(values) > count + 2:
            step = values[1] - values[0]
            values = [v for v in values if round(v / step) % 2 == 0]
        return values

    def _decades(self, count: int, gap: float) -> list[float]:
        """Zero and powers of ten at an even stride; where few fit, three times these too."""
        start, end = (float(v) for v in self.place([self.low, self.high]))
        top = math.floor(math.log10(max(abs(self.low), abs(self.high))) + 1e-9)
        stride = max(1, math.ceil((end - start) / count))
        last = math.floor(math.log10(self.unit)) - 1
        taken = [0.0] if start <= 0 <= end else []
        for multiple in (1, 3):
            for power in range(top, last, -stride):
                for value in (multiple * 10.0**power, -multiple * 10.0**power):
                    apart = min(
                        (abs(self.place(value) - self.place(t)) for t in taken), default=1.0
                    )
                    if start <= self.place(value) <= end and apart >= (end - start) * gap:
                        taken.append(value)
            if len(taken) >= count - 1:
                break
        return sorted(taken)


def fit(
    values: Iterable[Any],
    log: bool | None = False,
    *,
    reach: Iterable[Any] = (),
    unit: float | None = None,
) -> Axis:
    """The axis on which all ``values`` and the zero lie; whatever is not finite is left out.

    Args:
        values: arrays or numbers.
        reach: more of them, which the axis must hold but which do not decide its scale.
        log: linear or signed logarithmic; None: logarithmic above two decades.
        unit: half-width of the linear part; None: the smallest magnitude, or six decades
            below the largest.

    >>> fit([[1.0, 40.0], -2.0])
    Axis(log=False, low=-2.0, high=40.0, unit=1.0)
    >>> fit([[1e-9, 500.0]], None)
    Axis(log=True, low=0.0, high=500.0, unit=0.0005)
    """
    drawn = _finite(values)
    held = np.concatenate([drawn, _finite(reach), np.zeros(1)])
    low, high = float(held.min()), float(held.max())
    size = np.abs(drawn[drawn != 0])
    largest, smallest = (float(size.max()), float(size.min())) if size.size else (1.0, 1.0)
    if log is None:
        log = largest > smallest * style.LOG_WHEN_ABOVE
    point = high - low < _NOTHING  # a part of such a length would round to nothing
    if point:
        high = low + 1.0
    if unit is None:
        unit = 1.0 if point else max(smallest, largest * 10.0**-MAX_DECADES)
    return Axis(log, low, high, unit)


def _finite(values: Iterable[Any]) -> Values:
    flat = np.concatenate([np.zeros(0), *(np.ravel(np.asarray(v, np.float64)) for v in values)])
    finite: Values = flat[np.isfinite(flat)]
    return finite
