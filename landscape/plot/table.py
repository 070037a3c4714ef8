"""Tables of measured values with their errors, as HTML for a page and as LaTeX for a paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from landscape.plot.latex import latex_escape as latex_escape

_DIGITS = 4  # significant digits of a value that comes without an error
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Cell:
    """One measured value.

    Attributes:
        value: the number; None draws a dash.
        error: its standard error, which decides how many digits are shown.
        low: lower end of an interval, shown together with ``high``.
        high: upper end of that interval.
        note: what the reader must know about this value; shown as tooltip and under the table.
        flag: mark the value as one not to be trusted.
    """

    value: float | None
    error: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""
    flag: bool = False

    def __str__(self) -> str:
        """The value with as many digits as its error allows.

        >>> str(Cell(0.12345, 0.0042)), str(Cell(1234.5, 56.0)), str(Cell(0.12342, 0.0012))
        ('0.123 ± 0.004', '1230 ± 60', '0.1234 ± 0.0012')
        >>> str(Cell(0.5312, low=0.5123, high=0.5498)), str(Cell(2.0)), str(Cell(None))
        ('0.531 [0.512, 0.550]', '2', '–')
        >>> str(Cell(-1.234e-7, 2.1e-9))
        '(−1.23 ± 0.02)×10⁻⁷'
        """
        return _render(self)

    def latex(self) -> str:
        r"""The value in LaTeX's mathematics.

        >>> print(Cell(0.12345, 0.0042).latex(), Cell(3e8).latex(), Cell(1.5, flag=True).latex())
        $0.123 \pm 0.004$ $3 \times 10^{8}$ $1.5$\textsuperscript{\dag}
        """
        if self.value is None:
            return "--"
        text = _render(self)
        if "×10" in text:
            head, power = text.split("×10")
            digits = power.translate({raised: plain for plain, raised in _SUPERSCRIPT.items()})
            text = rf"{head} \times 10^{{{digits}}}"
        text = text.replace("±", r"\pm").replace("−", "-").replace("∞", r"\infty")
        text = text.replace("NaN", r"\mathrm{NaN}")
        text = text.replace(" [", r"\ [")
        apart = r"\," if text.endswith("}") else ""  # a power and a dagger are both raised
        return f"${text}$" + (rf"{apart}\textsuperscript{{\dag}}" if self.flag else "")


@dataclass(frozen=True)
class Table:
    """A titled table, drawn in the order given.

    Attributes:
        title: short title.
        columns: headings, one per column.
        rows: as many entries per row as columns; strings stand left, cells right-aligned.
        caption: what the numbers are and how they were measured.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    caption: str = ""

    def __post_init__(self) -> None:
        """Refuse ragged tables.

        Raises:
            ValueError: a row has not as many entries as there are columns.
        """
        for i, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.title!r}: row {i} has {len(row)} entries, "
                    f"expected {len(self.columns)} (one per column)"
                )

    def to_text(self) -> str:
        """The table for a terminal: the title, then aligned columns.

        >>> print(Table("Flatness", ["", "trace"], [["MAML", Cell(1.25, 0.1)]]).to_text())
        <BLANKLINE>
        Flatness
              trace
        MAML  1.25 ± 0.10
        """
        lines = [list(self.columns), *([str(entry) for entry in row] for row in self.rows)]
        widths = [max(len(line[c]) for line in lines) for c in range(self._width)]
        body = [
            "  ".join(entry.ljust(w) for entry, w in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        return "\n".join(["", self.title, *body])

    def to_html(self) -> str:
        """The table as HTML: notes as tooltips and numbered under the table."""
        numeric = [any(isinstance(row[c], Cell) for row in self.rows) for c in range(self._width)]
        notes: list[str] = []
        head = "".join(
            f'<th scope="col"{_class("num" if n else "")}>{escape(c)}</th>'
            for c, n in zip(self.columns, numeric, strict=True)
        )
        body = []
        for row in self.rows:
            cells = [
                _html_cell(entry, notes) if isinstance(entry, Cell) else _html_text(entry, c)
                for c, entry in enumerate(row)
            ]
            body.append(f"<tr>{''.join(cells)}</tr>")
        listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
        return (
            f'<figure class="table"><figcaption><b>{escape(self.title)}</b>'
            + (f" <span>{escape(self.caption)}</span>" if self.caption else "")
            + f'</figcaption><div class="scroll"><table><thead><tr>{head}</tr></thead>'
            + f"<tbody>{''.join(body)}</tbody></table></div>"
            + (f'<ol class="notes">{listed}</ol>' if notes else "")
            + "</figure>"
        )

    def to_latex(self, *, environment: bool = True) -> str:
        """The table for a paper.

        Args:
            environment: wrap the rows in a ``tabular`` of the booktabs package; False gives the
                rows alone, one per line.

        Returns:
            LaTeX source in ASCII. Flagged values carry a dagger, with a letter where they have different
            notes; what it means is set in small type under the tabular. All notes follow as comments.
        """
        notes = list(dict.fromkeys(_noted(cell) for cell in self._cells() if cell.note))
        flagged = list(dict.fromkeys(_noted(c) for c in self._cells() if c.note and c.flag))

        def mark(cell: Cell) -> str:
            if not (environment and cell.flag and cell.note and len(flagged) > 1):
                return cell.latex()
            sign = rf"\textsuperscript{{\dag {_letters(flagged.index(_noted(cell)))}}}"
            return cell.latex().replace(r"\textsuperscript{\dag}", sign)

        rows = [
            " & ".join(mark(e) if isinstance(e, Cell) else latex_escape(e) for e in row) + r" \\"
            for row in self.rows
        ]
        if not environment:
            return "\n".join(rows) + "\n"
        kinds = "".join(
            "r" if any(isinstance(row[c], Cell) for row in self.rows) else "l"
            for c in range(self._width)
        )
        head = " & ".join(latex_escape(c) for c in self.columns) + r" \\"
        lines = [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", head, r"\midrule", *rows]
        lines += [r"\bottomrule", r"\end{tabular}"]
        for i, note in enumerate(flagged):
            sign = rf"\dag {_letters(i)}" if len(flagged) > 1 else r"\dag"
            lines.append(rf"\par{{\footnotesize\textsuperscript{{{sign}}}~{note}\par}}")
        return "\n".join([*lines, *(f"% {note}" for note in notes)]) + "\n"

    def _cells(self) -> list[Cell]:
        return [entry for row in self.rows for entry in row if isinstance(entry, Cell)]

    @property
    def _width(self) -> int:
        return len(self.columns)


def _noted(cell: Cell) -> str:
    return latex_escape(" ".join(cell.note.split()))


def _letters(index: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    more, last = divmod(index, 26)
    return (_letters(more - 1) if more else "") + "abcdefghijklmnopqrstuvwxyz"[last]


def _render(cell: Cell) -> str:
    value = cell.value
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    error = cell.error if cell.error is not None and math.isfinite(cell.error) else None
    ends = [v for v in (cell.low, cell.high) if v is not None and math.isfinite(v)]
    interval = ends if len(ends) == 2 else []
    largest = max(abs(value), error or 0.0, *(abs(end) for end in interval))
    exponent = math.floor(math.log10(largest)) if largest > 0 else 0
    shift = exponent if exponent >= 6 or exponent <= -4 else 0
    unit = 10.0**shift
    uncertainty = error if error is not None else (interval[1] - interval[0]) / 2 if interval else 0
    decimals = _decimals(uncertainty / unit)
    text = _digits(value / unit, decimals)
    if error is not None:
        text += f" ± {_digits(error / unit, decimals)}"
    if interval:
        text += f" [{', '.join(_digits(v / unit, decimals) for v in interval)}]"
    if not shift:
        return text
    power = "×10" + str(shift).translate(_SUPERSCRIPT)
    return f"({text}){power}" if " " in text else text + power


def _decimals(uncertainty: float) -> int | None:
    """Decimals that show one digit of an uncertainty, or two where its first digit is a 1."""
    if uncertainty <= 0:
        return None
    exponent = math.floor(math.log10(uncertainty))
    return -exponent + (1 if uncertainty / 10.0**exponent < 1.95 else 0)


def _digits(value: float, decimals: int | None) -> str:
    if decimals is None:  # no uncertainty given: significant digits, but whole numbers in full
        text = f"{value:.{_DIGITS}g}" if abs(value) < 10**_DIGITS else f"{value:.0f}"
    else:
        text = f"{round(value, decimals) + 0.0:.{max(decimals, 0)}f}"  # + 0.0: no negative zero
    return text.replace("-", "−")


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _html_text(text: str, column: int) -> str:
    return f'<th scope="row">{escape(text)}</th>' if column == 0 else f"<td>{escape(text)}</td>"


def _html_cell(cell: Cell, notes: list[str]) -> str:
    mark = ""
    if cell.note:
        if cell.note not in notes:
            notes.append(cell.note)
        mark = f"<sup>{notes.index(cell.note) + 1}</sup>"
    flagged = cell.flag or (cell.value is not None and not math.isfinite(cell.value))
    sign = '<span class="sign" aria-label="do not trust">⚠</span> ' if flagged else ""
    tooltip = f' title="{escape(cell.note)}"' if cell.note else ""
    classes = "num flag" if flagged else "num"
    return f'<td class="{classes}"{tooltip}>{sign}{escape(str(cell))}{mark}</td>'
