from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recs.errors import RunError
from recs.ingest import Accepted, RawRecord, Staging, classify, parse_record
from recs.model import Change


def accepted(conversation_id: str, text: str = "hi", **extra: Any) -> Accepted:
    record = {
        "conversation_id": conversation_id,
        "user_id": "u",
        "started_at": "2026-03-01T10:00:00.5+01:00",
        "messages": [{"role": "user", "text": text, "n": 1}],
        **extra,
    }
    result = parse_record(RawRecord("f", 1, 0, json.dumps(record).encode()), known_campaigns=None)
    assert isinstance(result, Accepted)
    return result


def test_the_last_version_read_wins_and_knows_the_earlier_ones(tmp_path: Path) -> None:
    versions = [accepted("a", "1"), accepted("b"), accepted("a", "2"), accepted("c"), accepted("a", "1")]
    with Staging(tmp_path / "s") as staging:
        for line, version in enumerate(versions, start=10):
            staging.add(version, line)
        counts = staging.finish()
        assert (counts.lines, counts.conversations) == (5, 3)
        assert staging.counts() == counts
        [winners] = staging.winners(10)
    assert [(w.conversation.conversation_id, w.position) for w in winners] == [("b", 11), ("c", 13), ("a", 14)]
    assert winners[2].conversation == versions[4].conversation
    assert winners[2].hashes == (versions[0].content_hash, versions[2].content_hash, versions[0].content_hash)
    assert winners[0].earlier_hashes == ()


def test_batches_and_an_honest_round_trip(tmp_path: Path) -> None:
    all_accepted = [accepted(f"c{i}", "é😡\x07", big=10**300, x=[1.5, {"a": None}], seq=i) for i in range(1203)]
    with Staging(tmp_path / "s") as staging:
        for line, one in enumerate(all_accepted, start=1):
            staging.add(one, line)
        staging.finish()
        batches = list(staging.winners(500))
        assert [len(b) for b in batches] == [500, 500, 203]
        assert [w.conversation for b in batches for w in b] == [a.conversation for a in all_accepted]
        assert [w.content_hash for w in batches[0]] == [a.content_hash for a in all_accepted[:500]]


def test_nothing_staged(tmp_path: Path) -> None:
    with Staging(tmp_path / "s") as staging:
        assert staging.finish().lines == 0
        assert list(staging.winners(5)) == []


def test_the_file_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "s"
    path.parent.mkdir()
    path.write_bytes(b"left behind by a run that was killed")
    staging = Staging(path)
    staging.add(accepted("a"), 1)
    with pytest.raises(RunError, match="before it is finished"):
        staging.counts()
    staging.finish()
    staging.close()
    staging.close()
    assert list(path.parent.iterdir()) == []
    with pytest.raises(RunError, match="is closed"):
        list(staging.winners(1))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write the staging file"):
        Staging(tmp_path / "file" / "s")


@pytest.mark.parametrize(
    ("hashes", "stored", "loaded", "updated", "duplicate", "steps"),
    [
        ("A", None, 1, 0, 0, []),
        ("AA", None, 1, 0, 1, []),
        ("AB", None, 2, 1, 0, ["AB"]),
        ("ABA", None, 3, 2, 0, ["AB", "BA"]),
        ("A", "A", 0, 0, 1, []),
        ("BA", "A", 0, 0, 2, []),
        ("B", "A", 1, 1, 0, ["AB"]),
        ("ABB", "A", 1, 1, 2, ["AB"]),
        ("", "A", 0, 0, 0, []),
    ],
)
def test_classify(hashes: str, stored: str | None, loaded: int, updated: int, duplicate: int, steps: list[str]) -> None:
    result = classify(list(hashes), stored)
    assert (result.loaded, result.updated, result.duplicate) == (loaded, updated, duplicate)
    assert ["".join(s) for s in result.steps] == steps
    assert result.write == (loaded > 0)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert result.changes("c", run_id="r", at=at) == [Change("c", s[0], s[1], "r", at) for s in steps]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("ABC")), max_size=30), st.data())
def test_every_line_counts_once_and_a_second_run_finds_only_duplicates(
    lines: list[tuple[str, str]], data: st.DataObject
) -> None:
    stored: dict[str, str] = data.draw(st.dictionaries(st.sampled_from("xyz"), st.sampled_from("ABC")))
    by_id: dict[str, list[str]] = {}
    for conversation_id, content in lines:
        by_id.setdefault(conversation_id, []).append(content)
    for run in (1, 2):
        results = {i: classify(hashes, stored.get(i)) for i, hashes in by_id.items()}
        assert sum(r.loaded + r.duplicate for r in results.values()) == len(lines)
        for i, result in results.items():
            assert result.updated <= result.loaded
            assert result.write == (stored.get(i) != by_id[i][-1])
            stored[i] = by_id[i][-1]
        if run == 2:
            assert sum(r.duplicate for r in results.values()) == len(lines)
