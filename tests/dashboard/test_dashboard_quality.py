"""The page of quality, driven by AppTest on results of real runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dashboard_support import FakeStores, workbench
from streamlit.testing.v1 import AppTest
from support import ROOT

from app.dashboard import charts
from app.dashboard.markup import as_markdown
from app.dashboard.quality import headline, methods
from recs.evaluation.report import keep_evaluation, kept_evaluation, weights_line
from recs.stores.state import SqlState

RESULT = ROOT / "benchmarks" / "results" / "evaluation-amazon_small.json"


def _page(bench):  # type: ignore[no-untyped-def]  # AppTest takes its source alone, without the imports above
    from app.dashboard.quality import show

    show(bench)


def _opened(fake: FakeStores) -> AppTest:
    test = AppTest.from_function(_page, args=(workbench(fake),), default_timeout=30)
    test.run()
    assert not test.exception
    return test


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULT.read_text())
    return found


def test_what_is_kept_is_shown_whole(result: dict[str, Any], tmp_path: Path) -> None:
    state = SqlState(f"sqlite:///{tmp_path / 'state.db'}")
    assert kept_evaluation(state) is None
    keep_evaluation(state, result)
    assert kept_evaluation(state) == {name: value for name, value in result.items() if name != "samples"}
    body = state.artifact("evaluation")
    assert body is not None
    test = _opened(FakeStores(artifacts={"evaluation": body}))
    state.close()
    rows = methods(result)
    assert test.header[0].value == as_markdown(headline(rows))
    shown = test.dataframe[0].value
    assert shown["NDCG@10"].tolist() == [row["ndcg"] for row in rows]
    assert shown["Ranking by"].tolist()[0] == rows[0]["name"]
    assert len(shown) == 13
    assert test.markdown[-1].value == as_markdown(weights_line(result["protocol"]))
    assert json.loads(test.json[0].value)["seed"] == result["protocol"]["seed"]


def test_without_an_evaluation_it_says_how_to_get_one() -> None:
    test = _opened(FakeStores())
    assert "recs evaluate" in test.code[0].value
    assert "--keep" in test.code[0].value


def test_a_store_that_is_away_is_no_stack_trace() -> None:
    test = _opened(FakeStores(down=["state"]))
    assert "does not answer" in test.error[0].value
    assert test.button[0].label == "Try again"


def _row(name: str, difference: float | None, p: float | None) -> dict[str, Any]:
    return {"method": name, "name": name, "ndcg": 0.1, "low": 0.0, "high": 0.2, "difference": difference, "p": p}


def test_the_finding_names_losses_first() -> None:
    ours, won, even, lost = _row("hybrid", None, None), _row("a", 0.1, 0.01), _row("b", 0.1, 0.2), _row("c", -0.1, 0.01)
    assert headline([ours, won]) == "Our ranking beats all 1 others"
    assert headline([ours, won, even]) == "Our ranking beats 1 of 2 others and cannot be told from b"
    assert headline([lost, ours, won, even]) == "Our ranking loses to c; it beats 1 of 3 others"


def test_the_chart_draws_each_interval_where_it_lies(result: dict[str, Any]) -> None:
    rows = methods(result)
    from_zero, width, dots = charts.intervals(rows, ink="#000000")["series"]
    for i, row in enumerate(rows):
        assert from_zero["data"][i]["value"] + width["data"][i]["value"] == pytest.approx(row["high"])
        assert dots["data"][i]["value"] == [row["ndcg"], i]
    assert rows[0]["name"] in charts.intervals_in_words(rows)
