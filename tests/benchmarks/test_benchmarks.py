"""Each benchmark runs on next to nothing and writes the figures of DESIGN.md's table. Nothing here is timed."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_support import LIMIT_SECONDS, ROOT, bench, conversations, figures_of

from benchmarks.table import FIXED

SAMPLE_CAMPAIGNS = ["--campaigns", str(ROOT / "data" / "sample_campaigns.json")]


def test_embed_compares_the_same_texts(tmp_path: Path) -> None:
    data = conversations(tmp_path / "few.jsonl")
    content = figures_of("embed", "--data", str(data), "--rounds", "2", folder=tmp_path)
    figures = content["figures"]
    assert set(FIXED["embed"]) <= set(figures)
    assert figures["texts"] == 9  # one said by all, one by each
    assert figures["cosine_min"] > 0.99
    assert len(content["samples"]["texts_per_second"]) == 2
    assert content["data"][0]["rows"] == 16


@pytest.mark.servers
@pytest.mark.timeout(LIMIT_SECONDS)
def test_ingest_runs_the_flow_twice(tmp_path: Path) -> None:
    data = conversations(tmp_path / "few.jsonl")
    options = ["--data", str(data), *SAMPLE_CAMPAIGNS, "--limit", "6", "--rounds", "1"]
    content = figures_of("ingest", *options, folder=tmp_path)
    figures = content["figures"]
    assert set(FIXED["ingest"]) <= set(figures)
    assert figures["read"] == 6
    assert figures["peak_rss_mb"] > 50
    assert "seconds.embed" in figures
    assert content["data"][0]["rows"] == 6


@pytest.mark.servers
@pytest.mark.timeout(LIMIT_SECONDS)
def test_retrieve_on_synthetic_users(tmp_path: Path) -> None:
    options = ["--users", "30", "--requests", "3", "--rounds", "2"]
    content = figures_of("retrieve", *options, folder=tmp_path)
    figures = content["figures"]
    assert set(FIXED["retrieve"]) <= set(figures)
    assert figures["users"] == 30
    paths = content["conditions"]["critical_path"].removeprefix("the slower of ").split(" and ")
    sums = [sum(figures[f"call_ms.{name}"] for name in path.split(", ")) for path in paths]
    assert len(sums) == 2
    assert content["samples"]["critical_path_ms"]
    assert len(content["samples"]["median_ms"]) == 2


@pytest.mark.servers
@pytest.mark.timeout(LIMIT_SECONDS)
def test_serve_measures_cached_answers(tmp_path: Path) -> None:
    data = conversations(tmp_path / "few.jsonl")
    options = ["--data", str(data), *SAMPLE_CAMPAIGNS, "--users", "3", "--seconds", "1", "--rounds", "1"]
    content = figures_of("serve", *options, "--client", "python", folder=tmp_path)
    figures = content["figures"]
    assert set(FIXED["serve"]) <= set(figures)
    assert figures["users"] == 3
    assert figures["payload_bytes"] > 100
    assert content["conditions"]["load_generator"] == "python asyncio client"


@pytest.mark.servers
@pytest.mark.timeout(LIMIT_SECONDS)
def test_stores_at_growing_numbers_of_users(tmp_path: Path) -> None:
    content = figures_of("stores", "--users", "100", "--users", "220", "--rounds", "2", folder=tmp_path)
    figures = content["figures"]
    for store in ("documents", "vectors", "graph", "metrics", "state", "cache"):
        assert all(figures[f"users_per_second.{size}.{store}.embedded"] > 0 for size in (100, 220))
    assert len(content["samples"]["query_ms.220.vectors.search_200.embedded"]) == 2
    assert figures["memory_mb.220.vectors.embedded"] > 10
    assert figures["disk_mb.220.documents.embedded"] > 0
    assert not any(name.endswith(".real") for name in figures)
    assert content["data"][0]["rows"] == 220


def test_real_servers_are_asked_for_by_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MONGO", "MILVUS", "NEO4J", "POSTGRES", "REDIS"):
        monkeypatch.delenv(f"RECS_TEST_{name}_URL", raising=False)
    done = bench("stores", "--real", folder=tmp_path)
    assert done.returncode == 1
    assert "RECS_TEST_MONGO_URL" in done.stderr
    assert not list(tmp_path.glob("recs-bench-*"))


def test_scale_says_that_it_is_not_there(tmp_path: Path) -> None:
    done = bench("scale", "--json", str(tmp_path / "out.json"), folder=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert all(name in done.stderr for name in FIXED)
    assert not (tmp_path / "out.json").exists()


def test_synthetic_users_and_a_file_exclude_each_other(tmp_path: Path) -> None:
    data = conversations(tmp_path / "few.jsonl")
    done = bench("retrieve", "--users", "30", "--data", str(data), folder=tmp_path)
    assert done.returncode == 1
    assert "--users" in done.stderr
