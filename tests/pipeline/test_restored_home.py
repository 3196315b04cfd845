"""What docs/operations.md says of backups, done: a home copied, wrecked and restored, and every store lost in turn."""

from __future__ import annotations

import json
import shutil

import pymongo
import pytest
import sqlalchemy as sa
from neo4j import GraphDatabase
from support import ROOT, empty_schema, fresh_settings, run_python

from recs import embedded
from recs.batch.check import check_stores
from recs.batch.fingerprint import fingerprint
from recs.bootstrap import connect
from recs.model import Preferences
from recs.settings import Settings


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The first 60 conversations of the sample, and one that nobody can read."""
    conversations = json.loads((ROOT / "data/sample_conversations.json").read_text())[:60]
    path = tmp_path_factory.mktemp("sample") / "c.jsonl"
    path.write_text("".join(json.dumps(c) + "\n" for c in conversations) + '{"conversation_id": "bad"}\n')
    return [str(path), "--campaigns", str(ROOT / "data/sample_campaigns.json")]


def done(settings, *command, status=0):
    """Run a command, which shall end with this status; returns what it printed."""
    ended = run_python(settings, *command, timeout=280)
    assert ended.returncode == status, (command, ended.stdout, ended.stderr)
    assert "Traceback" not in ended.stderr
    return ended.stdout


@pytest.mark.timeout(900)
def test_a_copy_of_a_stopped_home_brings_everything_back(sample, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    urls = dict.fromkeys(f"{name}_url" for name in ("mongo", "milvus", "neo4j", "sql", "state", "redis", "prefect"))
    settings = Settings(home=home, **urls)
    done(settings, "pipeline", *sample)
    with embedded.session(settings) as resolved:
        stores = connect(resolved, timeout_seconds=60)
        stores.state.put_preferences([Preferences(user_id="u1", profiling=False)])
        stores.state.record_shown("r1", "u1", 1, "{}")
        name = stores.state.secret("pseudonyms", lambda: b"s" * 32)
        stores.close()
    before = done(settings, "recs", "fingerprint", "--json")
    quarantined = done(settings, "recs", "quarantine", "list", "--json")
    assert quarantined

    embedded.down(settings)
    shutil.copytree(home, tmp_path / "backup", symlinks=True)
    shutil.rmtree(home)
    shutil.copytree(tmp_path / "backup", home, symlinks=True)

    assert done(settings, "recs", "fingerprint", "--json") == before
    assert done(settings, "recs", "quarantine", "list", "--json") == quarantined
    assert "change that is not published yet" in done(settings, "recs", "check", status=1)  # the opt-out
    done(settings, "pipeline")
    assert "all stores agree" in done(settings, "recs", "check")
    with embedded.session(settings) as resolved:
        stores = connect(resolved, timeout_seconds=60)
        assert stores.state.profiling_opt_outs() == {"u1"}
        assert stores.state.shown("r1") == "{}"
        assert stores.state.secret("pseudonyms", lambda: b"t" * 32) == name
        stores.close()
    embedded.down(settings)


@pytest.fixture(scope="module")
def loaded(prefect_servers, sample, tmp_path_factory):
    """Stores after a run, and their fingerprint; every test leaves them as they were."""
    settings = fresh_settings(prefect_servers, tmp_path_factory.mktemp("lost"), "lost")
    done(settings, "pipeline", *sample)
    found, findings = state_of(settings)
    assert findings == []
    return settings, found


def state_of(settings):
    stores = connect(settings, timeout_seconds=60)
    try:
        return fingerprint(stores), check_stores(stores, max_text_chars=20_000).findings
    finally:
        stores.close()


def lose_vectors(settings):
    stores = connect(settings, timeout_seconds=60)
    for build in stores.vectors.builds():
        stores.vectors.drop(build)
    stores.close()


def lose_graph(settings):
    auth = (settings.neo4j_user, settings.neo4j_password.get_secret_value())
    with GraphDatabase.driver(settings.neo4j_url, auth=auth) as driver:
        driver.execute_query("MATCH (n) DETACH DELETE n", database_=settings.neo4j_database)


def lose_metrics(settings):
    if settings.sql_url.startswith("sqlite"):
        for file in settings.home.glob("analytics.db*"):
            file.unlink()
    else:
        schema = sa.make_url(settings.sql_url).query["options"].partition("search_path=")[2]
        empty_schema(sa.make_url(settings.sql_url).set(query={}).render_as_string(hide_password=False), schema)


@pytest.mark.timeout(600)
def test_every_store_that_can_be_projected_again_is(loaded):
    settings, whole = loaded
    losses = [lose_vectors, lose_graph]
    # On PostgreSQL, metrics and state share a schema here, and so would go together.
    losses += [lose_metrics] if settings.sql_url != settings.state_url else []
    for lose in losses:
        lose(settings)
        done(settings, "recs", "check", "--repair")
        assert state_of(settings) == (whole, [])


@pytest.mark.timeout(600)
def test_a_rebuild_brings_lost_vectors_back_too(loaded):
    settings, whole = loaded
    lose_vectors(settings)
    assert "build missing" in done(settings, "recs", "check", status=1)
    done(settings, "pipeline", "--rebuild")
    assert state_of(settings) == (whole, [])


@pytest.mark.timeout(600)
def test_lost_conversations_come_back_from_their_files(loaded, sample):
    settings, whole = loaded
    with pymongo.MongoClient(settings.mongo_url) as client:
        client.drop_database(settings.mongo_database)
    done(settings, "pipeline", *sample)
    assert state_of(settings) == (whole, [])


def test_a_run_notes_the_version_of_older_data_and_refuses_newer(loaded):
    settings, _ = loaded
    with pymongo.MongoClient(settings.mongo_url) as client:
        kept = client[settings.mongo_database]["meta"]
        kept.drop()  # as it was before versions were kept
        assert "nothing changed" in done(settings, "pipeline")
        assert [document["version"] for document in kept.find()] == [1]
        kept.replace_one({"_id": "layout"}, {"_id": "layout", "version": 99}, upsert=True)
        for command in (["pipeline"], ["recs", "check"], ["recs", "erase", "u1"]):
            ended = run_python(settings, *command)
            assert ended.returncode == 1
            assert "has layout version 99, this package knows versions up to 1: install the newer" in ended.stderr
            assert "Traceback" not in ended.stderr
        kept.replace_one({"_id": "layout"}, {"_id": "layout", "version": 1}, upsert=True)
