"""What every paper figure is made of: an empty figure with its foot, axes in inches, plain text."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from landscape.plot import style

DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.3)), (0, (5, 1.4, 1.2, 1.4)))
"""Dash patterns of matplotlib, one a subject."""

SCREEN_DPI = 160  # a column is 520 pixels wide: 8-point type reads well in a notebook


class PaperFigure(Figure):
    """A figure that a notebook shows as the result of a cell: without pyplot, matplotlib's own does not."""

    def _repr_png_(self) -> bytes:
        picture = BytesIO()
        self.savefig(picture, format="png", dpi=SCREEN_DPI)
        return picture.getvalue()


def new_figure(width: float, height: float, title: str, note: Sequence[str]) -> Figure:
    """An empty figure with its title, and the line of settings at its foot."""
    figure = PaperFigure(figsize=(width, height))
    FigureCanvasAgg(figure)
    if title:
        figure.text(0.5, 1 - 0.05 / height, plain_text(title), ha="center", va="top", fontsize=9)
    figure.text(
        0.5,
        0.04 / height,
        "\n".join(note),
        ha="center",
        va="bottom",
        fontsize=6,
        color=style.MUTED,
        linespacing=1.15,
    )
    return figure


def add_axes(figure: Figure, box: tuple[float, float, float, float], **options: Any) -> Any:
    """Axes in a box given in inches: left, bottom, width, height."""
    width, height = figure.get_size_inches()
    x, y, w, h = box
    return figure.add_axes((x / width, y / height, w / width, h / height), **options)


def wrapped_note(text: str, width: float) -> list[str]:
    """The line of settings, broken between its parts to fit a figure ``width`` inches wide."""
    lines: list[str] = []
    for part in plain_text(text).split(" · "):
        joined = f"{lines[-1]} · {part}" if lines else part
        if lines and len(joined) * 0.046 < width - 0.1:
            lines[-1] = joined
        else:
            lines.append(part)
    return lines


def note_height(note: Sequence[str]) -> float:
    """Inches that the line of settings needs at the foot."""
    return 0.09 + 0.098 * len(note)


def plain_text(text: str) -> str:
    """The text as matplotlib shows it unchanged."""
    return text.replace("$", r"\$")  # a dollar would start matplotlib's mathematics
