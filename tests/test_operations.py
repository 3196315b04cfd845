"""docs/operations.md names what there is: metrics, commands, files of tests, other pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from app.api.metrics import Metrics
from recs.cli.app import app

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs/operations.md").read_text()


def test_every_metric_that_it_names_is_told() -> None:
    metrics = Metrics()
    metrics.began()
    metrics.ended("GET", "/recommendations/{user_id}", 200, 0.01)
    metrics.recommended(hit=True)
    metrics.degraded(["vectors"])
    told = {re.split(r"[ {]", line)[0] for line in metrics.text().decode().splitlines() if not line.startswith("#")}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in told}
    named = set(re.findall(r"\b(?:recs|process)_[a-z_]+(?=[`{\[ ])", TEXT)) - {"recs_users", "recs_texts"}
    assert len(named) >= 8
    assert named <= told | families


def test_every_command_that_it_names_is_there() -> None:
    group = typer.main.get_command(app)
    commands = getattr(group, "commands", {})
    named = set(re.findall(r"(?:^    |`)(?:RECS_MODEL=\S+ )?recs ([a-z]+)", TEXT, re.MULTILINE))
    assert {"run", "check", "down", "status", "erase"} <= named
    assert named <= set(commands)
    for command, option in re.findall(r"`recs ([a-z]+) (--[a-z]+)", TEXT):
        assert option in {name for parameter in commands[command].params for name in parameter.opts}


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(tests/[\w/]+\.py)`", TEXT))))
def test_every_test_that_it_names_is_there(path: str) -> None:
    assert (ROOT / path).is_file()


def test_links_lead_somewhere() -> None:
    for page in ("operations.md", "api.md", "architecture.md", "compose.md"):
        for target, anchor in re.findall(r"\]\(([\w./-]+\.md)(?:#([\w-]+))?\)", (ROOT / "docs" / page).read_text()):
            found = ROOT / "docs" / target
            assert found.is_file(), target
            headings = re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE)
            assert not anchor or anchor in {re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in headings}
