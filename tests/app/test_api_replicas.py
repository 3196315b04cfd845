"""Two sidecars on two machines, as far as they can tell: homes of their own, and the same stores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from api_server import Server, api_process, wait_until_ready

from recs.bootstrap import Stores
from recs.model import Preferences, Recommendations
from recs.stores.state import SqlState


@pytest.fixture
def replicas(published: Stores, environment: dict[str, str], tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    homes = [tmp_path / name for name in ("one", "two")]
    with (
        api_process({**environment, "RECS_HOME": str(homes[0])}) as one,
        api_process({**environment, "RECS_HOME": str(homes[1])}) as two,
    ):
        for server in (one, two):
            wait_until_ready(server)
        yield one, two


def asked(server: Server, user_id: str = "anna", **params: object) -> Recommendations:
    answer = server.get(f"/recommendations/{user_id}", **params)
    assert answer.status_code == 200, answer.text
    return Recommendations.model_validate_json(answer.content)


def offered(answer: Recommendations) -> list[str]:
    return [item.campaign_id for item in answer.items]


def test_replicas_share_nothing_but_the_stores(published: Stores, replicas: tuple[Server, Server]) -> None:
    one, two = replicas
    stores = published

    # What one has computed, the other serves.
    first = asked(one, explain=True)
    copy = asked(two, explain=True)
    assert (first.cached, copy.cached) == (False, True)
    assert copy.recommendation_id == first.recommendation_id

    # Both give the same customer the same pseudonym.
    names = [server.get("/users/anna/neighbours").json()["neighbours"] for server in replicas]
    assert names[0] == names[1]
    assert names[0][0]["user_id"].startswith("p_")

    # An opt-out holds in both at the next request, and so does its end.
    assert asked(one).strategy == asked(two).strategy == "hybrid"
    for profiling, strategy in ((False, "popular"), (True, "hybrid")):
        stores.state.put_preferences([Preferences(user_id="anna", profiling=profiling)])
        assert [asked(server).strategy for server in replicas] == [strategy] * 2

    # A pause too.
    assert "k1" in offered(asked(one))
    for status, there in (("paused", False), ("active", True)):
        assert stores.graph.set_status("k1", status)
        stores.state.bump_revision()
        assert ["k1" in offered(asked(server)) for server in replicas] == [there] * 2

    # One publish moves both.
    before = stores.state.generation()
    assert before is not None
    stores.metrics.aggregate(before.number + 1, newest_at=before.newest_at, half_life_days=180)
    stores.state.publish(replace(before, number=before.number + 1))
    answers = [asked(server) for server in (two, one)]
    assert [answer.generation for answer in answers] == [before.number + 1] * 2
    assert [answer.cached for answer in answers] == [False, True]


def test_replicas_that_start_at_once_agree_on_the_secret(
    published: Stores, environment: dict[str, str], tmp_path: Path
) -> None:
    # A state store of their own, whose secret nobody has made yet.
    url = f"sqlite:///{tmp_path}/state.db"
    state = SqlState(url)
    generation = published.state.generation()
    assert generation is not None
    state.publish(replace(generation, number=1))
    state.close()
    with (
        api_process({**environment, "RECS_HOME": str(tmp_path / "one"), "RECS_STATE_URL": url}) as one,
        api_process({**environment, "RECS_HOME": str(tmp_path / "two"), "RECS_STATE_URL": url}) as two,
    ):
        found = []
        for server in (one, two):
            wait_until_ready(server)
            found.append(server.get("/users/anna/neighbours").json()["neighbours"])
    assert found[0] == found[1]
    assert found[0]
