"""One self-contained page: figures, tables, settings and what to distrust, readable offline.

The page needs no network and no server: plotly's script is in the file, once, and the page's own
content security policy forbids it to load anything else.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape, unescape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from landscape.plot.dark import DARK
from landscape.plot.table import Cell, Table
from landscape.plot.table_data import csv_text, records
from landscape.writing import write_text

__all__ = ["Cell", "Section", "Table", "write_page"]

_SCRIPTS = ("values", "colours", "figures", "scenes", "buttons", "numbers", "start")
_BUTTON_ROOM = (
    26  # pixels that plotly's own buttons take above a figure; a page has buttons of its own
)

# 'unsafe-eval' is for plotly's own shader compiler; with every source of the net shut, what
# remains is the script in this file.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; worker-src blob:; base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True)
class Section:
    """A part of a page, drawn in this order: title, text, tables, figures.

    Attributes:
        title: heading.
        text: paragraphs of plain text, separated by empty lines; shown as written, never as HTML.
        figures: plotly figures.
        tables: tables.
    """

    title: str
    text: str = ""
    figures: Sequence[go.Figure] = ()
    tables: Sequence[Table] = ()


def write_page(
    path: str | os.PathLike[str],
    title: str,
    lead: str,
    sections: Sequence[Section],
    settings: Mapping[str, Any],
    warnings: Sequence[str] = (),
    checks: Sequence[str] = (),
) -> Path:
    """Write a page as one HTML file that works offline.

    The file appears whole or not at all: it is written beside its place and then moved there. Figures are drawn
    when they come into sight; all scenes of the page turn together; figures, tables and all numbers can be
    saved from the page; it follows the reader's light or dark colours and is used by keyboard too (a figure with
    the focus: arrows turn it, + and - move it, r turns it back, l changes its scale).

    Args:
        path: the file; its folder is made when missing.
        title: title of the page.
        lead: what the page answers and what was found; paragraphs separated by empty lines.
        sections: the parts, in order.
        settings: everything that changes a number; shown in a fold-out, JSON texts unfolded.
        warnings: what the reader should distrust; shown in a box above everything else.
        checks: what was looked at and found in order; shown in the same box.

    Returns:
        The path of the file.

    Raises:
        WriteError: the disk refuses; a page that was there is as it was.
    """
    path = Path(path)
    body = _body(_Content(title, lead, sections, settings, warnings, checks))
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_resource('page.css')}</style>\n"
    )
    scripts = ""
    if any(section.figures for section in sections):
        scripts = f'<script type="application/gzip" id="plotly">{_plotly()}</script>\n'
    if any(section.figures or section.tables for section in sections):
        ours = "\n".join(_resource(f"{name}.js") for name in _SCRIPTS)
        scripts += f'<script>\n(function () {{\n"use strict";\n{ours}}})();\n</script>\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_text(path, f"{head}{scripts}</head>\n{body}</html>\n")


@dataclass(frozen=True)
class _Content:
    """What `write_page` was given to show."""

    title: str
    lead: str
    sections: Sequence[Section]
    settings: Mapping[str, Any]
    warnings: Sequence[str]
    checks: Sequence[str]


def _body(page: _Content) -> str:
    parts = ["<body>", "<main>", f"<header><h1>{escape(page.title)}</h1>"]
    parts.append(f'<div class="lead">{_paragraphs(page.lead)}</div>')
    parts.append("</header>")
    parts.append(_health(page.warnings, page.checks))
    links = "".join(
        f'<a href="#section-{i}">{escape(s.title)}</a>' for i, s in enumerate(page.sections, 1)
    )
    navigation = f"<nav>{links}</nav>" if len(page.sections) > 1 else ""
    parts.append(f'<div class="bar">{navigation}</div>')
    drawn = 0
    for i, section in enumerate(page.sections, 1):
        parts.append(f'<section id="section-{i}"><h2>{escape(section.title)}</h2>')
        parts.append(_paragraphs(section.text))
        parts += [_table(table) for table in section.tables]
        for figure in section.figures:
            drawn += 1
            parts.append(_figure(figure, f"figure-{drawn}"))
        parts.append("</section>")
    if page.settings:
        parts.append(
            "<section><h2>Settings</h2><details><summary>Everything that changes a number"
            f"</summary>{_tree(page.settings)}</details></section>"
        )
    parts.append(_json("page-data", "id", _data(page)))
    parts.append(_json("dark-colours", "id", DARK))
    return "\n".join([*parts, "</main>", "</body>", ""])


def _health(warnings: Sequence[str], checks: Sequence[str]) -> str:
    """What to distrust, or that nothing was found; and what was looked at."""
    if not warnings and not checks:
        return ""
    kind, head = (
        ("distrust", "What to distrust") if warnings else ("sound", "Nothing to distrust was found")
    )
    told = "".join(f"<li>{escape(text)}</li>" for text in warnings)
    found = "".join(f"<li>{escape(text)}</li>" for text in checks)
    looked = (
        f"<details><summary>What was checked and found in order</summary><ul>{found}</ul></details>"
    )
    return (
        f'<aside class="health {kind}"><h2>{head}</h2>'
        + (f"<ul>{told}</ul>" if told else "")
        + (looked if found else "")
        + "</aside>"
    )


def _data(page: _Content) -> dict[str, Any]:
    """What the page says beside its figures, for those who read it by a program."""
    return {
        "title": page.title,
        "lead": page.lead,
        "warnings": list(page.warnings),
        "checks": list(page.checks),
        "tables": [
            {"title": t.title, "caption": t.caption, "rows": records(t)}
            for section in page.sections
            for t in section.tables
        ],
        "settings": _plain(page.settings),
    }


def _table(table: Table) -> str:
    return table.to_html() + _json(
        "table-data", "class", {"csv": csv_text(table), "latex": table.to_latex()}
    )


def _figure(figure: go.Figure, name: str) -> str:
    """A figure with its title, footnote and buttons as elements of the page, which wrap on narrow screens."""
    drawing = json.loads(figure.to_json())
    layout = drawing["layout"]
    layout.pop("template", None)
    meta = layout.get("meta")
    caption, spare, label = "", 0, "figure"
    if layout.get("updatemenus"):
        spare += _BUTTON_ROOM
    if isinstance(meta, dict) and "title_height" in meta:
        words = layout.pop("title", {})
        title = unescape(words.get("text", ""))
        note = unescape(words.get("subtitle", {}).get("text", ""))
        caption = f"<figcaption><b>{escape(title)}</b> <span>{escape(note)}</span></figcaption>"
        label = escape(f"{title}. {note}")
        spare += meta["title_height"]
        meta["title"] = words  # a picture that leaves the page takes it along
    if spare and "height" in layout:
        layout["height"] -= spare
        layout["margin"]["t"] -= spare
        for arrangement in (meta or {}).get("arrangements", ()):
            changes = arrangement["layout"]
            changes["height"] -= spare
            changes["margin.t"] -= spare
            arrangement["layout"] = {
                k: v for k, v in changes.items() if not k.startswith("updatemenus")
            }
    keys = "Arrow keys turn, plus and minus move, r resets, l changes the scale."
    return (
        f'<figure class="plot">{caption}<div class="canvas" id="{name}" tabindex="0" role="img" '
        f'aria-label="{label} {keys}"></div>{_json("drawing", "class", drawing)}</figure>'
    )


def _json(name: str, attribute: str, value: Any) -> str:
    """Data for the page's script; never run."""
    return f'<script type="application/json" {attribute}="{name}">{_script_json(value)}</script>'


