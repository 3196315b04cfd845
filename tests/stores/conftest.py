"""Databases and dead servers that several store tests use."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis_cluster import Cluster, running_cluster
from support import drop_schema, empty_schema


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes, started once per run; who stops one starts it again."""
    with running_cluster(tmp_path_factory.mktemp("redis-cluster")) as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", "postgresql"])
def sql_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, one per test, on each engine that can hold state."""
    with _empty_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql", "duckdb"])
def analytics_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, one per test, on each engine that is tested for analytics."""
    with _empty_database(request.param, tmp_path) as url:
        yield url


@contextmanager
def _empty_database(engine_name: str, folder: Path) -> Iterator[str]:
    if engine_name == "sqlite":
        yield f"sqlite:///{folder}/store.db"
        return
    if engine_name == "duckdb":
        pytest.importorskip("duckdb_engine", reason="duckdb-engine is not installed")
        yield f"duckdb:///{folder}/store.duckdb"
        return
    server = os.environ.get("RECS_TEST_POSTGRES_URL")
    if not server:
        pytest.skip("RECS_TEST_POSTGRES_URL: no PostgreSQL to test against")
    schema = f"t_{uuid.uuid4().hex[:12]}"
    yield empty_schema(server, schema)
    drop_schema(server, schema)


@pytest.fixture
def tarpit() -> Iterator[int]:
    """The port of a server that accepts connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield listening.getsockname()[1]
