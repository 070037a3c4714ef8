"""Scores of checkpoints over seeded episodes, each with its 95 % interval; and what the scores hide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from landscape import device as devices
from sharpmaml.checkpoint import Checkpoint, read
from sharpmaml.evaluating.audit import Audit, audit_of
from sharpmaml.evaluating.calibration import Calibration, calibration_of
from sharpmaml.evaluating.conditions import Asked, Conditions, Trial
from sharpmaml.evaluating.curve import Curve, curve_of
from sharpmaml.evaluating.intervals import Z95
from sharpmaml.evaluating.naming import labels_of, methods_of
from sharpmaml.evaluating.permutations import Permutations, permutations_of
from sharpmaml.evaluating.scores import Evaluation
from sharpmaml.evaluating.standings import Standings
from sharpmaml.inner import InnerLoop
from sharpmaml.meta import Task, meta_loss

__all__ = [
    "Z95",
    "Audit",
    "Calibration",
    "Conditions",
    "Curve",
    "Evaluation",
    "Permutations",
    "Standings",
    "audit",
    "calibration",
    "compare",
    "curve",
    "evaluate",
    "permutations",
    "score",
]

Given = str | Path | Checkpoint


def score(
    task: Callable[[int], Task], theta: Tensor, inner: InnerLoop, episodes: int
) -> tuple[str, NDArray[np.float64]]:
    """Accuracy (or query loss, where there are no classes) of ``theta`` on tasks 0, 1, ..., one each.

    For tasks of any making, one at a time; `evaluate` is faster and knows networks only. No second-order
    graph is built: ``theta`` asks for no gradient.
    """
    scores, metric = np.empty(episodes), "mse"
    with devices.exact_kernels():
        for index in range(episodes):
            loss, aux = meta_loss(task(index), theta.detach(), inner)
            metric = "accuracy" if "accuracy" in aux else "mse"
            scores[index] = float(aux.get("accuracy", loss))
    return metric, scores


def evaluate(checkpoint: Given, **conditions: Unpack[Asked]) -> Evaluation:
    """Adapt to each of ``episodes`` seeded tasks as the run says for tests, and score the queries.

    Statistics of the norm layers are those of the batch: support and query are each one batch
    (transductive, as in Finn et al. 2017), unless ``norm`` says otherwise.

    Args:
        checkpoint: folder of a checkpoint or of a run, or one already read.
        **conditions: ``episodes``, ``split``, ``seed``, ``steps``, ``data``, ``data_root``, ``device``,
            ``norm``, ``shots``, ``queries``, ``shift``, ``label_noise``, ``dtype``: see `Conditions`.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        DataError: the data set cannot be read.
        ValueError: fewer than two episodes: there would be no interval.
    """
    trial = _trial(checkpoint, conditions)
    return trial.score()[trial.conditions.norm]


def compare(
    checkpoints: Sequence[Given], *, all_pairs: bool = False, **conditions: Any
) -> Standings:
    """Score several checkpoints on the same episodes, with paired differences against the first.

    Args:
        checkpoints: folders of checkpoints or runs, or checkpoints already read.
        all_pairs: differences of all pairs.
        **conditions: as for `evaluate`.

    Raises:
        CheckpointError: a checkpoint cannot be used.
        DataError: the data set cannot be read.
        ValueError: no checkpoint, fewer than two episodes, or checkpoints that would get other episodes.
    """
    if not checkpoints:
        raise ValueError("no checkpoint to evaluate: give at least one")
    given = [_read(checkpoint) for checkpoint in checkpoints]
    labels = labels_of(given)
    asked = Conditions(**conditions)
    trials = [Trial(checkpoint, asked) for checkpoint in given]
    for label, trial in zip(labels[1:], trials[1:], strict=True):
        _same_episodes(labels[0], trials[0], label, trial)
    scores = [trial.score()[asked.norm] for trial in trials]
    seeds = [checkpoint.config.seed for checkpoint in given]
    return Standings.of(labels, methods_of(given), seeds, scores, all_pairs)


def audit(checkpoint: Given, **conditions: Unpack[Asked]) -> Audit:
    """The same checkpoint and episodes, the queries normalized in three ways (`Conditions.norm`)."""
    return audit_of(_trial(checkpoint, conditions))


def curve(checkpoint: Given, **conditions: Unpack[Asked]) -> Curve:
    """Loss and accuracy after each of 0 to ``steps`` adaptation steps (20), from one adaptation."""
    if conditions.get("steps") is None:
        conditions["steps"] = 20
    return curve_of(_trial(checkpoint, conditions))


def permutations(checkpoint: Given, count: int = 20, **conditions: Unpack[Asked]) -> Permutations:
    """Accuracies under ``count`` numberings of the classes of every episode.

    Raises:
        ValueError: a regression, or fewer than two permutations.
    """
    return permutations_of(_trial(checkpoint, conditions), count)


def calibration(checkpoint: Given, **conditions: Unpack[Asked]) -> Calibration:
    """Predicted probabilities against what was right: ECE, NLL, Brier score, reliability.

    Raises:
        ValueError: a regression.
    """
    return calibration_of(_trial(checkpoint, conditions))


def _read(checkpoint: Given) -> Checkpoint:
    return checkpoint if isinstance(checkpoint, Checkpoint) else read(checkpoint)


def _trial(checkpoint: Given, conditions: Asked) -> Trial:
    asked = Conditions(**conditions)
    return Trial(_read(checkpoint), asked)


_CURES = {"shots": "give --shots", "queries": "give --queries", "ways": "evaluate them apart"}


def _same_episodes(first: str, a: Trial, second: str, b: Trial) -> None:
    one, two = _identity(a), _identity(b)
    for name in (*one, *two):
        if one.get(name) != two.get(name):
            cure = _CURES.get(name, "give --data to evaluate both on one data set")
            raise ValueError(
                f"not the same episodes: {name} is {one.get(name)!r} for {first} and {two.get(name)!r} for "
                f"{second}; {cure}"
            )


def _identity(trial: Trial) -> dict[str, Any]:
    """What decides the episodes; where a set has a fingerprint, that in place of its options."""
    recipe = {k: v for k, v in trial.source.recipe.items() if k != "root"}
    images = getattr(trial.source, "image_set", None)
    if images is not None:
        recipe.pop("options", None)
        recipe["fingerprint"] = images.fingerprint
    return recipe
