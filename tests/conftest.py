"""What all tests share: the embedded servers, started once per run, and the warnings of libraries that are not ours."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from mongo_commands import Watch
from pymongo import monitoring

from recs import embedded
from recs.settings import Settings

_MONGO = Watch()


def pytest_configure() -> None:
    monitoring.register(_MONGO)


@pytest.fixture(autouse=True)
def _only_what_mongodb_documents() -> Iterator[None]:
    yield
    sent, _MONGO.beyond = _MONGO.beyond, set()
    assert not sent, "not in the list of mongo_commands"


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """A short-lived home for the servers of this run, away from the user's."""
    path = Path(tempfile.mkdtemp(prefix="recs-"))
    yield path
    # The supervisor lingers for some seconds after the last lease and tidies up on its own.
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def servers(home: Path) -> Iterator[Settings]:
    """Settings whose stores are embedded servers, started once per run; or the real ones that there are."""
    with embedded.session(Settings(home=home, **(_UNSET | _real()))) as settings:
        yield settings


@pytest.fixture(scope="session")
def prefect_servers(servers: Settings) -> Iterator[Settings]:
    """The same stores, and a Prefect server."""
    with embedded.session(servers, embedded.SERVICES) as settings:
        yield settings


@pytest.fixture
def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


# A developer's RECS_*_URL must not lead the tests to servers that hold real data.
_UNSET: dict[str, str | None] = {
    f"{name}_url": None for name in ("mongo", "milvus", "neo4j", "sql", "state", "redis", "prefect")
}


def _real() -> dict[str, str]:
    """Return the settings for the real servers where `make test-real` runs the tests; see `tests/real`."""
    if "RECS_TEST_REAL" not in os.environ:
        return {}
    given = {
        "mongo_url": os.environ.get("RECS_TEST_MONGO_URL"),
        "milvus_url": os.environ.get("RECS_TEST_MILVUS_URL"),
        "milvus_token": os.environ.get("RECS_TEST_MILVUS_TOKEN"),
        "neo4j_url": os.environ.get("RECS_TEST_NEO4J_URL"),
        "neo4j_password": os.environ.get("RECS_TEST_NEO4J_PASSWORD"),
        "sql_url": os.environ.get("RECS_TEST_POSTGRES_URL"),
        "state_url": os.environ.get("RECS_TEST_POSTGRES_URL"),
        "redis_url": os.environ.get("RECS_TEST_REDIS_URL"),
    }
    if given["neo4j_url"]:
        given |= {"neo4j_user": "neo4j", "neo4j_database": "neo4j"}
    return {name: value for name, value in given.items() if value}
