"""The command `landscape topology`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape import console
from landscape.cli_source import Flag, require_suffix

if TYPE_CHECKING:
    import xarray as xr

    from landscape.topology import Topology


def topology(
    surface: Path,
    /,
    *,
    out: Path | None = None,
    level: list[float] | None = None,
    connectivity: int = 8,
    z: float | None = None,
    json: Flag = False,
) -> None:
    """Minima of a saved surface, the barriers between them, and which of both are more than noise.

    Args:
        surface: a surface file, of a plane or a line.
        out: page with the figure to write (.html), or the figure alone (.pdf).
        level: also count the components of the surface below this loss; may be given several times.
        connectivity: 8 neighbours, diagonal ones too (barriers from below), or 4 (from above).
        z: standard errors that a minimum's persistence must exceed; as many as keep 95 % confidence for
            all points together when left out, which errs on the safe side.
        json: print one JSON document instead.
    """
    from landscape.soundness import refusals
    from landscape.store import load
    from landscape.topology import analyze

    if out is not None and out.suffix != ".pdf":
        require_suffix(out, ".html")
    data = load(surface)
    found = analyze(data, level, connectivity=connectivity, z=z)
    other = len(analyze(data, connectivity=12 - connectivity, z=z).significant)
    doubts = found.doubts()
    if other != len(found.significant):
        doubts.append(
            f"with {12 - connectivity} neighbours {other} minima stand out: the grid is too coarse to tell"
        )
    refused = refusals(data)
    if out is not None:
        _draw(data, found, out, doubts)
    if json:
        console.print_json({**found.to_dict(), "doubts": [*doubts, *refused]})
    else:
        _tell(found, [*doubts, *refused], level is not None)
        if out is not None:
            print(out)
    if found.missing:
        refused.append(f"{found.missing} points are not evaluated yet")
    if refused:
        raise console.Untrusted(f"{surface}: {'; '.join(refused)}")


def _draw(data: xr.Dataset, found: Topology, out: Path, doubts: list[str]) -> None:
    from landscape import plot
    from landscape.topology_tables import summary, tables

    if out.suffix == ".pdf":
        from landscape.figures import save, topology

        save(topology(data, found), out)
        return
    from landscape.plot.page import Section, write_page
    from landscape.soundness import passed, troubles

    settings: dict[str, Any] = {**data.attrs, "connectivity": found.connectivity, "z": found.z}
    section = Section("Minima and barriers", "", [plot.topology(data, found)], tables(found))
    title = f"Minima of {data.attrs.get('label') or 'a surface'}"
    warnings = list(dict.fromkeys([*doubts, *troubles(data)]))
    write_page(out, title, summary(found), [section], settings, warnings, passed([data]))


def _tell(found: Topology, doubts: list[str], levels: bool) -> None:
    from landscape.topology_tables import summary, tables

    print(summary(found))
    for table in tables(found):
        print(table.to_text())
    if levels:
        print()
        counts = zip(found.levels, found.components, found.significant_components, strict=True)
        for at, every, real in counts:
            print(f"below loss {at:.6g}: {every} components, {real} of minima that stand out")
    for doubt in doubts:
        print(f"beware: {doubt}")
