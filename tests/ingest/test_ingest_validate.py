"""Every code that one record can lead to, by one small example each; the documentation lists them all."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from recs.ingest.records import Accepted, RawRecord, Reject
from recs.ingest.validate import _parse_repairing, parse_record

DOCS = Path(__file__).parents[2] / "docs" / "data-formats.md"
LATEST = datetime(2030, 1, 1, tzinfo=UTC)


def record(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "conversation_id": "c1",
        "user_id": "u1",
        "started_at": "2026-03-01T10:00:00Z",
        "channel": "chat",
        "messages": [{"role": "user", "text": "hi"}, {"role": "agent", "text": "hello"}],
        "intent": None,
        "engagements": [{"campaign_id": "k1", "action": "click", "at": None}],
    }
    base.update(changes)
    return {k: v for k, v in base.items() if v is not ...}


def parse(value: Any, known: set[str] | None = frozenset({"k1"})) -> Accepted | Reject:  # type: ignore[assignment]
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return parse_record(RawRecord("f", 7, 40, data), known_campaigns=known, latest=LATEST)


def accepted(value: Any, **kwargs: Any) -> Accepted:
    result = parse(value, **kwargs)
    assert isinstance(result, Accepted), result
    return result


def with_message(**fields: Any) -> dict[str, Any]:
    return record(messages=[fields])


def with_engagement(**fields: Any) -> dict[str, Any]:
    return record(engagements=[{"campaign_id": "k1", "action": "like", **fields}])


def raw(text: str) -> bytes:
    """A record with a piece of JSON put in as it is."""
    return json.dumps(record(x=0)).replace('"x": 0', text).encode()


DEEP = "[" * 62 + "]" * 62

REPAIRS: list[tuple[str, Any]] = [
    ("byte_order_mark", b"\xef\xbb\xbf" + json.dumps(record()).encode()),
    ("invalid_utf8", json.dumps(record(note="X")).encode().replace(b"X", b"caf\xe9")),
    ("control_character_unescaped", json.dumps(record(note="X")).encode().replace(b"X", b"a\tb")),
    ("nul_character", with_message(role="user", text="a\0b")),
    ("lone_surrogate", with_message(role="user", text="a\ud83d b")),
    ("duplicate_key", raw('"user_id": "u2"')),
    ("id_number", record(user_id=12)),
    ("id_trimmed", record(user_id=" u1\t")),
    ("time_without_zone", record(started_at="2026-03-01T10:00:00")),
    ("time_is_date_only", record(started_at="2026-03-01")),
    ("time_from_epoch", record(started_at=1772359200)),
    ("time_in_words", record(started_at="Sun Mar 01 10:00:00 +0000 2026")),
    ("started_at_unreadable", record(started_at="01/02/2026")),
    ("started_at_out_of_range", record(started_at="2031-01-01T00:00:00Z")),
    ("at_unreadable", with_message(role="user", text="x", at="noon")),
    ("at_out_of_range", with_engagement(at="1850-01-01T00:00:00Z")),
    ("role_alias", with_message(role="Customer", text="x")),
    ("text_null", with_message(role="user", text=None)),
    ("text_number", with_message(role="user", text=42)),
    ("channel_number", record(channel=5)),
    ("intent_number", record(intent=5)),
    ("currency_number", with_engagement(currency=978)),
    ("channel_blank", record(channel="")),
    ("intent_blank", record(intent="  ")),
    ("currency_blank", with_engagement(currency="")),
    ("seq_not_a_number", record(seq="first")),
    ("number_from_text", with_engagement(value="9.5")),
    ("engagements_null", record(engagements=None)),
    ("engagement_duplicate", record(engagements=[{"campaign_id": "k1", "action": "like"}] * 3)),
    ("action_spelling", with_engagement(action=" Like")),
]

REJECTS: list[tuple[str, Any]] = [
    ("invalid_json", b'{"conversation_id": "c1"'),
    ("invalid_json", b'1,2,"three"'),
    ("invalid_json", b"\xff\xfe\x00"),
    ("invalid_json", b""),
    ("not_an_object", b'[{"a": 1}]'),
    ("not_an_object", b"null"),
    ("not_a_number", raw('"x": NaN')),
    ("not_a_number", raw('"x": [-Infinity]')),
    ("number_out_of_range", raw('"x": 1e999')),
    ("number_out_of_range", raw('"x": ' + "9" * 5000)),
    ("number_out_of_range", raw('"seq": 1e999')),
    ("nested_too_deeply", raw('"x": ' + "[" * 64 + "]" * 64)),
    ("nested_too_deeply", raw('"x": ' + "[" * 50_000 + "]" * 50_000)),
    ("conversation_id_missing", record(conversation_id=...)),
    ("conversation_id_missing", record(conversation_id=None)),
    ("conversation_id_blank", record(conversation_id=" ")),
    ("conversation_id_not_text", record(conversation_id=1.5)),
    ("conversation_id_too_long", record(conversation_id="c" * 513)),
    ("conversation_id_damaged", record(conversation_id="a\0")),
    ("user_id_missing", record(user_id=...)),
    ("user_id_blank", record(user_id="")),
    ("user_id_not_text", record(user_id=True)),
    ("user_id_not_text", record(user_id=["u1"])),
    ("user_id_too_long", record(user_id="u" * 513)),
    ("user_id_damaged", json.dumps(record(user_id="X")).encode().replace(b"X", b"Jos\xe9")),
    ("channel_not_text", record(channel=["chat"])),
    ("channel_too_long", record(channel="c" * 513)),
    ("intent_not_text", record(intent=True)),
    ("intent_too_long", record(intent="i" * 513)),
    ("messages_missing", record(messages=...)),
    ("messages_missing", record(messages=None)),
    ("messages_not_a_list", record(messages="hello")),
    ("message_not_an_object", record(messages=["hello"])),
    ("unknown_role", with_message(role="", text="x")),
    ("unknown_role", with_message(text="x")),
    ("text_not_text", with_message(role="user", text=["x"])),
    ("text_not_text", with_message(role="user", text=True)),
]

ENGAGEMENT_REJECTS: list[tuple[str, Any]] = [
    ("unknown_campaign", with_engagement(campaign_id="k2")),
    ("unknown_action", with_engagement(action="purchase!!")),
    ("unknown_action", with_engagement(action=None)),
    ("engagements_not_a_list", record(engagements={"campaign_id": "k1"})),
    ("engagement_not_an_object", record(engagements=["k1"])),
    ("campaign_id_missing", with_engagement(campaign_id=None)),
    ("campaign_id_blank", with_engagement(campaign_id=" ")),
    ("campaign_id_not_text", with_engagement(campaign_id=1.0)),
    ("campaign_id_too_long", with_engagement(campaign_id="k" * 513)),
    ("campaign_id_damaged", with_engagement(campaign_id="k\0")),
    ("value_not_a_number", with_engagement(value="much")),
    ("value_not_a_number", with_engagement(value=True)),
    ("currency_not_text", with_engagement(currency=["EUR"])),
    ("currency_too_long", with_engagement(currency="E" * 513)),
]

#: Given by readers of files, tested with them.
OF_FILES = {
    *("record_too_long", "array_truncated", "array_broken", "gzip_truncated", "gzip_damaged", "parquet_damaged"),
    *("unreadable", "csv_row_width", "csv_unclosed_quote", "csv_malformed", "rows_disagree", "schema"),
}


def test_a_clean_record_is_accepted_as_it_is() -> None:
    result = accepted(record(extra={"b": [1, {"d": None}], "a": 1.5}))
    assert result.repairs == ()
    assert result.rejects == ()
    c = result.conversation
    assert (c.conversation_id, c.user_id, c.started_at) == ("c1", "u1", datetime(2026, 3, 1, 10, tzinfo=UTC))
    assert [(m.role, m.text) for m in c.messages] == [("user", "hi"), ("agent", "hello")]
    assert c.model_extra == {"extra": {"b": [1, {"d": None}], "a": 1.5}}


@pytest.mark.parametrize(("code", "value"), REPAIRS, ids=[f"{c}-{i}" for i, (c, _) in enumerate(REPAIRS)])
def test_repair(code: str, value: Any) -> None:
    result = accepted(value)
    assert result.repairs == (code,)
    assert result.rejects == ()


@pytest.mark.parametrize(("code", "value"), REJECTS, ids=[f"{c}-{i}" for i, (c, _) in enumerate(REJECTS)])
def test_reject(code: str, value: Any) -> None:
    result = parse(value)
    assert isinstance(result, Reject), result
    assert (result.code, result.source, result.line, result.offset, result.part) == (code, "f", 7, 40, "record")
    assert len(result.message) < 1000
    assert result.raw_bytes() == (value if isinstance(value, bytes) else json.dumps(value).encode())


@pytest.mark.parametrize(
    ("code", "value"), ENGAGEMENT_REJECTS, ids=[f"{c}-{i}" for i, (c, _) in enumerate(ENGAGEMENT_REJECTS)]
)
def test_a_bad_engagement_is_left_out_and_the_record_kept(code: str, value: dict[str, Any]) -> None:
    if isinstance(value["engagements"], list):
        value["engagements"].append({"campaign_id": "k1", "action": "view"})
    result = accepted(value)
    [reject] = result.rejects
    assert (reject.code, reject.part, reject.line, reject.conversation_id) == (code, "engagement", 7, "c1")
    assert reject.record is not None
    assert json.loads(reject.record)["conversation_id"] == "c1"
    if isinstance(value["engagements"], list):
        assert [e.action for e in result.conversation.engagements] == ["view"]


def test_every_code_is_documented_and_every_documented_code_is_met() -> None:
    text = DOCS.read_text()
    tables = text[text.index("## Repairs") : text.index("## Kinds of defect")]
    first_cells = [line.split("|")[1] for line in tables.splitlines() if line.startswith("| `")]
    documented = {code for cell in first_cells for code in re.findall(r"`(\w+)`", cell)}
    met = {code for code, _ in REPAIRS + REJECTS + ENGAGEMENT_REJECTS} | OF_FILES
    assert documented == met


def test_what_repairs_keep() -> None:
    def kept(value: Any) -> Any:
        return accepted(value).conversation

    assert kept(record(user_id=10**30)).user_id == "1" + "0" * 30
    assert kept(record(user_id=" u1\t")).user_id == "u1"
    assert kept(raw('"user_id": "u2"')).user_id == "u2"
    assert (
        kept(json.dumps(record(note="X")).encode().replace(b"X", b"caf\xe9 \xe2\x82\xac \x81")).note == "café € \ufffd"
    )
    assert kept(with_message(role="user", text="a\0b\x07c\x1b")).messages[0].text == "a\ufffdb\x07c\x1b"
    assert kept(with_message(role="user", text="a\ud83d b")).messages[0].text == "a\ufffd b"
    assert kept(with_message(role="user")).messages[0].text == ""
    assert kept(with_message(role="user", text=42)).messages[0].text == "42"
    message = kept(with_message(role=" Bot", text="x")).messages[0]
    assert (message.role, message.model_extra) == ("agent", {"role_raw": " Bot"})
    unread = kept(record(started_at="01/02/2026"))
    assert (unread.started_at, unread.model_extra) == (None, {"started_at_raw": "01/02/2026"})
    assert kept(record(started_at=1e300)).model_extra == {"started_at_raw": 1e300}
    assert kept(record(seq="first")).model_extra == {"seq_raw": "first"}
    assert kept(record(seq="7")).seq == 7.0
    assert kept(with_engagement(value="9.5")).engagements[0].value == 9.5
    assert kept(record(started_at="2026-03-01T10:00:00+05:30")).started_at == datetime(2026, 3, 1, 4, 30, tzinfo=UTC)
    assert kept(raw('"x": ' + "9" * 4000)).x == int("9" * 4000)
    assert kept(raw(f'"x": {DEEP}')).x is not None


def test_texts_stay_as_they_came() -> None:
    texts = ["", " \n\u00a0", "cafe\u0301", "he\u200bllo \u202eabc", "<script>", "😡", 'a "quoted": key', "back\\"]
    result = accepted(record(messages=[{"role": "user", "text": t} for t in texts]))
    assert [m.text for m in result.conversation.messages] == texts
    assert result.repairs == ()


def test_like_and_dislike_are_both_kept() -> None:
    both = [{"campaign_id": "k1", "action": a} for a in ("like", "dislike")]
    assert [e.action for e in accepted(record(engagements=both)).conversation.engagements] == ["like", "dislike"]


def test_two_converts_of_different_value_are_two() -> None:
    two = [{"campaign_id": "k1", "action": "convert", "value": v} for v in (1, 2, 1.0)]
    result = accepted(record(engagements=two))
    assert [e.value for e in result.conversation.engagements] == [1.0, 2.0]


def test_without_a_catalogue_no_campaign_is_unknown() -> None:
    assert accepted(with_engagement(campaign_id="k2"), known=None).rejects == ()


def test_digits_that_could_be_a_date_are_not_read_as_seconds() -> None:
    for text in ("20260301", "2026", "1", "-5"):
        assert accepted(record(started_at=text)).repairs == ("started_at_unreadable",)
    assert accepted(record(started_at="1772359200")).conversation.started_at == datetime(2026, 3, 1, 10, tzinfo=UTC)


def test_the_hash_sees_content_and_nothing_else() -> None:
    base = accepted(record(a=1, b={"x": 1, "y": [2, {"p": 1, "q": 2}]})).content_hash
    assert base == accepted(record(b={"y": [2, {"q": 2, "p": 1}], "x": 1}, a=1)).content_hash
    assert base == accepted(record(a=1, b={"x": 1, "y": [2, {"p": 1, "q": 2}]}, intent=...)).content_hash
    same = record(a=1, b={"x": 1, "y": [2, {"p": 1, "q": 2}]}, started_at="2026-03-01T12:00:00+02:00")
    assert base == accepted(same).content_hash
    moved = parse_record(
        RawRecord("other", 1, None, json.dumps(same, indent=1).encode()), known_campaigns=None, latest=LATEST
    )
    assert isinstance(moved, Accepted)
    assert base == moved.content_hash
    changes: list[dict[str, Any]] = [{"a": 2}, {"user_id": "u2"}, {"messages": []}, {"engagements": []}, {"c": None}]
    for change in changes:
        assert base != accepted(record(**({"a": 1, "b": {"x": 1, "y": [2, {"p": 1, "q": 2}]}} | change))).content_hash


def test_a_bad_engagement_has_no_part_in_the_hash() -> None:
    good = [{"campaign_id": "k1", "action": "like"}]
    bad = [{"campaign_id": "k9", "action": "like"}]
    assert accepted(record(engagements=good)).content_hash == accepted(record(engagements=bad + good)).content_hash


@pytest.mark.parametrize("value", [record(), record(a={"b": 1.5}), with_engagement(value=2, at="2020-01-01T00:00:00Z")])
def test_both_paths_agree(value: dict[str, Any]) -> None:
    slow = _parse_repairing(RawRecord("f", 7, 40, json.dumps(value).encode()), {"k1"}, LATEST)
    assert slow == accepted(value)
