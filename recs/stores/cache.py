"""Answers for a short while, in Redis or anything that speaks its protocol."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from urllib.parse import urlsplit

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from recs.errors import StoreError, StoreUnavailableError
from recs.stores.ports import Check

#: Keys per SCAN and UNLINK.
_CLEAR_BATCH = 1000

#: Errors that pass although redis-py does not call them connection errors: loading, failing over, resharding.
_PASSING = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
)

#: A wrong password is a "connection error" to redis-py, and will still be wrong the next time.
_LASTING = (exceptions.AuthenticationError, exceptions.AuthorizationError)


class RedisCache:
    """The cache (`Cache`) at a `redis://` or `rediss://` URL. Every key that it writes starts with `prefix`."""

    role = "cache"

    def __init__(self, url: str, *, timeout_seconds: float = 2.0, prefix: str = "recs:") -> None:
        self._prefix = prefix
        self._shown_url = _without_password(url)
        try:
            self._client = redis.Redis.from_url(
                url,
                socket_timeout=timeout_seconds,
                socket_connect_timeout=timeout_seconds,
                # One more try, at once, for a pooled connection that a restarted server has closed. Late answers are
                # not tried again: the default of three more tries with pauses takes several times the timeout.
                retry=Retry(NoBackoff(), 1, supported_errors=(exceptions.ConnectionError,)),
                # A server that announces maintenance would otherwise lengthen the timeout to 10 s.
                maint_notifications_config=MaintNotificationsConfig(enabled=False),
            )
        except ValueError as exc:
            raise StoreError(self.role, f"{self._shown_url} cannot be used; expected redis://host:port/db") from exc

    def check(self) -> Check:
        started = time.perf_counter()
        with self._errors():
            info = self._client.info("server")
        milliseconds = (time.perf_counter() - started) * 1000
        if "valkey_version" in info:
            return Check(self.role, f"Valkey {info['valkey_version']}", milliseconds)
        return Check(self.role, f"Redis {info.get('redis_version', '')}".strip(), milliseconds)

    def close(self) -> None:
        self._client.close()

    def get(self, key: str) -> bytes | None:
        with self._errors():
            return cast("bytes | None", self._client.get(self._key(key)))

    def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        """Keep a value for `ttl_seconds`, to the millisecond; 0 or less leaves nothing under the key."""
        milliseconds = round(ttl_seconds * 1000)
        with self._errors():
            if milliseconds > 0:
                self._client.set(self._key(key), value, px=milliseconds)
            else:
                self._client.delete(self._key(key))

    def delete(self, key: str) -> None:
        with self._errors():
            self._client.delete(self._key(key))

    def clear(self) -> int:
        """Drop every key with the prefix and return how many there were; others in the database stay."""
        dropped = 0
        pattern = _glob_escaped(self._prefix) + b"*"
        with self._errors():
            cursor = 0
            while True:
                cursor, keys = self._client.scan(cursor, match=pattern, count=_CLEAR_BATCH)
                if keys:
                    dropped += self._client.unlink(*keys)
                if not cursor:
                    return dropped

    def _key(self, key: str) -> bytes:
        # Half a surrogate pair is a legal character of a JSON string, and so of an id.
        return (self._prefix + key).encode("utf-8", "surrogatepass")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except exceptions.RedisError as exc:
            passes = isinstance(exc, _PASSING) and not isinstance(exc, _LASTING)
            kind = StoreUnavailableError if passes else StoreError
            raise kind(self.role, f"{self._shown_url}: {exc}") from exc


def _without_password(url: str) -> str:
    """Return the parts of a URL that may be shown; passwords stand before the "@" or in the query."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:
        return "its URL"


def _glob_escaped(text: str) -> bytes:
    return "".join("\\" + c if c in "*?[]^-\\" else c for c in text).encode("utf-8", "surrogatepass")
