"""Vectors of texts, conversations, users and campaigns in Milvus, by pymilvus.

A build has one collection per space, `recs_{space}_{build}`, with the metric inner product. The primary key is a hash
of the record's key, so that any character may occur in a key and still no filter expression is built from raw input
(templates for filters are not understood by milvus-lite and Milvus 2.3); the key itself lies beside the vector.

milvus-lite always compares with every row; there FLAT says so. A Milvus server gets HNSW, whose answer time hardly
grows with the rows; it compares small segments row by row, so that small collections are searched exactly.

A collection keeps the shards that it was made with, and the replicas that it was loaded with until it is released:
after a change of either setting the next build has them. milvus-lite has one of each, whatever is asked for.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]
import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException  # type: ignore[import-untyped]
from pymilvus.client.types import LoadState, Status  # type: ignore[import-untyped]
from pymilvus.exceptions import ErrorCode  # type: ignore[import-untyped]

from recs.errors import BuildMissingError, StoreError, StoreUnavailableError
from recs.stores.layouts import Layout, VersionGuard
from recs.stores.layouts.vectors import LAYOUT, Milvus
from recs.stores.ports import SPACES, Check, Hit, Space, Vector, VectorRecord

_OPEN_SECONDS = 60.0
_T = TypeVar("_T")

_ROWS_PER_CALL = 1000
_LONGEST_ANSWER = 16_384
"""Rows that Milvus returns at most."""
_ROWS_PER_RANGE = 8_000
_BEYOND_K = 10
"""Hits asked for beyond k, so that a tie at the border is seen."""
_TIE = 1e-6
"""Servers compute in float32: scores nearer than this may come in either order."""
_LONGEST_KEY = 65_535
_NOT_LOADED = 101
_UNAVAILABLE_CODES = (
    Status.CONNECT_FAILED,
    ErrorCode.RATE_LIMIT,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)


class _Connection:
    """One lazily made client, and what its errors mean."""

    def __init__(
        self, url: str, token: str | None, timeout_seconds: float, replicas: int, kept: Layout[Milvus]
    ) -> None:
        # pymilvus logs a traceback for every error that it raises; here all of them reach the caller as exceptions.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)
        self._url = url
        self._token = token or ""
        self._address = re.sub(r"//.*@", "//", url)
        self.timeout_seconds = timeout_seconds
        self._replicas = replicas
        self._guard = VersionGuard(kept, f"Milvus at {self._address}")
        self._lock = threading.Lock()
        self._client: Any = None
        self._closed = False
        self._server_version = ""
        self.opened: dict[str, float] = {}
        """Builds that were found whole and loaded, and when; see `MilvusVectors.open`."""

    @contextmanager
    def client(self, *, guarded: bool = True) -> Iterator[Any]:
        """Lend the client; what it raises inside comes out as StoreUnavailableError or StoreError."""
        try:
            client = self._connected()
            if guarded:
                self._guard.let_pass(Milvus(client, self.timeout_seconds))
            yield client
        except MilvusException as exc:
            self.opened.clear()
            if _may_pass(exc):
                raise self._unavailable(exc) from exc
            raise StoreError("vectors", f"Milvus at {self._address} refused: {exc.message}") from exc
        except (grpc.RpcError, grpc.FutureTimeoutError) as exc:
            self.opened.clear()
            raise self._unavailable(exc) from exc

    def server_version(self) -> str:
        if not self._server_version:
            with self.client() as client:
                self._server_version = str(client.get_server_version(timeout=self.timeout_seconds))
        return self._server_version

    def load(self, client: Any, name: str) -> None:
        """Bring a collection into memory where it is not; one that is there stays as it is."""
        bounded = {"timeout": self.timeout_seconds}
        # Milvus refuses to load with another number of replicas what is loaded already.
        if client.get_load_state(name, **bounded)["state"] == LoadState.Loaded:
            return
        try:
            client.load_collection(name, replica_number=self._replicas, **bounded)
        except MilvusException as exc:
            if self._replicas == 1 or _may_pass(exc):
                raise
            raise StoreError(
                "vectors",
                f"Milvus at {self._address} refused to hold {self._replicas} replicas of {name}, which take as many "
                f"query nodes: {exc.message}",
            ) from exc

    def begin(self, client: Any) -> None:
        self._guard.begin(Milvus(client, self.timeout_seconds))

    def bring_up_to_date(self) -> None:
        with self.client(guarded=False) as client:
            self._guard.bring_up_to_date(Milvus(client, self.timeout_seconds))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connected(self) -> Any:
        client = self._client
        if client is not None:
            return client
        # Those who wait here while another thread connects wait no longer than that thread does.
        if not self._lock.acquire(timeout=self.timeout_seconds):
            raise self._unavailable(TimeoutError())
        try:
            if self._closed:
                raise StoreError("vectors", f"the store on {self._address} is closed")
            if self._client is None:
                # A client of its own, because closing a shared one ends the others' calls.
                self._client = MilvusClient(self._url, token=self._token, timeout=self.timeout_seconds, dedicated=True)
            return self._client
        finally:
            self._lock.release()

    def _unavailable(self, exc: Exception) -> StoreUnavailableError:
        what = f"no answer from Milvus at {self._address} within {self.timeout_seconds:g} s ({type(exc).__name__})"
        return StoreUnavailableError("vectors", what)


def _may_pass(exc: MilvusException) -> bool:
    return exc.code in _UNAVAILABLE_CODES or "timeout" in exc.message.lower()


class MilvusVectors:
    """The vector store on a Milvus at `url`, or on milvus-lite's server; connects at first use.

    `shards` is how many nodes take the writes of a collection, `replicas` how many query nodes answer for it.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_seconds: float = 2.0,
        shards: int = 1,
        replicas: int = 1,
        kept: Layout[Milvus] = LAYOUT,
    ) -> None:
        self._connection = _Connection(url, token, timeout_seconds, replicas, kept)
        self._shards = shards
        self._bounded = {"timeout": timeout_seconds}

    def create(self, build: str, dim: int) -> MilvusIndex:
        _check_build(build)
        exact = self._is_exact()
        with self._connection.client() as client:
            self._connection.begin(client)
            for space in SPACES:
                self._ensure(client, _collection(space, build), dim, exact)
        return MilvusIndex(self._connection, build, exact=exact)

    def open(self, build: str, *, lagging: bool = False) -> MilvusIndex:
        _check_build(build)
        # Serving opens the build for every request: what was found lately is not looked for again. Any error forgets
        # it, since a server that was restarted has to load its collections anew.
        found = self._connection.opened.get(build)
        if found is not None and time.monotonic() - found < _OPEN_SECONDS:
            return MilvusIndex(self._connection, build, exact=self._is_exact(), lagging=lagging)
        exact = self._is_exact()
        names = [_collection(space, build) for space in SPACES]
        with self._connection.client() as client:
            there = set(client.list_collections(**self._bounded))
            missing = [name for name in names if name not in there]
            if missing:
                raise BuildMissingError("vectors", f"build {build!r} does not exist: no {', '.join(missing)}")
            for name in names:
                self._connection.load(client, name)
        self._connection.opened[build] = time.monotonic()
        return MilvusIndex(self._connection, build, exact=exact, lagging=lagging)

    def builds(self) -> list[str]:
        """Return every build that has any collection, sorted; one that was only partly made is among them."""
        with self._connection.client() as client:
            names = client.list_collections(**self._bounded)
        pattern = re.compile(f"recs_(?:{'|'.join(SPACES)})_([a-z0-9]+)")
        return sorted({match[1] for match in map(pattern.fullmatch, names) if match})

    def drop(self, build: str) -> None:
        _check_build(build)
        self._connection.opened.pop(build, None)
        with self._connection.client() as client:
            for space in SPACES:
                self._drop(client, space, build)

    def point_alias(self, build: str) -> None:
        _check_build(build)
        with self._connection.client() as client:
            for space in SPACES:
                self._point(client, space, build)

    def check(self) -> Check:
        began = time.perf_counter()
        counts = {"builds": len(self.builds())}
        version = self._connection.server_version()
        product = version if "milvus" in version else f"Milvus {version}"
        return Check("vectors", product, (time.perf_counter() - began) * 1000, counts)

    def bring_up_to_date(self) -> None:
        self._connection.bring_up_to_date()

    def close(self) -> None:
        self._connection.close()

    def _is_exact(self) -> bool:
        # Not just "lite": the wheel of Milvus 2.3.5, a whole server, calls itself v2.3.5-lite.
        return self._connection.server_version().startswith("milvus_lite")

    def _ensure(self, client: Any, name: str, dim: int, exact: bool) -> None:
        index = client.prepare_index_params()
        if exact:
            index.add_index("vector", index_type="FLAT", metric_type="IP", params={})
        else:
            index.add_index("vector", index_type="HNSW", metric_type="IP", params={"M": 16, "efConstruction": 200})
        if client.has_collection(name, **self._bounded):
            fields = {f["name"]: f for f in client.describe_collection(name, **self._bounded)["fields"]}
            there = int(fields["vector"]["params"]["dim"])
            if there != dim:
                raise StoreError(
                    "vectors", f"{name} holds vectors of {there} dimensions, not {dim}; take another build"
                )
        else:
            client.create_collection(
                name,
                schema=_schema(client, dim),
                num_shards=self._shards,
                consistency_level="Strong",
                **self._bounded,
            )
        # Apart from creating, which would load with one replica. A run that was killed in between left it without.
        if not client.list_indexes(name, field_name="vector", **self._bounded):
            client.create_index(name, index, **self._bounded)
        self._connection.load(client, name)

    def _drop(self, client: Any, space: Space, build: str) -> None:
        name = _collection(space, build)
        try:
            client.drop_collection(name, **self._bounded)
        except MilvusException as exc:
            # Milvus drops no collection that an alias stands for, and the only alias we ever make is this one.
            if "alias" not in exc.message.lower():
                raise
            client.drop_alias(_alias(space), **self._bounded)
            client.drop_collection(name, **self._bounded)

    def _point(self, client: Any, space: Space, build: str) -> None:
        name, alias = _collection(space, build), _alias(space)
        try:
            client.alter_alias(name, alias, **self._bounded)
        except MilvusException as exc:
            if exc.code in _UNAVAILABLE_CODES:
                raise
            # An alias that is not there yet cannot be altered; whatever else was wrong is wrong here again.
            client.create_alias(name, alias, **self._bounded)


