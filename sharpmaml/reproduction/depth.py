"""How much is measured of every run, from a quick look to everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from landscape.flatness_tables import QUICK

HEADLINE = ("gradient_norm", "sam", "asam", "lambda_max", "trace", "average")
"""Measures at the initialization that every run gets."""

ADAPTED = (
    "adapted_sam",
    "adapted_lambda_max",
    "adapted_trace",
    "adapted_average",
    "coherence",
    "gradient_inner_product",
)
"""Measures of tasks that every run gets, on more tasks."""


@dataclass(frozen=True)
class Depth:
    """How much is measured.

    Attributes:
        name: in the plan.
        ledger_tasks: training tasks behind the surfaces and the measures at the initialization.
        everything: whether seed 0 gets every measure there is, not only `HEADLINE`.
        adapted_tasks: test tasks behind the measures at adapted weights.
        points: points on each axis of the surfaces, of seed 0; 0 leaves the figure out.
        line_points: points of the line.
        episodes: test episodes behind a score.
        condition_episodes: test episodes under each shift and share of label noise.
        probes: random vectors behind a trace, and pairs behind a mean rise.
    """

    name: str
    ledger_tasks: int
    everything: bool
    adapted_tasks: int
    points: int
    line_points: int
    episodes: int = 600
    condition_episodes: int = 600
    probes: int = 16

    def settings(self) -> dict[str, dict[str, Any]]:
        """Settings of the measures: one radius and one eigenvalue each."""
        own: dict[str, dict[str, Any]] = {
            **QUICK,
            "lambda_max": {"k": 1, "tol": 1e-2},
            "trace": {"k": 1, "tol": 1e-2, "probes": self.probes},
            "average": {"ladder": (), "pairs": self.probes},
        }
        return own | {f"adapted_{name}": own[name] for name in ("lambda_max", "trace", "average")}


DEPTHS = (
    Depth("quick", 4, False, 24, 9, 21, condition_episodes=100, probes=6),
    Depth("standard", 6, False, 60, 13, 31, condition_episodes=200, probes=8),
    Depth("full", 12, True, 200, 25, 51),
)
"""From the least to the most."""
