from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from recs.errors import InputError
from recs.ingest import ColumnMapping, read_campaigns, read_preferences


def campaigns(path: Path, *records: Any, **kwargs: Any) -> Any:
    path.write_text("\n".join(json.dumps(r) for r in records))
    return read_campaigns(path, max_record_bytes=10_000, **kwargs)


def test_campaigns_are_read_and_the_last_wins(tmp_path: Path) -> None:
    got, rejects = campaigns(
        tmp_path / "f",
        {"campaign_id": "k1", "name": "old"},
        {"campaign_id": 2, "name": 7, "intents": None, "categories": " a |b|a", "status": "Paused", "shop": [1]},
        {
            "campaign_id": " k1 ",
            "name": "new",
            "intents": ["i"],
            "starts_at": "2026-03-01",
            "ends_at": "9999-12-31T00:00:00",
            "status": None,
            "channel": "",
        },
    )
    assert rejects == []
    first, second = got
    assert (first.campaign_id, first.name, first.intents, first.status, first.channel) == (
        "k1", "new", ("i",), "active", None,
    )  # fmt: skip
    assert first.starts_at == datetime(2026, 3, 1, tzinfo=UTC)
    assert first.ends_at == datetime(9999, 12, 31, tzinfo=UTC)
    assert (second.campaign_id, second.name, second.categories, second.status) == ("2", "7", ("a", "b"), "paused")
    assert second.model_extra == {"shop": [1]}


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("campaign_id_missing", {"campaign_id": None}),
        ("campaign_id_blank", {"campaign_id": " "}),
        ("name_missing", {"name": None}),
        ("name_missing", {"name": " "}),
        ("intents_not_a_list", {"intents": {"a": 1}}),
        ("categories_not_a_list", {"categories": ["a", 1]}),
        ("channel_not_text", {"channel": 5}),
        ("description_not_text", {"description": ["x"]}),
        ("starts_at_unreadable", {"starts_at": "01/02/2026"}),
        ("ends_at_unreadable", {"ends_at": True}),
        ("ends_before_start", {"starts_at": "2026-03-01", "ends_at": "2026-02-01"}),
        ("unknown_status", {"status": "on"}),
    ],
)
def test_a_bad_campaign_is_a_reject(tmp_path: Path, code: str, changes: dict[str, Any]) -> None:
    bad = {"campaign_id": "k1", "name": "n", **changes}
    got, [reject] = campaigns(tmp_path / "f", bad, {"campaign_id": "k2", "name": "n"})
    assert [c.campaign_id for c in got] == ["k2"]
    assert (reject.code, reject.line) == (code, 1)
    assert json.loads(reject.raw) == bad


def test_lines_that_are_no_records(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text('{"campaign_id":"k1","name":"n"}\n[1]\n{"campaign\n' + "x" * 20_000)
    got, rejects = read_campaigns(path, max_record_bytes=10_000)
    assert len(got) == 1
    assert [r.code for r in rejects] == ["not_an_object", "invalid_json", "record_too_long"]
    with pytest.raises(InputError):
        read_campaigns(tmp_path / "none", max_record_bytes=10)


def test_campaigns_in_other_formats(tmp_path: Path) -> None:
    rows = [{"campaign_id": "k1", "name": "n", "intents": "a|b"}, {"campaign_id": "k2", "name": "m", "intents": ""}]
    (tmp_path / "csv").write_text("campaign_id,name,intents\nk1,n,a|b\nk2,m,\n")
    (tmp_path / "named").write_text("id;title;intents\nk1;n;a|b\nk2;m;\n")
    (tmp_path / "array").write_text(json.dumps(rows, indent=1))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "parquet")
    mapping = ColumnMapping({"campaign_id": "id", "name": "title", "intents": "intents"})
    for name in ("csv", "named", "array", "parquet"):
        got, rejects = read_campaigns(
            tmp_path / name, max_record_bytes=1000, mapping=mapping if name == "named" else None
        )
        assert rejects == []
        assert [(c.campaign_id, c.name, c.intents) for c in got] == [("k1", "n", ("a", "b")), ("k2", "m", ())]


def test_preferences(tmp_path: Path) -> None:
    path = tmp_path / "f"
    records: list[dict[str, Any]] = [
        {"user_id": "u1", "profiling": True},
        {"user_id": "u2", "channels": ["email", "email"]},
        {"user_id": "u3", "profiling": "no", "channels": {"email": 1, "*": "off"}},
        {"user_id": "u1", "profiling": False, "note": "called"},
        {"user_id": "u4", "channels": []},
        {"user_id": "u5", "channels": None},
        {"user_id": "u6", "profiling": None},
        {"user_id": "u7", "profiling": "perhaps"},
        {"user_id": "u8", "channels": 5},
        {"user_id": "u9", "channels": [1]},
        {"user_id": "u10", "channels": {"email": None}},
        {"profiling": False},
    ]
    path.write_text("\n".join(json.dumps(r) for r in records))
    got, rejects = read_preferences(path, max_record_bytes=1000)
    assert [(p.user_id, p.profiling, p.channels) for p in got] == [
        ("u1", False, None),
        ("u2", True, ("email",)),
        ("u3", False, {"email": True, "*": False}),
        ("u4", True, ()),
        ("u5", True, None),
    ]
    assert [r.code for r in rejects] == [
        "consent_unclear", "consent_unclear", "channels_not_a_list", "channels_not_text", "consent_unclear",
        "user_id_missing",
    ]  # fmt: skip
    assert not got[3].allows_channel("email")
