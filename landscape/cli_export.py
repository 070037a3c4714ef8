"""The commands `landscape export` and `landscape import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from landscape import console
from landscape.cli_source import Flag, require_suffix

Part = Annotated[str | None, Parameter(name="split")]


def export(
    surface: Path,
    /,
    *,
    out: Path,
    size: float | None = None,
    height: float | None = None,
    base: float | None = None,
    log: Flag = False,
    clip: float | None = None,
    part: Part = None,
) -> None:
    """Write a saved surface for another program: ParaView, a slicer, slides, a spreadsheet, loss-landscape.

    Args:
        surface: NetCDF file of landscape surface.
        out: the file to write; its suffix says the format: .vts (ParaView), .stl (3-D printing), .glb or
            .gltf (slides), .csv, .json, .h5 (tomgoldstein/loss-landscape).
        size: longest side of the mesh in mm; 100 when left out.
        height: of the relief in mm; 40 when left out.
        base: thickness of the plate under an .stl in mm; 2 when left out.
        log: heights are log10 of the loss.
        clip: losses above it, and those that are NaN or infinite, are drawn at it.
        part: train or test: the name of the losses in an .h5 file; train when left out.
    """
    from landscape.exchange import export as write
    from landscape.refusals import refusals
    from landscape.store import load

    given = {"size": size, "height": height, "base": base, "clip": clip, "part": part}
    options = {name: value for name, value in given.items() if value is not None}
    data = load(surface)
    notes = write(data, out, **options, **({"log": True} if log else {}))
    print(f"{out}: written from {surface}")
    for note in notes:
        print(f"  {note}")
    if refused := refusals(data):
        raise console.Untrusted(f"{surface}: {'; '.join(refused)}")


def import_surface(
    surface: Path,
    /,
    *,
    out: Path = Path("surface.nc"),
    part: Part = None,
    label: str | None = None,
) -> None:
    """Read a surface file of tomgoldstein/loss-landscape (.h5), and draw it.

    Args:
        surface: the .h5 file of its plot_surface.py.
        out: NetCDF file; the interactive figure is written beside it as .html.
        part: train or test: whose losses; those that are there when left out, train first.
        label: name of the subject on figures; from the file name when left out.
    """
    from landscape import surface_page
    from landscape.exchange.li2018.surfaces import read_surface
    from landscape.soundness import refusals, troubles
    from landscape.store import save

    require_suffix(out, ".nc")
    found = read_surface(surface, part, label)
    save(found, out)
    page = out.with_suffix(".html")
    surface_page.write(page, [found], [[f"Read from {surface.name}."]])
    done = int(found["evaluated"].values.sum())
    print(f"{out} and {page}: {done} of {found['loss'].size} points, {found.attrs['group']}")
    for caution in troubles(found):
        print(f"  beware: {caution}")
    if refused := refusals(found):
        raise console.Untrusted("; ".join(refused))
