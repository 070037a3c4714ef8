"""What a comparison keeps on disk of each solution, and when it may be used again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from landscape import json_text
from landscape.compared_spectra import Asked, Spectrum
from landscape.objective import Objective, digest
from landscape.sharpness import SharpnessReport, documents
from landscape.writing import write_text

# Missing or damaged in some way: computed again.
_UNUSABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError)


def keep(file: Path, document: Mapping[str, Any], objective: Objective, loss: float) -> None:
    """Write a document with the point it belongs to; another process sees all of it or nothing."""
    # Settings need not tell two functions apart; where they are taken, and their value there, do.
    point = {"theta_sha256": digest([objective.theta]), "loss": loss}
    write_text(file, documents.text({**document, "point": point}))


def kept_report(
    file: Path,
    objective: Objective,
    loss: float,
    seed: int,
    wanted: Mapping[str, Mapping[str, Any]],
) -> SharpnessReport | None:
    """A report of the same objective at the same point, of the same seed and settings, if there is one."""
    try:
        text = file.read_text(encoding="utf-8")
        report = SharpnessReport.from_json(text)
        same = (
            set(wanted) <= set(report)
            and report.objective == _plain(objective.settings)
            and report.seed == seed
            and _same_point(json_text.parsed(text), objective, loss)
            and all(
                report.asked[name] == documents.canonical(settings)
                for name, settings in wanted.items()
            )
        )
    except _UNUSABLE:
        return None
    return report if same else None


def spectrum_document(
    found: Spectrum, objective: Objective, seed: int, asked: Asked
) -> dict[str, Any]:
    """What is kept of a spectrum; `kept_spectrum` reads it."""
    return {
        "spectrum": found.document(), "objective": _plain(objective.settings), "seed": seed, "asked": asdict(asked),
    }  # fmt: skip


def kept_spectrum(
    file: Path, objective: Objective, loss: float, seed: int, asked: Asked
) -> Spectrum | None:
    """A spectrum of the same objective at the same point, of the same seed and settings, if there is one."""
    try:
        document = json_text.read(file)
        same = (
            document["objective"] == _plain(objective.settings)
            and document["seed"] == seed
            and document["asked"] == asdict(asked)
            and _same_point(document, objective, loss)
        )
        return Spectrum.read(document["spectrum"]) if same else None
    except _UNUSABLE:
        return None


def _same_point(document: Mapping[str, Any], objective: Objective, loss: float) -> bool:
    point = document["point"]
    return point["theta_sha256"] == digest([objective.theta]) and bool(
        np.isclose(point["loss"], loss, rtol=1e-4, atol=1e-12, equal_nan=True)
    )


def _plain(settings: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(settings, default=str))  # tuples come back as lists
