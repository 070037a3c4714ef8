import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from landscape.exchange.li2018 import write_surface
from landscape.store import SCHEMA, load, save


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A surface of 5 x 4 points in ``s.nc``, one of them NaN."""
    monkeypatch.chdir(tmp_path)
    alpha, beta = np.linspace(-1, 1, 5), np.linspace(-1, 1, 4)
    loss = 1 + alpha**2 + beta[:, None] ** 2
    loss[0, 0] = np.nan
    dims = ("beta", "alpha")
    surface = xr.Dataset(
        {"loss": (dims, loss), "evaluated": (dims, np.ones(loss.shape, np.int8))},
        {"alpha": alpha, "beta": beta},
        {"schema": SCHEMA, "label": "bowl", "axes": 2},
    )
    save(surface, "s.nc")
    return surface


def test_export_says_what_it_did(saved, command, tmp_path):
    status, out, err = command("export", "s.nc", "--out", "s.stl")
    assert (status, out) == (1, "")
    assert err.startswith("error: 1 of 20 points have no finite loss") and err.count("\n") == 1
    status, out, err = command(
        "export", "s.nc", "--out", "s.stl", "--clip", 2.5, "--log", "--size", 80, "--height", 20, "--base", 1,
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "s.stl: written from s.nc",
        "  3 of 20 losses above 2.5, drawn at 2.5",
        "  1 of 20 losses not finite, drawn at 2.5",
        "  80 x 80 x 21 mm, 66 triangles",
    ]
    assert (tmp_path / "s.stl").stat().st_size == 84 + 50 * 66
    for name in ("s.csv", "s.json", "s.vts", "s.glb", "s.h5"):
        assert command("export", "s.nc", "--out", name)[0] == 0
        assert (tmp_path / name).stat().st_size > 0
    status, _, err = command("export", "s.nc", "--out", "s.csv", "--size", 80)
    assert (status, err) == (
        1,
        "error: size says nothing about a .csv file: it is for .vts, .stl, .glb, .gltf\n",
    )
    assert command("export", "none.nc", "--out", "s.csv")[2] == "error: none.nc: no such file\n"


def test_import_draws_what_it_read(saved, command, tmp_path):
    write_surface(saved, "ref.h5", part="test")
    status, out, err = command("import", "ref.h5", "--out", "i.nc", "--label", "theirs")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "i.nc and i.html: 20 of 20 points, test data",
        "  beware: 1 of 20 points (5.0%) are NaN or infinite and drawn as gaps",
    ]
    found = load("i.nc")
    np.testing.assert_array_equal(found["loss"], saved["loss"])
    assert found.attrs["label"] == "theirs"
    assert "Plotly.newPlot" in (tmp_path / "i.html").read_text(encoding="utf-8")
    status, out, err = command("import", "ref.h5", "--split", "train")
    assert (status, out, err) == (1, "", "error: ref.h5: 'train_loss' is missing\n")
    assert command("import", "ref.h5", "--out", "i.csv")[0] == 1


def test_surfaces_are_exported_and_imported_without_torch(saved):
    code = """
import sys, landscape
from landscape.exchange import li2018
for suffix in ("csv", "json", "vts", "glb", "h5"):
    landscape.export(landscape.load("s.nc"), f"a.{suffix}")
li2018.read_surface("a.h5")
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
