"""The one place that picks real adapters and hands them in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from typing import TypeVar

from pydantic import SecretStr

from recs import embedded
from recs.settings import Settings
from recs.stores.cache import RedisCache
from recs.stores.documents import MongoDocuments
from recs.stores.graph import Neo4jGraph
from recs.stores.metrics import SqlMetrics
from recs.stores.ports import Cache, CampaignGraph, DocumentStore, MetricsStore, StateStore, Store, VectorStore
from recs.stores.state import SqlState
from recs.stores.vectors import MilvusVectors

T = TypeVar("T", bound=Store)


@dataclass(frozen=True, slots=True)
class Stores:
    """One open adapter per role."""

    documents: DocumentStore
    vectors: VectorStore
    graph: CampaignGraph
    metrics: MetricsStore
    state: StateStore
    cache: Cache

    def all(self) -> dict[str, Store]:
        """Return the adapters by role."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def close(self) -> None:
        for store in self.all().values():
            store.close()


def connect(settings: Settings, *, timeout_seconds: float | None = None) -> Stores:
    """Return open stores for settings in which every URL is set; `embedded.session` gives such settings.

    `timeout_seconds` bounds every call; the serving timeout by default.
    """
    timeout = settings.store_timeout_seconds if timeout_seconds is None else timeout_seconds
    with ExitStack() as opened:

        def keep(store: T) -> T:
            opened.callback(store.close)
            return store

        stores = Stores(
            documents=keep(
                MongoDocuments(_url(settings, "mongo_url"), database=settings.mongo_database, timeout_seconds=timeout)
            ),
            vectors=keep(
                MilvusVectors(
                    _url(settings, "milvus_url"),
                    token=_secret(settings.milvus_token),
                    timeout_seconds=timeout,
                    shards=settings.milvus_shards,
                    replicas=settings.milvus_replicas,
                )
            ),
            graph=keep(
                Neo4jGraph(
                    _url(settings, "neo4j_url"),
                    user=settings.neo4j_user,
                    password=_secret(settings.neo4j_password),
                    database=settings.neo4j_database,
                    timeout_seconds=timeout,
                )
            ),
            metrics=keep(SqlMetrics(_url(settings, "sql_url"), timeout_seconds=timeout)),
            state=keep(SqlState(_url(settings, "state_url"), timeout_seconds=timeout)),
            cache=keep(RedisCache(_url(settings, "redis_url"), timeout_seconds=timeout)),
        )
        # All of them opened: from here on they are the caller's to close.
        opened.pop_all()
        return stores


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()


def _url(settings: Settings, name: str) -> str:
    url: str | None = getattr(settings, name)
    if not url:
        raise ValueError(f"connect() needs settings in which every URL is set; {name} is not")
    return url


@contextmanager
def open_stores(
    settings: Settings, *, services: Sequence[str] = embedded.STORES, timeout_seconds: float | None = None
) -> Iterator[tuple[Settings, Stores]]:
    """Yield the settings with every URL set, and the stores behind them; embedded servers are started if needed."""
    with ExitStack() as stack:
        resolved = stack.enter_context(embedded.session(settings, services))
        stores = connect(resolved, timeout_seconds=timeout_seconds)
        stack.callback(stores.close)
        yield resolved, stores


@contextmanager
def open_state(settings: Settings) -> Iterator[StateStore]:
    """Yield the state store alone, which needs no server where no URL is set."""
    with embedded.session(settings, ()) as resolved:
        state = SqlState(_url(resolved, "state_url"), timeout_seconds=resolved.store_timeout_seconds)
        try:
            yield state
        finally:
            state.close()
