"""What each store role must do. One Protocol per role, not per product; nothing here names a driver.

Shared rules. Every call is bounded by the timeout that the store was opened with and raises
`StoreUnavailableError` when the server cannot be reached or is late, `StoreError` for anything else that the server
refuses. Writes are upserts by key: writing the same thing twice leaves what writing it once leaves. An empty
sequence of keys or rows is legal everywhere and touches nothing. Results never depend on the server: where an order
is promised, ties fall by id, compared by code point. Ids hold any character and are always passed as parameters.
Stores may be used from several threads at once. `close` may be called twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from recs.model import (
    Campaign,
    CampaignMetrics,
    Change,
    CoEngagement,
    EngagementEdge,
    EngagementFact,
    Generation,
    Head,
    Preferences,
    StoredConversation,
    UserEdges,
)

Vector = NDArray[np.float32]
Space = Literal["texts", "conversations", "users", "campaigns"]
SPACES: tuple[Space, ...] = ("texts", "conversations", "users", "campaigns")


@dataclass(frozen=True, slots=True)
class Check:
    """A store that answered a real query."""

    role: str
    product: str
    """What answered, with its version where it tells."""
    milliseconds: float
    counts: Mapping[str, int] = field(default_factory=dict)


class Store(Protocol):
    def check(self) -> Check:
        """Return what answers after a real query; raises StoreUnavailableError."""
        ...

    def close(self) -> None: ...


class VersionedStore(Store, Protocol):
    """A store that keeps the version of its layout with its data.

    Every call raises SchemaVersionError where the data is of another version; see `recs.stores.layouts`.
    """

    def bring_up_to_date(self) -> None:
        """Migrate data of an older version, and note the version. Only for who holds the right to run."""
        ...


class DocumentStore(VersionedStore, Protocol):
    """Raw conversations and the raw campaign catalogue (MongoDB)."""

    def hashes(self, conversation_ids: Sequence[str]) -> dict[str, str]:
        """Return the content hash of each of these conversations that is stored."""
        ...

    def insert(self, conversations: Sequence[StoredConversation]) -> None:
        """Store conversations that are most likely new; one that is there already is replaced."""
        ...

    def replace(self, conversations: Sequence[StoredConversation]) -> None:
        """Store conversations that are most likely there already; one that is not is inserted."""
        ...

    def get(self, conversation_ids: Sequence[str]) -> list[StoredConversation]:
        """Return those that are stored, in the order asked for."""
        ...

    def of_users(self, user_ids: Sequence[str], *, texts: bool = True) -> list[StoredConversation]:
        """Return all conversations of these users, sorted by (user_id, order_key()).

        With texts=False the messages come back empty, which spares the transfer.
        """
        ...

    def scan(self, *, texts: bool = True) -> Iterator[StoredConversation]:
        """Yield every conversation in order of conversation_id, in bounded memory; with texts=False as `of_users`."""
        ...

    def delete_conversations(self, conversation_ids: Sequence[str]) -> int: ...

    def delete_user(self, user_id: str) -> int:
        """Remove the user's conversations and their recorded changes; returns how many conversations went."""
        ...

    def record_changes(self, changes: Sequence[Change]) -> None: ...

    def changes(self, conversation_id: str) -> list[Change]:
        """Return a conversation's recorded changes, oldest first."""
        ...

    def put_campaigns(self, campaigns: Sequence[Campaign]) -> None: ...

    def campaigns(self) -> list[Campaign]:
        """Return the whole catalogue, extra keys included, in order of campaign_id."""
        ...

    def campaign_ids(self) -> set[str]: ...

    def count(self) -> int:
        """Return the number of conversations."""
        ...


@dataclass(frozen=True, slots=True)
class VectorRecord:
    key: str
    vector: Vector
    owner: str = ""
    """Kept beside the vector: the user of a conversation, empty elsewhere."""


@dataclass(frozen=True, slots=True)
class Hit:
    key: str
    score: float
    """Inner product with the query; higher is nearer, whatever the server calls it."""
    vector: Vector | None = None


