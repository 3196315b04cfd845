"""The sample files are what the generator writes, fit our models and hold what is planted in them."""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from recs.model import Campaign, Conversation, Preferences

ROOT = Path(__file__).parents[2]
# The generator belongs to the checkout and not to the installed package.
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from data.generate import CONVERSATIONS, END, PLANTED, START, USERS, Sample, generate  # noqa: E402

FILES = ("sample_conversations.json", "sample_campaigns.json", "sample_preferences.jsonl")
ENGAGED = {"click", "like", "convert"}
POSITIVE = {"like", "convert"}


@pytest.fixture(scope="module")
def sample() -> Sample:
    return generate()


@pytest.fixture(scope="module")
def conversations() -> list[Conversation]:
    raw = (ROOT / "data" / "sample_conversations.json").read_bytes()
    return TypeAdapter(list[Conversation]).validate_json(raw)


@pytest.fixture(scope="module")
def campaigns() -> dict[str, Campaign]:
    raw = (ROOT / "data" / "sample_campaigns.json").read_bytes()
    return {c.campaign_id: c for c in TypeAdapter(list[Campaign]).validate_json(raw)}


@pytest.fixture(scope="module")
def preferences() -> list[Preferences]:
    lines = (ROOT / "data" / "sample_preferences.jsonl").read_text(encoding="utf-8").splitlines()
    return [Preferences.model_validate_json(line) for line in lines]


def engaged(conversations: list[Conversation], actions: set[str]) -> dict[str, set[str]]:
    """Return campaign to the users who did one of the actions with it."""
    users: dict[str, set[str]] = defaultdict(set)
    for conversation in conversations:
        for engagement in conversation.engagements:
            if engagement.action in actions:
                users[engagement.campaign_id].add(conversation.user_id)
    return users


def by_month(conversations: list[Conversation], intent: str) -> list[float]:
    """Return the share of the labelled conversations that have the intent, month by month."""
    labelled = [c for c in conversations if c.intent is not None and c.started_at is not None]
    total = Counter(c.started_at.month for c in labelled if c.started_at is not None)
    hits = Counter(c.started_at.month for c in labelled if c.started_at is not None and c.intent == intent)
    return [hits[month] / total[month] for month in sorted(total)]


