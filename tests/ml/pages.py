"""What a page says and whether it is whole."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest


class Balance(HTMLParser):
    """Fails where tags do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_whole(html: str) -> None:
    """Every tag is closed, and nothing is asked of a network or a script."""
    assert not re.findall(r"https?://|<script|@import|url\(|src=", html)
    balance = Balance()
    balance.feed(html)
    assert balance.open == []


def words_of(path: Path) -> str:
    """A page's text as a reader sees it."""
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", path.read_text(), flags=re.DOTALL)
    return unescape(re.sub(r"\s+", " ", text))


def check_drawn(page: Path, folder: Path, height: int = 6000) -> None:
    """A browser draws the page, with dark text in every sixth of it; skips where there is no browser."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on this machine: the page is not rendered")
    picture = folder / "page.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={folder / 'profile'}"]
    flags += [f"--screenshot={picture}", f"--window-size=1100,{height}", "--hide-scrollbars"]
    subprocess.run([chromium, *flags, page.as_uri()], check=True, capture_output=True, timeout=120)
    from matplotlib.image import imread

    pixels = imread(picture)[..., :3]
    rows = pixels.shape[0]
    for part in range(6):  # nothing overlaps into nothing
        strip = pixels[part * rows // 6 : (part + 1) * rows // 6]
        assert (strip.mean(axis=2) < 0.4).mean() > 0.002
