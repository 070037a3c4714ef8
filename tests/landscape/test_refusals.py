"""A result that fails a check of its own says so in its file, on its figure and by the exit status.

Every check is broken on purpose here, and the three marks are looked for. Surfaces and all that is made of them;
the rest is in test_refusals_curvature.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from command_line import LINEAR
from marks import MARK, distrusted

from landscape import plot
from landscape.contrast import surface_difference
from landscape.executors.loop import ChunkLoop
from landscape.figures import caption, described
from landscape.refine import Refiner
from landscape.refusals import below_zero, refusals
from landscape.soundness import troubles
from landscape.store import load, save

OPTIONS = (*LINEAR[1:], "--quiet")


def refused_by(surface: xr.Dataset | Path | str) -> list[str]:
    """What the health record in a file says."""
    found = surface if isinstance(surface, xr.Dataset) else load(surface)
    told: list[str] = json.loads(found.attrs["health"])["refusals"]
    return told


@pytest.fixture
def off_centre(monkeypatch):
    """Surfaces are one too high; the objective's own value is right."""
    real = ChunkLoop.__call__

    def shifted(self, coordinates, terms=False):
        found = real(self, coordinates, terms)
        return {**found, "loss": found["loss"] + 1.0}

    monkeypatch.setattr(ChunkLoop, "__call__", shifted)


@pytest.fixture
def holes(monkeypatch):
    """Losses to the right of the centre are NaN."""
    real = ChunkLoop.__call__

    def cut(self, coordinates, terms=False):
        found = real(self, coordinates, terms)
        return {**found, "loss": np.where(coordinates[:, 0] > 0, np.nan, found["loss"])}

    monkeypatch.setattr(ChunkLoop, "__call__", cut)


def test_a_centre_unlike_the_objectives_value(place, command, off_centre):
    status, out, err = command("surface", "w.pt", *OPTIONS, "--points", 3, "--out", "s.nc")
    words = "the loss at the grid's centre is"
    assert status == 1 and words in err and f"beware: {words}" in out
    (told,) = refused_by("s.nc")
    assert words in told
    distrusted(place / "s.html", words)
    # Nothing made of it is silent about it.
    status, out, err = command("topology", "s.nc", "--out", "t.html", "--json")
    assert status == 1 and words in err and any(words in d for d in json.loads(out)["doubts"])
    distrusted(place / "t.html", words)
    for name in ("s.csv", "s.json", "s.vts"):
        status, _, err = command("export", "s.nc", "--out", name)
        assert status == 1 and words in err and (place / name).exists()
    for name in ("s.csv", "s.json"):
        assert words in (place / name).read_text()


def test_the_same_surface_in_a_comparison(place, command, off_centre):
    torch.save(
        {n: 0.5 * t for n, t in torch.load("w.pt", weights_only=True).items()}, place / "v.pt"
    )
    status, _, err = command(
        "compare", "w.pt", "v.pt", *OPTIONS, "--points", 3, "--eigenvalues", 0, "--out", "c.html"
    )  # fmt: skip
    assert status == 1 and err.count("the loss at the grid's centre is") == 4  # surfaces and lines
    distrusted(place / "c.html", "the loss at the grid's centre is")
    for file in Path("c").glob("*d.nc"):
        assert refused_by(file)


def test_points_that_are_not_finite(place, command, holes):
    status, _, err = command("surface", "w.pt", *OPTIONS, "--points", 5, "--out", "s.nc")
    words = "10 of 25 points (40.0%) are NaN or infinite"
    assert status == 1 and words in err
    assert words in refused_by("s.nc")[0]
    distrusted(place / "s.html", words)


def test_a_loss_that_is_not_finite_anywhere(place, command):
    weights = torch.load("w.pt", weights_only=True)
    torch.save(
        {n: torch.full_like(t.double(), 1e200) for n, t in weights.items()}, place / "big.pt"
    )
    words = ("--normalize", "none", "--points", 3, "--out", "s.nc")
    status, _, err = command("surface", "big.pt", *OPTIONS, *words)
    assert status == 1 and "no finite loss to draw" in err
    assert len(refused_by("s.nc")) == 2 and not (place / "s.html").exists()


@pytest.mark.parametrize("outcome", ["limit reached", "unfinished"])
def test_a_refined_surface_whose_check_fails(place, command, monkeypatch, outcome):
    real = Refiner.result
    monkeypatch.setattr(
        Refiner, "result", lambda self: dataclasses.replace(real(self), outcome=outcome)
    )
    words = ("--points", 17, "--tolerance", 0.01, "--out", "s.nc")
    status, _, err = command("surface", "w.pt", *OPTIONS, *words)
    assert status == 1 and f"not certified ({outcome})" in err
    assert outcome in refused_by("s.nc")[0]
    distrusted(place / "s.html", f"not certified ({outcome})")


def test_a_refined_surface_below_what_the_loss_can_be(place, command, monkeypatch):
    real = Refiner.result

    def sunk(self):
        found = real(self)
        values = np.where(found.evaluated, found.values, -1.0)
        return dataclasses.replace(found, values=values, error=np.full_like(found.error, 0.1))

    monkeypatch.setattr(Refiner, "result", sunk)
    words = ("--points", 17, "--tolerance", 0.01, "--out", "s.nc")
    status, _, err = command("surface", "w.pt", *OPTIONS, *words)
    assert status == 1 and "lie below 0, down to -1" in err and "further than their error" in err
    assert "below 0" in refused_by("s.nc")[0]
    distrusted(place / "s.html", "lie below 0, down to -1")


