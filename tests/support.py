"""What several test modules need: clean stores on the shared servers, a quick encoder, and the flow without Prefect."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pymongo
import sqlalchemy as sa
from neo4j import GraphDatabase

from recs.batch import aggregates, intents, publish, raw, relationships, vectors
from recs.bootstrap import Stores, connect
from recs.ingest.records import content_hash
from recs.ingest.staging import StagedRecord
from recs.model import Campaign, Conversation, Generation
from recs.settings import Settings

ROOT = Path(__file__).parent.parent


class WordEncoder:
    """A stand-in that needs no model: the sum of one random direction per word, so texts that share words are alike."""

    identity = "words/float32"
    dim = 16

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.encoded += texts
        return np.array([self._vector(text) for text in texts], dtype=np.float32).reshape(len(texts), self.dim)

    def _vector(self, text: str) -> np.ndarray:
        total = np.zeros(self.dim)
        for word in text.lower().split():
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8])
            total += np.random.default_rng(seed).normal(size=self.dim)
        return total / np.linalg.norm(total)


def fresh_settings(servers: Settings, home: Path, name: str) -> Settings:
    """Return settings of the shared servers with empty stores: own databases where there can be several, else wiped."""
    home.mkdir(parents=True, exist_ok=True)
    with GraphDatabase.driver(
        servers.neo4j_url, auth=(servers.neo4j_user, servers.neo4j_password.get_secret_value())
    ) as driver:
        driver.execute_query("MATCH (n) DETACH DELETE n", database_=servers.neo4j_database)
    settings = servers.model_copy(
        update={
            "home": home,
            "mongo_database": f"t_{name}",
            "sql_url": _empty_sql(servers.sql_url, home / "analytics.db", name),
            "state_url": _empty_sql(servers.state_url, home / "state.db", name),
        }
    )
    with pymongo.MongoClient(settings.mongo_url) as client:
        client.drop_database(settings.mongo_database)
    stores = connect(settings, timeout_seconds=settings.load_timeout_seconds)
    for build in stores.vectors.builds():
        stores.vectors.drop(build)
    stores.cache.clear()
    stores.close()
    return settings


def _empty_sql(server: str, file: Path, name: str) -> str:
    return f"sqlite:///{file}" if server.startswith("sqlite") else empty_schema(server, f"t_{name}")


def empty_schema(server: str, schema: str) -> str:
    """Make a schema of that name on a PostgreSQL server, in place of any that is there; return the URL that uses it."""
    drop_schema(server, schema)
    _execute(server, f"CREATE SCHEMA {schema}")
    url = sa.make_url(server).update_query_dict({"options": f"-csearch_path={schema}"})
    return url.render_as_string(hide_password=False)


def drop_schema(server: str, schema: str) -> None:
    _execute(server, f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def _execute(server: str, statement: str) -> None:
    engine = sa.create_engine(sa.make_url(server).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def environment(settings: Settings) -> dict[str, str]:
    """Return an environment from which a process reads these settings."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RECS_", "PREFECT_"))}
    for name in settings.model_fields_set | {"home"}:
        value = getattr(settings, name)
        if value is not None:
            env[f"RECS_{name.upper()}"] = value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
    return env | {"PYTHONPATH": str(ROOT)}


def run_python(settings: Settings, *arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run `python -m ...` with these settings; the caller looks at the exit status."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env=environment(settings),
        cwd=settings.home,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def staged(conversation: Conversation, position: int = 1, earlier: Sequence[str] = ()) -> StagedRecord:
    return StagedRecord(conversation, hash_of(conversation), position, tuple(earlier))


def hash_of(conversation: Conversation) -> str:
    return content_hash(conversation.model_dump_json().encode())


def load_raw(stores: Stores, records: Sequence[StagedRecord], *, run_id: str) -> raw.RawChanges:
    """Store what is new or changed of these records; returns what that was."""
    found = raw.compare_raw(stores, records, run_id=run_id)
    raw.store_raw(stores, found)
    return found


def load(
    stores: Stores,
    settings: Settings,
    encoder: WordEncoder,
    conversations: Sequence[Conversation] = (),
    campaigns: Sequence[Campaign] = (),
) -> Generation | None:
    """Do what the flow does, stage by stage, in this process."""
    run_id = f"run-{stores.state.head().generation + 1}"
    index = stores.vectors.create("b1", encoder.dim)
    embedder = vectors.Embedder(encoder, index, max_text_chars=settings.max_text_chars)
    raw.load_campaigns(stores, campaigns)
    load_raw(stores, [staged(c, i) for i, c in enumerate(conversations, start=1)], run_id=run_id)
    pending = stores.state.pending()
    vectors.load_embedded(index, vectors.embed_conversations(stores, embedder, list(pending)))
    if pending:
        intents.fit_intents(stores, index, model=encoder.identity)
        pending = stores.state.pending()
    vectors.load_campaign_vectors(embedder, index, stores.documents.campaigns())
    users = sorted(set(pending.values()))
    relationships.load_relationships(stores, users, intents.Predictor(stores, index, encoder.identity))
    relationships.load_facts(stores, list(pending))
    vectors.load_user_vectors(stores, index, users, half_life_days=settings.recency_half_life_days)
    if not stores.state.is_dirty():
        return None
    number = stores.state.head().generation + 1
    index.flush()
    aggregates.load_aggregates(stores, settings, number)
    aggregates.load_co_engagement(stores, settings, number)
    generation = aggregates.make_generation(
        stores, index, settings, number=number, run_id=run_id, model=encoder.identity, dim=encoder.dim
    )
    publish.publish(stores, generation)
    return generation
