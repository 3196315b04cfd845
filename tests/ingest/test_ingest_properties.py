"""Whatever the bytes are: nothing crashes, nothing is lost, and equal content is equal."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from recs.errors import InputError
from recs.ingest import Accepted, RawRecord, Reject, parse_record, read_records
from recs.ingest.array import ArrayReader
from recs.ingest.lines import LineReader
from recs.ingest.validate import _parse_repairing
from recs.model import Conversation

LATEST = datetime(2030, 1, 1, tzinfo=UTC)
FILES = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PARSING = settings(max_examples=80, deadline=None)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
times = st.sampled_from(
    [None, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00+02:00", "2026-01-01", "20260101", 1.7e9, "x", True, 1e30]
)
ids = st.sampled_from(["c1", " c1", "", None, 5, 1.5, "é/?", "x" * 600]) | st.text(max_size=3)


def maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


messages = maybe(
    role=st.sampled_from(["user", "agent", "Bot", "", None]), text=json_values, at=times, extra=json_values
)
engagements = maybe(
    campaign_id=st.sampled_from(["k1", "k2", 3, None]),
    action=st.sampled_from(["like", "LIKE", "dislike", "buy"]),
    at=times,
    value=json_values,
    currency=json_values,
)
near_records = maybe(
    conversation_id=ids,
    user_id=ids,
    started_at=times,
    channel=json_values,
    intent=st.text(max_size=4) | json_values,
    seq=json_values,
    messages=st.lists(messages, max_size=3) | json_values,
    engagements=st.lists(engagements, max_size=4) | json_values,
    model_config=json_values,
    _id=json_values,
)


def parse(data: bytes) -> Accepted | Reject:
    return parse_record(RawRecord("f", 1, 0, data), known_campaigns={"k1", "k2"}, latest=LATEST)


def check(result: Accepted | Reject, data: bytes) -> None:
    if isinstance(result, Reject):
        assert result.raw_bytes() == data
        assert result.code
        result.message.encode()
        return
    # What is accepted can be stored and comes back the same, from its own canonical form too.
    assert Conversation.model_validate_json(result.body) == result.conversation
    again = parse(json.dumps({"messages": [], **json.loads(result.body)}).encode())
    assert isinstance(again, Accepted)
    assert (again.content_hash, again.rejects) == (result.content_hash, ())
    assert b"\\u0000" not in result.body


@PARSING
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    check(parse(data), data)


@PARSING
@given(near_records, st.booleans())
def test_anything_like_a_record(record: dict[str, Any], ascii_only: bool) -> None:
    data = json.dumps(record, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    check(parse(data), data)


@PARSING
@given(near_records)
def test_both_paths_agree(record: dict[str, Any]) -> None:
    data = json.dumps(record).encode()
    fast = parse(data)
    slow = _parse_repairing(RawRecord("f", 1, 0, data), {"k1", "k2"}, LATEST)
    if isinstance(fast, Accepted):
        assert isinstance(slow, Accepted)
        assert (fast.body, fast.repairs, fast.rejects) == (slow.body, slow.repairs, slow.rejects)
    else:
        assert fast == slow


@PARSING
@example({"started_at": None, "conversation_id": "c1", "user_id": "c1", "messages": []}, 2, b"\0", random.Random(0))
@given(near_records, st.integers(0, 10**6), st.binary(min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_damage_anywhere(record: dict[str, Any], at: int, junk: bytes, chance: random.Random) -> None:
    data = json.dumps(record).encode()
    at %= len(data) + 1
    for damaged in (data[:at], data[:at] + junk + data[at:], data[:at] + junk + data[at + len(junk) :]):
        check(parse(damaged), damaged)


@FILES
@given(st.sampled_from([b"", b"[", b"{", b"\x1f\x8b\x08\0", b"PAR1", b"conversation_id,user_id,role,text\n"]),
       st.binary(max_size=300), st.sampled_from([20, 1 << 20]))  # fmt: skip
def test_any_file(tmp_path: Path, start: bytes, rest: bytes, limit: int) -> None:
    path = tmp_path / "f"
    path.write_bytes(start + rest)
    try:
        for item in read_records(path, max_record_bytes=limit):
            assert isinstance(item, Reject) or len(item.data) <= limit or start.startswith(b"conv")
            if isinstance(item, RawRecord):
                check(parse(item.data), item.data)
    except InputError as exc:
        assert str(path) in str(exc)  # noqa: PT017 - some files are refused, and most are not


def blocks(data: bytes, sizes: list[int]) -> Any:
    """A stream that gives its bytes in pieces of these sizes, over and over."""

    def pieces() -> Iterator[bytes]:
        at = i = 0
        while at < len(data):
            size = sizes[i % len(sizes)]
            yield data[at : at + size]
            at, i = at + size, i + 1

    source = pieces()
    return lambda: next(source, b"")


values_of_lines = st.lists(json_values, max_size=6)


@PARSING
@given(values_of_lines, st.lists(st.integers(1, 40), min_size=1, max_size=5), st.sampled_from([None, 1]), st.booleans())
def test_arrays_come_apart_wherever_the_blocks_end(
    values: list[Any], sizes: list[int], indent: int | None, ascii_only: bool
) -> None:
    data = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode(errors="replace")
    items = list(ArrayReader("f", blocks(data, sizes), 1 << 20).records())
    assert all(isinstance(item, RawRecord) for item in items)
    # By repr, because NaN does not equal itself.
    assert repr([json.loads(i.data) for i in items if isinstance(i, RawRecord)]) == repr(json.loads(data))
    for item in items:
        assert isinstance(item, RawRecord)
        assert item.offset is not None
        assert data[item.offset : item.offset + len(item.data)] == item.data
        assert item.line == data.count(b"\n", 0, item.offset) + 1


@PARSING
@given(values_of_lines, st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(1, 60))
def test_lines_and_arrays_agree_on_what_is_too_long(values: list[Any], sizes: list[int], limit: int) -> None:
    pieces = [json.dumps(v).encode() for v in values]
    lines = list(LineReader("f", blocks(b"\n".join(pieces), sizes), limit).records())
    array = list(ArrayReader("f", blocks(b"[" + b",\n".join(pieces) + b"]", sizes), limit).records())
    assert [i.data if isinstance(i, RawRecord) else i.code for i in lines] == [
        i.data if isinstance(i, RawRecord) else i.code for i in array
    ]
    assert [i.data if isinstance(i, RawRecord) else i.code for i in lines] == [
        p if len(p) <= limit else "record_too_long" for p in pieces
    ]


@PARSING
@given(st.binary(max_size=120), st.lists(st.integers(1, 30), min_size=1, max_size=4))
def test_any_bytes_after_a_bracket_end_and_hide_nothing(data: bytes, sizes: list[int]) -> None:
    whole = b"[" + data
    items = list(ArrayReader("f", blocks(whole, sizes), 1 << 20).records())
    again = list(ArrayReader("f", blocks(whole, [1000]), 1 << 20).records())
    assert [(type(i), i.line, i.offset) for i in items] == [(type(i), i.line, i.offset) for i in again]
    if data.strip(b" \t\r\n\v\f,]"):
        assert items


@PARSING
@given(st.lists(st.binary(max_size=30), max_size=8), st.lists(st.integers(1, 30), min_size=1, max_size=4))
def test_lines_come_apart_wherever_the_blocks_end(lines: list[bytes], sizes: list[int]) -> None:
    data = b"\n".join(lines)
    reader = LineReader("f", blocks(data, sizes), 1 << 20)
    items = list(reader.records())
    expected = [line.removesuffix(b"\r") for line in data.split(b"\n")]
    assert [i.data for i in items if isinstance(i, RawRecord)] == [e for e in expected if e.strip()]
    assert reader.blank == len([e for e in data.split(b"\n")[:-1] if not e.strip()]) + (
        1 if data.split(b"\n")[-1] and not data.split(b"\n")[-1].strip() else 0
    )
