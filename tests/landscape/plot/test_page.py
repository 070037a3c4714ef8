"""Pages: self-contained, safe, and really drawn by a browser."""

from __future__ import annotations

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from plotly.offline import get_plotlyjs

from landscape import plot
from landscape.plot.page import Cell, Section, Table, write_page

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
    (packed,) = re.findall(r'<script type="application/gzip" id="plotly">([^<]*)</script>', text)
    assert gzip.decompress(base64.b64decode(packed)).decode() == get_plotlyjs()
    assert page.stat().st_size < 3_000_000


def test_no_text_becomes_a_script(page: Path) -> None:
    parser = _Tags()
    parser.feed(page.read_text(encoding="utf-8"))
    kinds = [attrs.get("type") for tag, attrs in parser.found if tag == "script"]
    assert kinds.count(None) == 1  # ours is the only one that runs
    # two figures, a table, the numbers of the page, its dark colours
    assert kinds.count("application/json") == 5 and kinds.count("application/gzip") == 1
    assert len(kinds) == 7


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
