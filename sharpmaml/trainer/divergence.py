"""Training that cannot go on: numbers that are not finite, or a classifier stuck at chance."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from landscape.writing import write_text
from sharpmaml.config import TrainConfig
from sharpmaml.meta import MetaGradient
from sharpmaml.trainer.guard import Guard

FAILED = "failed.json"
"""File of a run whose training diverged or was stuck: ``iteration`` and ``reason``; gone when it goes on."""


class DivergedError(ValueError):
    """The loss is not finite any more, or stuck at chance; the last good checkpoint is kept."""


def mark_failed(run: Path, iteration: int, error: DivergedError) -> None:
    """Leave the mark in a run folder."""
    document = {"iteration": iteration, "reason": str(error)}
    write_text(run / FAILED, json.dumps(document, indent=1) + "\n")


def failure_of(run: Path) -> str | None:
    """Why the training of a run failed, as its mark says; ``None`` where there is none."""
    try:
        return str(json.loads((run / FAILED).read_text(encoding="utf-8"))["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_finite(result: MetaGradient, step: int, saved: Path | None, config: TrainConfig) -> None:
    """Refuse a meta-update that is not finite.

    Args:
        result: of its passes.
        step: its number, from 1.
        saved: the last checkpoint.
        config: the run.

    Raises:
        DivergedError: so it is; names the settings that may cause it.
    """
    found = [t for t in (result.gradient, result.rates) if t is not None]
    # The largest entry tells of all of them, in a third of the time of asking each.
    largest = [float(torch.linalg.vector_norm(tensor, math.inf)) for tensor in found]
    if all(map(math.isfinite, [result.loss, *largest])):
        return
    raise DivergedError(
        f"the loss is not finite at iteration {step} (loss {result.loss}, gradient norm {result.norm}); "
        f"{_kept(saved)}. Lower --inner-rate ({config.inner_rate}), --meta-rate ({config.meta_rate})"
        + (
            f" or the radii ({config.lower}, {config.upper})"
            if config.lower or config.upper
            else ""
        )
    )


def stuck_error(guard: Guard, step: int, saved: Path | None, config: TrainConfig) -> DivergedError:
    """The error of training that is stuck at chance; names the settings that may cause it.

    Args:
        guard: that says so.
        step: meta-updates done.
        saved: the last checkpoint.
        config: the run.
    """
    radii = [
        f"--{name} ({radius})"
        for name, radius in (("alpha-low", config.lower), ("alpha-up", config.upper))
        if radius
    ]
    causes = [*radii, f"--inner-rate ({config.inner_rate})", f"--meta-rate ({config.meta_rate})"]
    return DivergedError(
        f"training is stuck at chance: mean loss {guard.loss:.3f} (ln {config.ways} = "
        f"{math.log(config.ways):.3f}) and accuracy {guard.accuracy:.3f} over iterations "
        f"{step - guard.window + 1} to {step}; {_kept(saved)}. Lower {', '.join(causes)}, or give --no-guard"
    )


def _kept(saved: Path | None) -> str:
    return f"the last good checkpoint is {saved}" if saved else "no checkpoint had been written yet"