def _script_json(value: Any) -> str:
    """JSON that can stand inside a script element: no text in it can end the element."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _paragraphs(text: str) -> str:
    blocks = [" ".join(block.split()) for block in text.split("\n\n")]
    return "".join(f"<p>{escape(block)}</p>" for block in blocks if block)


def _tree(value: Any) -> str:
    """Nested settings as nested lists."""
    value = _unfold(value)
    if isinstance(value, Mapping):
        items = "".join(f"<li><b>{escape(str(k))}</b> {_tree(v)}</li>" for k, v in value.items())
        return f'<ul class="settings">{items}</ul>' if items else "<code>{}</code>"
    if isinstance(value, list | tuple) and any(
        isinstance(_unfold(v), Mapping | list | tuple) for v in value
    ):
        items = "".join(f"<li>{_tree(v)}</li>" for v in value)
        return f'<ul class="settings">{items}</ul>'
    if isinstance(value, list | tuple):
        return f"<code>{escape(', '.join(str(_unfold(v)) for v in value))}</code>"
    if isinstance(value, float) and math.isfinite(value):
        return f"<code>{value:.6g}</code>"
    return f"<code>{escape(str(value))}</code>"


def _plain(value: Any) -> Any:
    """Settings as JSON can hold them, JSON texts unfolded; what is not finite is told as text."""
    value = _unfold(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _unfold(value: Any) -> Any:
    """JSON text of an attribute as what it says; arrays as lists; anything else as it is."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


@cache
def _plotly() -> str:
    """Plotly's script, a third of its size: compressed, as text. The page unpacks it when it is opened."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode("ascii")


def _resource(name: str) -> str:
    return files("landscape.plot").joinpath("web", name).read_text(encoding="utf-8")
