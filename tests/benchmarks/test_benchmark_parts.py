"""The parts of the benchmarks that are right or wrong without measuring anything."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench_support import conversations

from benchmarks.__main__ import _arguments
from benchmarks.data import Input, distinct_texts
from benchmarks.errors import BenchmarkError
from benchmarks.home import run_sampled
from benchmarks.ingest import _check
from benchmarks.load import put_load
from benchmarks.recording import _Noting
from benchmarks.samples import ROOT, Samples, in_turn, percentile, result, shown_path
from benchmarks.table import DOCUMENT, FIXED, RESULTS, load_results, number, performance_page, terminal_table
from recs.cli.temporary_home import environment
from recs.settings import Settings


def _content(what: str) -> dict[str, Any]:
    samples = Samples()
    for value in (3.0, 1.0, 2.0):
        samples.add(dict.fromkeys(FIXED[what], value))
    data = [{"path": "a/b.jsonl", "sha256": "0" * 64, "rows": 7}]
    return result(what, {"texts": 12}, samples, data=data, conditions={"arguments": ["--rounds", "3"]})


def test_figures_are_medians_and_samples_keep_the_rounds() -> None:
    content = _content("embed")
    assert content["figures"]["texts_per_second"] == 2.0
    assert content["samples"]["texts_per_second"] == [3.0, 1.0, 2.0]
    assert "texts" not in content["samples"]


def test_each_round_starts_with_another_one() -> None:
    assert [in_turn("abc", n) for n in range(4)] == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_percentile_is_a_value_that_was_measured(share: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


def test_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_paths_in_results_do_not_tell_where_the_machine_keeps_them(tmp_path: Path) -> None:
    assert shown_path(ROOT / "data" / "sample_campaigns.json") == "data/sample_campaigns.json"
    outside = tmp_path / "redial" / "x.jsonl"
    outside.parent.mkdir()
    outside.touch()
    assert shown_path(outside) == "redial/x.jsonl"
    assert _arguments(["--data", str(outside), "--json", "o", "--rounds=2"]) == [
        "--data",
        "redial/x.jsonl",
        "--rounds=2",
    ]
    assert _arguments([f"--data={outside}", "--json=o"]) == ["--data=redial/x.jsonl"]


def test_a_limited_input_is_its_beginning(tmp_path: Path) -> None:
    source = Input(conversations(tmp_path / "few.jsonl"), None, limit=3)
    written = source.written(tmp_path, Settings())
    assert written.read_text().splitlines() == source.conversations.read_text().splitlines()[:3]
    assert source.described(Settings())[0]["rows"] == 3
    assert [c.conversation_id for c in source.accepted(Settings())] == ["c0-0", "c0-1", "c1-0"]


def test_distinct_texts_are_those_that_the_encoder_gets() -> None:
    assert distinct_texts(["a  b", "c", " ", "a b"], Settings()) == ["a b", "c"]


def test_processes_of_a_benchmark_see_no_server_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECS_MILVUS_URL", "http://somewhere")
    monkeypatch.setenv("RECS_NEO4J_PASSWORD", "secret")
    monkeypatch.setenv("RECS_BATCH_SIZE", "7")
    seen = environment(Settings(home=tmp_path, milvus_url=None))
    assert "RECS_MILVUS_URL" not in seen
    assert "RECS_NEO4J_PASSWORD" not in seen
    assert seen["RECS_BATCH_SIZE"] == "7"
    assert seen["RECS_HOME"] == str(tmp_path)


def test_a_process_that_fails_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="No such command"):
        run_sampled(Settings(home=tmp_path), "benchmarks", "nonsense")


def test_flows_that_cannot_be_compared_are_refused() -> None:
    same = {"embedded": 0, "loaded": 0, "duplicate": 4, "rejected": 1, "read": 5}
    _check({"embedded": 5}, same, 5)
    with pytest.raises(BenchmarkError, match="cannot be compared"):
        _check({"embedded": 4}, same, 5)
    with pytest.raises(BenchmarkError, match="second run"):
        _check({"embedded": 5}, {**same, "loaded": 1}, 5)


class _Index:
    def search(self, space: str, *, k: int) -> str:
        return f"{space}{k}"


class _Vectors:
    role = "vectors"

    def open(self, build: str) -> _Index:
        return _Index()


def test_calls_are_noted_with_what_they_need_to_be_made_again() -> None:
    calls: list[Any] = []
    vectors = _Noting(_Vectors(), "vectors", calls)
    assert vectors.role == "vectors"
    assert vectors.open("b1").search("users", k=3) == "users3"
    [call] = calls
    assert (call.name, call.arguments, call.keywords) == ("vectors.search", ("users",), {"k": 3})
    assert call.alone() >= 0


def test_the_python_client_counts_errors(tmp_path: Path) -> None:
    paths = tmp_path / "paths"
    paths.write_text("/a\n/b\n")

    async def answered(status: bytes) -> Any:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nok")

        server = await asyncio.start_server(_until_closed(answer), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            return await asyncio.to_thread(
                put_load, "python asyncio client", f"http://127.0.0.1:{port}", paths, connections=2, seconds=1
            )
        finally:
            server.close()
            await server.wait_closed()

    load = asyncio.run(answered(b"200 OK"))
    assert load.requests > 0
    assert load.errors == 0
    assert load.p99_ms >= load.median_ms > 0
    with pytest.raises(BenchmarkError, match="errors"):
        asyncio.run(answered(b"503 No"))


def _until_closed(answer: Any) -> Any:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    return handle


def test_terminal_table_shows_medians_with_their_spread() -> None:
    text = terminal_table(_content("retrieve"))
    row = next(line for line in text.splitlines() if line.startswith("over_critical_path"))
    assert row.split() == ["over_critical_path", "2", "1..3", "(3)"]


def test_numbers_are_short() -> None:
    assert [number(x) for x in (12345.6, 5, 0.98765, 12.3456, 0.00001234)] == [
        "12,346",
        "5",
        "0.9877",
        "12.35",
        "1.2e-05",
    ]


def test_a_result_that_lacks_a_fixed_figure_is_refused() -> None:
    content = _content("serve")
    del content["figures"]["p99_over_constant"]
    with pytest.raises(BenchmarkError, match="p99_over_constant"):
        terminal_table(content)


def test_the_page_names_command_data_machine_median_and_spread() -> None:
    page = performance_page([(f"{what}-x", _content(what)) for what in FIXED])
    for what, names in FIXED.items():
        assert f"`recs bench {what} --rounds 3`" in page
        assert all(f"| `{name}` | 2 | 1..3 (3) |" in page for name in names)
    assert "a/b.jsonl (7 rows)" in page


def test_the_page_in_docs_is_the_one_that_the_results_give() -> None:
    results = load_results(RESULTS)
    assert DOCUMENT.read_text() == performance_page(results)
    assert {content["command"] for _, content in results} == {f"recs bench {what}" for what in FIXED}
    assert str(ROOT) not in DOCUMENT.read_text()


def test_help_needs_no_server() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0
    assert all(what in done.stdout for what in FIXED)
