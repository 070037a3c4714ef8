"""How large a page is, how soon it is drawn, and what writing it costs.

    python benchmarks/pages.py [--checkpoints 4] [--points 25] [--rounds 5] [--keep PAGE.html]

The comparison page of checkpoints at the defaults of ``landscape compare``: surfaces and contours, lines, differences
with their errors, eigenvalues with densities, and the paths of training over one plane. The losses are made up (bowls
with ripples, 256 examples a point), so that nothing but the page is timed.

Open means: from the call for the page until ``pageIdle()``, when what is in sight is there and can be used: text,
verdicts and buttons, since figures are drawn as they come into sight. Then the first figure is scrolled to: four
scenes, until they are drawn, and until two more frames are on the screen, which software WebGL takes its time for. A
browser context of its own for each round, one process for all. Needs Chromium and Playwright. Markdown on standard
output.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import CHROMIUM, settle, started
from curvature_figures import cloud

from landscape.compared_spectra import Spectrum
from landscape.flatness_tables import MEASURES
from landscape.plot.page import Section
from landscape.plot.table import Cell, Table
from landscape.report import comparison_page
from landscape.subjects import Subject
from landscape.trajectory_page import over_plane

TERMS, LINE_POINTS, STEPS = 256, 51, 20
GROUP = "data"
BARS = {"MB": 6.0, "seconds": 3.0}


def surface(label: str, index: int, points: int, axes: int = 2, **more: Any) -> xr.Dataset:
    """A bowl with ripples, each example with a sharpness of its own."""
    grid = np.linspace(-1, 1, points)
    rng = np.random.default_rng(index)
    own = rng.gamma(4, 0.25, TERMS)
    squares = sum(np.meshgrid(*[grid**2] * axes))
    bowl = 0.1 + (1 + index) * squares + 0.05 * np.sin(9 * squares + index)
    terms = bowl[..., None] * own
    loss, rises = terms.mean(-1), terms - 0.1 * own
    dims = ("beta", "alpha")[2 - axes :]
    error = np.sqrt(TERMS)
    fields = {
        "loss": loss,
        "loss_stderr": terms.std(-1, ddof=1) / error,
        "accuracy": np.exp(-loss),
        "rise": rises.mean(-1),
        "rise_stderr": rises.std(-1, ddof=1) / error,
        "evaluated": np.ones(loss.shape, np.int8),
    }
    settings = {
        "schema": "landscape.surface/1", "label": label, "normalize": "filter", "ignore": ["bias", "norm"], "seed": 0,
        "span": 1.0, "points": points, "axes": axes, "centre_loss": float(loss[(points // 2,) * axes]),
        "direction_cosine": 0.001, "group": GROUP, "objective": json.dumps({"data_sha256": "0", "norm": "eval"}),
        "basis_sha256": "b", "origin_sha256": "o",
    }  # fmt: skip
    return xr.Dataset(
        {name: (dims, values) for name, values in fields.items()}
        | {"terms": ((*dims, "term"), terms.astype(np.float32))},
        dict.fromkeys(dims, grid),
        settings | more,
    )


def path(label: str, index: int) -> xr.Dataset:
    """A way of training that winds towards the centre."""
    share = np.linspace(1, 0, STEPS)
    alpha, beta = share * np.cos(index + 2 * share), share * np.sin(index + 2 * share)
    columns = {
        "alpha": alpha, "beta": beta, "residual": 0.3 * share, "residual_share": 0.3 * share,
        "loss": 0.2 + alpha**2 + beta**2, "surface_loss": 0.1 + alpha**2 + beta**2, "loss_stderr": 0.01 + 0 * share,
    }  # fmt: skip
    settings = {
        "schema": "landscape.trajectory/1", "label": label, "variance": [0.7, 0.2], "basis_sha256": "b",
        "origin_sha256": "o",
    }  # fmt: skip
    return xr.Dataset(
        {name: ("step", values) for name, values in columns.items()},
        {"step": 10 * np.arange(STEPS)},
        settings,
    )


def written(file: Path, checkpoints: int, points: int) -> float:
    """Write the page; seconds that it took."""
    names = [f"checkpoint {i + 1}" for i in range(checkpoints)]
    subjects = [
        Subject(
            name,
            {GROUP: surface(name, i, points)},
            {GROUP: surface(name, i, LINE_POINTS, 1)},
            {"file": f"{name}.pt"},
            {GROUP: Spectrum((9.0 + i, 4.0, 1.0), (0.01,) * 3, (0.5,) * 3, "converged", True, 60, cloud(name))},
        )
        for i, name in enumerate(names)
    ]  # fmt: skip
    ways = over_plane(
        surface("all", 0, points), [path(n, i) for i, n in enumerate(names)], "Where training went"
    )
    verdicts = [
        Table(
            f"{name} against {names[0]}",
            ["measure", names[0], name, "difference", "change", f"{name} is"],
            [
                [
                    m,
                    Cell(1.0),
                    Cell(2.0),
                    Cell(1.0, low=0.5, high=1.5),
                    "+100 % [+50, +150]",
                    "sharper",
                ]
                for m in MEASURES
            ],
        )
        for name in names[1:]
    ]
    short = Table(
        f"Against {names[0]}",
        ["", *MEASURES],
        [[name, *["sharper (+100 %)"] * len(MEASURES)] for name in names[1:]],
        "Paired over the same data and draws; the change is in percent of the first. " * 2,
    )
    rows = [[name, Cell(1.0 + i, 0.1), Cell(20.0 + i, 2.0)] for i, name in enumerate(names)]
    table = Table("Flatness", ["", "λ max", "trace"], rows)
    began = time.perf_counter()
    comparison_page(
        file, subjects, [table], title="Which solution is flatter?", lead="Made up. " * 40, settings={"seed": 0},
        warnings=["The losses are made up. " * 8],
        before=[Section("Which is flatter?", "By chance, so many. " * 8, tables=[short])],
        after=[ways, Section("Paired differences", tables=verdicts)],
    )  # fmt: skip
    return time.perf_counter() - began


def drawn(browser: Any, file: Path, whole: bool) -> tuple[float, float, float]:
    """Seconds until the page is open; then until its first figure is drawn, or all are, and on the screen."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    try:
        began = time.perf_counter()
        tab.goto(file.as_uri())
        tab.evaluate("pageIdle()")
        idle = time.perf_counter() - began
        settle(tab)
        began = time.perf_counter()
        figures = tab.locator(".canvas").all()
        for figure in figures if whole else figures[:1]:
            figure.scroll_into_view_if_needed()
            tab.wait_for_function("(e) => e._fullLayout", arg=figure.element_handle())
            tab.evaluate("pageIdle()")
            scenes = time.perf_counter() - began
            settle(tab)
        seconds = time.perf_counter() - began
        if tab.locator(".no-webgl").count():
            raise SystemExit("a scene was not drawn")
        return idle, scenes, seconds
    finally:
        context.close()


def spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} | {min(seconds):.2f} to {max(seconds):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=int, default=4)
    parser.add_argument("--points", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="where to leave the page")
    asked = parser.parse_args()
    if CHROMIUM is None:
        raise SystemExit("no Chromium was found")
    with tempfile.TemporaryDirectory() as folder:
        file = (asked.keep or Path(folder, "page.html")).resolve()
        load = os.getloadavg()[0]
        writing = [written(file, asked.checkpoints, asked.points) for _ in range(asked.rounds)]
        size = file.stat().st_size / 1e6
        with started() as browser:
            version = browser.version
            first = [drawn(browser, file, whole=False) for _ in range(asked.rounds)]
            every = drawn(browser, file, whole=True)[2]
    print(
        f"{asked.checkpoints} checkpoints, {asked.points} x {asked.points} points, Chromium {version}, "
        f"{os.cpu_count()} hyperthreads, {platform.machine()}; load of the machine at the start {load:.1f}; "
        f"rounds: {asked.rounds}.\n"
    )
    print("| | median | lowest to highest | bar |\n| --- | ---: | --- | ---: |")
    print(f"| size, MB | {size:.2f} | | {BARS['MB']:g} |")
    for i, what in enumerate(
        ("open", "then: four scenes drawn", "then: four scenes on the screen")
    ):
        bar = f"{BARS['seconds']:g}" if i == 0 else ""
        print(f"| {what}, s | {spread([times[i] for times in first])} | {bar} |")
    print(f"| every figure scrolled to and on the screen, s | {every:.1f} | one round | |")
    print(f"| writing, s | {spread(writing)} | |")


if __name__ == "__main__":
    main()
