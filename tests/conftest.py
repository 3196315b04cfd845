"""What all tests share: the embedded servers, started once per run, and the warnings of libraries that are not ours."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from recs import embedded
from recs.settings import Settings


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """A short-lived home for the servers of this run, away from the user's."""
    path = Path(tempfile.mkdtemp(prefix="recs-"))
    yield path
    # The supervisor lingers for some seconds after the last lease and tidies up on its own.
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def servers(home: Path) -> Iterator[Settings]:
    """Settings whose stores are embedded servers, started once per run."""
    with embedded.session(Settings(home=home, **_UNSET)) as settings:
        yield settings


@pytest.fixture(scope="session")
def prefect_servers(servers: Settings) -> Iterator[Settings]:
    """The same stores, and a Prefect server."""
    with embedded.session(servers, embedded.SERVICES) as settings:
        yield settings


# A developer's RECS_*_URL must not lead the tests to servers that hold real data.
_UNSET: dict[str, None] = {
    f"{name}_url": None for name in ("mongo", "milvus", "neo4j", "sql", "state", "redis", "prefect")
}
