"""The version of a home's data: noted, migrated while nothing runs, refused where it is newer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from embedded_support import processes_of, settings_at, wait_until
from pymongo import MongoClient
from support import run_python

from recs import embedded
from recs.embedded._home import VERSION, Home
from recs.errors import EmbeddedServerError

pytestmark = pytest.mark.servers


@pytest.fixture
def own_home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "home"
    yield home
    embedded.down(settings_at(home))
    assert wait_until(lambda: not processes_of(home))


def filled(home: Path) -> Path:
    """Let an embedded MongoDB write into a home, and stop it; returns the version file."""
    with embedded.session(settings_at(home), ["mongo"]) as settings, MongoClient(settings.mongo_url) as client:
        client["kept"]["things"].insert_one({"_id": 1})
    embedded.down(settings_at(home))
    return home / "data" / "version"


def held(home: Path, database: str) -> int:
    with embedded.session(settings_at(home), ["mongo"]) as settings, MongoClient(settings.mongo_url) as client:
        return len(list(client[database]["things"].find()))


def test_a_new_home_has_the_version_of_this_package(own_home: Path) -> None:
    assert filled(own_home).read_text() == f"{VERSION}\n"
    assert held(own_home, "kept") == 1


def test_a_home_from_before_versions_is_version_1(own_home: Path) -> None:
    version = filled(own_home)
    version.unlink()
    assert Home.at(own_home).version() == 1
    assert held(own_home, "kept") == 1
    assert version.read_text() == f"{VERSION}\n"


def test_a_step_makes_the_next_version_and_is_done_again_after_it_was_cut_off(own_home: Path) -> None:
    version = filled(own_home)
    [file] = [path for path in (own_home / "data" / "mongo").iterdir() if path.name.startswith("kept")]
    tries: list[int] = []

    def rename(home: Home) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise KeyboardInterrupt
        for path in home.data("mongo").glob("kept*"):
            path.rename(path.with_name(path.name.replace("kept", "moved")))

    home = Home.at(own_home)
    with pytest.raises(KeyboardInterrupt):
        home.bring_up_to_date(2, {1: rename})
    assert version.read_text() == "1\n"
    home.bring_up_to_date(2, {1: rename})
    assert version.read_text() == "2\n"
    assert not file.exists()
    version.write_text(f"{VERSION}\n")
    assert held(own_home, "moved") == 1


def test_a_newer_home_is_refused_by_every_command(own_home: Path) -> None:
    version = filled(own_home)
    version.write_text("99\n")
    settings = settings_at(own_home)
    for start in (lambda: embedded.up(settings, ["mongo"]), lambda: embedded.session(settings).__enter__()):
        with pytest.raises(EmbeddedServerError, match=r"has version 99, .* up to 1: install the newer .* RECS_HOME"):
            start()
    for command in (["recs", "up"], ["recs", "recommend", "u"], ["recs", "check"], ["app.api"], ["pipeline"]):
        ended = run_python(settings, *command)
        assert ended.returncode == 1
        assert "has version 99" in ended.stderr
        assert "Traceback" not in ended.stderr
    # What looks on, or stops things, still works.
    assert {status.state for status in embedded.status(settings)} == {"down"}
    assert version.read_text() == "99\n"


def test_a_damaged_version_is_named(own_home: Path) -> None:
    filled(own_home).write_text("two\n")
    with pytest.raises(EmbeddedServerError, match="data/version holds no number"):
        embedded.up(settings_at(own_home), ["mongo"])
