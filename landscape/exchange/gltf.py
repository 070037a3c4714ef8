"""glTF 2.0 meshes (``.glb`` and ``.gltf``), coloured, for slides and web pages.

Source: Khronos Group, glTF 2.0 specification.
"""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from landscape.exchange.files import Array, replaced, settings
from landscape.exchange.mesh import relief, sheet

_COLOURS = 256
_FLOAT, _UNSIGNED = 5126, 5125  # component types
_VERTICES, _INDICES = 34962, 34963  # targets of buffer views
_TRIANGLES, _LINEAR, _CLAMP = 4, 9729, 33071


def write_gltf(
    surface: xr.Dataset,
    path: str | os.PathLike[str],
    *,
    size: float = 100.0,
    height: float = 40.0,
    log: bool = False,
    clip: float | None = None,
) -> tuple[str, ...]:
    """The relief as an open sheet with normals, each vertex coloured by its height (viridis).

    The colours are a picture in the file, a strip that each vertex points into: viewers show that without
    being told, unlike colour attributes, and colours between vertices stay on the scale.
    Heights run along +Y and one unit is a metre, as glTF wants it. Holes stay open.

    Args:
        surface: over a plane.
        path: ``.glb`` (binary) or ``.gltf`` (one text file, everything within).
        size: longest side, mm.
        height: from the lowest to the highest loss drawn, mm.
        log: heights and colours are those of log10 of the loss.
        clip: losses above it, and those that are NaN or infinite, are drawn at it.

    Returns:
        What was clipped or left open.

    Raises:
        ValueError: no cell of the grid has three finite corners, or what
            :func:`landscape.exchange.mesh.relief` refuses.
    """
    shape = relief(surface, size, height, log, clip)
    used, triangles = np.unique(sheet(shape), return_inverse=True)
    if not used.size:
        raise ValueError("no three neighbours have a finite loss: there is no triangle to draw")
    triangles = triangles.reshape(-1, 3)
    x, y = np.meshgrid(shape.x - shape.x[-1] / 2, shape.y - shape.y[-1] / 2)
    level = shape.heights.ravel()[used]
    points = (
        np.stack([size * x.ravel()[used], height * level, -size * y.ravel()[used]], 1) / 1000.0
    ).astype("<f4")
    # The middle of the first texel is the lowest colour, the middle of the last the highest.
    along = (level * (_COLOURS - 1) + 0.5) / _COLOURS
    strip = np.stack([along, np.full_like(along, 0.5)], 1).astype("<f4")
    document, data = _document(points, _normals(points, triangles), strip, triangles.astype("<u4"))
    document["asset"]["extras"] = {"settings": settings(surface)}
    text = Path(path).suffix.lower() == ".gltf"
    with replaced(path) as temporary:
        temporary.write_bytes(_text(document, data) if text else _binary(document, data))
    holes = f"{shape.holes} of {shape.heights.size} points have no finite loss and are left open"
    return (*shape.notes, holes) if shape.holes else shape.notes


def _normals(points: Array, triangles: Array) -> Array:
    """Unit normals ``(points, 3)``, the mean of the triangles around weighted by their areas."""
    exact = points.astype(np.float64)
    a, b, c = (exact[triangles[:, i]] for i in range(3))
    across = np.cross(b - a, c - a)
    total = np.zeros_like(exact)
    for corner in range(3):
        np.add.at(total, triangles[:, corner], across)
    found: Array = (total / np.linalg.norm(total, axis=1, keepdims=True)).astype("<f4")
    return found


def _document(
    points: Array, normals: Array, strip: Array, triangles: Array
) -> tuple[dict[str, Any], bytes]:
    """The JSON part, and the bytes that it speaks of."""
    data, views = b"", []
    for part, target in (
        (points.tobytes(), _VERTICES), (normals.tobytes(), _VERTICES), (strip.tobytes(), _VERTICES),
        (triangles.tobytes(), _INDICES), (_picture(), None),
    ):  # fmt: skip
        view = {"buffer": 0, "byteOffset": len(data), "byteLength": len(part)}
        views.append(view if target is None else view | {"target": target})
        data += part + b"\0" * (-len(part) % 4)
    count = len(points)
    accessors = [
        _accessor(0, count, "VEC3")
        | {"min": points.min(0).tolist(), "max": points.max(0).tolist()},
        _accessor(1, count, "VEC3"),
        _accessor(2, count, "VEC2"),
        _accessor(3, triangles.size, "SCALAR", _UNSIGNED),
    ]
    material = {
        "doubleSided": True,
        "pbrMetallicRoughness": {
            "baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 0.9,
        },
    }  # fmt: skip
    attributes = {"POSITION": 0, "NORMAL": 1, "TEXCOORD_0": 2}
    primitive = {"attributes": attributes, "indices": 3, "material": 0, "mode": _TRIANGLES}
    document = {
        "asset": {"version": "2.0", "generator": "sharp-landscape"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "loss surface"}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [material],
        "textures": [{"sampler": 0, "source": 0}],
        "samplers": [
            {"magFilter": _LINEAR, "minFilter": _LINEAR, "wrapS": _CLAMP, "wrapT": _CLAMP}
        ],
        "images": [{"bufferView": 4, "mimeType": "image/png"}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(data)}],
    }
    return document, data


def _accessor(view: int, count: int, kind: str, component: int = _FLOAT) -> dict[str, Any]:
    return {"bufferView": view, "componentType": component, "count": count, "type": kind}


def _picture() -> bytes:
    """The colour scale as a PNG, one row, low on the left."""
    from matplotlib import colormaps
    from PIL import Image

    colours = colormaps["viridis"](np.arange(_COLOURS), bytes=True)[None, :, :3]
    kept = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(colours)).save(kept, "PNG")
    return kept.getvalue()


def _text(document: dict[str, Any], data: bytes) -> bytes:
    uri = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    document["buffers"][0]["uri"] = uri
    return json.dumps(document, allow_nan=False).encode()


def _binary(document: dict[str, Any], data: bytes) -> bytes:
    described = json.dumps(document, allow_nan=False).encode()
    described += b" " * (-len(described) % 4)
    chunks = _chunk(b"JSON", described) + _chunk(b"BIN\0", data)
    return b"glTF" + b"".join(n.to_bytes(4, "little") for n in (2, 12 + len(chunks))) + chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + kind + data
