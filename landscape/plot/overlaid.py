"""Surfaces and contours with the way of training drawn over the panels it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from landscape.plot.curvature import Backend, wants_plotly
from landscape.plot.sheet import Sheet
from landscape.plot.trails import Trail, reaching, read_trails, trail_note

Paths = Mapping[str, xr.Dataset] | None


def surface3d(sheet: Sheet, backend: Backend, title: str, log: bool | None, paths: Paths) -> Any:
    """Surfaces, with stems from the plane to the true loss of each checkpoint; see `landscape.plot.surface3d`."""
    trails = trails_of(sheet, paths)
    if trails:
        sheet = reaching(sheet, list(trails.values()))
    scale = sheet.scale(sheet.choose_log(log))
    if wants_plotly(backend):
        from landscape.plot import interactive
        from landscape.plot import paths as over
        from landscape.plot.chrome import dress

        figure = interactive.surface3d(sheet, title, log)
        for panel, trail in trails.items():
            over.on_surface(figure, panel, trail, scale)
        if trails:
            remark = "stems: from the loss in the plane to the checkpoint's own"
            dress(figure, title, sheet.footnote(*trail_note(list(trails.values())), remark))
        return figure
    from landscape.plot import paths_static, static

    drawn = static.surface3d(sheet, title, log)
    for panel, trail in trails.items():
        paths_static.on_surface(drawn, panel, trail, scale)
    return drawn


def contour(sheet: Sheet, backend: Backend, title: str, log: bool | None, paths: Paths) -> Any:
    """Contours with the paths on them; see `landscape.plot.contour`."""
    trails = trails_of(sheet, paths)
    if wants_plotly(backend):
        from landscape.plot import interactive
        from landscape.plot import paths as over
        from landscape.plot.chrome import dress

        figure = interactive.contour(sheet, title, log)
        for panel, trail in trails.items():
            over.on_contour(figure, panel, trail)
        if trails:
            dress(figure, title, sheet.footnote(*trail_note(list(trails.values()))))
        return figure
    from landscape.plot import paths_static, static

    drawn = static.contour(sheet, title, log)
    for panel, trail in trails.items():
        paths_static.on_contour(drawn, panel, trail)
    return drawn


def trails_of(sheet: Sheet, paths: Paths) -> dict[int, Trail]:
    """The path of each panel that has one, by the panel's index.

    Raises:
        ValueError: a path of a label that no panel has.
    """
    labels = [panel.label for panel in sheet.panels]
    for label in paths or {}:
        if label not in labels:
            raise ValueError(
                f"paths has {label!r}: expected labels of the surfaces, {', '.join(labels)}"
            )
    return {labels.index(label): read_trails(path)[0] for label, path in (paths or {}).items()}
