"""Differences between two checkpoints: what each says, and the table of all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from landscape.sharpness.documents import canonical, plain
from landscape.sharpness.remarks import settings_text
from landscape.sharpness.text import aligned, ends, paragraph

LEVEL = 0.05
FLATTER, SHARPER, UNDECIDED, NEITHER = "flatter", "sharper", "cannot tell", "-"


@dataclass(frozen=True)
class Difference:
    """A measure of a second checkpoint minus that of a first.

    Attributes:
        name: of the measure.
        settings: what tells a variant apart; empty for the measure at its own settings.
        first: value of the first.
        second: value of the second.
        value: ``second - first``.
        stderr: its standard error, over data and draws; ``None`` where neither is known.
        interval: 95 % interval, widened by the numerical bounds of both; ``None`` where nothing is known.
        verdict: what the second is, compared with the first: ``"flatter"``, ``"sharper"``, ``"cannot tell"``
            where the interval holds 0 or is not known, ``"-"`` for a measure that says neither.
        p: of the hypothesis that both are equal; ``None`` where nothing is random, or no verdict is asked for.
        holm: whether the verdict also stands after Holm's correction for all verdicts of its table.
        paired: what was paired: ``"data and draws"``, ``"data"``, ``"draws"`` or ``""``.
        data: whether the error includes that over the data.
        draws: whether it includes one over random draws.
    """

    name: str
    settings: Mapping[str, Any]
    first: float
    second: float
    value: float
    stderr: float | None
    interval: tuple[float, float] | None
    verdict: str
    p: float | None = None
    holm: bool = False
    paired: str = ""
    data: bool = True
    draws: bool = False

    @property
    def change(self) -> tuple[float, float, float] | None:
        """Value and interval as shares of ``|first|``; ``None`` where that is 0 or nothing is known."""
        scale = abs(self.first)
        if self.interval is None or not 0 < scale < math.inf:
            return None
        return self.value / scale, self.interval[0] / scale, self.interval[1] / scale

    @property
    def decided(self) -> bool:
        """Whether the verdict is ``"flatter"`` or ``"sharper"``."""
        return self.verdict in (FLATTER, SHARPER)

    @property
    def ratio(self) -> float:
        """``second / first``; NaN where the first is 0."""
        return self.second / self.first if self.first else math.nan


@dataclass(frozen=True)
class Differences:
    """All measures that two reports share.

    Attributes:
        rows: by measure, each followed by its variants.
        first: name of the first checkpoint.
        second: name of the second.
        missing: measures that only one of the two reports has.
    """

    rows: tuple[Difference, ...]
    first: str = "A"
    second: str = "B"
    missing: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Difference]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def tested(self) -> int:
        """Number of verdicts that chance could make."""
        return sum(row.p is not None for row in self.rows)

    def table(self) -> str:
        """The rows as aligned text, how many verdicts chance would make, and a legend."""
        head = (
            "measure", self.first, self.second, "difference", "±", "95 % interval", "change",
            f"{self.second} is", "error over",
        )  # fmt: skip
        lines = aligned([head, *map(_line, self.rows)])
        if self.tested:
            decided = sum(row.p is not None and row.decided for row in self.rows)
            after = sum(row.p is not None and row.holm for row in self.rows)
            lines += paragraph(
                [
                    f"Were nothing different, about {LEVEL * self.tested:.2g} of {self.tested} verdicts would be "
                    f"flatter or sharper by chance; here {decided} are, {after} of them also after Holm's "
                    "correction for all (*)."
                ]
            )
        if self.missing:
            lines += paragraph(
                [f"not compared, missing or at other settings in one: {', '.join(self.missing)}"]
            )
        return "\n".join([*lines, *paragraph([_LEGEND])])

    def document(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "first": self.first,
            "second": self.second,
            "expected_by_chance": LEVEL * self.tested,
            "missing": list(self.missing),
            "differences": [
                {name: plain(canonical(value)) for name, value in vars(row).items()}
                for row in self.rows
            ],
        }


_LEGEND = (
    "difference: second minus first, on the same data and the same draws; ± and interval are of the paired "
    "difference. change: in percent of the first. cannot tell: the interval holds 0. error over: what the "
    "interval accounts for; where data are missing, the verdict is about these data alone."
)


def _line(row: Difference) -> tuple[str, ...]:
    name = "  " + " ".join(settings_text(row.settings)) if row.settings else row.name
    over = [w for w, known in (("data", row.data), ("draws", row.draws)) if known]
    return (
        name,
        f"{row.first:.5g}",
        f"{row.second:.5g}",
        f"{row.value:+.4g}",
        "-" if row.stderr is None else f"{row.stderr:.2g}",
        ends(row.interval),
        percent(row.change),
        row.verdict + ("*" if row.p is not None and row.holm else ""),
        ", ".join(over) or "-",
    )


def percent(change: tuple[float, float, float] | None) -> str:
    """A change with its interval, which is left out where it is as narrow as the last digit shown.

    >>> percent((-0.12, -0.2, -0.04)), percent((1.0, 1.0, 1.0)), percent(None)
    ('−12 % [−20, −4]', '+100 %', '-')

    Beyond tenfold, as a factor.

    >>> percent((1950.0, 880.0, 3020.0))
    '×1951 [×881, ×3021]'
    """
    if change is None:
        return "-"
    if not all(map(math.isfinite, change)):
        return "-"
    if change[0] >= 9:
        value, low, high = (f"×{1 + share:.4g}".replace("×-", "−×") for share in change)
        return f"{value} [{low}, {high}]"
    width = 100 * (change[2] - change[1])
    digits = 0
    if width > 1e-6:
        first = math.floor(math.log10(width))
        digits = min(max((1 if width / 10.0**first < 1.95 else 0) - first, 0), 6)
    value, low, high = (f"{100 * share:+.{digits}f}".replace("-", "−") for share in change)
    narrow = len({round(100 * share, digits) for share in change}) == 1
    return f"{value} %" if narrow else f"{value} % [{low}, {high}]"
