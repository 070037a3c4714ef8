"""The parts that all interactive figures have: title, footnote, hover texts, buttons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from landscape.plot import style
from landscape.plot.sheet import Panel

TITLE_HEIGHT = 64  # pixels above a figure for its title and footnote; a page sets them as text


def safe(text: str) -> str:
    """A label as plotly text: plotly reads a little HTML, a label stays the characters it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def hover(panel: Panel, flat: bool = True) -> str:
    """The hover template of a panel; ``customdata`` holds the arrays of ``panel.known()``."""
    lines = [f"<b>{safe(panel.label)}</b>", "α %{x:.3g}, β %{y:.3g}"] if flat else []
    fields = [("loss", "%{customdata[0]:.4g}")]
    if panel.stderr is not None:
        fields[0] = ("loss", fields[0][1] + " ± %{customdata[1]:.2g}")
    if panel.accuracy is not None:
        index = len(panel.known()) - 1
        fields.append(("accuracy", f"%{{customdata[{index}]:.1%}}"))
    joined = [f"{name} {value}" for name, value in fields]
    text = "<br>".join([*lines, *joined]) if flat else ", ".join(joined)
    return f"{text}<extra></extra>" if flat else text


def dress(figure: go.Figure, title: str, note: str) -> None:
    """Give a figure its fonts, its title, and ``note`` as a footnote under the title."""
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": style.FONT, "size": 12, "color": style.INK},
        title={
            "text": safe(title),
            "x": 0,
            "xanchor": "left",
            "xref": "paper",
            "y": 1,
            "yanchor": "top",
            "yref": "container",
            "pad": {"t": 14},
            "font": {"size": 16},
            "subtitle": {"text": safe(note), "font": {"size": 11, "color": style.MUTED}},
        },
        modebar={
            "bgcolor": "rgba(255,255,255,0.8)",
            "color": "#8b949e",
            "activecolor": style.INK,
        },
        hoverlabel={"font": {"family": style.FONT}},
    )


def add_switch(figure: go.Figure, states: Sequence[list[Any]], start: bool) -> None:
    """Add the linear/log buttons.

    Args:
        figure: changed in place.
        states: for linear, then for log: changes of the data, of the layout, and which traces.
        start: whether the figure starts on the logarithmic scale.
    """
    figure.layout.updatemenus = [
        {
            "type": "buttons",
            "direction": "right",
            "active": int(start),
            "x": 0,  # plotly's own tools take the right-hand corner
            "xanchor": "left",
            "y": 1,
            "yanchor": "bottom",
            "pad": {"b": 30},
            "font": {"size": 11},
            "bgcolor": "white",
            "bordercolor": style.GRID,
            "showactive": True,
            "buttons": [
                {"label": label, "method": "update", "args": list(state)}
                for label, state in zip(("linear", "log"), states, strict=True)
            ],
        }
    ]
