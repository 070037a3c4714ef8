"""Reports: the comparison page, the paper figures and what is to be distrusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from landscape.plot.page import Cell, Table
from landscape.report import comparison_page, paper_figures
from landscape.soundness import health
from landscape.subjects import Subject


def bowl(axes: int = 2, **attrs: Any) -> xr.Dataset:
    grid = np.linspace(-1, 1, 5)
    dims = ("beta", "alpha")[2 - axes :]
    loss = 1 + sum(np.meshgrid(*[grid**2] * axes))
    settings = {
        "label": "file",
        "normalize": "filter",
        "ignore": ["bias", "norm"],
        "seed": 0,
        "span": 1.0,
        "points": 5,
        "axes": axes,
        "centre_loss": 1.0,
        "direction_cosine": 0.01,
        "objective": json.dumps({"episodes": 8, "seed": 1, "checkpoint": str(attrs)}),
    }
    return xr.Dataset(
        {
            "loss": (dims, loss),
            "loss_stderr": (dims, np.full(loss.shape, 0.1)),
            "evaluated": (dims, np.ones(loss.shape, np.int8)),
        },
        coords=dict.fromkeys(dims, grid),
        attrs=settings | attrs,
    )


def subject(label: str, surface: xr.Dataset | None = None) -> Subject:
    groups = ("train episodes", "test episodes")
    surface = bowl() if surface is None else surface
    return Subject(
        label,
        dict.fromkeys(groups, surface),
        {group: bowl(axes=1) for group in groups},
        {"radius": 0.05},
    )


def trouble(surface: xr.Dataset) -> str:
    found = [text for text in health([subject("one", surface)]) if "test" in text]
    assert len(found) == 1, found
    return found[0]


def test_healthy_subjects_give_no_warning() -> None:
    assert health([subject("one"), subject("two")]) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_points_that_are_not_finite(value: float) -> None:
    surface = bowl()
    surface["loss"][0, 0] = value
    text = trouble(surface)
    assert text.startswith("one, test episodes, surface: 1 of 25 points (4.0%) are NaN")


def test_points_that_are_missing() -> None:
    surface = bowl()
    surface["loss"][0] = np.nan
    surface["evaluated"][0] = 0
    assert "5 of 25 points are not evaluated yet" in trouble(surface)


@pytest.mark.parametrize("cosine", [0.3, -0.3])
def test_directions_that_are_not_orthogonal(cosine: float) -> None:
    assert "not orthogonal" in trouble(bowl(direction_cosine=cosine))


def test_a_centre_that_is_not_the_objectives_value() -> None:
    assert "grid's centre is 1, " in trouble(bowl(centre_loss=1.01))
    assert health([subject("one", bowl(centre_loss=1.0005))]) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("normalize", "layer"), ("ignore", ["bias"]), ("span", 2.0), ("points", 9), ("seed", 5)],
)
def test_directions_that_differ_between_subjects(name: str, value: Any) -> None:
    found = health([subject("one"), subject("two", bowl(**{name: value}))])
    assert any(f"one and two differ in {name}" in text for text in found)


def test_objectives_that_differ_between_subjects() -> None:
    other = bowl(objective=json.dumps({"episodes": 9, "seed": 1, "checkpoint": "elsewhere"}))
    found = health([subject("one"), subject("two", other)])
    assert len(found) == 2  # one per group
    assert found[0].endswith("were measured with another objective: episodes differ")


def test_the_page_holds_tables_then_groups(tmp_path: Path) -> None:
    table = Table("Sharpness", ["method", "λ"], [["one", Cell(1.0, 0.1)]])
    surface = bowl()
    surface["loss"][0, 0] = np.nan
    path = comparison_page(
        tmp_path / "index.html",
        [subject("one", surface), subject("two")],
        [table],
        title="Which is flatter?",
        lead="One is.",
        settings={"iterations": 500},
        warnings=["few episodes"],
    )
    text = path.read_text(encoding="utf-8")
    places = [
        text.index(word)
        for word in (
            "few episodes",
            "1 of 25 points",
            ">Sharpness<",
            "<h2>Train episodes",
            "<h2>Test episodes",
            "<summary>Everything",
            "<b>iterations</b> <code>500</code>",
            "<b>radius</b> <code>0.05</code>",
        )
    ]
    assert places == sorted(places)
    # surfaces, contours, lines, rise, differences; two groups
    assert text.count('class="canvas"') == 10
    assert path.stat().st_size < 6_000_000


def test_the_page_refuses_what_must_not_be_compared(tmp_path: Path) -> None:
    subjects = [subject("one"), subject("two", bowl(seed=1))]
    with pytest.raises(ValueError, match="seed differs"):
        comparison_page(tmp_path / "i.html", subjects, [], title="t", lead="", settings={})
    with pytest.raises(ValueError, match="at least one Subject"):
        comparison_page(tmp_path / "i.html", [], [], title="t", lead="", settings={})
    assert not list(tmp_path.iterdir())


def test_paper_figures_come_with_their_settings(tmp_path: Path) -> None:
    files = paper_figures(tmp_path / "paper", [subject("one"), subject("two")])
    assert [f.name for f in files[:4]] == [
        "train-episodes-surfaces.pdf",
        "train-episodes-surfaces.txt",
        "train-episodes-contours.pdf",
        "train-episodes-contours.txt",
    ]
    assert len(files) == 20 and all(f.stat().st_size > 100 for f in files)
    caption = files[1].read_text(encoding="utf-8")
    for part in ("train episodes", "seed 0", "filter-normalized", "two", "centre_loss: 1.0"):
        assert part in caption
    assert all(b"/FontType 3" not in f.read_bytes() for f in files if f.suffix == ".pdf")
