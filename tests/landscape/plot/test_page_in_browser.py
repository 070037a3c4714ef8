"""Pages as a reader uses them: a real browser clicks, drags, types and saves."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from browser import CHROMIUM, colours, opened, settle, started
from PIL import Image

from landscape import plot
from landscape.plot import style
from landscape.plot.dark import DARK
from landscape.plot.page import Cell, Section, Table, write_page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


def bowl(label: str, sharpness: float, axes: int = 2) -> xr.Dataset:
    grid = np.linspace(-1, 1, 11)
    dims = ("beta", "alpha")[2 - axes :]
    loss = 0.1 + sharpness * sum(np.meshgrid(*[grid**2] * axes))
    return xr.Dataset(
        {
            "loss": (dims, loss),
            "loss_stderr": (dims, 0.05 * loss),
            "accuracy": (dims, np.exp(-loss)),
        },
        coords=dict.fromkeys(dims, grid),
        attrs={
            "label": label, "normalize": "filter", "seed": 0, "span": 1.0, "points": 11, "axes": axes,
        },
    )  # fmt: skip


def figures() -> list[Any]:
    four = [bowl(name, k) for name, k in (("A", 1.0), ("B", 4.0), ("C", 9.0), ("D", 0.5))]
    return [plot.surface3d(four[:2]), plot.contour(four), plot.surface3d(four[2:])]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as process:
        yield process


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = Table("Flatness", ["", "λ"], [["A, one", Cell(1.5, 0.25)], ["B", Cell(2.0, flag=True)]])
    return write_page(
        tmp_path_factory.mktemp("pages") / "page.html",
        "Which is flatter?",
        "A question.",
        [Section("Numbers", tables=[table]), Section("Surfaces", figures=figures())],
        {"seed": 0, "radius": float("nan")},
        ["few tasks"],
        ["all points are finite"],
    )


def eyes(tab: Any) -> list[dict[str, float]]:
    """Where every drawn scene of the page is seen from."""
    found: list[dict[str, float]] = tab.evaluate(
        """() => [...document.querySelectorAll('.js-plotly-plot')].filter((e) => e.layout)
        .flatMap((e) => Object.keys(e.layout).filter((k) => /^scene\\d*$/.test(k))
        .map((k) => e._fullLayout[k].camera.eye))"""
    )
    return found


def show(tab: Any, name: str) -> None:
    tab.locator(f"#{name}").scroll_into_view_if_needed()
    tab.wait_for_function(f"document.getElementById('{name}')._fullLayout !== undefined")
    settle(tab)


def all_equal(found: list[dict[str, float]]) -> bool:
    return all(one == pytest.approx(found[0]) for one in found)


def test_every_scene_is_drawn(browser: Any, page: Path) -> None:
    with opened(browser, page) as tab:
        for name in ("figure-1", "figure-2", "figure-3"):
            show(tab, name)
            assert colours(tab.locator(f"#{name}").screenshot()) > 3000
        assert tab.locator(".no-webgl").count() == 0


def test_scenes_of_all_figures_turn_together(browser: Any, page: Path) -> None:
    with opened(browser, page) as tab:
        show(tab, "figure-3")
        show(tab, "figure-1")
        before = eyes(tab)
        assert len(before) == 4 and all_equal(before)
        box = tab.locator("#figure-1").bounding_box()
        x, y = box["x"] + 0.25 * box["width"], box["y"] + 0.55 * box["height"]
        tab.mouse.move(x, y)
        tab.mouse.down()
        tab.mouse.move(x + 70, y + 20, steps=6)
        tab.mouse.up()
        tab.wait_for_function(  # a slow machine takes its time to hear of the mouse
            f"document.getElementById('figure-1')._fullLayout.scene.camera.eye.x !== {before[0]['x']}"
        )
        settle(tab)
        after = eyes(tab)
        assert all_equal(after)
        assert abs(after[0]["x"] - before[0]["x"]) > 0.05
        tab.get_by_role("button", name="Reset view").click()
        settle(tab)
        assert all_equal([*eyes(tab), before[0]])


def test_a_scene_drawn_later_is_seen_from_the_same_place(browser: Any, page: Path) -> None:
    with opened(browser, page, height=300) as tab:
        show(tab, "figure-1")
        assert len(eyes(tab)) == 2
        tab.locator("#figure-1").focus()
        for _ in range(3):
            tab.keyboard.press("ArrowLeft")
        settle(tab)
        show(tab, "figure-3")
        found = eyes(tab)
        assert len(found) == 4 and all_equal(found)


def corners(tab: Any, name: str) -> list[float]:
    """The heights that are drawn at the corner of every panel."""
    found: list[float] = tab.evaluate(
        f"document.getElementById('{name}')._fullData.filter((t) => t.z).map((t) => t.z[0][0])"
    )
    return found


def test_the_switch_moves_all_panels_and_the_other_all_figures(browser: Any, page: Path) -> None:
    linear = np.array([0.1 + 2 * k for k in (1.0, 4.0)])
    with opened(browser, page) as tab:
        show(tab, "figure-1")
        frame = tab.locator("figure", has=tab.locator("#figure-1"))
        frame.get_by_role("button", name="log").click()
        settle(tab)
        assert corners(tab, "figure-1") == pytest.approx(np.log10(linear), abs=1e-4)
        assert frame.get_by_role("button", name="log").get_attribute("aria-pressed") == "true"
        tab.get_by_role("group", name="scale of all figures").get_by_role(
            "button", name="linear"
        ).click()
        show(tab, "figure-3")
        assert corners(tab, "figure-1") == pytest.approx(linear, rel=1e-4)
        assert corners(tab, "figure-3") == pytest.approx([0.1 + 18, 0.1 + 1], rel=1e-4)
        tab.get_by_role("group", name="scale of all figures").get_by_role(
            "button", name="log"
        ).click()
        settle(tab)
        assert corners(tab, "figure-3") == pytest.approx(np.log10([18.1, 1.1]), abs=1e-4)


def test_keys_turn_move_reset_and_change_the_scale(browser: Any, page: Path) -> None:
    with opened(browser, page) as tab:
        show(tab, "figure-1")
        (start, *_) = eyes(tab)
        tab.locator("#figure-1").focus()
        for key, change in (
            ("ArrowRight", lambda a, b: np.hypot(a["x"], a["y"]) - np.hypot(b["x"], b["y"])),
            ("+", lambda a, b: 1.1 * np.hypot(b["x"], b["y"]) - np.hypot(a["x"], a["y"])),
        ):
            before = eyes(tab)[0]
            tab.keyboard.press(key)
            settle(tab)
            assert eyes(tab)[0] != before and all_equal(eyes(tab))
            assert change(before, eyes(tab)[0]) == pytest.approx(0, abs=1e-6)
        tab.keyboard.press("r")
        settle(tab)
        assert eyes(tab)[0] == pytest.approx(start)
        before = corners(tab, "figure-1")
        tab.keyboard.press("l")
        settle(tab)
        assert corners(tab, "figure-1") != before


def test_hovering_tells_place_loss_error_and_accuracy(browser: Any, page: Path) -> None:
    with opened(browser, page) as tab:
        show(tab, "figure-2")
        box = tab.locator(
            "#figure-2 .cartesianlayer .subplot.xy .bg, #figure-2 .bglayer rect"
        ).first
        place = (
            box.bounding_box() or tab.locator("#figure-2 .draglayer .nsewdrag").first.bounding_box()
        )
        for step in (0.3, 0.32, 0.34):
            tab.mouse.move(place["x"] + step * place["width"], place["y"] + step * place["height"])
            settle(tab)
        said = tab.locator("#figure-2 .hovertext").first.text_content()
        assert re.search(r"α .*, β .*loss .* ± .*accuracy .*%", said), said


def saved(tab: Any, button: Any) -> bytes:
    with tab.expect_download() as waiting:
        button.click()
    return Path(waiting.value.path()).read_bytes()


def test_numbers_of_a_figure_leave_as_csv(browser: Any, page: Path) -> None:
    with opened(browser, page) as tab:
        frame = tab.locator("figure", has=tab.locator("#figure-1"))
        for _ in range(2):  # whatever scale is shown, the numbers are the losses
            text = saved(tab, frame.get_by_role("button", name="CSV")).decode()
            rows = list(csv.DictReader(io.StringIO(text)))
            assert len(rows) == 2 * 11 * 11
            assert set(rows[0]) == {"trace", "alpha", "beta", "loss", "stderr", "accuracy"}
            for row in rows:
                a, b = float(row["alpha"]), float(row["beta"])
                loss = 0.1 + {"A": 1.0, "B": 4.0}[row["trace"]] * (a * a + b * b)
                assert float(row["loss"]) == pytest.approx(loss, rel=1e-5)
                assert float(row["stderr"]) == pytest.approx(0.05 * loss, rel=1e-5)
                assert float(row["accuracy"]) == pytest.approx(np.exp(-loss), rel=1e-5)
            frame.get_by_role("button", name="log").click()


def test_everything_leaves_as_json(browser: Any, page: Path) -> None:
    with opened(browser, page) as tab:
        told = json.loads(saved(tab, tab.get_by_role("button", name="All numbers")))
    assert told["title"] == "Which is flatter?" and told["warnings"] == ["few tasks"]
    assert told["checks"] == ["all points are finite"]
    assert told["settings"] == {"seed": 0, "radius": "nan"}
    assert told["tables"][0]["rows"][0] == {"name": "A, one", "λ": 1.5, "λ stderr": 0.25}
    assert [len(f["rows"]) for f in told["figures"]] == [242, 484, 242]
    assert all("filter-normalized" in f["settings"] for f in told["figures"])


def test_a_table_leaves_as_csv_and_latex(browser: Any, page: Path) -> None:
    with opened(browser, page) as tab:
        row = tab.locator("figure.table")
        text = saved(tab, row.get_by_role("button", name="CSV")).decode()
        assert text.splitlines() == [
            "name,λ,λ stderr,λ distrusted",
            '"A, one",1.5,0.25,',
            "B,2.0,,True",
        ]
        latex = saved(tab, row.get_by_role("button", name="LaTeX")).decode()
        assert r"$1.5 \pm 0.2$" in latex or r"$1.5 \pm 0.3$" in latex


def test_pictures_carry_their_settings_and_are_light(browser: Any, page: Path) -> None:
    with opened(browser, page, scheme="dark") as tab:
        show(tab, "figure-2")
        frame = tab.locator("figure", has=tab.locator("#figure-2"))
        with Image.open(io.BytesIO(saved(tab, frame.get_by_role("button", name="PNG")))) as image:
            assert image.width > 2000
            assert image.convert("RGB").getpixel((3, image.height - 3)) == (255, 255, 255)
        drawing = saved(tab, frame.get_by_role("button", name="SVG")).decode()
        assert "Loss contours" in drawing and "seed 0" in drawing and "filter-normalized" in drawing


def test_figures_follow_the_colours_of_the_page(browser: Any, page: Path) -> None:
    def ink(tab: Any) -> str:
        return str(tab.evaluate("document.getElementById('figure-2').layout.font.color")).lower()

    with opened(browser, page, scheme="dark") as tab:
        show(tab, "figure-2")
        assert ink(tab) == DARK[style.INK].lower()
        colours_of = tab.get_by_role("group", name="colours")
        colours_of.get_by_role("button", name="light").click()
        settle(tab)
        assert ink(tab) == style.INK.lower()
        colours_of.get_by_role("button", name="auto").click()
        settle(tab)
        assert ink(tab) == DARK[style.INK].lower()
        tab.emulate_media(color_scheme="light")
        settle(tab)
        assert ink(tab) == style.INK.lower()


def test_a_change_of_colours_keeps_scale_and_camera(browser: Any, page: Path) -> None:
    with opened(browser, page) as tab:
        show(tab, "figure-1")
        tab.locator("#figure-1").focus()
        tab.keyboard.press("ArrowLeft")
        tab.keyboard.press("l")
        settle(tab)
        seen, heights = eyes(tab)[0], corners(tab, "figure-1")
        tab.get_by_role("button", name="dark").click()
        settle(tab)
        assert eyes(tab)[0] == pytest.approx(seen)
        assert corners(tab, "figure-1") == pytest.approx(heights)


def test_a_phone_shows_one_panel_under_the_other(browser: Any, page: Path) -> None:
    with opened(browser, page, width=390, height=800) as tab:
        show(tab, "figure-1")
        wide = tab.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert wide[0] <= wide[1]
        domains = tab.evaluate(
            "['scene', 'scene2'].map((k) => document.getElementById('figure-1')._fullLayout[k].domain)"
        )
        assert domains[0]["x"] == domains[1]["x"] and domains[0]["y"][0] > domains[1]["y"][1]
        tab.set_viewport_size({"width": 1100, "height": 800})
        settle(tab)
        domains = tab.evaluate(
            "['scene', 'scene2'].map((k) => document.getElementById('figure-1')._fullLayout[k].domain)"
        )
        assert domains[0]["y"] == domains[1]["y"] and domains[0]["x"][1] <= domains[1]["x"][0]


def test_nothing_uploads_and_no_label_is_run(browser: Any, tmp_path: Path) -> None:
    evil = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    table = Table(evil, [evil], [[evil], [Cell(1.0, note=evil)]], evil)
    figure = plot.surface3d([bowl(evil, 1.0), bowl("B", 2.0)], title=evil)
    sections = [Section(evil, evil, [figure, plot.contour(bowl(evil, 1.0))], [table])]
    page = write_page(tmp_path / "e.html", f"Title {evil}", evil, sections, {evil: evil}, [evil])
    with opened(browser, page) as tab:
        show(tab, "figure-1")
        show(tab, "figure-2")
        assert tab.title() == f"Title {evil}"
        assert tab.locator("[data-title^='Share'], [data-title*='loud']").count() == 0
        rows = saved(
            tab,
            tab.locator("figure", has=tab.locator("#figure-2")).get_by_role("button", name="CSV"),
        )
        assert {row["trace"] for row in csv.DictReader(io.StringIO(rows.decode()))} == {evil}


def test_no_more_scenes_live_than_a_browser_can_hold(browser: Any, tmp_path: Path) -> None:
    many = [plot.surface3d([bowl("A", 1.0), bowl("B", k)]) for k in (2.0, 3.0, 4.0, 5.0, 6.0)]
    page = write_page(tmp_path / "many.html", "Many", "", [Section("All", figures=many)], {})
    with opened(browser, page, height=500) as tab:
        for i in (1, 3, 5, 1):
            show(tab, f"figure-{i}")
            assert colours(tab.locator(f"#figure-{i}").screenshot()) > 3000
            assert len(eyes(tab)) <= 8
        assert tab.locator(".no-webgl").count() == 0
