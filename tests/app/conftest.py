"""The data set, published, and the sidecar in front of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from api_data import BUILD, fill
from api_server import Server, api_process, as_environment, wait_until_ready
from support import fresh_settings

from recs.bootstrap import Stores, connect
from recs.embed import Encoder
from recs.settings import Settings


@pytest.fixture(scope="session")
def encoder(servers: Settings) -> Encoder:
    return Encoder.load(servers)


@pytest.fixture(scope="module")
def api_settings(servers: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The servers of this run with empty stores, and a cache of these tests' own."""
    redis_url = (servers.redis_url or "").rstrip("/").removesuffix("/0") + "/5"
    own = servers.model_copy(update={"redis_url": redis_url})
    yield fresh_settings(own, tmp_path_factory.mktemp("api"), "api")
    # Other tests use the same graph server, and the catalogue is whatever campaigns it holds.
    fresh_settings(own, tmp_path_factory.mktemp("left"), "api")


@pytest.fixture(scope="module")
def stores(api_settings: Settings) -> Iterator[Stores]:
    """The stores that the tests themselves look into."""
    stores = connect(api_settings, timeout_seconds=30)
    stores.vectors.check()
    yield stores
    stores.close()


@pytest.fixture(scope="module")
def published(stores: Stores, encoder: Encoder) -> Iterator[Stores]:
    """The stores, filled with the data set and published."""
    stores.cache.clear()
    fill(stores, encoder)
    yield stores
    stores.cache.clear()
    stores.vectors.drop(BUILD)


@pytest.fixture(scope="module")
def environment(api_settings: Settings) -> dict[str, str]:
    return as_environment(api_settings)


@pytest.fixture(scope="module")
def api(published: Stores, environment: dict[str, str]) -> Iterator[Server]:
    with api_process(environment) as server:
        wait_until_ready(server)
        yield server
