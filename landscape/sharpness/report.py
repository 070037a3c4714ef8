"""What a run of sharpness measures found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from landscape import json_text
from landscape.sharpness import documents
from landscape.sharpness.measurement import Measurement
from landscape.sharpness.remarks import Remark, remarks
from landscape.sharpness.text import report_table
from landscape.wording import one_line, printable

SCHEMA = "landscape.sharpness/1"


@dataclass(frozen=True, eq=False)
class SharpnessReport(Mapping[str, Measurement]):
    """Measurements by name, in the order asked for.

    Attributes:
        rows: the measurements.
        objective: settings of the objective they belong to.
        seed: of every random draw.
        skipped: why measures that were asked for are not among the rows.
        invariance: by measure, what rescaling the network without changing its function did to the value.
        asked: all settings of each measure, defaults included.
        about: by measure, ``title``, ``family``, ``orientation`` and ``rise``, as in the table of measures.
        context: numbers the rows are read against: ``loss`` at the point, ``chance`` (the loss of guessing),
            ``params``, and first-order rises of the loss by radius (``"l2"``: the length of the gradient).
        theta_sha256: digest of the point.
        overhead: what was spent on no measure in particular, by purpose, in FB.
    """

    rows: tuple[Measurement, ...]
    objective: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    skipped: Mapping[str, str] = field(default_factory=dict)
    invariance: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    asked: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    about: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    context: Mapping[str, float] = field(default_factory=dict)
    theta_sha256: str = ""
    overhead: Mapping[str, float] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Measurement:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (row.name for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def spent(self) -> float:
        """What the whole report cost, in FB."""
        return sum(row.paid for row in self.rows) + sum(self.overhead.values())

    def remarks(self) -> list[Remark]:
        """Which rows say less than they seem to, and why."""
        return remarks(self.rows, self.about, self.context, self.invariance)

    def table(self) -> str:
        """The rows as aligned text, what was skipped, what to mind, and a legend."""
        return report_table(
            self.rows, self.skipped, self.invariance, self.remarks(), self.context, self.overhead
        )

    def to_json(self) -> str:
        """One JSON document; numbers that JSON lacks are the strings ``NaN``, ``±Infinity``."""
        return documents.text(self.document())

    def document(self) -> dict[str, Any]:
        """The same as plain values; see ``docs/schema.md``."""
        return {
            "schema": SCHEMA,
            "objective": documents.plain(dict(self.objective)),
            "theta_sha256": self.theta_sha256,
            "seed": self.seed,
            "context": documents.plain(self.context),
            "overhead": documents.plain(self.overhead),
            "asked": documents.plain(documents.canonical(self.asked)),
            "about": documents.plain({name: dict(value) for name, value in self.about.items()}),
            "skipped": dict(self.skipped),
            "invariance": documents.plain(documents.canonical(self.invariance)),
            "measures": [documents.to_plain(row) for row in self.rows],
        }

    @classmethod
    def from_json(cls, text: str) -> SharpnessReport:
        """The report that :meth:`to_json` wrote.

        Raises:
            ValueError: not JSON, another schema, or damaged.
        """
        try:
            document = json_text.parsed(text)
        except ValueError as error:
            raise ValueError(f"not a sharpness report: {error}") from None
        schema = document.get("schema") if isinstance(document, dict) else None
        if schema != SCHEMA:
            told = printable(repr(schema))
            raise ValueError(f"not a sharpness report: schema is {told}, expected {SCHEMA!r}")
        try:
            return cls(
                tuple(documents.from_plain(row) for row in document["measures"]),
                dict(document["objective"]),
                int(document["seed"]),
                {name: str(why) for name, why in document.get("skipped", {}).items()},
                documents.canonical(_of_mappings(document.get("invariance", {}))),
                documents.canonical(_of_mappings(document.get("asked", {}))),
                _of_mappings(document.get("about", {})),
                {name: float(value) for name, value in document.get("context", {}).items()},
                str(document.get("theta_sha256", "")),
                {name: float(value) for name, value in document.get("overhead", {}).items()},
            )
        except (
            LookupError, TypeError, AttributeError, ValueError, OverflowError, RecursionError,
        ) as error:  # fmt: skip
            raise ValueError(
                f"a damaged sharpness report: {type(error).__name__}: {one_line(error, 200)}"
            ) from None


def _of_mappings(found: Any) -> dict[str, dict[str, Any]]:
    """A mapping of mappings, as the document holds it."""
    return {str(name): {**dict(value)} for name, value in dict(found).items()}
