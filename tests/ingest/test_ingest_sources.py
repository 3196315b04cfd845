"""Files of every format, whole and broken, split into records."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from recs.errors import InputError
from recs.ingest import RawRecord, Reject, Source, read_records

LIMIT = 1 << 20

RECORDS: list[dict[str, Any]] = [
    {"conversation_id": "a", "text": 'brackets ]}[{ and "quotes" and \\ and ,'},
    {"conversation_id": "b", "nested": [[1, {"x": []}], {}], "s": "}"},
    {"conversation_id": "c", "text": "line\nbreak é 😡", "empty": {}},
]


def write(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def read(path: Path, limit: int = LIMIT) -> list[RawRecord | Reject]:
    return list(read_records(path, max_record_bytes=limit))


def values(path: Path, limit: int = LIMIT) -> list[Any]:
    return [json.loads(r.data) if isinstance(r, RawRecord) else r.code for r in read(path, limit)]


def json_lines(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(r) + "\n" for r in records)


@pytest.mark.parametrize(
    "text",
    [
        json_lines(RECORDS),
        json_lines(RECORDS).rstrip("\n"),
        json_lines(RECORDS).replace("\n", "\r\n"),
        "\ufeff" + json_lines(RECORDS),
        "\n \n" + json_lines(RECORDS).replace("\n", "\n\t\n"),
        json.dumps(RECORDS),
        "\ufeff \n" + json.dumps(RECORDS, indent=2) + "\n\n",
        json.dumps(RECORDS, indent=1, ensure_ascii=False, separators=(" ,", " : ")),
        "[" + ",".join(json.dumps(r) for r in RECORDS) + ",]",
        json.dumps(RECORDS[:1]) + "\n" + json_lines(RECORDS[1:]),
    ],
    ids=["lines", "no last end", "crlf", "bom", "blank", "array", "indented", "spaced", "last comma", "array + lines"],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_every_form_gives_the_same_records(tmp_path: Path, text: str, packed: bool) -> None:
    data = gzip.compress(text.encode()) if packed else text.encode()
    assert values(write(tmp_path / "no-suffix", data)) == RECORDS


@pytest.mark.parametrize("text", [json_lines(RECORDS), json.dumps(RECORDS), json.dumps(RECORDS, indent=2)])
def test_line_and_offset_point_at_the_record(tmp_path: Path, text: str) -> None:
    data = b"\xef\xbb\xbf\n " + text.encode()
    for record in read(write(tmp_path / "f", data)):
        assert isinstance(record, RawRecord)
        assert record.offset is not None
        assert data[record.offset :].lstrip().startswith(record.data.strip())
        assert record.line == data.count(b"\n", 0, record.offset) + 1


def test_several_gzip_members_are_one_stream(tmp_path: Path) -> None:
    half = json_lines(RECORDS).encode()
    assert values(write(tmp_path / "f", gzip.compress(half) + gzip.compress(half))) == RECORDS * 2


def test_blank_lines_are_counted_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "f", '{"a":1}\n\n   \n\t\r\n{"a":2}\n')
    with Source(path, max_record_bytes=LIMIT) as source:
        assert [r.line for r in source] == [1, 5]
        assert source.blank == 3
        assert source.size == path.stat().st_size


def test_the_hash_is_of_the_file_itself(tmp_path: Path) -> None:
    for name, data in {
        "lines": json_lines(RECORDS * 500).encode(),
        "gzip": gzip.compress(json_lines(RECORDS * 500).encode()),
        "cut": gzip.compress(json_lines(RECORDS * 500).encode())[:-30],
        "broken": b"[1 2" + b" " * 1_000_000,
    }.items():
        with Source(write(tmp_path / name, data), max_record_bytes=LIMIT) as source:
            assert sum(1 for _ in source) >= 1
            assert source.sha256() == hashlib.sha256(data).hexdigest()
            assert source.bytes_done == len(data)


def test_truncated_gzip_gives_what_was_before_and_one_reject(tmp_path: Path) -> None:
    records = [{"conversation_id": hashlib.sha256(bytes([i % 256, i // 256])).hexdigest()} for i in range(20_000)]
    data = gzip.compress(json_lines(records).encode())
    got = values(write(tmp_path / "f", data[: len(data) // 2]))
    assert got[-1] == "gzip_truncated"
    assert len(got) > 9_000
    assert got[:-1] == records[: len(got) - 1]
    as_array = gzip.compress(json.dumps(records).encode())
    got = values(write(tmp_path / "g", as_array[: len(as_array) // 2]))
    assert got[-1] == "gzip_truncated"
    assert got[:-1] == records[: len(got) - 1]


def test_damaged_gzip(tmp_path: Path) -> None:
    data = gzip.compress(json_lines(RECORDS).encode())
    wrong_sum = data[:-8] + b"\0\0\0\0" + data[-4:]
    assert values(write(tmp_path / "f", wrong_sum)) == [*RECORDS, "gzip_damaged"]
    assert values(write(tmp_path / "g", data + b"garbage"))[-1] == "gzip_damaged"
    assert values(write(tmp_path / "h", data[:15])) == ["gzip_truncated"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"a":1},{"a":2', [{"a": 1}, "array_truncated"]),
        ('[{"a":1},', [{"a": 1}, "array_truncated"]),
        ('[{"a":1}', [{"a": 1}, "array_truncated"]),
        ("[", ["array_truncated"]),
        ('[{"a":1}, "half a str', [{"a": 1}, "array_truncated"]),
        ('[{"a":1}, 12', [{"a": 1}, "array_truncated"]),
        ('[{"a":1} {"a":2}, {"a":3}]', [{"a": 1}, "array_broken"]),
        ("[]", []),
        ("[ ]\n", []),
        ('[1,"two",null,[3],{"a":"]"}]', [1, "two", None, [3], {"a": "]"}]),
        ('["a\\"]b","c\\\\"]', ['a"]b', "c\\"]),
        ('[]\n{"a":1}\n', [{"a": 1}]),
    ],
)
def test_arrays_whole_and_broken(tmp_path: Path, text: str, expected: list[Any]) -> None:
    assert values(write(tmp_path / "f", text)) == expected


def test_a_reject_keeps_the_beginning_of_the_rest(tmp_path: Path) -> None:
    [_, reject] = read(write(tmp_path / "f", '[{"a":1},\n{"a":2'))
    assert isinstance(reject, Reject)
    assert (reject.line, reject.offset, reject.raw, reject.cut) == (2, 10, '{"a":2', True)


@pytest.mark.parametrize("size", [1023, 1024, 1025, 300_000, 3_000_000])
def test_a_record_longer_than_the_limit_costs_itself_alone(tmp_path: Path, size: int) -> None:
    long = {"a": "x" * (size - len('{"a": ""}'))}
    expected: list[Any] = [{"b": 1}, long if size <= 1024 else "record_too_long", {"b": 2}]
    for text in (
        json_lines([{"b": 1}, long, {"b": 2}]),
        json_lines([{"b": 1}, long, {"b": 2}]).replace("\n", "\r\n"),
        json.dumps([{"b": 1}, long, {"b": 2}]),
    ):
        path = write(tmp_path / "f", text)
        assert values(path, 1024) == expected
        for record in read(path, 1024):
            if isinstance(record, Reject):
                assert record.raw.startswith('{"a": "xxx')
                assert len(record.raw) <= 4096
                assert record.cut


def test_long_elements_of_any_make_are_passed_over(tmp_path: Path) -> None:
    for long in ([["y"] * 40_000, {"z": "]" * 100_000}], "s" * 200_000, {"k": {"k": [{"\\": '"'}] * 30_000}}):
        text = json.dumps([{"b": 1}, long, {"b": 2}])
        assert values(write(tmp_path / "f", text), 1024) == [{"b": 1}, "record_too_long", {"b": 2}]
        assert values(write(tmp_path / "f", text), 1 << 22) == [{"b": 1}, long, {"b": 2}]


@pytest.mark.parametrize("opening", ["", "["], ids=["lines", "array"])
def test_memory_stays_small_whatever_the_length(tmp_path: Path, opening: str) -> None:
    path = tmp_path / "f"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(opening.encode() + b'{"a": "')
        for _ in range(64):
            file.write(b"x" * (1 << 20))
        file.write(b'"}' + (b"," if opening else b"\n") + b'{"b": 1}' + (b"]" if opening else b""))
    tracemalloc.start()
    got = values(path, 1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert got == ["record_too_long", {"b": 1}]
    assert peak < 12 << 20


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: None, "no such file"),
        (lambda p: p.mkdir(), "directory"),
        (os.mkfifo, "not a regular file"),
        (lambda p: p.write_bytes(b""), "empty"),
        (lambda p: p.write_bytes(gzip.compress(b"")), "empty once unpacked"),
        (lambda p: p.write_bytes(b"PK\x03\x04zip"), "zip archive"),
        (lambda p: p.write_bytes("{}".encode("utf-16")), "UTF-16"),
        (lambda p: p.write_bytes(b"PAR1 and no more"), "Parquet, and is damaged"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(tmp_path: Path, make: Any, says: str) -> None:
    path = tmp_path / "input"
    make(path)
    with pytest.raises(InputError, match=says) as caught:
        read(path)
    assert str(path) in str(caught.value)