class VectorIndex(Protocol):
    """The four spaces of one build: vectors of one model, float32 of one dimension."""

    @property
    def build(self) -> str: ...

    def upsert(self, space: Space, records: Sequence[VectorRecord]) -> None: ...

    def get(self, space: Space, keys: Sequence[str]) -> dict[str, Vector]:
        """Return the vectors of those keys that are stored. Sees every acknowledged upsert."""
        ...

    def search(self, space: Space, vector: Vector, k: int, *, with_vectors: bool = False) -> list[Hit]:
        """Return the k records with the greatest inner product, best first, ties by key; fewer where fewer exist.

        Sees every acknowledged upsert.
        """
        ...

    def delete(self, space: Space, keys: Sequence[str]) -> None: ...

    def delete_owner(self, space: Space, owner: str) -> None: ...

    def keys(self, space: Space) -> Iterator[str]:
        """Yield every key, in no order, in bounded memory."""
        ...

    def count(self, space: Space) -> int: ...

    def flush(self) -> None:
        """Make searching fast and the data durable; called once at the end of a load."""
        ...


class VectorStore(VersionedStore, Protocol):
    """Vector builds side by side (Milvus). A build is named by lower-case letters and digits."""

    def create(self, build: str, dim: int) -> VectorIndex:
        """Make the collections of a build, or open them where they exist; StoreError where their dim differs."""
        ...

    def open(self, build: str, *, lagging: bool = False) -> VectorIndex:
        """Open an existing build; raises BuildMissingError where it does not exist, or not as a whole.

        `lagging` is for answering requests: `get` and `search` may miss what was written in the last seconds (5 at
        most), and spare the wait for it. What `count` has seen, lagging reads of that space see too.
        """
        ...

    def builds(self) -> list[str]: ...

    def drop(self, build: str) -> None: ...

    def point_alias(self, build: str) -> None:
        """Let the aliases recs_texts, recs_conversations, recs_users, recs_campaigns stand for this build."""
        ...


@dataclass(frozen=True, slots=True)
class CampaignNode:
    """What the graph keeps of a campaign for serving."""

    campaign_id: str
    name: str
    status: str
    channel: str | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    categories: tuple[str, ...] = ()
    intents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sharing:
    """A user who took some of the campaigns that were asked about."""

    user_id: str
    shared: int
    """How many of them."""
    taken: int
    """How many campaigns the user took in all."""


