"""VTK XML structured grids (``.vts``), for ParaView, VisIt and PyVista.

Source: Kitware, VTK file formats, XML formats.
"""

from __future__ import annotations

import base64
import json
import os
from xml.sax.saxutils import quoteattr

import numpy as np
import xarray as xr

from landscape.exchange.files import Array, pointwise, replaced, settings, values
from landscape.exchange.mesh import relief

_TYPES = {"<f8": "Float64", "<f4": "Float32", "|u1": "UInt8", "|i1": "Int8"}
_HIDDEN = 2  # VTK's vtkDataSetAttributes::HIDDENPOINT


def write_vts(
    surface: xr.Dataset,
    path: str | os.PathLike[str],
    *,
    size: float = 100.0,
    height: float = 40.0,
    log: bool = False,
    clip: float | None = None,
) -> tuple[str, ...]:
    """The grid as a relief, with every variable of the surface as point data.

    ``x`` and ``y`` are alpha and beta; ``z`` is the relief, scaled to ``height / size`` of the longest side;
    the arrays hold the exact numbers. Points without a finite loss are hidden (``vtkGhostType``). The
    settings are the field data ``settings``, JSON text.

    Args:
        surface: over a plane.
        path: file to write or to replace.
        size: with ``height``, the proportions of the relief.
        height: see ``size``.
        log: heights are log10 of the loss; the array ``log10_loss`` is added.
        clip: losses above it, and those that are NaN or infinite, are drawn at it; the arrays keep them.

    Returns:
        What was clipped or hidden.

    Raises:
        ValueError: what :func:`landscape.exchange.mesh.relief` refuses.
    """
    shape = relief(surface, size, height, log, clip)
    x, y = np.meshgrid(surface["alpha"].values, surface["beta"].values)
    side = max(float(np.ptp(x)), float(np.ptp(y)))
    z = np.nan_to_num(shape.heights, nan=0.0) * side * height / size
    arrays = {name: values(surface, name) for name in pointwise(surface)}
    if log:
        with np.errstate(divide="ignore", invalid="ignore"):
            arrays["log10_loss"] = np.log10(arrays["loss"])
    if shape.holes:
        arrays["vtkGhostType"] = np.isnan(shape.heights).astype(np.uint8) * np.uint8(_HIDDEN)
    rows, columns = shape.heights.shape
    extent = f"0 {columns - 1} 0 {rows - 1} 0 0"
    text = json.dumps(settings(surface)).encode() + b"\0"
    points = _array("Points", np.stack([x, y, z], -1).astype("<f8"), 3)
    document = [
        '<?xml version="1.0"?>',
        '<VTKFile type="StructuredGrid" version="1.0" byte_order="LittleEndian" header_type="UInt64">',
        f'<StructuredGrid WholeExtent="{extent}">',
        '<FieldData><DataArray type="String" Name="settings" NumberOfTuples="1" format="ascii">',
        " ".join(map(str, text)),
        f'</DataArray></FieldData>\n<Piece Extent="{extent}">',
        f'<PointData Scalars="{"log10_loss" if log else "loss"}">',
        *(_array(name, array) for name, array in arrays.items()),
        f"</PointData>\n<Points>\n{points}\n</Points>\n</Piece>\n</StructuredGrid>\n</VTKFile>\n",
    ]
    with replaced(path) as temporary:
        temporary.write_text("\n".join(document), encoding="utf-8")
    hidden = f"{shape.holes} of {shape.heights.size} points have no finite loss and are hidden"
    return (*shape.notes, hidden) if shape.holes else shape.notes


def _array(name: str, array: Array, components: int = 1) -> str:
    """One array, the first index of VTK (alpha) running fastest."""
    kept = array if array.dtype.str in _TYPES else array.astype("<f8")
    data = np.ascontiguousarray(kept).tobytes()
    text = base64.b64encode(len(data).to_bytes(8, "little") + data).decode()
    return (
        f'<DataArray type="{_TYPES[kept.dtype.str]}" Name={quoteattr(name)} '
        f'NumberOfComponents="{components}" format="binary">\n{text}\n</DataArray>'
    )
