import csv
import json
import math

import numpy as np
import pytest
import xarray as xr

import landscape
from landscape.exchange import FORMATS


def surface(**attrs):
    loss = np.array([[0.1, 1 / 3, 2.5], [math.nan, math.inf, -math.inf]])
    dims = ("beta", "alpha")
    return xr.Dataset(
        {
            "loss": (dims, loss),
            "evaluated": (dims, np.array([[1, 1, 1], [0, 1, 1]], np.int8)),
            "terms": ((*dims, "term"), np.arange(12.0).reshape(2, 3, 2)),
        },
        {"alpha": [-1.0, 0.0, 1.0], "beta": [0.0, 0.25]},
        {"label": "two\nlines", "seed": "null", "health": '{"ignored": 2}', "cosine": math.nan} | attrs,
    )  # fmt: skip


def test_a_table_holds_every_number_exactly(tmp_path):
    notes = landscape.export(surface(), tmp_path / "s.csv")
    assert notes == ("terms has several numbers a point and is left out",)
    lines = (tmp_path / "s.csv").read_text().splitlines()
    comments = dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))
    assert {name: json.loads(value) for name, value in comments.items()} == {
        "label": "two\nlines", "seed": None, "health": {"ignored": 2}, "cosine": "NaN",
    }  # fmt: skip
    header, *rows = csv.reader(line for line in lines if not line.startswith("#"))
    assert header == ["alpha", "beta", "loss", "evaluated"]
    # beta runs slowest; a place is (alpha, beta)
    assert [tuple(map(float, row[:2])) for row in rows] == [
        (-1, 0), (0, 0), (1, 0), (-1, 0.25), (0, 0.25), (1, 0.25),
    ]  # fmt: skip
    found = np.array([[float(row[2]), int(row[3])] for row in rows])
    np.testing.assert_array_equal(found[:, 0], surface()["loss"].values.ravel())
    assert rows[1][2] == "0.3333333333333333"
    assert found[:, 1].tolist() == [1, 1, 1, 0, 1, 1]


def test_a_line_has_one_coordinate(tmp_path):
    line = surface().isel(beta=0, drop=True)
    landscape.export(line, tmp_path / "s.csv")
    text = (tmp_path / "s.csv").read_text()
    assert text.endswith("alpha,loss,evaluated\n-1.0,0.1,1\n0.0,0.3333333333333333,1\n1.0,2.5,1\n")


def test_json_holds_everything_and_is_strict(tmp_path):
    assert landscape.export(surface(), tmp_path / "s.json") == ()

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    found = json.loads((tmp_path / "s.json").read_text(), parse_constant=refuse)
    assert found["variables"]["loss"] == {
        "dims": ["beta", "alpha"],
        "values": [[0.1, 1 / 3, 2.5], ["NaN", "Infinity", "-Infinity"]],
    }
    assert found["coords"]["beta"] == {"dims": ["beta"], "values": [0.0, 0.25]}
    assert np.array(found["variables"]["terms"]["values"]).shape == (2, 3, 2)
    assert found["settings"]["health"] == {"ignored": 2}


def test_the_order_of_the_dimensions_does_not_matter(tmp_path):
    landscape.export(surface(), tmp_path / "a.csv")
    landscape.export(surface().transpose("alpha", "term", "beta"), tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_files_appear_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "s.json"
    target.write_text("old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match=r"cannot write .*no space left on device; make room"):
        landscape.export(surface(), target)
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["s.json"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_refused_where_there_is_no_folder(tmp_path, suffix):
    good = surface().isel(beta=[0, 0]).assign_coords(beta=[0.0, 1.0])
    with pytest.raises(ValueError, match="the folder .* does not exist"):
        landscape.export(good, tmp_path / "none" / f"s{suffix}")
    landscape.export(good, tmp_path / f"s{suffix.upper()}")
    assert [p.name for p in tmp_path.iterdir()] == [f"s{suffix.upper()}"]


def test_options_and_suffixes_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"expected a name ending in \.csv, \.json, \.vts"):
        landscape.export(surface(), tmp_path / "s.obj")
    with pytest.raises(ValueError, match=r"clip says nothing about a \.csv file: it is for \.vts"):
        landscape.export(surface(), tmp_path / "s.csv", clip=1.0)
    with pytest.raises(ValueError, match="colour says nothing about a .stl file$"):
        landscape.export(surface(), tmp_path / "s.stl", colour=1)
