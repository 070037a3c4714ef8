"""One self-contained page: figures, tables, settings and what to distrust, readable offline.

The page needs no network and no server: plotly's script is in the file, once, and the page's own
content security policy forbids it to load anything else.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape, unescape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from landscape.plot.table import Cell, Table

__all__ = ["Cell", "Section", "Table", "write_page"]

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
) -> Path:
    """Write a page as one HTML file that works offline.

    The file appears whole or not at all: it is written beside its place and then moved there.

    Args:
        path: the file; its folder is made when missing.
        title: title of the page.
        lead: what the page answers and what was found; paragraphs separated by empty lines.
        sections: the parts, in order.
        settings: everything that changes a number; shown in a fold-out, JSON texts unfolded.
        warnings: what the reader should distrust; shown in a box above everything else.

    Returns:
        The path of the file.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    body = _body(title, lead, sections, settings, warnings)
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_resource('page.css')}</style>\n"
    )
    scripts = ""
    if any(section.figures for section in sections):
        scripts = f"<script>{get_plotlyjs()}</script>\n<script>\n{_resource('page.js')}</script>\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_text(f"{head}{scripts}</head>\n{body}</html>\n", encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _body(
    title: str,
    lead: str,
    sections: Sequence[Section],
    settings: Mapping[str, Any],
    warnings: Sequence[str],
) -> str:
    parts = ["<body>", "<main>", f"<header><h1>{escape(title)}</h1>"]
    parts.append(f'<div class="lead">{_paragraphs(lead)}</div>')
    if len(sections) > 1:
        links = "".join(
            f'<a href="#section-{i}">{escape(s.title)}</a>' for i, s in enumerate(sections, 1)
        )
        parts.append(f"<nav>{links}</nav>")
    parts.append("</header>")
    if warnings:
        items = "".join(f"<li>{escape(text)}</li>" for text in warnings)
        parts.append(f'<aside class="distrust"><h2>What to distrust</h2><ul>{items}</ul></aside>')
    drawn = 0
    for i, section in enumerate(sections, 1):
        parts.append(f'<section id="section-{i}"><h2>{escape(section.title)}</h2>')
        parts.append(_paragraphs(section.text))
        parts += [table.to_html() for table in section.tables]
        for figure in section.figures:
            drawn += 1
            parts.append(_figure(figure, f"figure-{drawn}"))
        parts.append("</section>")
    if settings:
        parts.append(
            "<section><h2>Settings</h2><details><summary>Everything that changes a number"
            f"</summary>{_tree(settings)}</details></section>"
        )
    return "\n".join([*parts, "</main>", "</body>", ""])


def _figure(figure: go.Figure, name: str) -> str:
    """A figure with its title and footnote as text of the page, which wraps on narrow screens."""
    drawing = json.loads(figure.to_json())
    layout = drawing["layout"]
    layout.pop("template", None)
    meta = layout.get("meta")
    caption = ""
    if isinstance(meta, dict) and "title_height" in meta:
        words = layout.pop("title", {})
        title = unescape(words.get("text", ""))
        note = unescape(words.get("subtitle", {}).get("text", ""))
        caption = f"<figcaption><b>{escape(title)}</b> <span>{escape(note)}</span></figcaption>"
        spare = meta["title_height"]
        layout["height"] -= spare
        layout["margin"]["t"] -= spare
        for arrangement in meta.get("arrangements", ()):
            arrangement["layout"]["height"] -= spare
            arrangement["layout"]["margin.t"] -= spare
    return (
        f'<figure class="plot">{caption}<div class="canvas" id="{name}"></div>'
        "</figure>\n"
        f"<script>drawFigure({json.dumps(name)}, {_script_json(drawing)});</script>"
    )


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


def _resource(name: str) -> str:
    return files("landscape.plot").joinpath(name).read_text(encoding="utf-8")