def test_files_are_what_the_generator_writes(sample: Sample, tmp_path: Path) -> None:
    sample.write(tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (ROOT / "data" / name).read_bytes(), f"{name}: run data.generate"


def test_another_seed_writes_other_conversations(sample: Sample) -> None:
    assert generate(1).conversations != sample.conversations


def test_conversations_are_one_record_a_line() -> None:
    lines = (ROOT / "data" / "sample_conversations.json").read_text(encoding="utf-8").splitlines()
    records: list[dict[str, Any]] = [json.loads(line.rstrip(",")) for line in lines[1:-1]]
    assert len(records) == CONVERSATIONS
    assert len({r["conversation_id"] for r in records}) == CONVERSATIONS


def test_size_stays_small() -> None:
    assert (ROOT / "data" / "sample_conversations.json").stat().st_size < 2_500_000


def test_counts(conversations: list[Conversation], campaigns: dict[str, Campaign]) -> None:
    talks = Counter(c.user_id for c in conversations)
    assert (len(conversations), len(talks), len(campaigns)) == (CONVERSATIONS, USERS, 30)
    assert sum(n == 1 for n in talks.values()) >= 40
    assert sum(n >= 8 for n in talks.values()) >= 20
    assert all(3 <= len(c.messages) <= 10 for c in conversations)
    assert {c.channel for c in conversations} == {"chat", "email", "app", "phone"}
    assert len({c.intent for c in conversations} - {None}) == 12
    labelled = sum(c.intent is not None for c in conversations) / len(conversations)
    assert 0.82 < labelled < 0.88


def test_texts_differ_and_are_complete(conversations: list[Conversation]) -> None:
    texts = [text for c in conversations for text in c.user_texts()]
    assert len(set(texts)) / len(texts) > 0.95
    everything = "\n".join(m.text for c in conversations for m in c.messages)
    assert not set("{}[]|") & set(everything), "a template was not filled"


def test_times_lie_in_the_half_year(conversations: list[Conversation], campaigns: dict[str, Campaign]) -> None:
    for conversation in conversations:
        assert conversation.started_at is not None
        assert START <= conversation.started_at < END
        for engagement in conversation.engagements:
            campaign = campaigns[engagement.campaign_id]
            assert engagement.at is not None
            assert conversation.started_at < engagement.at < END
            assert campaign.starts_at is not None
            assert campaign.starts_at <= engagement.at
            assert campaign.ends_at is None or engagement.at <= campaign.ends_at
            assert (
                (engagement.action == "convert") == (engagement.value is not None) == (engagement.currency is not None)
            )


def test_groups_engage_with_their_own_campaigns(conversations: list[Conversation], sample: Sample) -> None:
    users = engaged(conversations, ENGAGED)
    own = others = own_hits = other_hits = 0
    for group, campaign_ids in PLANTED["group_campaigns"].items():
        # The rising campaign is for everybody in June.
        for campaign_id in set(campaign_ids) - {PLANTED["rising_campaign"]}:
            for user_id, groups in sample.taste.items():
                if group in groups:
                    own, own_hits = own + 1, own_hits + (user_id in users[campaign_id])
                else:
                    others, other_hits = others + 1, other_hits + (user_id in users[campaign_id])
    assert own_hits / own > 0.25
    assert own_hits / own > 4 * other_hits / others
    assert 0.07 < sum(not groups for groups in sample.taste.values()) / USERS < 0.14


def test_one_campaign_is_most_popular(conversations: list[Conversation]) -> None:
    users = engaged(conversations, POSITIVE)
    ranked = sorted(users, key=lambda campaign_id: -len(users[campaign_id]))
    assert ranked[0] == PLANTED["most_popular"]
    assert len(users[ranked[0]]) > 1.5 * len(users[ranked[1]])


def test_the_pair_is_engaged_together(conversations: list[Conversation]) -> None:
    users = engaged(conversations, ENGAGED)
    first, second = PLANTED["pair"]

    def jaccard(a: str, b: str) -> float:
        return len(users[a] & users[b]) / len(users[a] | users[b])

    best_other = max(jaccard(a, b) for a in users for b in users if a < b and {a, b} != {first, second})
    assert jaccard(first, second) > 1.2 * best_other


def test_some_campaigns_must_not_be_offered(campaigns: dict[str, Campaign], conversations: list[Conversation]) -> None:
    after_the_data = datetime(2026, 7, 1, tzinfo=UTC)
    assert sorted(c.campaign_id for c in campaigns.values() if c.status == "paused") == PLANTED["paused"]
    over = [c.campaign_id for c in campaigns.values() if c.ends_at is not None and c.ends_at < after_the_data]
    assert sorted(over) == PLANTED["expired"]
    future = campaigns[PLANTED["future"]]
    assert future.starts_at is not None
    assert future.starts_at.year == 2099
    users = engaged(conversations, POSITIVE)
    assert all(len(users[k]) >= 8 for k in PLANTED["paused"] + PLANTED["expired"]), "nobody would recommend these"
    assert PLANTED["future"] not in engaged(conversations, ENGAGED | {"view", "mention"})


def test_active_campaigns_never_expire(campaigns: dict[str, Campaign]) -> None:
    stopped = {*PLANTED["paused"], *PLANTED["expired"]}
    assert all(c.ends_at is None and c.status == "active" for k, c in campaigns.items() if k not in stopped)


def test_june_has_a_rising_intent_and_a_rising_campaign(conversations: list[Conversation]) -> None:
    *before, june = by_month(conversations, PLANTED["rising_intent"])
    assert june > 2 * max(before)
    months = Counter(
        e.at.month
        for c in conversations
        for e in c.engagements
        if e.campaign_id == PLANTED["rising_campaign"] and e.at is not None
    )
    assert months[6] > 3 * sum(months[m] for m in range(1, 6))


def test_one_intent_has_demand_but_no_campaign(
    conversations: list[Conversation], campaigns: dict[str, Campaign]
) -> None:
    wanted = PLANTED["intent_without_campaign"]
    asked = {c.intent for c in conversations if c.intent is not None}
    assert asked - {i for c in campaigns.values() for i in c.intents} == {wanted}
    assert sum(c.intent == wanted for c in conversations) >= 60


def test_opt_outs(preferences: list[Preferences], conversations: list[Conversation]) -> None:
    nothing = [p for p in preferences if not p.profiling and not p.allows_channel("email")]
    profiling = [p for p in preferences if not p.profiling and p.channels is None]
    channels = [p for p in preferences if p.profiling and p.channels is not None]
    assert len(nothing) == PLANTED["opted_out_of_all"]
    assert len(profiling) == PLANTED["opted_out_of_profiling"]
    assert len(channels) == PLANTED["opted_out_of_channels"]
    assert len(preferences) == len({p.user_id for p in preferences}) == 19
    assert {p.user_id for p in preferences} <= {c.user_id for c in conversations}


def test_dislikes_and_values(conversations: list[Conversation]) -> None:
    actions = Counter(e.action for c in conversations for e in c.engagements)
    assert set(actions) == {"view", "click", "like", "convert", "mention", "dislike"}
    assert actions["dislike"] >= 30
    assert {e.currency for c in conversations for e in c.engagements} == {None, "GBP", "EUR"}
