"""Pages: self-contained, safe, and really drawn by a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from plotly.offline import get_plotlyjs

from landscape import plot
from landscape.plot.page import Cell, Section, Table, write_page

CHROMIUM = shutil.which("chromium")
EVIL = "</script><script>document.title='owned'</script>"


def bowl(label: str, sharpness: float) -> xr.Dataset:
    grid = np.linspace(-1, 1, 11)
    loss = 1 + sharpness * (grid[None, :] ** 2 + grid[:, None] ** 2)
    loss[0, 0] = np.nan
    return xr.Dataset(
        {"loss": (("beta", "alpha"), loss)},
        coords={"alpha": grid, "beta": grid},
        attrs={"label": label, "normalize": "filter", "seed": 0, "span": 1.0, "points": 11},
    )


@pytest.fixture
def page(tmp_path: Path) -> Path:
    pair = [bowl(EVIL, 1.0), bowl("sharp", 4.0)]
    return write_page(
        tmp_path / "folder" / "page.html",
        f"Title {EVIL}",
        f"One paragraph.\n\nAnother. {EVIL}",
        [
            Section(
                f"Surfaces {EVIL}",
                EVIL,
                figures=[plot.surface3d(pair, title=EVIL), plot.contour(pair)],
                tables=[Table(EVIL, [EVIL], [[EVIL], [Cell(1.0, note=EVIL)]], EVIL)],
            )
        ],
        {"objective": json.dumps({"episodes": 64, EVIL: [1, {"deep": EVIL}]}), "seed": 0},
        [f"a warning {EVIL}"],
    )


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_loads_nothing(page: Path) -> None:
    parser = _Tags()
    parser.feed(page.read_text(encoding="utf-8"))
    for tag, attrs in parser.found:
        for name in ("src", "href", "data", "srcset"):
            assert not re.match(r"(https?:)?//", attrs.get(name) or ""), (tag, attrs)
    policies = [a["content"] for t, a in parser.found if "http-equiv" in a]
    assert policies and str(policies[0]).startswith("default-src 'none'")


def test_plotly_is_embedded_once_and_the_page_is_small(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count(get_plotlyjs()[:2000]) == 1
    assert page.stat().st_size < 6_000_000


def test_no_text_becomes_a_script(page: Path) -> None:
    parser = _Tags()
    parser.feed(page.read_text(encoding="utf-8"))
    assert sum(tag == "script" for tag, _ in parser.found) == 4  # plotly, ours, two figures


def test_settings_and_warnings_are_readable(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "What to distrust" in text
    assert "<b>episodes</b> <code>64</code>" in text  # JSON text is unfolded
    assert text.index("a warning") < text.index('<section id="section-1">')


def test_a_failed_page_leaves_the_old_one(tmp_path: Path) -> None:
    path = write_page(tmp_path / "page.html", "old", "", [], {})
    with pytest.raises(UnicodeEncodeError):
        write_page(path, "new \ud800", "", [], {})
    assert "old" in path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_a_page_without_figures_has_no_plotly(tmp_path: Path) -> None:
    path = write_page(tmp_path / "page.html", "t", "l", [Section("s", "text")], {})
    assert path.stat().st_size < 20_000


def test_titles_become_text_and_the_figure_is_left_as_it_was(tmp_path: Path) -> None:
    figure = plot.contour(bowl("a", 1.0), title="Its title")
    before = figure.to_json()
    path = write_page(tmp_path / "p.html", "t", "l", [Section("s", figures=[figure])], {})
    assert "<figcaption><b>Its title</b> <span>filter-normalized" in path.read_text("utf-8")
    assert figure.to_json() == before


def _browse(page: Path, folder: Path, *flags: str) -> str:
    command = [
        str(CHROMIUM),
        *("--headless", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader"),
        *("--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--hide-scrollbars", f"--user-data-dir={folder}", "--window-size=1000,1500", *flags),
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    return done.stdout


# Turns the first scene, then presses the button for the logarithmic scale, and reports.
PROBE = """<script>
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
(async () => {
  const figure = document.getElementById("figure-1");
  await wait(200);
  await Plotly.relayout(figure, {"scene.camera.eye": {x: 2, y: 0.5, z: 0.3}});
  await wait(200);
  const eye = figure.layout.scene2.camera.eye;
  figure.querySelectorAll(".updatemenu-button")[1].dispatchEvent(
    new MouseEvent("click", {bubbles: true}));
  await wait(300);
  document.body.dataset.probe = JSON.stringify({
    eye: eye,
    kept: figure.layout.scene2.camera.eye,
    centre: figure._fullData[1].z[5][5],
    corner: figure._fullData[1].z[10][10],
    gap: figure._fullData[1].z[0][0],
    missing: document.querySelectorAll(".no-webgl").length,
    title: document.title,
  });
})();
</script></body>"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_draws_the_page_and_links_the_cameras(page: Path, tmp_path: Path) -> None:
    shot = tmp_path / "page.png"
    _browse(page, tmp_path / "one", f"--screenshot={shot}")
    with Image.open(shot) as image:
        colours = image.convert("RGB").getcolors(maxcolors=1 << 22)
    assert colours is not None and len(colours) > 3000

    text = page.read_text(encoding="utf-8")
    assert text.count("</body>\n</html>") == 1
    page.write_text(text.replace("</body>\n</html>", PROBE + "\n</html>"), encoding="utf-8")
    dom = _browse(page, tmp_path / "two", "--virtual-time-budget=8000", "--dump-dom")
    (found,) = re.findall(r'data-probe="([^"]*)"', dom)
    report: dict[str, Any] = json.loads(unescape(found))
    assert report["missing"] == 0
    assert 'data-title="Download' in dom and 'data-title="Share' not in dom  # nothing uploads
    assert report["eye"] == report["kept"] == {"x": 2, "y": 0.5, "z": 0.3}
    assert report["centre"] == pytest.approx(0.0) and report["corner"] == pytest.approx(0.95424)
    assert report["gap"] is None
    assert report["title"].startswith("Title </script>")  # shown as written, never run
