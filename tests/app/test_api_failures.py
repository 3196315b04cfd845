"""The sidecar where something is missing: stores that are down or silent, nothing published, a start that cannot be."""

from __future__ import annotations

import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from api_server import CHECKOUT, Server, api_process, wait_until_open, wait_until_ready
from neo4j import GraphDatabase

from app.api.__main__ import listen
from recs.bootstrap import Stores
from recs.model import Recommendations
from recs.settings import Settings
from recs.stores.layouts.graph import LAYOUT
from recs.stores.state import SqlState

POSTGRES_AT = "postgresql://nobody:nothing@127.0.0.1:{}/none"


@pytest.fixture(scope="module")
def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def tarpit() -> Iterator[int]:
    """The port of a server that accepts connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield listening.getsockname()[1]


def degraded(server: Server, path: str = "/recommendations/anna") -> list[str]:
    wait_until_open(server)
    began = time.monotonic()
    answer = server.get(path)
    assert time.monotonic() - began < 20
    assert answer.status_code == 200, answer.text
    found = Recommendations.model_validate_json(answer.content)
    assert found.items
    assert not found.cached
    for item in found.items:
        assert sum(part.contribution for part in item.breakdown) == item.score
    return found.degraded


def assert_names(server: Server, store: str) -> None:
    """The probe for readiness says which store is missing, and the process lives."""
    assert server.get("/healthz").status_code == 200
    answer = server.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert answer.json()["stores"] == [store]
    assert answer.headers["retry-after"]


def test_without_the_cache(published: Stores, environment: dict[str, str], closed_port: int) -> None:
    with api_process({**environment, "RECS_REDIS_URL": f"redis://127.0.0.1:{closed_port}"}) as server:
        assert [degraded(server), degraded(server)] == [["cache"], ["cache"]]
        assert_names(server, "cache")
        assert 'recs_degraded_answers_total{store="cache"}' in server.get("/metrics").text


def test_with_a_silent_cache(published: Stores, environment: dict[str, str], tarpit: int) -> None:
    variables = {"RECS_REDIS_URL": f"redis://127.0.0.1:{tarpit}", "RECS_STORE_TIMEOUT_SECONDS": "1"}
    with api_process({**environment, **variables}) as server:
        assert degraded(server) == ["cache"]


def test_without_vectors(published: Stores, environment: dict[str, str], closed_port: int) -> None:
    with api_process({**environment, "RECS_MILVUS_URL": f"http://127.0.0.1:{closed_port}"}) as server:
        assert degraded(server) == ["vectors"]
        # What is missing from an answer may be back in a moment: it is not kept.
        assert degraded(server) == ["vectors"]
        assert server.get("/users/anna/neighbours").json()["stores"] == ["vectors"]
        explained = server.get("/users/anna/explanation", campaign_id="k3").json()
        assert (explained["degraded"], explained["dissent"]["opinions"][0]["users"]) == (["vectors"], 0)
        asked = {"without": "neighbour", "without_id": "p_0123456789abcdef"}
        assert server.get("/users/anna/counterfactual", **asked).json()["stores"] == ["vectors"]
        assert_names(server, "vectors")


def test_without_the_graph(published: Stores, environment: dict[str, str], closed_port: int) -> None:
    with api_process({**environment, "RECS_NEO4J_URL": f"bolt://127.0.0.1:{closed_port}"}) as server:
        wait_until_open(server)
        answer = server.get("/recommendations/graphless")
        assert (answer.status_code, answer.json()["code"], answer.json()["stores"]) == (
            503,
            "store_unavailable",
            ["graph"],
        )
        answer = server.get("/users/anna/explanation", campaign_id="k3")
        assert (answer.status_code, answer.json()["stores"]) == (503, ["graph"])
        assert_names(server, "graph")


def test_without_the_state(environment: dict[str, str], closed_port: int) -> None:
    with api_process({**environment, "RECS_STATE_URL": POSTGRES_AT.format(closed_port)}) as server:
        assert server.get("/healthz").status_code == 200
        wait_until_open(server)
        for path in ("/recommendations/anna", "/users/anna/neighbours", "/campaigns/k1/audience", "/readyz"):
            answer = server.get(path)
            assert answer.status_code == 503, answer.text
            assert answer.json()["stores"] == ["state"]
        assert server.get("/version").json()["generation"] is None


def test_before_the_first_publish(environment: dict[str, str], tmp_path: Path) -> None:
    with api_process({**environment, "RECS_STATE_URL": f"sqlite:///{tmp_path}/empty.db"}) as server:
        wait_until_open(server)
        for path in ("/recommendations/anna", "/users/anna/neighbours", "/campaigns/k1/audience", "/readyz"):
            answer = server.get(path)
            assert (answer.status_code, answer.json()["code"]) == (503, "not_published")
        assert server.get("/version").json()["generation"] == 0


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(published: Stores, environment: dict[str, str], sent: signal.Signals) -> None:
    with api_process(environment) as server:
        wait_until_ready(server)
        began = time.monotonic()
        server.process.send_signal(sent)
        assert server.process.wait(15) == 0
        assert time.monotonic() - began < 10
    assert "Traceback" not in "".join(server.log)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RECS_API_HOST": "0.0.0.0"}, "without API keys"),
        ({"RECS_API_HOST": "::"}, "without API keys"),
        ({"RECS_API_HOST": "example.org"}, "without API keys"),
        ({"RECS_API_HOST": "example.org", "RECS_API_GUARDED": "true"}, "without API keys"),
        ({"RECS_API_PORT": "99999"}, "RECS_API_PORT"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(variables: dict[str, str], said: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "app.api"], cwd=CHECKOUT, env=variables, capture_output=True, text=True, timeout=200
    )
    assert ended.returncode == 1
    assert said in ended.stderr
    assert ended.stderr.count("\n") <= 2


def test_a_guarded_sidecar_listens_on_any_address() -> None:
    with listen("0.0.0.0", 0, guarded=True) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-m", "app.api"],
            cwd=CHECKOUT,
            env={"RECS_API_PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=200,
        )
    assert ended.returncode == 1
    assert f"port {port} cannot be used" in ended.stderr


def test_a_store_that_can_never_be_opened_ends_it(environment: dict[str, str]) -> None:
    with api_process({**environment, "RECS_REDIS_URL": "http://nothing"}) as server:
        assert server.process.wait(60) == 1
    assert "cache" in server.log[-1]


def test_data_of_a_newer_version_is_a_clean_503(
    published: Stores, environment: dict[str, str], api_settings: Settings
) -> None:
    database = {"database_": api_settings.neo4j_database}
    password = api_settings.neo4j_password
    assert password
    assert api_settings.neo4j_url
    with (
        GraphDatabase.driver(
            api_settings.neo4j_url, auth=(str(api_settings.neo4j_user), password.get_secret_value())
        ) as driver,
        api_process(environment) as server,
    ):
        try:
            driver.execute_query("MERGE (l:Layout {id: 'recs'}) SET l.version = 99", **database)
            wait_until_open(server)
            for path in ("/recommendations/anna", "/campaigns/k1/audience", "/recommendations/anna?explain=true"):
                answer = server.get(path)
                assert (answer.status_code, answer.json()["code"]) == (503, "other_version")
                assert answer.json()["stores"] == ["graph"]
            assert_names(server, "graph")
        finally:
            driver.execute_query("MATCH (l:Layout) SET l.version = $version", version=LAYOUT.version, **database)
    told = "".join(server.log)
    assert f"has layout version 99, this package knows versions up to {LAYOUT.version}: install the newer" in told
    assert "Traceback" not in told


def test_a_state_store_of_a_newer_version_ends_it(environment: dict[str, str], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/newer.db"
    SqlState(url).close()
    with closing(sqlite3.connect(tmp_path / "newer.db")) as connection:
        connection.execute("UPDATE recs_state_version SET version_num = '9999'")
        connection.commit()
    with api_process({**environment, "RECS_STATE_URL": url}) as server:
        assert server.process.wait(60) == 1
    assert "has schema version 9999" in server.log[-1]
    assert "Traceback" not in "".join(server.log)


def test_texts_are_not_compared_with_vectors_of_another_model(
    published: Stores, environment: dict[str, str], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/other.db"
    state = SqlState(url)
    generation = published.state.generation()
    assert generation is not None
    state.publish(replace(generation, number=1, model="another@0123456789ab/float32"))
    state.close()
    with api_process({**environment, "RECS_STATE_URL": url}) as server:
        wait_until_open(server)
        answer = server.post("/recommendations", {"text": "a desk"})
        assert (answer.status_code, answer.json()["code"]) == (503, "other_model")
        assert "another@0123456789ab" in answer.json()["detail"]
        # Users are compared with users: they need no encoder.
        assert server.get("/recommendations/anna").json()["strategy"] == "hybrid"


def test_a_lost_build_is_a_store_that_is_missing(
    published: Stores, environment: dict[str, str], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/lost.db"
    state = SqlState(url)
    generation = published.state.generation()
    assert generation is not None
    state.publish(replace(generation, number=1, build="lost"))
    state.close()
    published.cache.clear()  # another state store's generation 1 may be in it
    with api_process({**environment, "RECS_STATE_URL": url}) as server:
        assert degraded(server) == ["vectors"]
        answer = server.get("/users/anna/neighbours")
        assert (answer.status_code, answer.json()["stores"]) == (503, ["vectors"])
