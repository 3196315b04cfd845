"""Take the pictures in the docs from a workbench that runs: `python -m app.dashboard.screenshots [URL] [FOLDER]`.

Needs Chromium (`apt-get install chromium`) and the development dependencies. Writes user-light.png and user-dark.png.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Literal

from playwright.sync_api import sync_playwright

_DEFAULT_URL = "http://127.0.0.1:8501/?user=u0001"
_DEFAULT_FOLDER = Path(__file__).parents[2] / "docs" / "images"
_WIDTH, _HEIGHT = 1280, 800
_SECONDS = 120_000
_SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def take(url: str, folder: Path, *, chromium: str) -> list[Path]:
    """Return the pictures of the page of a user, one per colour scheme, as the page first shows."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for scheme in _SCHEMES:
            page = browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT}, color_scheme=scheme)
            page.goto(url)
            page.locator("svg text").first.wait_for(timeout=_SECONDS)
            page.get_by_text("How is this computed?").wait_for(timeout=_SECONDS)
            page.get_by_role("combobox").wait_for(timeout=_SECONDS)
            path = folder / f"user-{scheme}.png"
            page.screenshot(path=path)
            page.close()
            paths.append(path)
        browser.close()
    return paths


def main() -> int:
    chromium = shutil.which("chromium")
    if chromium is None:
        print("no chromium on PATH: apt-get install chromium", file=sys.stderr)
        return 1
    url = sys.argv[1] if len(sys.argv) > 1 else _DEFAULT_URL
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else _DEFAULT_FOLDER
    for path in take(url, folder, chromium=chromium):
        print(f"{path}  {path.stat().st_size / 1024:,.0f} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