class CampaignGraph(VersionedStore, Protocol):
    """Users, campaigns and intents, and what connects them (Neo4j)."""

    def put_campaigns(self, campaigns: Sequence[Campaign]) -> None:
        """Upsert campaign nodes and replace their TARGETS edges."""
        ...

    def delete_campaigns(self, campaign_ids: Sequence[str]) -> None:
        """Remove campaigns with all edges that lead to or from them."""
        ...

    def set_status(self, campaign_id: str, status: str) -> bool:
        """Set one campaign's status; returns False where the campaign is not known."""
        ...

    def campaigns(self, campaign_ids: Sequence[str] | None = None) -> dict[str, CampaignNode]:
        """Return these campaigns, or all."""
        ...

    def put_users(self, edges: Sequence[UserEdges]) -> None:
        """Upsert users and replace all edges that leave them. An engagement whose campaign has no node is skipped."""
        ...

    def delete_users(self, user_ids: Sequence[str]) -> None: ...

    def user(self, user_id: str) -> UserEdges | None:
        """Return a user's engagements (sorted by campaign_id, action) and intents, None where not known."""
        ...

    def engagements_of(self, user_ids: Sequence[str]) -> list[EngagementEdge]:
        """Return every engagement of these users, sorted by (user_id, campaign_id, action)."""
        ...

    def sharing(self, campaign_ids: Sequence[str], limit: int) -> list[Sharing]:
        """Return the users who liked or converted on any of these campaigns: at most `limit`.

        Those with the greatest shared / sqrt(taken) come first, ties by user_id.
        """
        ...

    def co_engaged(self, user_id: str, generation: int) -> list[CoEngagement]:
        """Return a generation's co-engagement links that leave campaigns the user liked or converted on, sorted."""
        ...

    def co_engaged_with(self, campaign_ids: Sequence[str], generation: int) -> list[CoEngagement]:
        """Return a generation's links that leave these campaigns, sorted by (source, target)."""
        ...

    def co_engaging(self, campaign_id: str, generation: int) -> list[CoEngagement]:
        """Return a generation's links that arrive at this campaign, sorted by source."""
        ...

    def targets(self, intents: Sequence[str]) -> list[tuple[str, str]]:
        """Return sorted (intent, campaign_id) pairs: the campaigns that target these intents."""
        ...

    def targets_of_user(self, user_id: str) -> list[tuple[str, int, str]]:
        """Return sorted (intent, conversations labelled with it or taken for it, campaign_id): campaigns that target
        the user's intents."""
        ...

    def engaged_with(self, campaign_ids: Sequence[str], limit: int) -> list[EngagementEdge]:
        """Return at most `limit` engagements with these campaigns, sorted by (campaign_id, user_id, action)."""
        ...

    def users_with_intents(self, intents: Sequence[str], limit: int) -> list[tuple[str, str, int]]:
        """Return at most `limit` sorted (user_id, intent, conversations labelled with it or taken for it)."""
        ...

    def put_co_engagement(self, generation: int, links: Iterable[CoEngagement]) -> None:
        """Replace a generation's links."""
        ...

    def keep_co_engagement(self, generations: Sequence[int]) -> None:
        """Drop the links of all other generations."""
        ...

    def user_ids(self) -> Iterator[str]:
        """Yield every user id, sorted by code point, in bounded memory."""
        ...

    def counts(self) -> dict[str, int]:
        """Return the number of users, campaigns, intents, engagements, has_intent, targets, co_engagements."""
        ...

    def scan_links(self, generation: int) -> Iterator[CoEngagement]:
        """Yield a generation's links, sorted by (source, target)."""
        ...


