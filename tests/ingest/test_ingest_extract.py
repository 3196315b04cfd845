from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from recs.errors import InputError
from recs.ingest import ColumnMapping, ExtractCounts, Quarantine, Staging, extract


def record(i: int, **changes: Any) -> dict[str, Any]:
    return {"conversation_id": f"c{i}", "user_id": "u", "messages": [{"role": "user", "text": "hi"}], **changes}


def run(tmp_path: Path, *paths: Path, **kwargs: Any) -> tuple[ExtractCounts, list[str], list[tuple[str, int]]]:
    """Extract; what was staged and what is in the quarantine comes back beside the counts."""
    quarantine = Quarantine(tmp_path / "q")
    options: dict[str, Any] = {"run_id": "r1", "known_campaigns": {"k1"}, "max_record_bytes": 5000} | kwargs
    with Staging(tmp_path / "s") as staging:
        counts = extract(paths, staging, quarantine, **options)
        staged = [w.conversation.conversation_id for batch in staging.winners(100) for w in batch]
    assert counts.read == counts.accepted + counts.rejected
    return counts, staged, [(e.code, e.line) for e in quarantine.entries()]


def test_everything_read_is_somewhere_and_counted(tmp_path: Path) -> None:
    lines = [
        json.dumps(record(1)),
        "",
        json.dumps(record(2, user_id=5)),
        "no json",
        json.dumps(record(3, engagements=[{"campaign_id": k, "action": "like"} for k in ("k1", "k2", "k3")])),
        json.dumps(record(1, intent="late")),
        json.dumps(record(4, text="x" * 5000)),
    ]
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    counts, staged, quarantined = run(tmp_path, path)
    assert (counts.read, counts.accepted, counts.blank, counts.rejected) == (6, 4, 1, 2)
    assert counts.rejected_engagements == 2
    assert counts.repaired == {"id_number": 1}
    assert counts.reject_codes == {"invalid_json": 1, "record_too_long": 1, "unknown_campaign": 2}
    assert staged == ["c2", "c3", "c1"]
    assert quarantined == [
        ("invalid_json", 4),
        ("unknown_campaign", 5),
        ("unknown_campaign", 5),
        ("record_too_long", 7),
    ]
    [file] = counts.inputs
    assert (file.path, file.format, file.records, file.bytes) == (str(path), "json_lines", 6, path.stat().st_size)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_several_files_and_progress(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    one.write_text("\n".join(json.dumps(record(i)) for i in range(1200)))
    two.write_text("thread,who,said\nc1,u,hi\n")
    seen: list[tuple[int, int]] = []
    mapping = ColumnMapping.from_object(
        {"conversation_id": "thread", "user_id": "who", "text": "said", "role": {"constant": "user"}}
    )
    counts, staged, _ = run(tmp_path, one, two, mapping=mapping, progress=lambda d, t: seen.append((d, t)))
    total = one.stat().st_size + two.stat().st_size
    assert (counts.read, len(staged)) == (1201, 1200)
    assert [f.format for f in counts.inputs] == ["json_lines", "csv"]
    assert seen[-1] == (total, total)
    assert len(seen) == 4
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)


def test_a_file_that_cannot_be_read_stops_before_anything_is_kept(tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.write_text("no json\n")
    quarantine = Quarantine(tmp_path / "q")
    with Staging(tmp_path / "s") as staging, pytest.raises(InputError, match="no such file"):
        extract(
            [good, tmp_path / "missing"], staging, quarantine, run_id="r", known_campaigns=None, max_record_bytes=5000
        )
    assert quarantine.count() == 0


def test_the_future_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text(json.dumps(record(1, started_at="2098-01-01T00:00:00Z")))
    counts, staged, _ = run(tmp_path, path)
    assert counts.repaired == {"started_at_out_of_range": 1}
    assert staged == ["c1"]


def test_lines_and_array_end_alike(tmp_path: Path) -> None:
    records = [record(1), {"bad": 1}, record(2, user_id=3), record(1, intent="x"), 5]
    results = []
    for name, text in {"array": json.dumps(records), "lines": "\n".join(map(json.dumps, records))}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(text)
        counts, staged, quarantined = run(tmp_path / name, tmp_path / name / "f")
        results.append((counts.read, counts.repaired, counts.reject_codes, staged, [code for code, _ in quarantined]))
    assert results[0] == results[1]
