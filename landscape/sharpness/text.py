"""Sharpness as aligned text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from landscape.sharpness.measurement import Measurement
from landscape.sharpness.remarks import Remark, differing, settings_text

WIDTH = 140
_SETTINGS = 40  # characters; longer settings go on in the next line
_HEAD = (
    "measure", "value", "±", "95 % interval", "data", "draws", "invariant", "cost/FB", "paid", "settings",
)  # fmt: skip
_LEGEND = (
    "±: standard error, of data and draws together; where it is missing, half the interval. 95 % interval: widened "
    "by numerical residuals. data, draws: the parts of ± over the terms of the data and over random draws. "
    "cost: of the measure alone; paid: what it took here, where others had paid for a part; both in FB, a forward "
    "and a backward pass over the data. Indented: the same measure at other settings."
)
_INVARIANT = (
    "invariant: under rescaling of whole layers / of single neurons that leaves the function as it is, measured "
    "on this checkpoint."
)


def report_table(
    rows: Sequence[Measurement],
    skipped: Mapping[str, str],
    invariance: Mapping[str, Mapping[str, Any]],
    remarks: Sequence[Remark],
    context: Mapping[str, float],
    overhead: Mapping[str, float],
) -> str:
    """The table of a report, what was skipped, what to mind, and a legend."""
    body: list[tuple[str, ...]] = []
    for row in rows:
        body += _lines(row, row, row.settings, _marks(invariance.get(row.name)))
        for variant in row.variants:
            body += _lines(row, variant, differing(row, variant), "")
    shown = [i for i, name in enumerate(_HEAD) if name != "invariant" or invariance]
    lines = aligned([[line[i] for i in shown] for line in (_HEAD, *body)])
    lines += paragraph(f"note: {', '.join(names)}: {note}" for note, names in _notes(rows).items())
    lines += paragraph(_untold(invariance))
    lines += reservations(skipped, remarks)
    lines += paragraph(
        [_LEGEND, *([_INVARIANT] if invariance else []), _account(rows, overhead, context)]
    )
    return "\n".join(lines)


def reservations(
    skipped: Mapping[str, str], remarks: Sequence[Remark], whose: str = ""
) -> list[str]:
    """Lines that say what was skipped and what to mind."""
    told = [f"skipped: {whose}{name}: {reason}" for name, reason in skipped.items()]
    told += [f"mind: {whose}{grouped(mark.rows)}: {mark.text}." for mark in remarks]
    return paragraph(told)


def grouped(labels: Sequence[str]) -> str:
    """Labels of rows and variants, by measure.

    >>> grouped(["sam", "sam rho=0.1", "lambda_max rank=2", "trace"])
    'sam (and rho=0.1), lambda_max (rank=2), trace'
    """
    found: dict[str, list[str]] = {}
    for text in labels:
        name, _, settings = text.partition(" ")
        found.setdefault(name, []).append(settings)
    return ", ".join(
        name if variants == [""] else f"{name} ({', '.join(v or 'and' for v in variants)})"
        for name, variants in found.items()
    ).replace("(and, ", "(and ")


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest entry.

    >>> aligned([["a", "b"], ["long", "c"]])
    ['a     b', 'long  c']
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def paragraph(sentences: Any) -> list[str]:
    """Sentences, each on lines of its own; what does not fit is indented."""
    lines: list[str] = []
    for sentence in sentences:
        lines += textwrap.wrap(
            sentence, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
    return lines


def ends(interval: tuple[float, float] | None) -> str:
    """An interval in short.

    >>> ends((0.123456, 2.0)), ends(None)
    ('[0.12346, 2]', '-')
    """
    return "-" if interval is None else f"[{interval[0]:.5g}, {interval[1]:.5g}]"


def spread(row: Measurement) -> str:
    """The standard error, else half of the interval, else a dash."""
    if row.stderr is not None:
        return f"{row.stderr:.2g}"
    if row.interval is not None:
        return f"{(row.interval[1] - row.interval[0]) / 2:.2g}"
    return "-"


def _lines(
    row: Measurement, shown: Measurement, settings: Mapping[str, Any], marks: str
) -> list[tuple[str, ...]]:
    own = shown is row
    told = textwrap.wrap(" ".join(settings_text(settings)), _SETTINGS, break_on_hyphens=False)
    first = (
        row.name if own else "  " + (told.pop(0) if told else row.name),
        f"{shown.value:.5g}",
        spread(shown),
        ends(shown.interval),
        _error(shown.data_error),
        _error(shown.draw_error),
        marks,
        f"{shown.cost:.1f}" if own else "",
        f"{shown.paid:.1f}" if own else "",
        told.pop(0) if own and told else "",
    )
    more = [("",) * (len(_HEAD) - 1) + (line,) for line in told]
    return [first, *more]


def _marks(found: Mapping[str, Any] | None) -> str:
    if not found:
        return "-"
    return "/".join(_mark(found, key) for key in ("layers", "neurons"))


def _mark(found: Mapping[str, Any], key: str) -> str:
    if found.get(key) is None:
        return "-"
    ratio = found.get(f"{key}_ratio")
    times = "" if ratio is None else f" x{ratio:.3g}"
    return "yes" if found[key] else f"no{times}"


def _untold(invariance: Mapping[str, Mapping[str, Any]]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for name, found in invariance.items():
        if found.get("reason"):
            reasons.setdefault(found["reason"], []).append(name)
    return [
        f"invariance not told of {'all' if len(names) == len(invariance) else ', '.join(names)}: {reason}"
        for reason, names in reasons.items()
    ]


def _notes(rows: Sequence[Measurement]) -> dict[str, list[str]]:
    notes: dict[str, list[str]] = {}
    for row in rows:
        for text in dict.fromkeys(each.note for each in (row, *row.variants) if each.note):
            notes.setdefault(text, []).append(row.name)
    return notes


def _account(
    rows: Sequence[Measurement], overhead: Mapping[str, float], context: Mapping[str, float]
) -> str:
    spent = {"the measures": sum(row.paid for row in rows), **overhead}
    told = ", ".join(f"{value:.1f} {name}" for name, value in spent.items())
    where = "".join(
        f"{word} {context[key]:.4g}. "
        for key, word in (("loss", "Loss at the point:"), ("chance", "Loss of guessing:"))
        if key in context
    )
    return f"{where}Spent {sum(spent.values()):.1f} FB: {told}."


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"
