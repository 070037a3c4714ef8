import base64
import io
import json
import xml.etree.ElementTree as ET
from collections import Counter

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import landscape
from landscape.exchange.mesh import relief, sheet

TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def surface(loss, alpha=None, beta=None, **variables):
    loss = np.asarray(loss, float)
    dims = ("beta", "alpha")
    return xr.Dataset(
        {"loss": (dims, loss)} | {name: (dims, v) for name, v in variables.items()},
        {
            "alpha": np.linspace(-1, 1, loss.shape[1]) if alpha is None else alpha,
            "beta": np.linspace(-1, 1, loss.shape[0]) if beta is None else beta,
        },
        {"label": "a & b < c"},
    )


def random_surface(rows, columns, seed=0):
    return surface(np.random.default_rng(seed).random((rows, columns)) + 0.5)


def read_stl(path):
    data = path.read_bytes()
    assert not data.startswith(b"solid")
    count = int.from_bytes(data[80:84], "little")
    assert len(data) == 84 + 50 * count
    return np.frombuffer(data, TRIANGLE, offset=84)


def signed_volume(corners):
    a, b, c = (corners[:, i].astype(float) for i in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 6), st.integers(2, 6), st.integers(0, 99), st.floats(5, 200), st.floats(0.5, 9)
)
def test_a_solid_is_closed_oriented_and_as_large_as_its_prisms(
    tmp_path_factory, rows, columns, seed, size, base
):
    path = tmp_path_factory.mktemp("stl") / "s.stl"
    given = random_surface(rows, columns, seed)
    landscape.export(given, path, size=size, height=30.0, base=base)
    found = read_stl(path)
    corners = found["corners"]
    edges = Counter()
    for triangle in corners:
        a, b, c = (tuple(corner.tolist()) for corner in triangle)
        assert len({a, b, c}) == 3
        edges.update([(a, b), (b, c), (c, a)])
    # closed and oriented: each edge is there once in each direction
    assert set(edges.values()) == {1}
    assert all((b, a) in edges for a, b in edges)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(across, axis=1, keepdims=True)
    assert area.min() > 0
    np.testing.assert_allclose(found["normal"], across / area, atol=1e-4)
    # Euler: one body without a handle
    vertices = {corner for edge in edges for corner in edge}
    assert len(vertices) - len(edges) // 2 + len(corners) == 2
    heights = relief(given, size, 30.0, False, None).heights * 30.0 + base
    low, high = heights.min(), heights.max()
    assert low * size**2 * 0.9999 < signed_volume(corners) < high * size**2 * 1.0001
    np.testing.assert_allclose(corners.reshape(-1, 3).max(0), [size, size, base + 30.0], rtol=1e-6)
    assert (corners.reshape(-1, 3).min(0) == 0).all()


def test_the_volume_of_a_ramp_is_known(tmp_path):
    ramp = surface([[0.0, 1.0, 2.0]] * 2, beta=[0.0, 1.0])  # 2 wide, 1 deep
    notes = landscape.export(ramp, tmp_path / "s.stl", size=100.0, height=40.0, base=2.0)
    assert notes == ("100 x 50 x 42 mm, 22 triangles",)
    corners = read_stl(tmp_path / "s.stl")["corners"]
    assert signed_volume(corners) == pytest.approx(100 * 50 * (2 + 20))
    top = corners[np.abs(corners[..., 0] - 100).max(axis=1) == 0]
    assert top[..., 2].max() == 42  # high where alpha is high


def test_a_constant_surface_is_a_plate(tmp_path):
    landscape.export(surface(np.full((3, 3), 7.0)), tmp_path / "s.stl", size=10.0, base=3.0)
    assert signed_volume(read_stl(tmp_path / "s.stl")["corners"]) == pytest.approx(300)


HOLED = [[1.0, 2.0, 3.0], [4.0, np.nan, 6.0], [7.0, np.inf, 9.0]]


def test_a_solid_has_no_holes_unless_they_are_clipped(tmp_path):
    done = np.ones((3, 3), np.int8)
    with pytest.raises(ValueError, match="2 of 9 points have no finite loss.*give a clip"):
        landscape.export(surface(HOLED, evaluated=done), tmp_path / "s.stl")
    notes = landscape.export(surface(HOLED, evaluated=done), tmp_path / "s.stl", clip=8.0)
    assert notes[:2] == (
        "1 of 9 losses above 8, drawn at 8",
        "2 of 9 losses not finite, drawn at 8",
    )
    shape = relief(surface(HOLED, evaluated=done), 1.0, 1.0, False, 8.0)
    np.testing.assert_allclose(shape.heights * 7 + 1, [[1, 2, 3], [4, 8, 6], [7, 8, 8]])
    done[1, 1] = 0  # still to come: nobody knows how high it is
    with pytest.raises(ValueError, match="1 of 9 points have no finite loss"):
        landscape.export(surface(HOLED, evaluated=done), tmp_path / "s.stl", clip=8.0)


