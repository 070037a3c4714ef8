"""The paper figure of a surface's topology."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from landscape import plot
from landscape.figures.saving import described
from landscape.topology import Topology


def topology(surface: xr.Dataset, found: Topology, *, log: bool | None = None) -> Figure:
    """Persistence diagram with its noise band, beside the surface with its minima and passes.

    Args:
        surface: what was analyzed.
        found: what ``landscape.topology.analyze(surface)`` gave.
        log: scale of the losses; None: logarithmic above two decades.

    Raises:
        TypeError: not a Dataset.
        ValueError: nothing finite to draw, or an analysis of another kind of surface.
    """
    figure = plot.topology(surface, found, "matplotlib", title="", log=log)
    words = (
        "Left: each minimum at its own loss and at the loss of the lowest pass to a deeper one; the height "
        "over the diagonal is its persistence, and minima in the grey band are not told from noise. Right: the "
        "minima that are (numbered), their passes (crosses), and the others (dots)"
    )
    band = f"Noise band: {found.z:.4g} standard errors ({found.errors}); {found.connectivity} neighbours."
    return described(
        figure, words, [surface], str(surface.attrs.get("group", "")), [band, *found.doubts()]
    )
