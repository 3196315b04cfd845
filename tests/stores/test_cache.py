"""The contract of Cache, over every server that can stand behind it."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import RedisCluster
from redis_cluster import Cluster, Node

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


@pytest.fixture(params=["embedded", "real", "cluster"])
def cache_url(request: pytest.FixtureRequest) -> str:
    if request.param == "embedded":
        return str(request.getfixturevalue("servers").redis_url)
    if request.param == "cluster":
        return str(request.getfixturevalue("redis_cluster").url)
    return os.environ.get("RECS_TEST_REDIS_URL") or pytest.skip("RECS_TEST_REDIS_URL: no second Redis to test against")


@pytest.fixture
def cache(cache_url: str) -> Iterator[RedisCache]:
    # A prefix of pattern characters: clearing must take them for themselves.
    opened = RedisCache(cache_url, timeout_seconds=10, prefix=f"t*[{uuid.uuid4().hex[:8]}]?:")
    yield opened
    opened.clear()
    opened.close()


def _client(url: str) -> Any:
    """Return a client of redis-py for what `RedisCache` itself does not do."""
    return RedisCache(url, timeout_seconds=10)._open()


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
        with _client(cache_url) as client:
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
        with _client(cache_url) as client:
            if isinstance(client, RedisCluster):
                killed = client.client_kill_filter(_type="normal", skipme=True, target_nodes=RedisCluster.PRIMARIES)
                assert sum(killed.values()) >= 1
            else:
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


@pytest.mark.servers
class TestCluster:
    """What only a cluster does, or fails at."""

    @pytest.fixture
    def cache(self, redis_cluster: Cluster) -> Iterator[RedisCache]:
        opened = RedisCache(redis_cluster.url, timeout_seconds=0.5, prefix=f"{uuid.uuid4().hex[:8]}:")
        for key in map(str, range(60)):
            opened.set(key, key.encode(), 60)
        yield opened
        redis_cluster.wait()
        opened.clear()
        opened.close()

    def test_keys_lie_on_all_nodes(self, cache: RedisCache, redis_cluster: Cluster) -> None:
        assert cache.check().counts == {"primaries": 3}
        assert all(_keys_on(redis_cluster, node, cache) for node in redis_cluster.nodes)

    @pytest.mark.parametrize("how", ["hangs", "is gone"])
    def test_a_node_that_is_out_takes_only_its_own_keys_along(
        self, cache: RedisCache, redis_cluster: Cluster, how: str
    ) -> None:
        out, *others = redis_cluster.nodes
        lost, kept = (
            [key for node in nodes for key in _keys_on(redis_cluster, node, cache)] for nodes in ([out], others)
        )
        if how == "hangs":
            out.running.send_signal(signal.SIGSTOP)
        else:
            out.stop()
        try:
            calls = [lambda: cache.get(lost[0]), lambda: cache.set(lost[0], b"new", 60), cache.clear, cache.check]
            for call in calls:
                started = time.monotonic()
                with pytest.raises(StoreUnavailableError) as caught:
                    call()
                assert time.monotonic() - started < 2
                assert redis_cluster.password not in str(caught.value)
            cache.set(kept[0], b"new", 60)
            assert cache.get(kept[0]) == b"new"
            # One that connects anew finds the others through any node of its URL.
            fresh = RedisCache(redis_cluster.url, timeout_seconds=0.5, prefix=cache._prefix)
            assert fresh.get(kept[0]) == b"new"
            fresh.close()
        finally:
            if how == "hangs":
                out.running.send_signal(signal.SIGCONT)
            else:
                out.start()
        redis_cluster.wait()
        cache.set(lost[0], b"newer", 60)
        assert cache.get(lost[0]) == b"newer"
        cache.check()

    def test_keys_are_followed_to_another_node(self, cache: RedisCache, redis_cluster: Cluster) -> None:
        source, target, _ = redis_cluster.nodes
        (key, *_) = _keys_on(redis_cluster, source, cache)
        cache.delete(key)
        with redis_cluster.client(source) as old, redis_cluster.client(target) as new:
            slot = old.cluster("keyslot", cache._prefix + key)
            for receiving, giving in ((new, old), (old, new)):
                receiving.cluster("setslot", slot, "importing", giving.cluster("myid"))
                giving.cluster("setslot", slot, "migrating", receiving.cluster("myid"))
                cache.set(key, b"on the way", 60)
                assert cache.get(key) == b"on the way"
                for node in (receiving, giving):
                    node.cluster("setslot", slot, "node", receiving.cluster("myid"))
                assert cache.get(key) == b"on the way"
                cache.delete(key)

    def test_a_server_that_is_no_cluster_is_refused(self, servers: Any) -> None:
        cache = RedisCache(servers.redis_url.replace("redis://", "redis+cluster://"))
        with pytest.raises(StoreError, match="Cluster mode is not enabled") as caught:
            cache.get("k")
        assert not isinstance(caught.value, StoreUnavailableError)
        cache.close()


def _keys_on(cluster: Cluster, node: Node, cache: RedisCache) -> list[str]:
    with cluster.client(node) as client:
        return [key.removeprefix(cache._prefix) for key in client.scan_iter(match=f"{cache._prefix}*", count=1000)]


@pytest.mark.parametrize("kind", ["", "+cluster"])
@pytest.mark.parametrize("port_fixture", ["tarpit", "closed_port"])
def test_a_dead_server_is_reported_in_time(request: pytest.FixtureRequest, port_fixture: str, kind: str) -> None:
    port = request.getfixturevalue(port_fixture)
    database = "" if kind else "3"
    cache = RedisCache(f"redis{kind}://ann:s3cret@127.0.0.1:{port}/{database}?password=s3cret", timeout_seconds=0.2)
    for call in _calls(cache):
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError) as caught:
            call()  # type: ignore[operator]
        assert time.monotonic() - started < 1
        assert "s3cret" not in str(caught.value)
        assert f"redis{kind}://127.0.0.1:{port}/{database}" in str(caught.value)
    cache.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://:s3cret@host/0",
        "host:6379",
        "redis://:s3cret@host:port/0",
        "redis://[::1",
        "http+cluster://host:7000",
        "redis+cluster://:s3cret@host:port",
        "redis+cluster://:s3cret@host:7000,other:port",
        "redis+cluster://:s3cret@host:7000/3",
        "redis+cluster://:s3cret@",
        "rediss+cluster://[::1",
    ],
)
def test_urls_that_cannot_work_are_refused(url: str) -> None:
    with pytest.raises(StoreError, match=re.escape("expected redis://host:port/db or redis+cluster://")) as caught:
        RedisCache(url)
    assert "s3cret" not in str(caught.value)


def test_the_nodes_of_a_url() -> None:
    cache = RedisCache("rediss+cluster://ann:s3cret@one:7000,[::1]:7001,three/?ssl_cert_reqs=none")
    assert cache._shown_url == "rediss+cluster://one:7000,[::1]:7001,three/"
    cache.close()


@pytest.mark.parametrize("kind", ["", "+cluster"])
def test_a_refused_password_is_no_outage(kind: str) -> None:
    with _ScriptedServer(b"-WRONGPASS invalid username-password pair\r\n") as port:
        cache = RedisCache(f"redis{kind}://:s3cret@127.0.0.1:{port}", timeout_seconds=1)
        with pytest.raises(StoreError, match=r"WRONGPASS|invalid username") as caught:
            cache.get("k")
        assert not isinstance(caught.value, StoreUnavailableError)
        cache.close()


@pytest.mark.parametrize("kind", ["", "+cluster"])
def test_a_loading_server_is_an_outage(kind: str) -> None:
    with _ScriptedServer(b"-LOADING Redis is loading the dataset in memory\r\n") as port:
        cache = RedisCache(f"redis{kind}://127.0.0.1:{port}", timeout_seconds=1)
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