def refined(values: list[float], error: list[float], **settings: str) -> xr.Dataset:
    marks = {"evaluated": [1, 0, 1], "interpolated": [0, 1, 0], "loss": values, "loss_error": error}
    return xr.Dataset(
        {name: ("alpha", values) for name, values in marks.items()},
        {"alpha": [-1.0, 0.5, 1.0]},
        {
            "objective": json.dumps({"loss": "mse_loss"} | settings),
            "refinement": json.dumps({"outcome": "certified"}),
        },
    )


def test_a_dip_within_its_error_is_told_and_not_refused():
    dip = refined([1.0, -0.05, 1.0], [0.0, 0.1, 0.0])
    assert refusals(dip) == []
    assert troubles(dip) == [
        "1 interpolated points lie below 0, down to -0.05, where the loss cannot be: within their error"
    ]
    assert len(refusals(refined([1.0, -0.2, 1.0], [0.0, 0.1, 0.0]))) == 1
    assert refusals(refined([1.0, -0.2, 1.0], [0.0, 0.1, 0.0], loss="my_own")) == []
    assert below_zero(refined([1.0, -0.2, 1.0], [0.0, 0.1, 0.0], loss="x", objective="meta"))
    assert (
        below_zero(refined([-1.0, 0.2, 1.0], [0.0, 0.1, 0.0])) is None
    )  # evaluated, not interpolated


def bowl(**attrs):
    grid = np.linspace(-1, 1, 5)
    loss = 1 + grid[:, None] ** 2 + grid[None, :] ** 2
    variables = {"loss": (("beta", "alpha"), loss)}
    common = {
        "normalize": "filter",
        "seed": 0,
        "span": 1.0,
        "points": 5,
        "axes": 2,
        "centre_loss": 1.0,
    }
    return xr.Dataset(variables, {"alpha": grid, "beta": grid}, {**common, **attrs})


def test_a_share_of_five_percent_is_the_limit():
    surface = bowl()
    surface["loss"][0, 0] = np.inf
    assert refusals(surface) == [] and len(troubles(surface)) == 1
    surface["loss"][0, 1] = np.nan
    assert refusals(surface) == troubles(surface) and "2 of 25" in refusals(surface)[0]


def test_a_centre_that_is_not_finite():
    hole = bowl()
    hole["loss"][2, 2] = np.nan
    assert any("centre is nan, the objective's own value there is 1" in r for r in refusals(hole))
    assert refusals(bowl(centre_loss=np.nan)) == ["the objective's own value at the centre is nan"]
    waiting = hole.assign(evaluated=(("beta", "alpha"), np.isfinite(hole["loss"].values)))
    assert refusals(waiting) == []  # still to come


BAD = {"centre_loss": 2.0, "label": "bad"}


@pytest.mark.parametrize("draw", [plot.surface3d, plot.contour])
def test_the_mark_is_on_figures_of_both_kinds(draw):
    figure = draw([bowl(label="good"), bowl(**BAD)])
    assert figure.layout.title.subtitle.text.startswith(f"{MARK} bad: the loss at the grid")
    paper = draw([bowl(label="good"), bowl(**BAD)], "matplotlib")
    told = " ".join(" ".join(text.get_text() for text in paper.texts).split())
    assert f"{MARK} bad: the loss at the grid" in told
    assert MARK not in str(draw(bowl(label="good")).layout.title.subtitle.text)


def test_the_mark_is_in_captions_and_on_differences():
    good, bad = bowl(label="good"), bowl(**BAD)
    paper = plot.contour(bad, "matplotlib", title="")
    assert MARK in caption(described(paper, "A surface", [bad]))
    assert MARK not in caption(described(paper, "A surface", [good]))
    difference = surface_difference(good, bad)
    assert "bad: the loss at the grid" in json.loads(difference.attrs["refusals"])[0]
    assert "refusals" not in surface_difference(good, good).attrs
    assert MARK in plot.difference([difference]).layout.title.subtitle.text
    told = [text.get_text() for text in plot.difference([difference], "matplotlib").texts]
    assert any(MARK in text for text in told)


def test_a_file_of_another_run_is_refused_and_left(place, command):
    words = ("--points", 3, "--out", "s.nc")
    assert command("surface", "w.pt", *OPTIONS, *words)[0] == 0
    before = (place / "s.nc").read_bytes()
    status, _, err = command("surface", "w.pt", *OPTIONS, *words, "--seed", 1)
    assert status == 1 and "holds another surface: plane.seed is 0 there and 1 here" in err
    assert (place / "s.nc").read_bytes() == before


def test_a_checkpoint_whose_fingerprint_differs(runs, place, command):
    import shutil

    shutil.copytree(runs / "maml", place / "run")
    (meta,) = sorted((place / "run" / "checkpoints").glob("step_*/meta.json"))[-1:]
    said = json.loads(meta.read_text())
    meta.write_text(json.dumps({**said, "fingerprint": "0" * 16}))
    status, _, err = command(
        "surface", meta.parent, "--episodes", 2, "--points", 3, "--out", "s.nc"
    )
    assert status == 1 and "weights have fingerprint" in err
    assert not (place / "s.nc").exists() and not (place / "s.html").exists()


def test_an_imported_surface_that_is_refused(place, command):
    assert command("surface", "w.pt", *OPTIONS, "--points", 5, "--out", "s.nc")[0] == 0
    surface = load("s.nc")
    surface["loss"].values[:2] = np.nan
    save(surface, "s.nc")
    assert command("export", "s.nc", "--out", "s.h5")[0] == 1
    status, _, err = command("import", "s.h5", "--out", "back.nc")
    assert status == 1 and "NaN or infinite" in err
    distrusted(place / "back.html", "NaN or infinite")
