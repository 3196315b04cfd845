"""420 planted defects of 63 kinds among 900 real lines; docs/data-formats.md says what becomes of each kind."""

from __future__ import annotations

import gzip
import json
import re
from collections import defaultdict
from pathlib import Path

import pytest

from recs.ingest import Quarantine, Reject, Staging, classify, extract, parse_record, read_campaigns, read_records

ROOT = Path(__file__).parents[2]
MESSY = ROOT.parent / "shared" / "data" / "messy"
LIMIT = 16 << 20

pytestmark = pytest.mark.skipif(not MESSY.is_dir(), reason="../shared/data/messy is absent")


def documented() -> dict[str, tuple[str, set[str], set[str]]]:
    """Kind of defect to what the manifest suggests, the outcomes and the codes that the documentation promises."""
    text = (ROOT / "docs" / "data-formats.md").read_text()
    rows = re.findall(
        r"^\| (\w+) \| (\w+) \| ([\w, ]+) \| ([`\w, ]*) \|[^|]*\|$", text[text.index("## Kinds of defect") :], re.M
    )
    table = {
        kind: (suggested, set(outcomes.split(", ")), set(re.findall(r"`(\w+)`", codes)))
        for kind, suggested, outcomes, codes in rows
        if kind != "kind"
    }
    assert len(table) == len([r for r in rows if r[0] != "kind"])
    return table


def known_campaigns() -> set[str]:
    campaigns, rejects = read_campaigns(MESSY / "campaigns.jsonl.gz", max_record_bytes=LIMIT)
    assert rejects == []
    return {c.campaign_id for c in campaigns}


def test_each_kind_of_defect_ends_as_documented() -> None:
    with gzip.open(MESSY / "manifest.jsonl.gz") as file:
        manifest = [json.loads(line) for line in file]
    known = known_campaigns()
    met: dict[int, tuple[str, set[str]]] = {}
    for raw in read_records(MESSY / "conversations_messy.jsonl.gz", max_record_bytes=LIMIT):
        assert not isinstance(raw, Reject)
        result = parse_record(raw, known_campaigns=known)
        if isinstance(result, Reject):
            met[raw.line] = ("reject", {result.code})
        elif result.rejects:
            met[raw.line] = ("reject_engagement", {r.code for r in result.rejects} | set(result.repairs))
        else:
            met[raw.line] = ("repair" if result.repairs else "accept", set(result.repairs))

    kinds: dict[str, tuple[str, set[str], set[str]]] = {}
    seen: dict[str, set[str]] = defaultdict(set)
    codes: dict[str, set[str]] = defaultdict(set)
    for planted in manifest:
        outcome, found = met.get(planted["line"], ("ignore", set()))
        kind = planted["defect"]
        if kind is None:
            # Three clean lines hold an engagement twice.
            assert (outcome, found) in (("accept", set()), ("repair", {"engagement_duplicate"}))
            continue
        if kind.startswith("duplicate_id"):  # a matter of two lines: see the next test
            assert (outcome, found) == ("accept", set())
            outcome = "update" if kind.endswith("changed_content") else "duplicate"
        seen[kind].add(outcome)
        codes[kind] |= found
        kinds[kind] = (planted["expected"], seen[kind], codes[kind])
    assert len(kinds) == 63
    assert documented() == kinds


def test_the_whole_file_counted(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q")
    stored: dict[str, str] = {}
    for run in ("r1", "r2"):
        with Staging(tmp_path / "s") as staging:
            counts = extract(
                [MESSY / "conversations_messy.jsonl.gz"], staging, quarantine, run_id=run,
                known_campaigns=known_campaigns(), max_record_bytes=LIMIT,
            )  # fmt: skip
            winners = [w for batch in staging.winners(200) for w in batch]
        results = [classify(w.hashes, stored.get(w.conversation.conversation_id)) for w in winners]
        loaded, updated, duplicate = (sum(getattr(r, n) for r in results) for n in ("loaded", "updated", "duplicate"))
        assert counts.read == 1312 == loaded + duplicate + counts.rejected
        assert (counts.blank, counts.rejected, counts.rejected_engagements) == (8, 92, 24)
        assert (loaded, updated, duplicate) == ((1210, 10, 10) if run == "r1" else (0, 0, 1220))
        assert quarantine.count() == 92 + 24
        stored = {w.conversation.conversation_id: w.content_hash for w in winners}
