"""Where the panels of an interactive figure stand, on a wide screen and on a narrow one.

A plotly figure has one fixed layout, so each figure carries in ``layout.meta`` the layouts for
narrower widths as ready keyword changes; the script of a page applies the one that fits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import plotly.graph_objects as go

Kind = Literal["scene", "axis"]

TOP = 40  # pixels above the panels for the buttons and the titles of the first row
ROW_GAP = {"scene": 12, "axis": 86}
COLUMN_GAP = {"scene": 8, "axis": 74}
PHONE, TABLET = 620, 1000  # widths in pixels below which panels stand in one, in two columns
_ROOM = 24  # characters of an axis title beside a scene on a phone
PAIR = 800  # two scenes side by side need this much: what stands beside a box is cut off in less


def axis_key(name: str, index: int) -> str:
    """The key of the axis or scene at ``index`` in a layout: the first has no number.

    >>> axis_key("scene", 0), axis_key("xaxis", 1)
    ('scene', 'xaxis2')
    """
    return name if index == 0 else f"{name}{index + 1}"


def arrange(figure: go.Figure, labels: Sequence[str], *, kind: Kind, title_height: int) -> None:
    """Place the panels, title each with its label, and store the narrower arrangements.

    Args:
        figure: has one scene or one pair of axes per label; changed in place.
        labels: titles of the panels.
        kind: ``"scene"`` (3-D) or ``"axis"``.
        title_height: pixels kept free above everything for the title of the figure.
    """
    count = len(labels)
    wide = {1: 1, 2: 2, 3: 3, 4: 2 if kind == "scene" else 4}.get(count, 4)
    figure.layout.annotations = [
        {
            "text": "<b>" + label.replace("&", "&amp;").replace("<", "&lt;") + "</b>",
            "xref": "paper",
            "yref": "paper",
            "xanchor": "center",
            "yanchor": "bottom",
            "showarrow": False,
            "font": {"size": 13},
        }
        for label in labels
    ]
    widths: list[tuple[float, int]] = [(PHONE, 1), (TABLET, min(2, wide)), (1e9, wide)]
    if kind == "scene" and wide > 1:
        widths.insert(1, (PAIR, 1))
    placings = [(below, _placing(count, n, kind, title_height, below)) for below, n in widths]
    if kind == "scene":
        titles = _titles(figure, count)
        for below, changes in placings:
            changes |= {key: _short(text) if below == PHONE else text for key, text in titles}
    widest = placings[-1][1]
    figure.layout.update(_nested(widest))
    for i in range(count):
        for part in ("x", "y"):
            figure.layout.annotations[i][part] = widest[f"annotations[{i}].{part}"]
    figure.layout.meta = {
        "title_height": title_height,
        "arrangements": [{"below": below, "layout": changes} for below, changes in placings],
    }


def _titles(figure: go.Figure, count: int) -> list[tuple[str, str]]:
    """The titles of the horizontal axes of all scenes, by their keys."""
    return [
        (f"{scene}.{name}.title.text", str(figure.layout[scene][name].title.text or ""))
        for scene in (axis_key("scene", i) for i in range(count))
        for name in ("xaxis", "yaxis")
    ]


def _short(title: str) -> str:
    """A title without its unit where a phone has no room for it beside a box.

    >>> _short("α (filter-normalized)"), _short("α (1 = from first.pt to second.pt)")
    ('α (filter-normalized)', 'α')
    """
    return title if len(title) <= _ROOM else title.partition(" (")[0]


def _placing(
    count: int, columns: int, kind: Kind, title_height: int, below: float
) -> dict[str, Any]:
    rows = math.ceil(count / columns)
    phone = below == PHONE
    # What a scene shows grows with its height: where it is higher than wide, its sides are cut off.
    pair = 400 if below > TABLET else 330
    row_height = {
        "scene": {1: 360 if count > 1 or phone else 460, 2: pair}.get(columns, 300),
        "axis": {1: 300 if count > 1 or phone else 440, 2: 330}.get(columns, 235),
    }[kind]
    label_room = 24
    row_gap = ROW_GAP[kind] + label_room
    inner = rows * row_height + (rows - 1) * row_gap
    # Horizontal gaps are fractions of a width only known in the browser; this one is typical.
    width = {1: 340, 2: 800}.get(columns, 1120)
    gap = COLUMN_GAP[kind] / width
    cell = (1 - gap * (columns - 1)) / columns
    bottom = (48 if kind == "axis" else 8) + (58 if phone else 0)
    top = TOP + title_height + label_room
    out: dict[str, Any] = {
        "height": inner + top + bottom,
        "margin.t": top,
        "margin.b": bottom,
        "margin.l": 58 if kind == "axis" else 8,
        "margin.r": 12 if phone else 78,
        "coloraxis.colorbar.orientation": "h" if phone else "v",
        "coloraxis.colorbar.x": 0.5 if phone else 1.02,
        "coloraxis.colorbar.xanchor": "center" if phone else "left",
        "coloraxis.colorbar.y": -(bottom - 50) / inner if phone else 0.5,
        "coloraxis.colorbar.yanchor": "top" if phone else "middle",
        "coloraxis.colorbar.len": 0.9 if phone else min(1.0, 330 / inner),
        "coloraxis.colorbar.title.side": "top",
    }
    for i in range(count):
        row, column = divmod(i, columns)
        x0 = column * (cell + gap)
        y1 = 1 - row * (row_height + row_gap) / inner
        x, y = [x0, x0 + cell], [max(0.0, y1 - row_height / inner), y1]
        if kind == "scene":
            out[f"{axis_key('scene', i)}.domain.x"] = x
            out[f"{axis_key('scene', i)}.domain.y"] = y
            # A narrow scene has no room beside the box; there the colour bar alone says "loss".
            narrow = phone or columns > 2 or (columns == 2 and below <= TABLET)
            out[f"{axis_key('scene', i)}.zaxis.title.text"] = "" if narrow else "loss"
        else:
            out[f"{axis_key('xaxis', i)}.domain"] = x
            out[f"{axis_key('yaxis', i)}.domain"] = y
        out[f"annotations[{i}].x"] = sum(x) / 2
        out[f"annotations[{i}].y"] = y1 + 2 / inner
    return out


def _nested(changes: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys as plotly's underscore keys, without those that reach into a list."""
    return {k.replace(".", "_"): v for k, v in changes.items() if "[" not in k}


def arrange_legend(figure: go.Figure, labels: Sequence[str], title_height: int) -> None:
    """Make room above a single panel for a legend that takes several rows on a phone.

    Args:
        figure: has a horizontal legend over its panel; changed in place.
        labels: the entries of the legend.
        title_height: pixels at the top of the figure that belong to its title.
    """
    rows = math.ceil(sum(50 + 7.5 * len(label) for label in labels) / 300)
    shift = 26 * (rows - 1)
    height, top = figure.layout.height, figure.layout.margin.t
    wide: dict[str, Any] = {"height": height, "margin.t": top}
    phone: dict[str, Any] = {"height": height + shift, "margin.t": top + shift}
    if figure.layout.updatemenus:
        pad = figure.layout.updatemenus[0].pad.b
        wide["updatemenus[0].pad.b"] = pad
        phone["updatemenus[0].pad.b"] = pad + shift
    figure.layout.meta = {
        "title_height": title_height,
        "arrangements": [{"below": PHONE, "layout": phone}, {"below": 1e9, "layout": wide}],
    }
