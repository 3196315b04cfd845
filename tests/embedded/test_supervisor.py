"""One supervisor per home: how it starts, who keeps it, and that nothing outlives it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from embedded_support import LIMIT_SECONDS, processes_of, settings_at, start_client, wait_until
from pymongo import MongoClient
from redis import Redis
from redis.exceptions import AuthenticationError

from recs import embedded
from recs.errors import EmbeddedServerError

pytestmark = pytest.mark.servers


@pytest.fixture
def own_home() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="recs-own-")).resolve()
    yield path
    embedded.down(settings_at(path))
    assert wait_until(lambda: not processes_of(path)), processes_of(path)
    shutil.rmtree(path)


def supervisor_pid(home: Path) -> int:
    return int(json.loads((home / "run" / "supervisor.json").read_text())["pid"])


def pid_of(home: Path, service: str) -> int | None:
    return next(status.pid for status in embedded.status(settings_at(home)) if status.service == service)


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def test_up_pins_servers_until_down_and_a_second_up_is_harmless(own_home: Path) -> None:
    settings = settings_at(own_home)
    embedded.up(settings, ["redis"])
    first = pid_of(own_home, "redis")
    embedded.up(settings, ["redis"])
    with embedded.session(settings, ["redis"]) as resolved:
        Redis.from_url(resolved.redis_url).set("key", "value")
    assert not wait_until(lambda: pid_of(own_home, "redis") != first, seconds=5)
    states = {status.service: status.state for status in embedded.down(settings)}
    assert set(states.values()) == {"down"}
    assert processes_of(own_home) == {}


def test_a_restart_finds_data_port_and_password_again(own_home: Path) -> None:
    settings = settings_at(own_home)
    with embedded.session(settings, ["mongo", "redis"]) as first, MongoClient(first.mongo_url) as client:
        client["recs"]["kept"].insert_one({"_id": "a", "text": "ä 🦆"})
    embedded.down(settings)
    with embedded.session(settings, ["mongo", "redis"]) as second, MongoClient(second.mongo_url) as client:
        assert client["recs"]["kept"].find_one({"_id": "a"}) == {"_id": "a", "text": "ä 🦆"}
        assert (second.mongo_url, second.redis_url) == (first.mongo_url, first.redis_url)


def test_a_killed_supervisor_leaves_no_process(own_home: Path) -> None:
    embedded.up(settings_at(own_home), ["mongo", "redis"])
    assert len(processes_of(own_home)) >= 3
    os.kill(supervisor_pid(own_home), signal.SIGKILL)
    assert wait_until(lambda: not processes_of(own_home)), processes_of(own_home)
    with embedded.session(settings_at(own_home), ["redis"]) as again:  # its record and locks are stale, and no matter
        assert Redis.from_url(again.redis_url).ping()


def test_a_killed_supervisor_and_guard_leave_no_server(own_home: Path) -> None:
    embedded.up(settings_at(own_home), ["redis"])
    supervisor = psutil.Process(supervisor_pid(own_home))
    guard = next(child for child in supervisor.children() if "recs.embedded._guard" in child.cmdline())
    guard.kill()
    supervisor.kill()
    assert wait_until(lambda: not processes_of(own_home)), processes_of(own_home)


def test_servers_stop_when_their_last_client_is_killed(own_home: Path) -> None:
    with start_client(own_home, "redis") as one, start_client(own_home, "redis") as other:
        urls = {one.stdout.readline(), other.stdout.readline()}
        assert len(urls) == 1  # both raced to start a supervisor; one did
        supervisor = supervisor_pid(own_home)
        one.kill()
        assert not wait_until(lambda: not psutil.pid_exists(supervisor), seconds=6)
        other.kill()
        assert wait_until(lambda: not processes_of(own_home), LIMIT_SECONDS), processes_of(own_home)


def test_down_stops_what_a_command_started(own_home: Path) -> None:
    with start_client(own_home, "redis") as client:
        client.stdout.readline()
        embedded.down(settings_at(own_home))
        assert set(processes_of(own_home)) <= {client.pid}
        client.kill()


def test_a_second_session_starts_only_what_is_missing(own_home: Path) -> None:
    settings = settings_at(own_home)
    with embedded.session(settings, ["redis"]) as first:
        assert first.mongo_url is None
        before = pid_of(own_home, "redis")
        with embedded.session(settings, ["mongo", "redis"]) as second:
            assert pid_of(own_home, "redis") == before
            assert second.redis_url == first.redis_url
            assert second.mongo_url is not None


def test_two_homes_do_not_meet(own_home: Path) -> None:
    other_home = own_home / "other"
    with (
        embedded.session(settings_at(own_home), ["redis"]) as one,
        embedded.session(settings_at(other_home), ["redis"]) as other,
    ):
        Redis.from_url(one.redis_url).set("key", "one")
        assert Redis.from_url(other.redis_url).get("key") is None
        with pytest.raises(AuthenticationError):
            Redis(port=port_of(other.redis_url), password="that of another home").ping()
    embedded.down(settings_at(other_home))


def test_a_remembered_port_that_is_taken_is_replaced(own_home: Path) -> None:
    settings = settings_at(own_home)
    with embedded.session(settings, ["redis"]) as first:
        port = port_of(first.redis_url)
    embedded.down(settings)
    with socket.create_server(("127.0.0.1", port)), embedded.session(settings, ["redis"]) as second:
        assert second.redis_url != first.redis_url
        assert Redis.from_url(second.redis_url).ping()


def test_a_server_that_was_killed_is_reported_and_started_again_on_demand(own_home: Path) -> None:
    settings = settings_at(own_home)
    embedded.up(settings, ["redis"])
    psutil.Process(pid_of(own_home, "redis")).kill()
    assert wait_until(lambda: embedded.status(settings)[3].state == "failed")
    assert str(own_home / "logs" / "redis.log") in embedded.status(settings)[3].error
    with embedded.session(settings, ["redis"]) as resolved:
        assert Redis.from_url(resolved.redis_url).ping()


def test_damaged_data_is_named_with_what_to_do(own_home: Path) -> None:
    data = own_home / "data" / "mongo"
    data.mkdir(parents=True)
    (data / "recs.db").write_bytes(b"this is no database " * 1000)
    with (
        pytest.raises(EmbeddedServerError, match=r"(?s)embedded server mongo .*move .*/data/mongo away.*mongo.log"),
        embedded.session(settings_at(own_home), ["mongo"]),
    ):
        pass


def test_stale_records_are_taken_over_and_strangers_are_left_alone(own_home: Path) -> None:
    run = own_home / "run"
    run.mkdir()
    stranger = {"pid": os.getpid(), "created": 1.0}  # our number, but another process's birthday
    (run / "supervisor.json").write_text(json.dumps(stranger | {"port": 1, "token": "x"}))
    (run / "servers.json").write_text(json.dumps({"redis": stranger}))
    (run / "mongo.pid").write_text(str(os.getpid()))
    (run / "ports.json").write_text("{torn")
    with embedded.session(settings_at(own_home), ["mongo", "redis"]) as resolved:
        assert Redis.from_url(resolved.redis_url).ping()


def test_files_and_directories_are_the_owners_alone(own_home: Path) -> None:
    with embedded.session(settings_at(own_home), ["redis"]):
        for name in ("data", "logs", "run", "data/redis"):
            assert (own_home / name).stat().st_mode & 0o777 == 0o700
        for path in (own_home / "run").iterdir():
            assert path.stat().st_mode & 0o777 == 0o600, path


def test_a_deleted_home_takes_its_servers_along(own_home: Path) -> None:
    inner = own_home / "inner"
    embedded.up(settings_at(inner), ["redis"])
    shutil.rmtree(inner)
    assert wait_until(lambda: not processes_of(inner)), processes_of(inner)
