"""Which checkpoint is the best one by validation, and when to stop waiting for a better one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class Selection:
    """The best validation so far.

    Args:
        patience: validations without a better one after which to stop; 0: never.

    Attributes:
        best: ``step`` and ``validation`` of the best one; empty before the first.
        waited: validations since then.

    >>> selection = Selection(patience=2)
    >>> [selection.take(i, {"metric": "mse", "mean": m}) for i, m in enumerate([3.0, 2.0, 2.0, 4.0])]
    [True, True, False, False]
    >>> selection.exhausted
    True
    """

    def __init__(self, patience: int = 0) -> None:
        self.patience = patience
        self.best: dict[str, Any] = {}
        self.waited = 0

    def take(self, step: int, validation: Mapping[str, Any]) -> bool:
        """Take note of a validation; whether it is the best one. One that is not finite never is."""
        better = math.isfinite(validation["mean"]) and (
            not self.best or _better(validation, self.best["validation"])
        )
        if better:
            self.best = {"step": step, "validation": dict(validation)}
        self.waited = 0 if better else self.waited + 1
        return better

    @property
    def exhausted(self) -> bool:
        """Whether to stop."""
        return 0 < self.patience <= self.waited

    def state_dict(self) -> dict[str, Any]:
        """What has to be kept."""
        return {"best": dict(self.best), "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a kept state."""
        self.best, self.waited = dict(state["best"]), int(state.get("waited", 0))


def _better(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    sign = 1 if new["metric"] == "accuracy" else -1
    return bool(sign * new["mean"] > sign * old["mean"])
