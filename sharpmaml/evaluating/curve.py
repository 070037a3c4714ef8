"""Loss and accuracy after every adaptation step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscape.plot.table import Table
from sharpmaml.evaluating.conditions import Trial
from sharpmaml.evaluating.intervals import half_width
from sharpmaml.evaluating.scorer import accuracies, losses
from sharpmaml.evaluating.scores import shown


@dataclass(frozen=True)
class Curve:
    """What adaptation does, step by step, on the same episodes.

    Attributes:
        loss: query loss of each episode before and after every step, ``(episodes, steps + 1)``;
            cross-entropy in nats, or mean squared error.
        accuracy: the same for the accuracy; ``None`` without classes.
        settings: what the numbers are numbers of.
    """

    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64] | None
    settings: dict[str, Any]

    @property
    def steps(self) -> NDArray[np.int64]:
        """Numbers of steps: 0, 1 and so on."""
        return np.arange(self.loss.shape[1])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: means and 95 % half widths over episodes, one a step."""
        columns = {"loss": self.loss} | (
            {} if self.accuracy is None else {"accuracy": self.accuracy}
        )
        document: dict[str, Any] = {"steps": self.steps.tolist(), "settings": self.settings}
        for name, values in columns.items():
            document[name] = values.mean(0).tolist()
            document[f"{name}_ci95"] = half_width(values).tolist()
        return document

    def table(self) -> str:
        """Aligned text, a line a step."""
        columns = {"loss": ("mse", self.loss)}
        if self.accuracy is not None:
            columns["accuracy"] = ("accuracy", self.accuracy)
        rows = [
            [
                str(step),
                *(
                    shown(v[:, step].mean(), float(half_width(v[:, step])), m)
                    for m, v in columns.values()
                ),
            ]
            for step in self.steps
        ]
        return Table("Adaptation curve", ["steps", *columns], rows).to_text().lstrip("\n")


def curve_of(trial: Trial) -> Curve:
    """Score a trial before and after each of its steps, all from one adaptation."""
    found: list[Any] = []
    right: list[Any] = []
    for whole in trial.stacks():
        (outputs,) = trial.scorer.answers(whole, (trial.conditions.norm,), every=True).values()
        found.append(losses(outputs, whole.query_y, trial.source.kind).cpu().numpy().T)
        if trial.classifies:
            right.append(accuracies(outputs, whole.query_y).cpu().numpy().T)
    accuracy = np.concatenate(right) if right else None
    return Curve(np.concatenate(found), accuracy, trial.settings())
