"""Binary STL: a watertight solid in millimetres, for 3-D printing."""

from __future__ import annotations

import os

import numpy as np
import xarray as xr

from landscape.exchange.files import replaced
from landscape.exchange.mesh import positive, relief, solid

_RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def write_stl(
    surface: xr.Dataset,
    path: str | os.PathLike[str],
    *,
    size: float = 100.0,
    height: float = 40.0,
    base: float = 2.0,
    log: bool = False,
    clip: float | None = None,
) -> tuple[str, ...]:
    """The relief of a surface on a flat plate: closed, every normal outwards, no degenerate triangle.

    Args:
        surface: over a plane, without holes (or see ``clip``).
        path: file to write or to replace.
        size: longest side, mm.
        height: from the lowest to the highest loss drawn, mm.
        base: thickness of the plate under the lowest loss, mm.
        log: heights are log10 of the loss.
        clip: losses above it, and those that are NaN or infinite, are drawn at it.

    Returns:
        What was clipped, and how high the model is.

    Raises:
        ValueError: points without a finite loss and no ``clip``, a grid too fine for the size, or what
            :func:`landscape.exchange.mesh.relief` refuses.
    """
    positive("base", base)
    shape = relief(surface, size, height, log, clip)
    vertices, triangles = solid(shape, size, height, base)
    corners = vertices.astype("<f4")[triangles]
    across = np.cross(
        *(corners[:, i].astype(np.float64) - corners[:, 0] for i in (1, 2))
    )  # from the rounded corners: what the file holds
    length = np.linalg.norm(across, axis=1, keepdims=True)
    if not length.all():
        raise ValueError(
            f"a triangle has no area at size {size:g}: the grid is too fine for it, give a larger size"
        )
    records = np.zeros(len(corners), _RECORD)
    records["normal"], records["corners"] = across / length, corners
    header = b"landscape surface, millimetres".ljust(
        80
    )  # never begins with "solid": that means text
    with replaced(path) as temporary, temporary.open("wb") as file:
        file.write(header + len(records).to_bytes(4, "little") + records.tobytes())
    top = base + height * float(np.max(shape.heights))
    sides = " x ".join(f"{size * axis[-1]:g}" for axis in (shape.x, shape.y))
    return (*shape.notes, f"{sides} x {top:g} mm, {len(records)} triangles")
