"""A real browser for the tests of pages: the Chromium of the machine, driven by Playwright.

Nothing is downloaded; where there is no Chromium, such tests are skipped.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


@contextmanager
def started() -> Iterator[Any]:
    """A browser process."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Any, page: Path, width: int = 1100, height: int = 900, scheme: str = "light"
) -> Iterator[Any]:
    """A page, drawn; any error of its scripts and any request over the net is a failure."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
    )
    tab = context.new_page()
    wrong: list[str] = []
    tab.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    tab.on(
        "request",
        lambda sent: (
            None
            if sent.url.startswith(("file:", "data:", "blob:"))
            else wrong.append(f"request: {sent.url}")
        ),
    )
    try:
        tab.goto(page.as_uri())
        settle(tab)
        yield tab
        assert wrong == []
    finally:
        context.close()


def settle(tab: Any) -> None:
    """Wait until what was asked for is drawn, and has had a frame to appear."""
    tab.evaluate(
        """async () => {
          const frame = () => new Promise((next) => requestAnimationFrame(() => setTimeout(next, 30)));
          await frame();
          await pageIdle();
          await frame();
          await pageIdle();
        }"""
    )


def colours(picture: bytes) -> int:
    """How many colours a picture has: thousands where a surface is drawn, a few hundred where it is not."""
    with Image.open(io.BytesIO(picture)) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    return len(np.unique(pixels, axis=0))