class MilvusIndex:
    """The four collections of one build."""

    def __init__(self, connection: _Connection, build: str, *, exact: bool, lagging: bool = False) -> None:
        self._connection = connection
        self._build = build
        self._exact = exact
        # The collections are made with strong consistency: each read waits until the nodes that answer have seen all
        # writes before it, which they hear of every 200 ms. A bounded one takes them up to 5 s behind as they are.
        self._reading = {"consistency_level": "Bounded"} if lagging else {}
        self._bounded = {"timeout": connection.timeout_seconds}

    @property
    def build(self) -> str:
        return self._build

    def upsert(self, space: Space, records: Sequence[VectorRecord]) -> None:
        latest = list({r.key: r for r in records}.values())
        for batch in _batches(latest):
            rows = [
                {
                    "pk": _hash(r.key),
                    "key": r.key,
                    "owner": r.owner,
                    "owner_hash": _owner_hash(r.owner),
                    "vector": np.asarray(r.vector, dtype=np.float32),
                }
                for r in batch
            ]
            self._call(space, "upsert", data=rows)

    def get(self, space: Space, keys: Sequence[str]) -> dict[str, Vector]:
        found: dict[str, Vector] = {}
        for batch in _batches(list(dict.fromkeys(keys))):
            pks = [_hash(key) for key in batch]
            rows = self._call(space, "get", ids=pks, output_fields=["key", "vector"], **self._reading)
            found.update((row["key"], np.asarray(row["vector"], dtype=np.float32)) for row in rows)
        return found

    def search(self, space: Space, vector: Vector, k: int, *, with_vectors: bool = False) -> list[Hit]:
        """Return the k nearest; k is at most 16,384.

        The server picks the candidates; their scores are computed here from their vectors in float64, so that equal
        vectors have equal scores and the order is the same whichever server answers.
        """
        if k <= 0:
            return []
        if k > _LONGEST_ANSWER:
            raise StoreError("vectors", f"{k} nearest were asked for; Milvus returns at most {_LONGEST_ANSWER}")
        query = np.asarray(vector, dtype=np.float32)
        limit = min(k + _BEYOND_K, _LONGEST_ANSWER)
        while True:
            keys, vectors = self._nearest(space, query, limit)
            scores = vectors.astype(np.float64) @ query.astype(np.float64)
            order = sorted(range(len(keys)), key=lambda i: (-scores[i], keys[i]))
            cut_off = len(keys) == limit < _LONGEST_ANSWER
            border = scores[order[k - 1]] if cut_off else 0.0
            if cut_off and border - scores[order[-1]] <= _TIE * max(1.0, abs(border)):
                # All that lies beyond k ties with it, so more that ties may lie beyond the limit.
                limit = min(4 * limit, _LONGEST_ANSWER)
                continue
            return [Hit(keys[i], float(scores[i]), vectors[i] if with_vectors else None) for i in order[:k]]

    def delete(self, space: Space, keys: Sequence[str]) -> None:
        for batch in _batches(list(dict.fromkeys(keys))):
            pks = [_hash(key) for key in batch]
            self._call(space, "delete", ids=pks)

    def delete_owner(self, space: Space, owner: str) -> None:
        """Remove what belongs to an owner; records without one belong to nobody."""
        if not owner:
            return
        owned = f'owner_hash == "{_hash(owner)}"'
        self._call(space, "delete", filter=owned)

    def keys(self, space: Space) -> Iterator[str]:
        # By ranges of the primary key, a hash and so evenly spread: pages by an iterator cost a sort of all rows each
        # on milvus-lite.
        count = self.count(space)
        ranges = -(-count // _ROWS_PER_RANGE)
        bounds = [(i << 32) // max(ranges, 1) for i in range(ranges + 1)]
        todo = list(pairwise(bounds))[::-1]
        while todo:
            low, high = todo.pop()
            rows = self._keys_between(space, low, high)
            if len(rows) < _LONGEST_ANSWER:
                yield from rows
            else:
                middle = (low + high) // 2
                todo += [(middle, high), (low, middle)]

    def count(self, space: Space) -> int:
        rows = self._call(space, "query", filter="", output_fields=["count(*)"])
        return int(rows[0]["count(*)"])

    def flush(self) -> None:
        for space in SPACES:
            self._call(space, "flush")

    def _nearest(self, space: Space, query: Vector, limit: int) -> tuple[list[str], Vector]:
        params = {} if self._exact else {"ef": max(256, 2 * limit)}
        (hits,) = self._call(
            space,
            "search",
            data=[query],
            limit=limit,
            anns_field="vector",
            output_fields=["key", "vector"],
            search_params={"metric_type": "IP", "params": params},
            **self._reading,
        )
        keys = [hit["entity"]["key"] for hit in hits]
        rows = [hit["entity"]["vector"] for hit in hits]
        return keys, np.asarray(rows, dtype=np.float32).reshape(len(keys), query.shape[0])

    def _keys_between(self, space: Space, low: int, high: int) -> list[str]:
        within = f'pk >= "{low:08x}"' + (f' and pk < "{high:08x}"' if high < 1 << 32 else "")
        rows = self._call(space, "query", filter=within, output_fields=["key"], limit=_LONGEST_ANSWER)
        return [row["key"] for row in rows]

    def _call(self, space: Space, method: str, **arguments: Any) -> Any:
        name = _collection(space, self._build)
        with self._connection.client() as client:
            try:
                return getattr(client, method)(name, **arguments, **self._bounded)
            except MilvusException as exc:
                if _NOT_LOADED not in (exc.code, exc.compatible_code):
                    raise
                # milvus-lite forgets with a restart that a collection was loaded.
                self._connection.load(client, name)
                return getattr(client, method)(name, **arguments, **self._bounded)


def _schema(client: Any, dim: int) -> Any:
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("pk", DataType.VARCHAR, is_primary=True, max_length=32)
    schema.add_field("key", DataType.VARCHAR, max_length=_LONGEST_KEY)
    schema.add_field("owner", DataType.VARCHAR, max_length=_LONGEST_KEY)
    schema.add_field("owner_hash", DataType.VARCHAR, max_length=32)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
    return schema


def _check_build(build: str) -> None:
    if not re.fullmatch("[a-z0-9]+", build):
        raise StoreError("vectors", f"{build!r} cannot name a build: lower-case letters and digits are allowed")


def _collection(space: Space, build: str) -> str:
    return f"recs_{space}_{build}"


def _alias(space: Space) -> str:
    return f"recs_{space}"


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _owner_hash(owner: str) -> str:
    return _hash(owner) if owner else ""


def _batches(rows: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (rows[start : start + _ROWS_PER_CALL] for start in range(0, len(rows), _ROWS_PER_CALL))
