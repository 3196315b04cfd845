"""All settings, read once at the edge from `RECS_*` and handed down. The only module that sees the environment.

`docs/settings.md` documents every one; a test fails when one is missing there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from recs.errors import SettingsError


class Settings(BaseSettings):
    """One typed object. A store URL that is None stands for the embedded server."""

    model_config = SettingsConfigDict(env_prefix="RECS_", extra="ignore", frozen=True)

    home: Path = Path(".recs")
    """Directory of everything embedded: data, logs, ports, credentials, quarantine."""

    mongo_url: str | None = None
    """MongoDB, `mongodb://host:port`."""
    mongo_database: str = "recs"
    milvus_url: str | None = None
    """Milvus, `http://host:port`."""
    milvus_token: SecretStr | None = None
    milvus_shards: int = Field(default=1, ge=1, le=16)
    """Shards of each new collection: how many nodes take its writes."""
    milvus_replicas: int = Field(default=1, ge=1)
    """Copies of each collection in memory: how many query nodes can answer for it."""
    neo4j_url: str | None = None
    """Neo4j, `bolt://host:port` or `neo4j://host:port`."""
    neo4j_user: str | None = None
    neo4j_password: SecretStr | None = None
    neo4j_database: str | None = None
    sql_url: str | None = None
    """Analytics, any SQLAlchemy URL; an SQLite file under `home` when not set."""
    state_url: str | None = None
    """State, any SQLAlchemy URL; an SQLite file under `home` when not set."""
    redis_url: str | None = None
    """Redis, `redis://host:port/db`, or `redis+cluster://host:port` for a cluster."""
    prefect_url: str | None = None
    """Prefect's API, `http://host:port/api`."""
    dask_address: str | None = None
    """Dask scheduler on whose workers the flow embeds and loads, `tcp://host:8786`; in the flow's own process when
    not set."""

    store_timeout_seconds: float = Field(default=2.0, gt=0)
    """Longest wait for one store call while serving."""
    load_timeout_seconds: float = Field(default=60.0, gt=0)
    """Longest wait for one store call in the batch flow."""

    model: str = "all-MiniLM-L6-v2"
    """The wheel's model, or a path, or a hub id, of any sentence-transformers model."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Encoder arithmetic; auto calibrates once per machine and remembers."""
    encode_batch_tokens: int = Field(default=2048, ge=256)
    """Tokens, padding included, that go through the encoder at once."""
    max_text_chars: int = Field(default=20_000, ge=100)
    """Longer texts are cut for embedding; the model reads 256 tokens anyway. They are stored whole."""

    batch_size: int = Field(default=512, ge=1)
    """Conversations per flow batch."""
    max_reject_share: float = Field(default=0.5, ge=0, le=1)
    """A run whose rejects exceed this share stops before anything is published."""
    max_record_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    """Longer records go to the quarantine."""
    out_of_scope_intents: tuple[str, ...] | None = None
    """Labels that stand for "none of the intents", as a JSON list; None takes `oos` and `out_of_scope`."""
    recency_half_life_days: float = Field(default=180.0, gt=0)
    """A conversation this much older than the user's newest counts half in the user's vector and in the prior."""
    co_engagement_links: int = Field(default=50, ge=1)
    """Strongest co-engagement links kept per campaign."""

    weights: dict[str, float] | None = None
    """Component to weight, as JSON; None takes the generation's."""
    neighbour_pool: int = Field(default=200, ge=5, le=1000)
    """Similar users whose engagements count."""
    shown_neighbours: int = Field(default=5, ge=1, le=50)
    """Similar users shown as the neighbourhood."""
    new_only: bool = True
    """Leave out what the user already liked or converted on."""
    frequency_cap: int = Field(default=10, ge=0)
    """Views of a campaign within `frequency_cap_days` after which a user is spared it; 0 is no cap."""
    frequency_cap_days: float = Field(default=7.0, gt=0)
    cache_seconds: int = Field(default=300, ge=1)
    """Lifetime of a cached answer."""

    api_host: str = "127.0.0.1"
    api_guarded: bool = False
    """Something else keeps strangers away, such as a container whose port is published on the loopback alone."""
    api_port: int = Field(default=8000, ge=0, le=65535)
    dashboard_port: int = Field(default=8501, ge=0, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "warning"


def load_settings() -> Settings:
    """Return the settings of this process's environment.

    Raises SettingsError that names each variable with a value that cannot be used.
    """
    try:
        return Settings()
    except ValidationError as exc:
        lines = [f"RECS_{'.'.join(map(str, e['loc'])).upper()}={e['input']!r}: {e['msg']}" for e in exc.errors()]
        raise SettingsError("settings that cannot be used:\n  " + "\n  ".join(lines)) from exc
