"""Pictures of the gallery: every new figure that a script binds to a name.

Our figures are made without pyplot, so that sphinx-gallery's own scraper would not find them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

_GALLERY = "_gallery/"


def scraper(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """The markup that shows the figures of one block of code, in the order of their names.

    matplotlib figures become pictures, the first of them the thumbnail; plotly figures stay interactive.
    """
    seen = block_vars.setdefault("seen_figures", set())
    parts = []
    for value in list(block_vars["example_globals"].values()):
        if not isinstance(value, Figure | go.Figure) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Figure):
            path = Path(next(block_vars["image_path_iterator"]))
            value.savefig(path, dpi=200, facecolor="white")
            parts.append(figure_rst([path], gallery_conf["src_dir"]))
        else:
            parts.append(interactive(value))
    return "\n".join(parts)


def interactive(figure: go.Figure) -> str:
    """A figure as data that ``_static/figures.js`` draws, its footnote below, where it can wrap."""
    drawn = go.Figure(figure)
    drawn.layout.template = None
    note = drawn.layout.title.subtitle.text or ""
    drawn.layout.title.subtitle.text = ""
    data = drawn.to_json()  # plotly escapes what could end the element
    lines = [
        f"<div class='interactive'><div style='height:{drawn.layout.height}px'></div>",
        f"<script type='application/json'>{data}</script>",
        f"<p>{note}</p></div>",
    ]
    return "\n".join([".. raw:: html", "", *("    " + line for line in lines), ""])


def _add_scripts(app: Any, page: str, template: str, context: Any, doctree: Any) -> None:
    """One copy of plotly for all pages, kept with the site: the figures work offline."""
    if page.startswith(_GALLERY):
        app.add_js_file("plotly.min.js", priority=700)
        app.add_js_file("figures.js", priority=800)


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("html-page-context", _add_scripts)
    return {"parallel_read_safe": True}
