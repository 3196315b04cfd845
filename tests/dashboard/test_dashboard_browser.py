"""The main story in a real browser, against a real `streamlit run` on a small data set."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright
from support import ROOT, environment, fresh_settings, load

from app.dashboard.style import COMPONENT_COLOURS
from recs.bootstrap import connect
from recs.embed import Encoder
from recs.model import Campaign, Conversation, Engagement, Message
from recs.settings import Settings

CHROMIUM = Path("/usr/bin/chromium")
SECONDS = 60_000
ODD_ID = 'o\'neil/ "<b>x</b>" 🙂 &?='

pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no Chromium at {CHROMIUM}: apt-get install chromium"),
    pytest.mark.timeout(600),
]

_CAMPAIGNS = [
    Campaign(campaign_id="k1", name="Nursery bundle", description="Cots and cribs for babies", intents=("baby",)),
    Campaign(campaign_id="k2", name="Garden club", description="Seeds and tools for gardens", intents=("garden",)),
    Campaign(campaign_id="k3", name="Stair gates", description="Safe steps for toddlers", intents=("baby",)),
    Campaign(campaign_id="k4", name="Greenhouse weeks", description="Greenhouses at a discount", intents=("garden",)),
    Campaign(campaign_id="k5", name="Paused offer", description="Something else", status="paused"),
]
_BABY = ("Which cot fits beside our bed?", "Is the crib safe for a newborn?", "We need a stair gate for the baby")
_GARDEN = ("When do I sow tomatoes?", "Does the greenhouse need a base?", "Which spade is best for clay?")
_TOOK = {
    "u1": ("baby", ["k1"]),
    "u2": ("baby", ["k1", "k3"]),
    "u3": ("baby", ["k1", "k3"]),
    "u4": ("garden", ["k2", "k4"]),
    "u5": ("garden", ["k2", "k4"]),
    "u6": ("garden", ["k2"]),
    ODD_ID: ("baby", ["k3"]),
}


def _conversations() -> list[Conversation]:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    made = []
    for user_id, (about, campaigns) in _TOOK.items():
        for i, text in enumerate(_BABY if about == "baby" else _GARDEN):
            at = start + timedelta(days=len(made))
            took = campaigns[i : i + 1]
            made.append(
                Conversation(
                    conversation_id=f"c{len(made)}",
                    user_id=user_id,
                    started_at=at,
                    messages=(Message(role="user", text=text),),
                    intent=about,
                    engagements=tuple(Engagement(campaign_id=c, action="convert", at=at) for c in took),
                )
            )
    return made


@pytest.fixture(scope="module")
def url(servers: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a workbench that runs on the data set."""
    settings = fresh_settings(servers, tmp_path_factory.mktemp("dashboard"), "dashboard")
    settings = settings.model_copy(update={"store_timeout_seconds": 20.0})
    stores = connect(settings, timeout_seconds=60)
    load(stores, settings, Encoder.load(settings), _conversations(), _CAMPAIGNS)
    stores.close()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--server.address=127.0.0.1", f"--server.port={port}", "--server.headless=true"]
    argv = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app/dashboard/main.py"), *options]
    env = environment(settings) | {"RECS_STORE_TIMEOUT_SECONDS": "20"}
    log = settings.home / "workbench.log"
    # Another folder than the checkout: the theme must be found from anywhere.
    with log.open("wb") as out, subprocess.Popen(argv, env=env, cwd=settings.home, stdout=out, stderr=out) as process:
        try:
            _await(f"http://127.0.0.1:{port}/_stcore/health", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
    assert "Traceback" not in log.read_text(errors="replace")


def _await(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.2)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """A page that fails the test where anything is asked of another machine, or the console shows an error."""
    page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme=request.param)
    page.set_default_timeout(SECONDS)
    abroad: list[str] = []
    errors: list[str] = []
    page.on("request", lambda r: abroad.append(r.url) if _is_abroad(r.url) else None)
    page.on("websocket", lambda w: abroad.append(w.url) if _is_abroad(w.url) else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" and not _is_probe(m.location) else None)
    yield page
    page.close()
    assert abroad == []
    assert errors == []


def _is_abroad(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1"


def _is_probe(location: object) -> bool:
    """Whether Streamlit looks for its own paths below a deep link, which it then finds at the root."""
    return "/_stcore/" in str(location)


def _finding(page: Page, pattern: str) -> None:
    expect(page.locator(".lm h1")).to_have_text(re.compile(pattern), timeout=SECONDS)


def _settled(page: Page) -> None:
    """Return once the chart is drawn and the script has ended."""
    page.locator("[data-testid=stEChartsChart] svg text, .stEChartsChart svg text").first.wait_for()
    expect(page.locator("[data-test-script-state=running]")).to_have_count(0, timeout=SECONDS)


def _serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found if v["impact"] in ("serious", "critical")]


def test_the_story_of_a_user(page: Page, url: str) -> None:
    page.goto(url)
    _finding(page, "^Offer ")
    _settled(page)
    assert _serious(page) == []

    box = page.get_by_label("User id")
    box.fill("u1")
    box.press("Enter")
    _finding(page, "^Offer Stair gates to u1: ")
    _settled(page)
    assert page.url == f"{url}/?user=u1"
    evidence = page.locator(".lm blockquote").first
    expect(evidence).to_be_visible()
    expect(page.get_by_text("The campaign is paused")).to_be_visible()

    page.get_by_role("combobox").click()
    page.get_by_role("option").nth(1).click()
    expect(page).to_have_url(re.compile(r"user=u1&campaign=k\d"))
    chosen = page.url
    expect(page.locator("tr.chosen")).to_contain_text("2", timeout=SECONDS)

    page.reload()
    expect(page.locator("tr.chosen")).to_contain_text("2", timeout=SECONDS)
    assert page.url == chosen
    page.go_back()
    expect(page.locator("tr.chosen")).to_contain_text("1", timeout=SECONDS)
    assert page.url == f"{url}/?user=u1"

    page.get_by_text("How is this computed?").click()
    expect(page.get_by_text("A score is a sum of parts")).to_be_visible()
    assert _serious(page) == []


def test_a_bar_opens_its_evidence(page: Page, url: str) -> None:
    page.goto(f"{url}/?user=u1")
    _settled(page)
    first = page.locator("tr.chosen").inner_text()
    popularity = page.locator(f"svg path[fill='{COMPONENT_COLOURS['engagement_prior']}' i]")
    boxes = [box for i in range(popularity.count()) if (box := popularity.nth(i).bounding_box()) and box["width"] > 4]
    lowest = max(boxes, key=lambda box: box["y"])
    page.mouse.click(lowest["x"] + lowest["width"] / 2, lowest["y"] + lowest["height"] / 2)
    expect(page).to_have_url(re.compile("campaign=k"), timeout=SECONDS)
    expect(page.locator("tr.chosen")).not_to_have_text(first, timeout=SECONDS)


def test_an_unknown_user_and_an_odd_id(page: Page, url: str) -> None:
    page.goto(f"{url}/?user=nobody")
    _finding(page, "^nobody is not known: what is popular")
    box = page.get_by_label("User id")
    box.fill(ODD_ID)
    box.press("Enter")
    _finding(page, "^Offer Nursery bundle to o'neil")
    expect(page.locator(".lm h1 code")).to_have_text(ODD_ID)
    page.reload()
    expect(page.locator(".lm h1 code")).to_have_text(ODD_ID, timeout=SECONDS)
    long = "x" * 200
    box.fill(long)
    box.press("Enter")
    expect(page.locator(".lm h1 code")).to_have_text(long, timeout=SECONDS)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_similar_user_is_a_click_away(page: Page, url: str) -> None:
    page.goto(f"{url}/?user=u1")
    _settled(page)
    page.locator(".lm td, .lm th").get_by_role("link", name="u2", exact=True).first.click()
    expect(page.locator(".lm h1 code")).to_have_text("u2", timeout=SECONDS)
    assert page.url == f"{url}/?user=u2"
    page.go_back()
    expect(page.locator(".lm h1 code")).to_have_text("u1", timeout=SECONDS)


def test_words_stay_out_of_the_address(page: Page, url: str) -> None:
    page.goto(f"{url}/?user=u1")
    _settled(page)
    page.get_by_text("What somebody said").click()
    area = page.get_by_label("What somebody said")
    area.fill("The greenhouse needs a base and tomatoes")
    area.press("Control+Enter")
    _finding(page, "^Offer (Garden club|Greenhouse weeks) to somebody who says this")
    _settled(page)
    assert page.url == f"{url}/?user=u1&by=words"
    assert _serious(page) == []
