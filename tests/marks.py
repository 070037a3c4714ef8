"""The marks of a result that cannot be trusted, as a page carries them."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

MARK = "NOT TO BE TRUSTED:"


def distrusted(page: Path, words: str, figure: bool = True) -> None:
    """Assert that a page says so: in the box above everything and, where it has one, under the figure."""
    html = page.read_text(encoding="utf-8")
    (box,) = re.findall(r'<aside class="health distrust">.*?</aside>', html, re.DOTALL)
    assert words in unescape(box), box
    if figure:
        assert MARK in html
