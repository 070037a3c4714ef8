"""Tables as plain records: for spreadsheets, and for those who read a page by a program."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from landscape.plot.table import Cell, Table

Record = dict[str, Any]


def records(table: Table) -> list[Record]:
    """One record a row, by column: texts as they are; of a cell its value, and what it carries beside it.

    A cell gives ``COLUMN`` and, where it has them, ``COLUMN stderr``, ``COLUMN low``, ``COLUMN high``,
    ``COLUMN note`` and ``COLUMN distrusted`` (true).

    >>> records(Table("", ["", "trace"], [["MAML", Cell(1.5, 0.25, flag=True)]]))
    [{'name': 'MAML', 'trace': 1.5, 'trace stderr': 0.25, 'trace distrusted': True}]
    """
    names = [
        column or ("name" if i == 0 else f"column {i + 1}")
        for i, column in enumerate(table.columns)
    ]
    made = []
    for row in table.rows:
        record: Record = {}
        for name, entry in zip(names, row, strict=True):
            record |= {name: entry} if isinstance(entry, str) else _cell(name, entry)
        made.append(record)
    return made


def csv_text(table: Table) -> str:
    r"""The table as CSV, one line a row, the columns of `records`.

    >>> csv_text(Table("", ["", "trace"], [["a, b", Cell(1.5)]]))
    'name,trace\n"a, b",1.5\n'
    """
    rows = records(table)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _cell(name: str, cell: Cell) -> Record:
    parts = {"stderr": cell.error, "low": cell.low, "high": cell.high, "note": cell.note or None}
    found: Record = {name: _number(cell.value)}
    found |= {f"{name} {part}": _number(v) for part, v in parts.items() if v is not None}
    return found | ({f"{name} distrusted": True} if cell.flag else {})


def _number(value: Any) -> Any:
    """JSON has no NaN: what is not finite is told as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
