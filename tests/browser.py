"""A browser for tests: the system's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.backends import missing

if TYPE_CHECKING:
    from collections.abc import Generator

    from playwright.sync_api import Page

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def chromium() -> str:
    """Return the browser's program; without one the test is skipped, or fails."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        missing("browser", "no Chromium on PATH")
    return found


@contextmanager
def opened_page() -> Generator[Page]:
    """Open an empty page in a headless browser of its own."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - slow, and rarely needed

    with sync_playwright() as playwright:
        # Root has no other sandbox than none; the pages are our own server's.
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        try:
            yield page
        finally:
            browser.close()


def frames(page: Page, word: str) -> str:
    """Return the text of a page's frames, where it keeps what is markdown, once it has a word."""
    deadline = time.monotonic() + 30
    while word not in (told := " ".join(frame.inner_text("body") for frame in page.frames)):
        assert time.monotonic() < deadline, told
        time.sleep(0.3)
    return told
