"""Answers for a short while, in Redis or anything that speaks its protocol: one server, or a cluster of them.

Every command has one key, so a cluster needs no more than its driver, which knows the node of each key and follows it
where it moves. There are no reads from replicas: they may lag, and a deleted answer must be gone.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.connection import parse_url
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from recs.errors import StoreError, StoreUnavailableError
from recs.stores.ports import Check

T = TypeVar("T")
_Client = redis.Redis | redis.RedisCluster

_EXPECTED = "redis://host:port/db or redis+cluster://host:port"
_CLUSTER_SCHEME = re.compile(r"(rediss?)\+cluster://")

#: Keys per SCAN and UNLINK.
_CLEAR_BATCH = 1000

#: Errors that pass although redis-py does not call them connection errors: loading, failing over, resharding.
_PASSING = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.TryAgainError,
    exceptions.AskError,
    exceptions.ClusterError,
)

#: A wrong password is a "connection error" to redis-py, and will still be wrong the next time.
_LASTING = (exceptions.AuthenticationError, exceptions.AuthorizationError)


class RedisCache:
    """The cache (`Cache`) at a `redis://`, `rediss://`, `redis+cluster://` or `rediss+cluster://` URL.

    Every key that it writes starts with `prefix`. A cluster's URL may name several nodes, `host:port,host:port`: the
    first that answers tells of the others.
    """

    role = "cache"

    def __init__(self, url: str, *, timeout_seconds: float = 2.0, prefix: str = "recs:") -> None:
        self._prefix = prefix
        self._shown_url = _without_password(url)
        self._timeout_seconds = timeout_seconds
        self._is_cluster = bool(_CLUSTER_SCHEME.match(url))
        self._connecting = threading.Lock()
        self._client: _Client | None = None
        bounded = {
            "socket_timeout": timeout_seconds,
            "socket_connect_timeout": timeout_seconds,
            # A server that announces maintenance would otherwise lengthen the timeout to 10 s.
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        }
        try:
            self._open = _cluster(url, bounded) if self._is_cluster else _server(url, bounded)
        except ValueError as exc:
            raise StoreError(self.role, f"{self._shown_url} cannot be used; expected {_EXPECTED}") from exc

    def check(self) -> Check:
        """Return what answers; of a cluster every primary has to, and the name is that of any."""
        started = time.perf_counter()
        if self._is_cluster:
            infos = self._ask(lambda client: client.info("server", target_nodes=redis.RedisCluster.PRIMARIES))
            info, counts = next(iter(infos.values())), {"primaries": len(infos)}
        else:
            info, counts = self._ask(lambda client: client.info("server")), {}
        milliseconds = (time.perf_counter() - started) * 1000
        if "valkey_version" in info:
            return Check(self.role, f"Valkey {info['valkey_version']}", milliseconds, counts)
        return Check(self.role, f"Redis {info.get('redis_version', '')}".strip(), milliseconds, counts)

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def get(self, key: str) -> bytes | None:
        return cast("bytes | None", self._ask(lambda client: client.get(self._key(key))))

    def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        """Keep a value for `ttl_seconds`, to the millisecond; 0 or less leaves nothing under the key."""
        milliseconds = round(ttl_seconds * 1000)
        if milliseconds > 0:
            self._ask(lambda client: client.set(self._key(key), value, px=milliseconds))
        else:
            self.delete(key)

    def delete(self, key: str) -> None:
        self._ask(lambda client: client.delete(self._key(key)))

    def clear(self) -> int:
        """Drop every key with the prefix and return how many there were; others in the database stay."""
        dropped = 0
        pattern = _glob_escaped(self._prefix) + b"*"

        def drop(client: _Client) -> None:
            nonlocal dropped
            keys = client.scan_iter(match=pattern, count=_CLEAR_BATCH)
            while batch := list(islice(keys, _CLEAR_BATCH)):
                # On a cluster the driver makes of it one command for each slot.
                dropped += client.unlink(*batch)

        self._ask(drop)
        return dropped

    def _ask(self, work: Callable[[Any], T]) -> T:
        with self._errors():
            client = self._connected()
            try:
                return work(client)
            except exceptions.ConnectionError as exc:
                if not self._is_cluster or isinstance(exc, _LASTING):
                    raise
            # Once more, as for a single server, on a new connection: meanwhile the driver has asked the other nodes
            # who holds the key now. Its own repetitions would repeat late answers too.
            return work(client)

    def _connected(self) -> _Client:
        client = self._client
        if client is not None:
            return client
        # A cluster's client asks for the nodes when it is made. Who waits here waits no longer than for an answer.
        if not self._connecting.acquire(timeout=self._timeout_seconds):
            raise exceptions.TimeoutError("Timeout connecting to server")
        try:
            if self._client is None:
                self._client = self._open()
            return self._client
        finally:
            self._connecting.release()

    def _key(self, key: str) -> bytes:
        # Half a surrogate pair is a legal character of a JSON string, and so of an id.
        return (self._prefix + key).encode("utf-8", "surrogatepass")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (exceptions.RedisError, exceptions.RedisClusterException) as exc:
            kind = StoreUnavailableError if _passes(exc) else StoreError
            raise kind(self.role, f"{self._shown_url}: {exc}") from exc


def _passes(exc: BaseException) -> bool:
    if isinstance(exc, exceptions.RedisClusterException):
        # No node would tell who holds what: it counts why. Without a reason, some keys have no node at the moment.
        reason = exc.__cause__ or exc.__context__
        return reason is None or _passes(reason)
    return isinstance(exc, _PASSING) and not isinstance(exc, _LASTING)


def _server(url: str, options: dict[str, Any]) -> Callable[[], redis.Redis]:
    """Return how to get a client of one server; raises ValueError where the URL cannot be used."""
    client = redis.Redis.from_url(
        url,
        # One more try, at once, for a pooled connection that a restarted server has closed. Late answers are not
        # tried again: the default of three more tries with pauses takes several times the timeout.
        retry=Retry(NoBackoff(), 1, supported_errors=(exceptions.ConnectionError,)),
        **options,
    )
    return lambda: client


def _cluster(url: str, options: dict[str, Any]) -> Callable[[], redis.RedisCluster]:
    """Return how to get a client of a cluster; raises ValueError where the URL cannot be used."""
    parts = urlsplit(_CLUSTER_SCHEME.sub(r"\1://", url))
    credentials, at, hosts = parts.netloc.rpartition("@")
    first, *others = (parts._replace(netloc=f"{credentials}{at}{host}").geturl() for host in hosts.split(","))
    told = parse_url(first)  # type: ignore[no-untyped-call]
    if not told.get("host") or told.get("db"):
        raise ValueError("a cluster is found by its hosts, and has no databases but the first")
    further = [parse_url(other) for other in others]  # type: ignore[no-untyped-call]
    nodes = [(node["host"], node.get("port", 6379)) for node in further]

    def open_cluster() -> redis.RedisCluster:
        client = redis.RedisCluster(
            url=first,
            startup_nodes=[ClusterNode(host, port) for host, port in nodes],  # type: ignore[no-untyped-call]
            # It asks one node for the commands that there are; where that one is out, another.
            retry=Retry(NoBackoff(), 1),
            **options,
        )
        client.set_retry(Retry(NoBackoff(), 0))
        return client

    return open_cluster


def _without_password(url: str) -> str:
    """Return the parts of a URL that may be shown; passwords stand before the "@" or in the query."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:
        return "its URL"


def _glob_escaped(text: str) -> bytes:
    return "".join("\\" + c if c in "*?[]^-\\" else c for c in text).encode("utf-8", "surrogatepass")
