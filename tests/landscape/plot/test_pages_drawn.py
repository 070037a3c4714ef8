"""Pages that the commands write, as a reader sees them: drawn, on a telephone too, and without the net."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from browser import CHROMIUM, colours, opened, settle, started
from command_line import LINEAR, NET

from landscape import trajectory_page
from landscape.cli import main

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

OPTIONS = (*LINEAR[1:], "--quiet")
COMMANDS = {
    "surface": ("surface", "a.pt", *OPTIONS, "--plane", "eigen", "--points", "9", "--quadratic"),
    "plane": ("surface", "a.pt", "b.pt", "c.pt", *OPTIONS, "--points", "9"),
    "connect": ("connect", "a.pt", "b.pt", *OPTIONS, "--iterations", "5", "--points", "5",
                "--plane-points", "7"),
    "topology": ("topology", "plane.nc"),
    "sharpness": ("sharpness", "a.pt", "b.pt", *OPTIONS, "--measures", "sam,lambda_max"),
    "hessian": ("hessian", "a.pt", *OPTIONS, "-k", "2", "--trace", "--density", "--per-layer"),
    "curvature": ("curvature-map", "a.pt", *OPTIONS, "--points", "3"),
}  # fmt: skip
STEPS = np.array([0, 10, 20, 40])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as process:
        yield process


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the pages that the commands write about three weights files."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "net.py").write_text(NET)
    rng = np.random.default_rng(0)
    np.savez(folder / "d.npz", x=rng.standard_normal((20, 3)), y=rng.standard_normal((20, 1)))
    for name in "abc":
        weight, bias = rng.standard_normal((1, 3)), rng.standard_normal(1)
        state = {"weight": torch.tensor(weight).float(), "bias": torch.tensor(bias).float()}
        torch.save(state, folder / f"{name}.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        patch.chdir(folder)
        for name, words in COMMANDS.items():
            option = "--page" if name == "sharpness" else "--out"
            suffix = ".nc" if words[0] in ("surface", "curvature-map") else ".html"
            with pytest.raises(SystemExit) as stop:
                main([*words, option, name + suffix])
            assert stop.value.code == 0, name
    yield folder


def surface() -> xr.Dataset:
    grid = np.linspace(-0.5, 1.5, 15)
    loss = 0.1 + grid[None, :] ** 2 + 0.5 * grid[:, None] ** 2
    settings = {
        "label": "net", "normalize": "none", "ignore": [], "span": [-0.5, 1.5], "points": 15, "axes": 2,
        "basis_sha256": "b", "origin_sha256": "o", "centre_loss": 0.1,
        "axis_titles": ["α: component 1 (70%, unit 24)", "β: component 2 (20%, unit 4.8)"],
    }  # fmt: skip
    return xr.Dataset({"loss": (("beta", "alpha"), loss)}, {"beta": grid, "alpha": grid}, settings)


def path() -> xr.Dataset:
    alpha, beta = np.array([1.0, 0.7, 0.3, 0.0]), np.array([0.2, 1.0, 0.6, 0.0])
    foot = 0.1 + alpha**2 + 0.5 * beta**2
    columns = {
        "alpha": alpha,
        "beta": beta,
        "residual": np.array([0.4, 0.5, 0.1, 0.0]),
        "residual_share": np.array([0.3, 0.6, 0.2, 0.0]),
        "loss": foot + np.array([0.9, 0.0, -0.05, 0.0]),
        "surface_loss": foot,
    }
    settings = {
        "schema": "landscape.trajectory/1", "label": "run", "variance": [0.7, 0.2], "seed": 4,
        "basis_sha256": "b", "origin_sha256": "o",
    }  # fmt: skip
    return xr.Dataset({k: ("step", v) for k, v in columns.items()}, {"step": STEPS}, settings)


def show(tab: Any, name: str) -> None:
    tab.locator(f"#{name}").scroll_into_view_if_needed()
    tab.wait_for_function(f"document.getElementById('{name}')._fullLayout !== undefined")
    settle(tab)


def traces(tab: Any, name: str, kind: str, part: str) -> list[Any]:
    """One coordinate of all traces of a kind, as they are drawn."""
    found: list[Any] = tab.evaluate(
        f"""document.getElementById('{name}')._fullData.filter((t) => t.type === '{kind}')
        .map((t) => Array.from(t.{part}))"""
    )
    return found


def test_slider_and_play_move_the_path_and_the_switch_moves_stems(
    browser: Any, tmp_path: Path
) -> None:
    page = trajectory_page.write(tmp_path / "t.html", surface(), path())
    with opened(browser, page, scheme="dark") as tab:
        show(tab, "figure-1")
        whole = max(map(len, traces(tab, "figure-1", "scatter", "x")))
        assert whole == len(STEPS)
        frame = tab.locator("figure", has=tab.locator("#figure-1"))
        slider = frame.get_by_role("slider")
        slider.focus()
        tab.keyboard.press("Home")
        settle(tab)
        assert frame.locator("output").text_content() == "step 0"
        assert max(map(len, traces(tab, "figure-1", "scatter", "x"))) == 1
        tab.keyboard.press("ArrowRight")
        settle(tab)
        assert frame.locator("output").text_content() == "step 10"
        drawn = traces(tab, "figure-1", "scatter", "x")
        assert [1.0, 0.7] in drawn and max(map(len, drawn)) == 2
        play = frame.get_by_role("button", name="play or pause")
        play.click()
        tab.wait_for_function("document.querySelector('output').textContent === 'step 40'")
        tab.wait_for_function("document.querySelector('.slider button').textContent === '▶'")
        settle(tab)
        assert path()["alpha"].values.tolist() in traces(tab, "figure-1", "scatter", "x")
        show(tab, "figure-2")
        assert colours(tab.locator("#figure-2").screenshot()) > 3000
        assert tab.locator(".no-webgl").count() == 0
        before = traces(tab, "figure-2", "scatter3d", "z")
        frame = tab.locator("figure", has=tab.locator("#figure-2"))
        frame.get_by_role("button", name="log").click()
        settle(tab)
        after = traces(tab, "figure-2", "scatter3d", "z")
        assert len(before) == len(after) >= 3  # stems, line, checkpoints
        for linear, log in zip(before, after, strict=True):
            pairs = [(a, b) for a, b in zip(linear, log, strict=True) if a is not None]
            low, high = min(pairs), max(pairs)
            # Both are lifted by the same amount each: differences are those of the losses.
            assert high[0] - low[0] > 0.5 and high[1] - low[1] > 0.5
            assert high[1] - low[1] != pytest.approx(high[0] - low[0], rel=1e-3)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "plane"])
def test_a_phone_shows_all_of_a_page(browser: Any, pages: Path, name: str) -> None:
    with opened(browser, pages / f"{name}.html", width=390, height=800) as tab:
        figures = tab.locator(".canvas").count()
        assert figures == tab.locator("figure.plot").count()
        for i in range(1, figures + 1):
            show(tab, f"figure-{i}")
            canvas = tab.locator(f"#figure-{i}")
            if canvas.locator(".gl-container canvas").count():
                assert colours(canvas.screenshot()) > 3000
        assert tab.locator(".no-webgl").count() == 0
        wide = tab.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert wide[0] <= wide[1]
        assert tab.locator("h1").count() == 1
        assert tab.get_by_role("group", name="colours").count() == 1
