"""The commands that print answers, on a published company of four users."""

from __future__ import annotations

import csv
import json

import pytest
from support import WordEncoder, environment, fresh_settings, load
from typer.testing import CliRunner

from recs.bootstrap import connect
from recs.cli.app import app
from recs.errors import InputError, NotFoundError
from recs.ingest.quarantine import Quarantine
from recs.ingest.records import Reject
from recs.model import Campaign, Conversation, Engagement, Message

FORMULA = "=cmd|' /C calc'!A0"


def said(number, user_id, text, *campaigns):
    return Conversation(
        conversation_id=f"c{number}",
        user_id=user_id,
        messages=(Message(role="user", text=text),),
        engagements=tuple(Engagement(campaign_id=c, action="like") for c in campaigns),
    )


@pytest.fixture(scope="module")
def company(servers, tmp_path_factory):
    settings = fresh_settings(servers, tmp_path_factory.mktemp("cli"), "cli")
    stores = connect(settings)
    conversations = [
        said(1, "ann", "garden seeds", "seeds", "spade"),
        said(2, "bob", "garden seeds", "seeds"),
        said(3, FORMULA, "garden seeds today"),
        said(4, "dan", "a cot", "cot"),
    ]
    campaigns = [Campaign(campaign_id=c, name=c.title(), description=c) for c in ("seeds", "spade", "cot")]
    load(stores, settings, WordEncoder(), conversations, campaigns)
    stores.close()
    return settings


@pytest.fixture
def recs(company, monkeypatch):
    for name, value in environment(company).items():
        if name.startswith("RECS_"):
            monkeypatch.setenv(name, value)

    def run(*arguments):
        result = CliRunner().invoke(app, list(arguments))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def test_recommend_prints_the_parts_and_the_reasons(recs):
    told = recs("recommend", "bob", "-k", "1").stdout
    assert "1. Spade  [spade]" in told
    assert "ann, who talks alike" in told
    assert "Users who took Seeds, as this user did, tend to take this too." in told
    assert "left out, the user has liked it already: seeds" in told


def test_recommend_as_json_is_the_response_of_the_sidecar(recs):
    answer = json.loads(recs("recommend", "bob", "--json").stdout)
    assert list(answer) == [
        "user_id",
        "recommendation_id",
        "generation",
        "strategy",
        "cached",
        "degraded",
        "items",
        "suppressed",
    ]
    first = answer["items"][0]
    assert first["campaign_id"] == "spade"
    assert sum(part["contribution"] for part in first["breakdown"]) == first["score"]


def test_recommend_needs_a_user_or_a_text(recs):
    with pytest.raises(InputError, match="is needed"):
        recs("recommend")
    with pytest.raises(InputError, match="not both"):
        recs("recommend", "bob", "--text", "hello")


def test_audience_as_a_table_that_no_spreadsheet_executes(recs, tmp_path):
    path = tmp_path / "audience.csv"
    recs("audience", "seeds", "--csv", str(path))
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert {row["user_id"] for row in rows} == {"'" + FORMULA, "dan"}
    assert rows[0]["user_id"] == "'" + FORMULA
    parts = [
        float(rows[0][name])
        for name in rows[0]
        if name not in ("rank", "user_id", "score", "campaign_id", "generation")
    ]
    assert sum(parts) == float(rows[0]["score"])


def test_audience_of_an_unknown_campaign(recs):
    with pytest.raises(NotFoundError, match="'nothing'"):
        recs("audience", "nothing")


def test_check_and_fingerprint(recs):
    assert recs("check").stdout.endswith("all stores agree\n")
    assert json.loads(recs("check", "--json").stdout)["agree"] is True
    one = recs("fingerprint").stdout.strip()
    assert len(one) == 64
    assert json.loads(recs("fingerprint", "--json").stdout)["all"] == one


def test_quarantine_tells_where_and_why(recs, company):
    held = Quarantine(company.home / "quarantine")
    held.add(Reject("f.jsonl", 7, 100, "not_json", "no JSON here, one object is allowed", "x" * 90), "run-1")
    held.flush()
    told = recs("quarantine", "list").stdout
    assert "f.jsonl:7  not_json: no JSON here" in told
    assert "1 in the quarantine (1 shown): 1 not_json" in told
    assert json.loads(recs("quarantine", "list", "--json").stdout)["raw"] == "x" * 90
    assert "0 in the quarantine" in recs("quarantine", "list", "--code", "other").stdout


@pytest.mark.parametrize("interval", ["", "5", "h", "xh", "0s", "1w"])
def test_an_interval_that_is_none(recs, interval):
    with pytest.raises(InputError, match="--every"):
        recs("run", "--every", interval)


def test_status_shows_servers_that_are_not_ours_without_their_passwords(recs, company):
    told = recs("status").stdout
    assert "external" in told
    assert company.neo4j_password.get_secret_value() not in told


def test_tune_says_what_it_learned_and_keeps_nothing_when_it_shall_not(recs, company):
    assert "default weights are in use" in recs("tune", "--show").stdout
    told = recs("tune", "--dry-run")
    assert "0 cases of 0 users (no fold is large enough)" in " ".join(told.stdout.split())
    assert "the default stays" in told.stdout
    found = json.loads(recs("tune", "--dry-run", "--json", "--texts").stdout)
    assert found["texts"]["weights"] == found["texts"]["default"]
    assert found["texts"]["data"]["conversations"] == 4
    assert "default weights are in use" in recs("tune", "--show").stdout
    with pytest.raises(InputError, match="--positive 'love'"):
        recs("tune", "--positive", "love")


def test_explain_says_what_a_place_hangs_on(recs):
    told = recs("explain", "bob", "spade").stdout.splitlines()
    assert told[0].startswith("Spade [spade] is in 1st place for user bob, score ")
    assert any(line.startswith("  - Without the neighbour ann it ") for line in told)
    assert any(
        line.startswith("  - Without having met Seeds [seeds] it falls from 1st to 2nd place; ") for line in told
    )
    assert any(" talk alike, 1 took it " in line for line in told)


def test_explain_without_something(recs):
    told = recs("explain", "bob", "--without-neighbour", "ann").stdout
    assert told.startswith("User bob without the neighbour ann:\n  Spade [spade] ")
    told = json.loads(recs("explain", "bob", "spade", "--without-conversation", "c2", "-k", "1", "--json").stdout)
    assert (told["without"], told["without_id"], told["k"]) == ("conversation", "c2", 1)
    assert [move["campaign_id"] for move in told["items"]] == ["spade"]
    told = json.loads(recs("explain", "bob", "--without-campaign", "seeds", "--json").stdout)
    assert told["without_name"] == "Seeds"


def test_explain_says_how_much_hangs_on_single_messages(recs):
    told = recs("explain", "bob").stdout
    assert told.startswith("Of the first 2 campaigns for user bob, ")
    assert "tried on the latest 1 of 1." in told


def test_explain_needs_one_question(recs):
    with pytest.raises(InputError, match="USER_ID or --text is needed"):
        recs("explain")
    with pytest.raises(InputError, match="not both"):
        recs("explain", "bob", "--text", "hello")
    with pytest.raises(InputError, match="one thing is taken away at a time"):
        recs("explain", "bob", "--without-neighbour", "ann", "--without-campaign", "seeds")
    with pytest.raises(InputError, match="belongs to a user"):
        recs("explain", "--text", "hello", "--without-neighbour", "ann")
    with pytest.raises(NotFoundError, match="nothing is known of user 'nobody'"):
        recs("explain", "nobody", "seeds")
