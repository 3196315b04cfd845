"""The contract of Cache, over every server that can stand behind it."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from recs.errors import StoreError, StoreUnavailableError
from recs.stores.cache import RedisCache

ODD_KEYS = [
    "",
    " ",
    "a b",
    "line\r\nbreak",
    "nul\0in",
    "*",
    "[a-z]?\\",
    "{slot}",
    "é",
    "\U0001f600",
    "half a pair \ud800",
    "x" * 5_000,
]


@pytest.fixture(params=["embedded", "real"])
def cache_url(request: pytest.FixtureRequest) -> str:
    if request.param == "embedded":
        return str(request.getfixturevalue("servers").redis_url)
    return os.environ.get("RECS_TEST_REDIS_URL") or pytest.skip("RECS_TEST_REDIS_URL: no second Redis to test against")


@pytest.fixture
def cache(cache_url: str) -> Iterator[RedisCache]:
    # A prefix of pattern characters: clearing must take them for themselves.
    opened = RedisCache(cache_url, timeout_seconds=10, prefix=f"t*[{uuid.uuid4().hex[:8]}]?:")
    yield opened
    opened.clear()
    opened.close()


@pytest.mark.servers
class TestContract:
    def test_what_is_set_can_be_had(self, cache: RedisCache) -> None:
        assert cache.get("k") is None
        cache.set("k", b"\x00\xff{}", 60)
        assert cache.get("k") == b"\x00\xff{}"
        cache.set("k", b"", 60)
        assert cache.get("k") == b""
        cache.delete("k")
        cache.delete("k")
        assert cache.get("k") is None

    def test_keys_may_hold_any_character(self, cache: RedisCache) -> None:
        for i, key in enumerate(ODD_KEYS):
            cache.set(key, str(i).encode(), 60)
        assert [cache.get(key) for key in ODD_KEYS] == [str(i).encode() for i in range(len(ODD_KEYS))]
        assert cache.clear() == len(ODD_KEYS)

    def test_entries_end_with_their_time(self, cache: RedisCache) -> None:
        cache.set("short", b"1", 0.05)
        cache.set("long", b"1", 60)
        cache.set("kept", b"1", 60)
        cache.set("kept", b"2", 0)
        cache.set("never", b"1", -1)
        cache.set("too short", b"1", 0.0001)
        time.sleep(0.15)
        assert [cache.get(key) for key in ("short", "long", "kept", "never", "too short")] == [None, b"1"] + [None] * 3

    def test_clearing_drops_every_entry_of_ours_and_nothing_else(self, cache: RedisCache, cache_url: str) -> None:
        with redis.Redis.from_url(cache_url) as client:
            near = f"{cache._prefix.replace('*', 'x')}near"
            client.set(near, b"1", ex=60)
            for i in range(2_500):
                cache.set(f"k{i}", b"1", 60)
            assert cache.clear() == 2_500
            assert cache.clear() == 0
            assert cache.get("k1") is None
            assert client.delete(near) == 1

    def test_prefixes_keep_caches_apart(self, cache: RedisCache, cache_url: str) -> None:
        other = RedisCache(cache_url, prefix=cache._prefix + "other:")
        other.set("k", b"other", 60)
        cache.set("k", b"mine", 60)
        assert other.clear() == 1
        assert cache.get("k") == b"mine"
        other.close()

    def test_threads_share_a_cache(self, cache: RedisCache) -> None:
        def work(thread: int) -> None:
            for i in range(100):
                cache.set(f"{thread}", f"{thread}-{i}".encode(), 60)
                assert cache.get(f"{thread}") == f"{thread}-{i}".encode()

        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(work, thread) for thread in range(8)]:
                done.result()

    def test_a_connection_that_the_server_closed_is_replaced(self, cache: RedisCache, cache_url: str) -> None:
        cache.set("k", b"1", 60)
        with redis.Redis.from_url(cache_url) as client:
            assert client.client_kill_filter(_id=str(cache._client.client_id())) == 1
        assert cache.get("k") == b"1"

    def test_check_names_the_product(self, cache: RedisCache) -> None:
        check = cache.check()
        assert check.role == "cache"
        product, version = check.product.split()
        assert product in ("Valkey", "Redis")
        assert version[0].isdigit()

    def test_closing_twice_is_harmless(self, cache_url: str) -> None:
        cache = RedisCache(cache_url)
        cache.get("k")
        cache.close()
        cache.close()


def _calls(cache: RedisCache) -> list[object]:
    return [
        lambda: cache.get("k"),
        lambda: cache.set("k", b"1", 60),
        lambda: cache.delete("k"),
        cache.clear,
        cache.check,
    ]


@pytest.mark.parametrize("port_fixture", ["tarpit", "closed_port"])
def test_a_dead_server_is_reported_in_time(request: pytest.FixtureRequest, port_fixture: str) -> None:
    port = request.getfixturevalue(port_fixture)
    cache = RedisCache(f"redis://ann:s3cret@127.0.0.1:{port}/3?password=s3cret", timeout_seconds=0.2)
    for call in _calls(cache):
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError) as caught:
            call()  # type: ignore[operator]
        assert time.monotonic() - started < 1
        assert "s3cret" not in str(caught.value)
        assert f"redis://127.0.0.1:{port}/3" in str(caught.value)
    cache.close()


@pytest.mark.parametrize("url", ["http://:s3cret@host/0", "host:6379", "redis://:s3cret@host:port/0", "redis://[::1"])
def test_urls_that_cannot_work_are_refused(url: str) -> None:
    with pytest.raises(StoreError, match="expected redis://host:port/db") as caught:
        RedisCache(url)
    assert "s3cret" not in str(caught.value)


def test_a_refused_password_is_no_outage() -> None:
    with _ScriptedServer(b"-WRONGPASS invalid username-password pair\r\n") as port:
        cache = RedisCache(f"redis://:s3cret@127.0.0.1:{port}", timeout_seconds=1)
        with pytest.raises(StoreError, match=r"WRONGPASS|invalid username") as caught:
            cache.get("k")
        assert not isinstance(caught.value, StoreUnavailableError)
        cache.close()


def test_a_loading_server_is_an_outage() -> None:
    with _ScriptedServer(b"-LOADING Redis is loading the dataset in memory\r\n") as port:
        cache = RedisCache(f"redis://127.0.0.1:{port}", timeout_seconds=1)
        with pytest.raises(StoreUnavailableError):
            cache.get("k")
        cache.close()


class _ScriptedServer:
    """Answers every command with the same line."""

    def __init__(self, line: bytes) -> None:
        self._line = line
        self._listening = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> int:
        threading.Thread(target=self._serve, daemon=True).start()
        return int(self._listening.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return  # closed: the test is over
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65536):
                # A command is an array: it starts with "*" at the start of a line.
                for _ in range(data.count(b"*")):
                    connection.sendall(self._line)
