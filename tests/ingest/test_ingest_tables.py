"""CSV and Parquet by a column mapping, through the same parser as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from recs.errors import InputError
from recs.ingest import Accepted, ColumnMapping, RawRecord, Reject, Source, parse_record, read_records

MAPPING = ColumnMapping.from_object(
    {
        "conversation_id": "thread",
        "user_id": "who",
        "started_at": "opened",
        "channel": {"constant": "email"},
        "role": {"column": "inbound", "values": {"True": "user", "False": "agent"}},
        "text": "body",
        "campaign_id": "clicked",
        "action": {"constant": "click"},
        "message.lang": "lang",
        "brand": "brand",
    }
)

CSV = """thread,who,opened,inbound,body,clicked,lang,brand,unused
t1,u1,2026-03-01T10:00:00Z,True,"hello, ""you""
there",,en,acme,1
t1,u1,,False,hi,k1,en,acme,2
t1,u1,,,,k2,,,3
t2,u2,2026-03-02T10:00:00Z,True,5" pipe,,de,acme,4
t1,u1,2026-03-03T10:00:00Z,True,back again,,,,5
"""


def read(path: Path, mapping: ColumnMapping | None = MAPPING, limit: int = 1 << 20) -> list[RawRecord | Reject]:
    return list(read_records(path, mapping=mapping, max_record_bytes=limit))


def values(items: list[RawRecord | Reject]) -> list[Any]:
    return [json.loads(r.data) if isinstance(r, RawRecord) else r.code for r in items]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_rows_that_follow_one_another_are_a_conversation(tmp_path: Path) -> None:
    records = read(write(tmp_path / "f", CSV))
    assert values(records) == [
        {
            "conversation_id": "t1",
            "user_id": "u1",
            "started_at": "2026-03-01T10:00:00Z",
            "channel": "email",
            "brand": "acme",
            "messages": [
                {"role": "user", "text": 'hello, "you"\nthere', "lang": "en"},
                {"role": "agent", "text": "hi", "lang": "en"},
            ],
            "engagements": [{"campaign_id": "k1", "action": "click"}, {"campaign_id": "k2", "action": "click"}],
        },
        {
            "conversation_id": "t2",
            "user_id": "u2",
            "started_at": "2026-03-02T10:00:00Z",
            "channel": "email",
            "brand": "acme",
            "messages": [{"role": "user", "text": '5" pipe', "lang": "de"}],
        },
        {
            "conversation_id": "t1",
            "user_id": "u1",
            "started_at": "2026-03-03T10:00:00Z",
            "channel": "email",
            "messages": [{"role": "user", "text": "back again"}],
        },
    ]
    assert [(r.line, r.offset) for r in records] == [(1, None), (4, None), (5, None)]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_the_delimiter_follows_from_the_header(tmp_path: Path, delimiter: str) -> None:
    text = "\ufeffconversation_id,user_id,role,text,shop\r\n\r\nc1,u1,user,hi,s1\r\n".replace(",", delimiter)
    path = write(tmp_path / "f", text)
    with Source(path, max_record_bytes=1024) as source:
        assert values(list(source)) == [
            {"conversation_id": "c1", "user_id": "u1", "shop": "s1", "messages": [{"role": "user", "text": "hi"}]}
        ]
        assert source.blank == 1


HEADER = "conversation_id,user_id,role,text\n"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("c1,u1,user,hi\nc2,u2\nc3,u3,user,ho\n", ["c1", "csv_row_width", "c3"]),
        ('c1,u1,user,"open\nc2,u2,user,hi\nc3,u3,user,ho\n', ["csv_unclosed_quote", "c2", "c3"]),
        ("c1,u1,user,a\rb\nc2,u2,user,hi\n", ["csv_malformed", "c2"]),
        ("c1,u1,user,hi\nc1,u9,agent,ho\n", ["rows_disagree"]),
        (f"c1,u1,user,{'x' * 3000}\nc2,u2,user,hi\n", ["record_too_long", "c2"]),
        ("c1,u1,user,hi\n" + "c1,u1,user,more of it\n" * 80 + "c2,u2,user,hi\n", ["record_too_long", "c2"]),
        (f'c1,u1,user,"{"x" * 900}\n{"y" * 900}\n{"z" * 100}"\nc2,u2,user,hi\n', None),
    ],
)
def test_a_bad_row_costs_itself_alone(tmp_path: Path, rows: str, expected: list[str] | None) -> None:
    got = values(read(write(tmp_path / "f", HEADER + rows), None, limit=1024))
    ids = [v if isinstance(v, str) else v["conversation_id"] for v in got]
    if expected is None:
        assert ids[0] == "csv_unclosed_quote"
        assert ids[-1] == "c2"
    else:
        assert [i for i in ids if "width" not in i] == [i for i in expected if "width" not in i]
        assert len(ids) == len(expected)


def test_bytes_that_are_not_utf8_reach_the_parser_as_they_are(tmp_path: Path) -> None:
    [raw] = read(write(tmp_path / "f", HEADER.encode() + b"c1,u1,user,caf\xe9\n"), None)
    assert isinstance(raw, RawRecord)
    result = parse_record(raw, known_campaigns=None)
    assert isinstance(result, Accepted)
    assert result.conversation.messages[0].text == "café"
    assert result.repairs == ("invalid_utf8",)


def test_parquet_flat_and_nested(tmp_path: Path) -> None:
    at = datetime(2026, 3, 1, 10, tzinfo=UTC)
    flat = pa.table(
        {
            "thread": ["t1", "t1", "t2"],
            "who": [1, 1, 2],
            "opened": [at, None, at],
            "inbound": [True, False, True],
            "body": ["a", "b", "c"],
            "clicked": [None, "k1", None],
            "lang": [None, None, None],
            "brand": [float("nan"), 1.5, None],
        }
    )
    pq.write_table(flat, tmp_path / "flat", row_group_size=2)
    records = read(tmp_path / "flat")
    parsed = [parse_record(r, known_campaigns=None) for r in records if isinstance(r, RawRecord)]
    assert all(isinstance(p, Accepted) for p in parsed)
    conversations = [p.conversation for p in parsed if isinstance(p, Accepted)]
    assert [(c.conversation_id, c.user_id, c.started_at) for c in conversations] == [("t1", "1", at), ("t2", "2", at)]
    assert [[(m.role, m.text) for m in c.messages] for c in conversations] == [
        [("user", "a"), ("agent", "b")],
        [("user", "c")],
    ]
    assert conversations[0].model_extra == {"brand": 1.5}

    nested = [{"conversation_id": "c1", "user_id": "u1", "messages": [{"role": "user", "text": "hi"}], "shop": "s"}]
    pq.write_table(pa.Table.from_pylist(nested), tmp_path / "nested")
    assert values(read(tmp_path / "nested", None)) == nested


def test_a_parquet_file_that_breaks_off_inside_gives_one_reject(tmp_path: Path) -> None:
    table = pa.table({"conversation_id": [f"c{i}" for i in range(5000)], "user_id": ["u"] * 5000,
                      "role": ["user"] * 5000, "text": [f"text {i * 7919}" for i in range(5000)]})  # fmt: skip
    path = tmp_path / "f"
    pq.write_table(table, path, row_group_size=1000, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = b"\xff" * 4000
    path.write_bytes(data)
    got = values(read(path, None))
    assert got[-1] == "parquet_damaged"
    assert got[0]["conversation_id"] == "c0"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "JSON object"),
        ({"user_id": 5}, "user_id is 5"),
        ({"role": {"column": "r", "values": {"1": 2}}}, "role is"),
        ({"role": {"columns": "r"}}, "role is"),
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused(value: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        ColumnMapping.from_object(value)


def test_a_mapping_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "a,b\n1,2\n")
    with pytest.raises(InputError, match="has not the columns of the mapping"):
        read(path)
    with pytest.raises(InputError, match="a column mapping is needed"):
        read(path, None)
    with pytest.raises(InputError, match="names no column for role, text"):
        read(path, ColumnMapping.from_object({"conversation_id": "a", "user_id": "b"}))
    pq.write_table(pa.table({"a": [1]}), tmp_path / "p")
    with pytest.raises(InputError, match="has no column"):
        read(tmp_path / "p")


def test_the_example_in_the_documentation_is_a_mapping(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "data-formats.md").read_text()
    block = text[text.index('    {\n      "conversation_id": "thread"') :]
    example = write(tmp_path / "mapping.json", block[: block.index("\n    }\n") + 7])
    mapping = ColumnMapping.load(example)
    mapping.check_conversations()
    assert mapping.values["role"] == {"True": "user", "False": "agent"}
    with pytest.raises(InputError, match="cannot read"):
        ColumnMapping.load(tmp_path / "none.json")
    with pytest.raises(InputError, match="not JSON"):
        ColumnMapping.load(write(tmp_path / "bad.json", "{"))
