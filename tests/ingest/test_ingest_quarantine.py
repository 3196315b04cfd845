from __future__ import annotations

import base64
import dataclasses
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from recs.errors import RunError
from recs.ingest import Entry, Quarantine, Reject
from recs.ingest.records import make_reject


def reject(line: int = 1, raw: bytes = b"bad", code: str = "invalid_json", source: str = "f") -> Reject:
    return make_reject(source, line, None, code, f"{code}: met something", raw)


def engagement(line: int, campaign_id: str, record: str, conversation_id: str = "c1") -> Reject:
    return Reject(
        "f", line, 5, "unknown_campaign", f"campaign_id is {campaign_id!r}", json.dumps({"campaign_id": campaign_id}),
        part="engagement", conversation_id=conversation_id, record=record,
    )  # fmt: skip


def ids(quarantine: Quarantine, run_id: str | None = None) -> list[tuple[int, str]]:
    return [(e.line, e.run_id) for e in quarantine.entries(run_id)]


def test_entries_come_back_whole_and_in_order(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q")
    first = reject(3, "é\n\u2028".encode())
    quarantine.add(first, "r1")
    quarantine.add(reject(4, b"\xff{"), "r1")
    quarantine.add(reject(5), "r2")
    entries = list(quarantine.entries())
    assert [e.raw_bytes() for e in entries] == ["é\n\u2028".encode(), b"\xff{", b"bad"]
    assert entries[1].raw == "\\xff{"
    assert entries[1].raw_base64 == base64.b64encode(b"\xff{").decode()
    for name in ("source", "line", "offset", "code", "message", "raw", "part"):
        assert getattr(entries[0], name) == getattr(first, name)
    assert ids(quarantine, "r2") == [(5, "r2")]
    assert quarantine.count() == 3
    assert list(Quarantine(tmp_path / "q").entries()) == entries


def test_the_same_reject_read_twice_is_held_once(tmp_path: Path) -> None:
    for run_id in ("r1", "r2"):
        quarantine = Quarantine(tmp_path)
        for _ in range(2):
            quarantine.add(reject(1), run_id)
            quarantine.add(reject(2), run_id)
        quarantine.flush()
    assert ids(quarantine) == [(1, "r1"), (2, "r1")]
    quarantine.add(reject(1, source="g"), "r3")
    quarantine.add(reject(1, raw=b"other"), "r3")
    assert quarantine.count() == 4


def test_settled_entries_go_and_come_back_when_met_again(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path)
    for line in (1, 2, 3):
        quarantine.add(reject(line), "r1")
    first, second, _ = quarantine.entries()
    assert quarantine.settle([first.entry_id, second.entry_id, "unknown", first.entry_id]) == 2
    assert ids(quarantine) == [(3, "r1")]
    assert quarantine.settle([first.entry_id]) == 0
    quarantine.add(reject(1), "r2")
    assert quarantine.count() == 2
    assert ids(Quarantine(tmp_path)) == [(3, "r1"), (1, "r2")]


def test_a_full_batch_is_on_disk_without_a_flush(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path)
    for line in range(300):
        quarantine.add(reject(line), "r1")
    assert Quarantine(tmp_path).count() == 256
    assert quarantine.count() == 300


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_torn_last_line_costs_itself_alone(tmp_path: Path, cut: int) -> None:
    quarantine = Quarantine(tmp_path)
    quarantine.add(reject(1), "r1")
    quarantine.flush()
    quarantine.add(reject(2), "r1")
    quarantine.flush()
    path = tmp_path / "rejects.jsonl"
    os.truncate(path, path.stat().st_size - cut)
    after = Quarantine(tmp_path)
    after.add(reject(2), "r2")
    after.add(reject(3), "r2")
    # Torn by its line end alone, the second entry is whole.
    second = (2, "r1" if cut == 1 else "r2")
    assert ids(after) == [(1, "r1"), second, (3, "r2")]


@pytest.mark.parametrize("damage", ["gone", "garbage"])
def test_the_index_is_made_anew_where_it_is_lost(tmp_path: Path, damage: str) -> None:
    quarantine = Quarantine(tmp_path)
    for line in (1, 2):
        quarantine.add(reject(line), "r1")
    quarantine.settle([next(quarantine.entries()).entry_id])
    for path in tmp_path.glob("index.sqlite*"):
        path.unlink()
    if damage == "garbage":
        (tmp_path / "index.sqlite").write_bytes(b"not a database, " * 100)
    after = Quarantine(tmp_path)
    after.add(reject(2), "r2")
    assert ids(after) == [(2, "r1")]


def test_a_replay_writes_each_record_once_and_exactly(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q")
    whole = '{"conversation_id":"c1","user_id":"u1","text":"é"}'
    quarantine.add(reject(1, b'{"a":\r\n 1,'), "r1")
    quarantine.add(reject(2, b"caf\xe9"), "r1")
    quarantine.add(dataclasses.replace(reject(3), cut=True), "r1")
    quarantine.add(engagement(4, "k1", whole), "r1")
    quarantine.add(engagement(4, "k2", whole), "r1")
    out = tmp_path / "replay.jsonl"
    replayed = quarantine.write_replay(out)
    assert out.read_bytes().splitlines() == [b'{"a":   1,', b"caf\xe9", whole.encode()]
    assert [e.entry_id for e in quarantine.entries() if not e.cut] == replayed
    [first, *_] = replayed
    assert quarantine.write_replay(out, [first]) == [first]
    assert out.read_bytes() == b'{"a":   1,\n'
    assert quarantine.settle(replayed) == 4
    assert [e.cut for e in quarantine.entries()] == [True]
    assert (tmp_path / "q" / "rejects.jsonl").read_text().count("é") == 0  # escaped: the file is ASCII


def test_erasure_drops_what_mentions_an_id_and_nothing_else(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path)
    mentions = [
        b'{"user_id":"u1","messages":null}',
        b'{"user_id": " u1 "',
        b"c9,u1,user,hi",
        b'{"text":"a\\nu1 said"}',
        b"\xff u1",
    ]
    others = [b'{"user_id":"u12"}', b'{"user_id":"xu1"}', b'{"user_id":"u2"}']
    for line, raw in enumerate(mentions + others):
        quarantine.add(reject(line, raw), "r1")
    of_user = '{"conversation_id":"c5","user_id":"u1"}'
    of_other = '{"conversation_id":"c6","user_id":"u7"}'
    quarantine.add(engagement(20, "k1", of_user, "c5"), "r1")
    quarantine.add(engagement(21, "k1", of_other, "c6"), "r1")
    quarantine.add(engagement(22, "k2", of_other, "c6"), "r1")
    assert quarantine.erase(["u1"]) == len(mentions) + 1
    assert [e.line for e in quarantine.entries()] == [5, 6, 7, 21, 22]
    data = (tmp_path / "rejects.jsonl").read_text()
    assert '\\"u1\\"' not in data
    assert data.count('"record":') == 1
    quarantine.write_replay(tmp_path / "out", [e.entry_id for e in quarantine.entries() if e.line >= 21])
    assert (tmp_path / "out").read_text() == of_other + "\n"
    # What was dropped can be met again, and what stayed is still held once.
    quarantine.add(reject(0, mentions[0]), "r2")
    quarantine.add(engagement(22, "k2", of_other, "c6"), "r2")
    assert [e.line for e in quarantine.entries()] == [5, 6, 7, 21, 22, 0]
    assert quarantine.erase([]) == 0
    assert quarantine.erase(["c6"]) == 2


@pytest.mark.parametrize("user_id", ['a"b', "a/b", "ü", "a\\b", "[x]*", "a b", "12"])
def test_erasure_finds_ids_of_any_characters(tmp_path: Path, user_id: str) -> None:
    quarantine = Quarantine(tmp_path)
    spellings = [
        json.dumps({"user_id": user_id}).encode(),
        json.dumps({"user_id": user_id}, ensure_ascii=False).encode(),
        json.dumps({"user_id": user_id}).replace("/", "\\/").encode(),
        f"c1,{user_id},x".encode(),
    ]
    for line, raw in enumerate(spellings):
        quarantine.add(reject(line, raw), "r1")
    assert quarantine.erase([user_id]) == len(spellings)
    assert quarantine.count() == 0


def _add_many(directory: Path, worker: int) -> None:
    quarantine = Quarantine(directory)
    for line in range(100):
        quarantine.add(reject(line, b"x" * 5000, source="w"), f"r{worker}")
        if line % 10 == 0:
            quarantine.flush()
    quarantine.flush()


def test_several_processes_may_write(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_add_many, args=(tmp_path, n)) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    entries: list[Entry] = list(Quarantine(tmp_path).entries())
    assert len(entries) == 100
    assert len({(e.source, e.line) for e in entries}) == 100


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot use the quarantine"):
        Quarantine(tmp_path / "file" / "q")