def test_log_heights_are_logarithms():
    shape = relief(surface([[0.01, 1.0], [10.0, 100.0]]), 1.0, 1.0, True, None)
    np.testing.assert_allclose(shape.heights, [[0, 0.5], [0.75, 1]], atol=1e-15)
    assert (shape.low, shape.high) == (-2, 2)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: surface([[0.0, 1.0]] * 2), {"log": True}, "log needs positive losses, the smallest is 0"),
        (lambda: surface([[np.nan, np.nan]] * 2), {}, "no finite loss"),
        (lambda: surface([[1.0, 2.0]] * 2), {"clip": 1.0}, "clip is 1, but no loss lies below it: .* 1$"),
        (lambda: surface([[1.0, 2.0]] * 2), {"clip": np.nan}, "clip is nan"),
        (lambda: surface([[1.0, 2.0]] * 2), {"size": 0.0}, "size is 0.0: expected a positive"),
        (lambda: surface([[1.0, 2.0]] * 2), {"height": np.inf}, "height is inf"),
        (lambda: surface([[1.0, 2.0]] * 2), {"base": -1.0}, "base is -1.0"),
        (lambda: surface([[1.0, 2.0]] * 2, beta=[1.0, 0.0]), {}, "beta does not ascend"),
        (lambda: surface([[1.0, 2.0]]), {}, "beta does not ascend over two points"),
        (lambda: surface([[1.0, 2.0]] * 2).isel(beta=0, drop=True), {}, "a line has one axis"),
        (lambda: surface([[1.0, 2.0]] * 2, beta=[0.0, 1e-48]), {}, "too fine"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_solid_is_refused(tmp_path, make, options, message):
    with pytest.raises(ValueError, match=message):
        landscape.export(make(), tmp_path / "s.stl", **options)
    assert not list(tmp_path.iterdir())


def test_cells_are_cut_along_the_flatter_diagonal_and_holes_take_little():
    def cut(loss):
        return sorted(map(sorted, sheet(relief(surface(loss), 1.0, 1.0, False, None)).tolist()))

    assert cut([[0, 1], [2, 0]]) == [[0, 1, 3], [0, 2, 3]]
    assert cut([[1, 0], [0, 2]]) == [[0, 1, 2], [1, 2, 3]]
    assert cut([[np.nan, 1], [2, 0]]) == [[1, 2, 3]]
    assert cut([[0, 1], [np.nan, 0]]) == [[0, 1, 3]]
    assert cut([[0, np.nan], [np.nan, 0]]) == []


def read_glb(path):
    data = path.read_bytes()
    assert data[:4] == b"glTF"
    version, length, size = np.frombuffer(data, "<u4", 3, 4).tolist()
    assert (version, length) == (2, len(data))
    assert (data[16:20], size % 4) == (b"JSON", 0)
    document, rest = json.loads(data[20 : 20 + size]), data[20 + size :]
    assert rest[4:8] == b"BIN\0"
    buffer = rest[8:]
    assert len(buffer) == int.from_bytes(rest[:4], "little") == document["buffers"][0]["byteLength"]
    return document, buffer


def arrays(document, buffer):
    kinds = {"VEC3": 3, "VEC2": 2, "SCALAR": 1}
    found = []
    for accessor in document["accessors"]:
        view = document["bufferViews"][accessor["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        dtype = {5126: "<f4", 5125: "<u4"}[accessor["componentType"]]
        count = accessor["count"] * kinds[accessor["type"]]
        assert view["byteLength"] == 4 * count
        array = np.frombuffer(buffer, dtype, count, view["byteOffset"])
        found.append(array.reshape(accessor["count"], -1))
    return found


def test_a_gltf_mesh_stands_on_its_feet(tmp_path):
    ramp = surface([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [0.0, 1.0, 3.0]], beta=[-1.0, 0.0, 1.0])
    assert landscape.export(ramp, tmp_path / "s.glb", size=200.0, height=60.0) == ()
    document, buffer = read_glb(tmp_path / "s.glb")
    points, normals, strip, triangles = arrays(document, buffer)
    assert document["asset"]["version"] == "2.0"
    assert document["asset"]["extras"]["settings"] == {"label": "a & b < c"}
    # metres, heights along y, alpha along x, beta away from the reader: along -z
    np.testing.assert_allclose(points[0], [-0.1, 0.0, 0.1], atol=1e-8)
    np.testing.assert_allclose(points[2], [0.1, 0.04, 0.1], atol=1e-8)
    np.testing.assert_allclose(points[8], [0.1, 0.06, -0.1], atol=1e-8)
    assert document["accessors"][0]["min"] == points.min(0).tolist()
    assert document["accessors"][0]["max"] == points.max(0).tolist()
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    # the corner that sees the slope alone: rise 0.02 over 0.1
    np.testing.assert_allclose(normals[0], np.array([-0.2, 1, 0]) / np.hypot(0.2, 1), atol=1e-6)
    corners = points[triangles.reshape(-1, 3)]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (across[:, 1] > 0).all()  # fronts upwards
    image = document["bufferViews"][document["images"][0]["bufferView"]]
    png = buffer[image["byteOffset"] : image["byteOffset"] + image["byteLength"]]
    colours = np.asarray(Image.open(io.BytesIO(png)))[0]
    assert colours.shape == (256, 3)
    assert colours[0].tolist() == [68, 1, 84] and colours[-1].tolist() == [253, 231, 36]  # viridis
    texel = strip[:, 0] * 256 - 0.5
    np.testing.assert_allclose(texel, points[:, 1] / 0.06 * 255, atol=1e-3)


@pytest.mark.parametrize("label", ["", "a", "ab", "abc"])
def test_the_chunks_of_a_glb_are_padded(tmp_path, label):
    landscape.export(random_surface(2, 3).assign_attrs(label=label), tmp_path / "s.glb")
    document, _ = read_glb(tmp_path / "s.glb")
    assert document["asset"]["extras"]["settings"] == {"label": label}


def test_a_gltf_mesh_leaves_holes_open_and_text_is_the_same_mesh(tmp_path):
    holed = surface(HOLED)
    notes = landscape.export(holed, tmp_path / "s.glb")
    assert notes == ("2 of 9 points have no finite loss and are left open",)
    landscape.export(holed, tmp_path / "s.gltf")
    document, buffer = read_glb(tmp_path / "s.glb")
    points, _, _, triangles = arrays(document, buffer)
    assert (
        np.isfinite(points).all() and len(points) == triangles.max() + 1 == 5
    )  # 7 and 9 stand alone
    text = json.loads((tmp_path / "s.gltf").read_text())
    uri = text["buffers"][0].pop("uri")
    assert text == document
    assert base64.b64decode(uri.removeprefix("data:application/octet-stream;base64,")) == buffer
    with pytest.raises(ValueError, match="no triangle"):
        landscape.export(surface([[0, np.nan], [np.nan, 0]]), tmp_path / "none.glb")


def read_vts(path):
    root = ET.parse(path).getroot()
    assert root.attrib["type"] == "StructuredGrid" and root.attrib["header_type"] == "UInt64"

    def decode(node):
        data = base64.b64decode(node.text.strip())
        assert int.from_bytes(data[:8], "little") == len(data) - 8
        dtype = {"Float64": "<f8", "Int8": "i1", "UInt8": "u1"}[node.attrib["type"]]
        return np.frombuffer(data[8:], dtype)

    piece = root.find(".//Piece")
    named = {node.attrib["Name"]: decode(node) for node in piece.iter("DataArray")}
    codes = root.find(".//FieldData/DataArray").text.split()
    return piece, named, json.loads(bytes(map(int, codes)).rstrip(b"\0"))


def test_a_structured_grid_holds_the_exact_numbers(tmp_path):
    loss = np.array([[1.0, np.nan, 100.0], [2.0, 10.0, 50.0]])
    given = surface(
        loss, [0.0, 1.0, 4.0], [-1.0, 1.0], evaluated=np.ones((2, 3), np.int8), accuracy=loss / 7
    )
    notes = landscape.export(given, tmp_path / "s.vts", log=True, height=50.0)
    assert notes == ("1 of 6 points have no finite loss and are hidden",)
    piece, named, kept = read_vts(tmp_path / "s.vts")
    assert piece.attrib["Extent"] == "0 2 0 1 0 0"
    assert piece.find("PointData").attrib["Scalars"] == "log10_loss"
    assert kept == {"label": "a & b < c"}
    points = named.pop("Points").reshape(-1, 3)
    np.testing.assert_array_equal(points[:, 0], [0, 1, 4, 0, 1, 4])  # alpha first
    np.testing.assert_array_equal(points[:, 1], [-1, -1, -1, 1, 1, 1])
    np.testing.assert_allclose(points[:, 2], [0, 0, 2, np.log10(2), 1, np.log10(50)], atol=1e-15)
    np.testing.assert_array_equal(named["loss"], loss.ravel())
    np.testing.assert_array_equal(named["accuracy"], (loss / 7).ravel())
    assert named["evaluated"].tolist() == [1] * 6
    assert named["vtkGhostType"].tolist() == [0, 2, 0, 0, 0, 0]
    landscape.export(given, tmp_path / "c.vts", clip=20.0)
    _, named, _ = read_vts(tmp_path / "c.vts")
    assert "vtkGhostType" not in named and named["loss"][2] == 100
    np.testing.assert_allclose(named["Points"][2::3], np.array([0, 19, 19, 1, 9, 19]) / 19 * 1.6)