class MetricsStore(Store, Protocol):
    """Engagement facts, and the ranking metrics that the SQL engine aggregates from them."""

    def replace_facts(self, conversation_ids: Sequence[str], facts: Sequence[EngagementFact]) -> None:
        """Drop all facts of these conversations and store the given ones, in one transaction."""
        ...

    def delete_user(self, user_id: str) -> int: ...

    def newest_at(self) -> datetime | None:
        """Return the newest time of any fact."""
        ...

    def aggregate(
        self,
        generation: int,
        *,
        newest_at: datetime | None,
        half_life_days: float,
        excluded_users: Sequence[str] = (),
    ) -> int:
        """Compute a generation's campaign metrics inside the SQL engine; returns how many campaigns have any.

        A user counts once per campaign in the prior, with the recency of the newest positive fact:
        2 ** (-(newest_at - at) / half_life), 1 where no time is known. Replaces what the generation had.
        """
        ...

    def campaign_metrics(self, generation: int, campaign_ids: Sequence[str]) -> dict[str, CampaignMetrics]: ...

    def popular(self, generation: int, limit: int) -> list[CampaignMetrics]:
        """Return the campaigns with the greatest prior, best first, ties by campaign_id."""
        ...

    def user_campaigns(self, excluded_users: Sequence[str] = ()) -> Iterator[EngagementEdge]:
        """Yield facts summed per user, campaign and action, sorted, in bounded memory."""
        ...

    def views_since(self, user_id: str, since: datetime) -> dict[str, int]:
        """Return campaign to the number of views by the user since a time."""
        ...

    def keep_generations(self, generations: Sequence[int]) -> None: ...

    def scan_facts(self) -> Iterator[EngagementFact]:
        """Yield every fact, sorted by (conversation_id, campaign_id, action)."""
        ...

    def counts(self) -> dict[str, int]:
        """Return the number of facts and of distinct conversations, users and campaigns in them."""
        ...


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Lineage of one batch run."""

    run_id: str
    started_at: datetime
    finished_at: datetime | None
    outcome: Literal["running", "published", "unchanged", "failed", "cancelled"]
    inputs: Sequence[Mapping[str, Any]] = ()
    """One mapping per input file: path, sha256, bytes."""
    counts: Mapping[str, int] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    generation: int | None = None
    error: str | None = None


class StateStore(Store, Protocol):
    """What must be exact: which generation is current, runs, consent, what was shown (SQLite or PostgreSQL)."""

    def head(self) -> Head:
        """Return where readers stand, in one cheap query."""
        ...

    def generation(self, number: int | None = None) -> Generation | None:
        """Return a generation, the current one by default; None where it does not exist."""
        ...

    def publish(self, generation: Generation, *, marks_seen: int | None = None) -> None:
        """Make a generation current and clear the dirty mark, in one transaction.

        With `marks_seen`, what `dirty_marks` told before the generation was computed, the mark stays where something
        changed since. Raises StoreError where its number is not the current one plus 1.
        """
        ...

    def put_run(self, run: RunRecord) -> None: ...

    def run(self, run_id: str) -> RunRecord | None: ...

    def runs(self, limit: int = 50) -> list[RunRecord]:
        """Return the latest runs, newest first."""
        ...

    def run_lock(self, run_id: str) -> AbstractContextManager[None]:
        """Hold the right to run; raises RunError naming the run that holds it.

        The lock of a process that is gone (same host and no such process, or no sign of life for 60 s) is taken over.
        """
        ...

    def running(self) -> str | None:
        """Return the id of the run that holds the right to run, None where there is none; it may be gone already."""
        ...

    def add_pending(self, conversation_user: Mapping[str, str]) -> None:
        """Note conversations (id to user) whose raw text is about to be stored, and set the dirty mark."""
        ...

    def pending(self) -> dict[str, str]:
        """Return conversations whose vectors, edges or facts may be behind their raw text."""
        ...

    def clear_pending(self, conversation_ids: Sequence[str]) -> None: ...

    def mark_dirty(self) -> None:
        """Note that something that a generation is computed from has changed."""
        ...

    def is_dirty(self) -> bool: ...

    def dirty_marks(self) -> int:
        """Return how many changes have set the dirty mark so far."""
        ...

    def put_preferences(self, preferences: Sequence[Preferences]) -> int:
        """Store what changed, move the revision and set the dirty mark if anything did; returns how many changed."""
        ...

    def preferences(self, user_ids: Sequence[str]) -> dict[str, Preferences]:
        """Return the preferences of those users that have any on record."""
        ...

    def all_preferences(self) -> Iterator[Preferences]:
        """Yield every record, sorted by user_id."""
        ...

    def profiling_opt_outs(self) -> set[str]: ...

    def delete_user(self, user_id: str) -> int: ...

    def bump_revision(self) -> int:
        """Make every cached answer stale."""
        ...

    def record_shown(self, recommendation_id: str, user_id: str | None, generation: int, answer_json: str) -> None: ...

    def shown(self, recommendation_id: str) -> str | None:
        """Return the JSON of the answer that was shown under this id."""
        ...

    def put_artifact(self, name: str, body: bytes) -> None:
        """Keep what was learned from the data under a name, in place of what was there."""
        ...

    def artifact(self, name: str) -> bytes | None:
        """Return what is kept under a name, None where there is nothing."""
        ...

    def artifact_digest(self, name: str) -> str | None:
        """Return the sha256, hex, of what is kept under a name: a cheap look whether it is another one by now."""
        ...

    def secret(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Return the secret of this name, the same for every process over this store.

        Where there is none yet, it is what `make` returns; of several that make one at once, the first decides.
        """
        ...


class Cache(Store, Protocol):
    """Answers for a short while (Redis)."""

    def get(self, key: str) -> bytes | None: ...

    def set(self, key: str, value: bytes, ttl_seconds: float) -> None: ...

    def delete(self, key: str) -> None: ...

    def clear(self) -> int:
        """Drop every entry that this package wrote; returns how many."""
        ...
