"""How much a run of measures may cost, and what still fits."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

_UNITS = {"fb": ("FB", 1.0), "s": ("s", 1.0), "min": ("s", 60.0), "h": ("s", 3600.0)}


@dataclass(frozen=True)
class Budget:
    """A bound on what is spent.

    Attributes:
        amount: how much.
        unit: ``"FB"`` (forward and backward passes over the data) or ``"s"`` (seconds).
    """

    amount: float
    unit: str

    @classmethod
    def parse(cls, text: str | Budget) -> Budget:
        """From text such as ``60s``, ``5min``, ``1h`` or ``200FB``.

        Raises:
            ValueError: anything else, or nothing to spend.

        >>> Budget.parse("5min"), Budget.parse("200 FB")
        (Budget(amount=300.0, unit='s'), Budget(amount=200.0, unit='FB'))
        """
        if isinstance(text, Budget):
            return text
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(fb|s|min|h)", text.strip().lower())
        if not found or not float(found[1]) > 0:
            raise ValueError(
                f"budget is {text!r}: expected a positive number with its unit, "
                "such as 60s, 5min or 200FB"
            )
        unit, factor = _UNITS[found[2]]
        return cls(float(found[1]) * factor, unit)


class Purse:
    """A budget while it is being spent.

    What one FB takes in seconds is measured on the way, from all that was spent until then.

    Args:
        budget: ``None`` refuses nothing.
        spent: what was spent so far, in FB.
        clock: seconds.
    """

    def __init__(
        self,
        budget: Budget | None,
        spent: Callable[[], float],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.budget = budget
        self._spent, self._clock = spent, clock
        self._began, self._at = clock(), spent()

    @property
    def seconds_per_fb(self) -> float:
        """Seconds that one FB has taken until now; NaN before anything was spent."""
        fb = self._spent() - self._at
        return (self._clock() - self._began) / fb if fb > 0 else math.nan

    def refusal(self, cost: float) -> str:
        """Why something of ``cost`` FB does not fit into what is left; empty where it does."""
        if self.budget is None:
            return ""
        if self.budget.unit == "FB":
            left = self.budget.amount - (self._spent() - self._at)
            need = cost
        else:
            left = self.budget.amount - (self._clock() - self._began)
            need = cost * self.seconds_per_fb
        if need <= left:
            return ""
        unit = self.budget.unit
        return f"budget: about {need:.3g} {unit} needed, {max(left, 0):.3g} {unit} left"
