"""Minima and barriers of a surface as tables and in words."""

from __future__ import annotations

import math

from landscape.plot.table import Cell, Table
from landscape.topology import Minimum, Topology


def minima_table(found: Topology) -> Table:
    """The minima that stand out: where, how deep, and the pass to a deeper one."""
    axes = ("α", "β")[: len(found.minima[0].position)]
    rows: list[list[Cell | str]] = []
    for m in found.significant:
        place: list[Cell | str] = [Cell(v) for v in m.position]
        over = "–" if m.saddle is None else ", ".join(f"{v:.4g}" for v in m.saddle)
        height = (
            Cell(None, note="no pass to a deeper minimum")
            if math.isinf(m.persistence)
            else Cell(m.persistence, m.stderr or None)
        )
        loss = Cell(m.loss, note=_doubt(m), flag=bool(_doubt(m)))
        rows.append(
            [str(m.number), *place, loss, height, over, "–" if m.into is None else str(m.into)]
        )
    return Table(
        "Minima",
        ["no.", *axes, "loss", "persistence", f"pass at ({', '.join(axes)})", "into"],
        rows,
        "Persistence: height of the lowest pass to a deeper minimum, ± its standard error.",
    )


def barrier_table(found: Topology) -> Table:
    """The climb from each significant minimum (row) to each other (column)."""
    names = [str(m.number) for m in found.significant]
    rows: list[list[Cell | str]] = [
        [name, *(Cell(None) if i == j else Cell(v) for j, v in enumerate(row))]
        for i, (name, row) in enumerate(zip(names, found.barriers.tolist(), strict=True))
    ]
    return Table("Barriers", ["from \\ to", *names], rows, "Lowest climb inside the window.")


def tables(found: Topology) -> list[Table]:
    """All tables that say something."""
    more = [barrier_table(found)] if len(found.significant) > 1 else []
    return [minima_table(found), *more]


def summary(found: Topology) -> str:
    """What was found, in a sentence or two."""
    count = len(found.significant)
    verb = "minimum stands" if count == 1 else "minima stand"
    return (
        f"{count} {verb} out of the noise, of {len(found.minima)} on the grid ({found.connectivity} "
        f"neighbours). A minimum counts if its persistence is more than {found.z:.3g} standard errors "
        f"({found.errors})."
    )


def _doubt(m: Minimum) -> str:
    if m.on_boundary:
        return "on the edge of the window: the loss may fall on outside"
    return "beside a gap: the loss may fall on in there" if m.beside_gap else ""
