"""The study of ways to similar users: on talk that can be followed in the head, and its page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from support import WordEncoder

from benchmarks import vector_ways as ways
from benchmarks.data import Input
from benchmarks.errors import BenchmarkError
from benchmarks.evaluation import BEGIN, END
from benchmarks.samples import ROOT
from benchmarks.table import RESULTS, VECTORS, load_results, terminal_table
from benchmarks.vector_ways import PRESENT, Known, Said
from benchmarks.vectors import bench_vectors, every_way, ndcg
from benchmarks.vectors_page import interval, load_studies, with_studies
from recs.errors import InputError
from recs.evaluation import metrics
from recs.figures import write_figures

CHOSEN = "messages that count: the agent's at half weight"


def _said(**changes: Any) -> Said:
    """Return two users and a query: user 0 spoke twice, first in two messages with an answer between them."""
    east, north = [1.0, 0.0], [0.0, 1.0]
    given: dict[str, Any] = {
        "vectors": np.array([east, north], dtype=np.float32),
        "words": sparse.csr_array(np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 2.0]])),
        "text": np.array([0, 1, 1, 0, 1, 0]),
        "conversation": np.array([0, 0, 0, 1, 2, 3]),
        "own": np.array([True, False, True, True, True, True]),
        "chars": np.array([5.0, 9.0, 7.0, 5.0, 7.0, 5.0]),
        "speaker": np.array([0, 0, 1, 2]),
        "age": np.array([1.0, 0.0, 0.0, 0.0]),
        "days": np.array([180.0, 0.0, 0.0, np.nan]),
        "n_users": 2,
        "n_speakers": 3,
    }
    return Said(**{**given, **changes})


def _known() -> Known:
    taken = sparse.csr_array(np.array([[1.0, 0.0], [0.0, 1.0]]))
    taken_in = sparse.csr_array(np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]))
    return Known(_said(), np.array([2, 0]), taken, taken * -1.0, taken_in)


@pytest.mark.parametrize(
    ("weigh", "expected"),
    [
        (ways.own_messages, [1, 0, 1, 1, 1, 1]),
        (ways.agent_too(0.5), [1, 0.5, 1, 1, 1, 1]),
        (ways.first(1), [1, 0, 0, 1, 1, 1]),
        (ways.last(1), [0, 0, 1, 1, 1, 1]),
        (ways.longest(1), [0, 0, 1, 1, 1, 1]),
        (ways.at_least(6), [0, 0, 1, 0, 1, 0]),
        (ways.by_length(1.0), [5, 0, 7, 5, 7, 5]),
    ],
)
def test_messages_that_count(weigh: ways.Weigh, expected: list[float]) -> None:
    assert weigh(_said()).tolist() == expected


def test_rare_words_weigh_more() -> None:
    weights = ways.by_rare_words(_said())
    assert weights[1] == 0  # the agent's
    assert weights[0] > weights[2] > 0


def test_a_conversation_without_a_message_that_counts_takes_all_of_its_own() -> None:
    vectors = ways.conversation_vectors(_said(), ways.Way(ways.at_least(8), ways.alike, ways.centred(), PRESENT.ask))
    assert vectors.tolist() == [[0.5, 0.5], [1, 0], [0, 1], [1, 0]]


def test_recency_is_by_days_or_else_by_conversations() -> None:
    assert ways.half_life_days(180.0)(_said()).tolist() == [0.5, 1.0, 1.0, 1.0]
    assert ways.half_life_conversations(1.0)(_said()).tolist() == [0.5, 1.0, 1.0, 1.0]
    assert ways.half_life_days(1.0)(_said(days=np.full(4, np.nan)))[0] == pytest.approx(0.5**0.1)


def test_the_greatest_in_each_direction() -> None:
    way = ways.Way(ways.own_messages, ways.alike, ways.centred(), PRESENT.ask, pooling="max")
    assert ways.speaker_vectors(_said(), way)[0] == pytest.approx([np.sqrt(0.5)] * 2)


def test_spaces_change_the_sizes_of_components_and_nothing_else() -> None:
    vectors = np.array([[3.0, 1.0], [-3.0, -1.0], [3.0, -1.0], [-3.0, 1.0]]) + 5.0
    assert ways.centred(0.5)(vectors)(vectors[:1]).tolist() == [[5.5, 3.5]]
    assert np.abs(ways.without_components(1)(vectors)(vectors)) == pytest.approx(np.array([[0.0, 1.0]] * 4))
    assert np.abs(ways.evened(1, 1.0)(vectors)(vectors)) == pytest.approx(np.ones((4, 2)))
    assert ways.evened(1, 0.0)(vectors)(vectors) == pytest.approx(vectors - 5.0)
    assert np.abs(ways.whitened()(vectors)(vectors)) == pytest.approx(np.full((4, 2), 0.5))
    one = vectors[:1]
    assert ways.evened(64, 0.5)(one)(one).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("name", every_way())
def test_every_way_finds_the_user_who_talks_alike(name: str) -> None:
    scores = every_way()[name].scores(_known())
    assert scores.shape == (2, 2)
    assert np.isfinite(scores).all()
    assert scores[1, 0] == 0  # nobody asks themselves
    if "strengths" not in name and "ranks" not in name and "not centred" not in name:
        assert scores[0, 0] >= scores[0, 1]


def test_bm25_is_that_of_the_book() -> None:
    said_by = np.array([[2.0, 3.0, 2.0], [0.0, 1.0, 2.0]])  # user 0 said the first text twice; the agent's do not count
    asked = np.array([1.0, 1.0, 0.0])
    length, having = said_by.sum(axis=1, keepdims=True), (said_by > 0).sum(axis=0)
    idf = np.log(1 + (2 - having + 0.5) / (having + 0.5))
    saturated = said_by * 2.2 / (said_by + 1.2 * (0.25 + 0.75 * length / length.mean()))
    expected = (saturated * idf * asked).sum(axis=1)
    assert ways.bm25(_known())[0] == pytest.approx(expected)
    assert ways.bm25(_known(), found=1)[0].tolist() == [0.0, 0.0]  # beyond the last that was found


def test_ndcg_is_that_of_the_evaluation() -> None:
    rng = np.random.default_rng(1)
    allowed = rng.random((40, 30)) < 0.8
    targets = allowed & (rng.random((40, 30)) < 0.2)
    targets[:, 0] = allowed[:, 0] = True
    scores = rng.integers(0, 6, (40, 30)) / 3.0  # with many ties
    expected = metrics.quality(metrics.ranking(scores, allowed), targets, (10,))["ndcg@10"]
    assert ndcg(scores, allowed, targets) == pytest.approx(expected)


def _data(folder: Path, texts: Sequence[str] = ("desk", "chair")) -> Input:
    """Write users of two kinds, who talk of one thing each and take its four campaigns one after the other."""
    folder = folder / "kinds"
    folder.mkdir()
    records = [
        {
            "conversation_id": f"c{user}-{turn}",
            "user_id": f"u{user}",
            "started_at": f"2026-01-{1 + turn * 3:02d}T10:00:{user:02d}Z",
            "split": "test" if turn == 4 else "dev",
            "messages": [
                {"role": "user", "text": f"about the {texts[user % 2]} {texts[user % 2]} {user}{turn}"},
                {"role": "agent", "text": f"take the {texts[user % 2]} {turn}"},
            ],
            "engagements": [{"campaign_id": f"{texts[user % 2]}{(user // 2 + turn) % 6}", "action": "like"}],
        }
        for user in range(16)
        for turn in range(5)
    ]
    (folder / "c.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    campaigns = [{"campaign_id": f"{text}{n}", "name": f"{text} {n}"} for text in texts for n in range(6)]
    (folder / "k.json").write_text(json.dumps(campaigns))
    return Input(folder / "c.jsonl", folder / "k.json")


@pytest.mark.parametrize("split_field", [None, "split"])
def test_a_study_has_every_way_on_the_validation_folds_and_the_chosen_one_on_the_test(
    tmp_path: Path, split_field: str | None
) -> None:
    content = bench_vectors(
        _data(tmp_path),
        actions=["like"],
        inner=1,
        split_field=split_field,
        tested=[CHOSEN],
        encoder=WordEncoder(),
    )
    figures = content["figures"]
    assert figures["users"] == 16
    assert ("last but 1, 16 cases" in content["conditions"]["folds"]) == (split_field is None)
    for measure in ("text", "blend"):
        assert 0.2 < figures[f"ndcg@10.{measure}.present"] <= 1
        assert {f"difference.{measure}.{way}" for way in every_way()} <= figures.keys()
        tested = [name for name in figures if name.startswith(f"test.difference.{measure}.")]
        assert tested == [f"test.difference.{measure}.{CHOSEN}"]
    assert figures["difference.text.recency: half-life 10 conversations"] == pytest.approx(0, abs=0.2)
    assert "users" in terminal_table(content)


def test_what_cannot_be_studied_is_refused(tmp_path: Path) -> None:
    data = _data(tmp_path)
    with pytest.raises(InputError, match="--campaigns"):
        bench_vectors(Input(data.conversations, None), actions=["like"], inner=1, encoder=WordEncoder())
    with pytest.raises(InputError, match="'magic' is no way"):
        bench_vectors(data, actions=["like"], inner=1, tested=["magic"], encoder=WordEncoder())


def _study(name: str, difference: float, error: float) -> tuple[str, dict[str, Any]]:
    figures: dict[str, float] = {"users": 1_200}
    for measure in ("text", "blend"):
        figures |= {f"ndcg@10.{measure}.present": 0.2, f"difference.{measure}.a: b": difference}
        figures |= {f"error.{measure}.a: b": error, f"test.ndcg@10.{measure}.present": 0.3}
        figures |= {f"test.difference.{measure}.a: b": difference, f"test.error.{measure}.a: b": error}
    return name, {
        "command": "recs bench vectors",
        "at": "then",
        "figures": figures,
        "data": [{"path": "c", "sha256": name * 9, "rows": 3}],
        "conditions": {"folds": "last but 1, 9 cases", "positive": "like", "encoder": "words"},
        "machine": {"processor": "p", "cores": 2, "memory_gib": 4.0},
        "versions": {"python": "3"},
    }


def test_the_page_tells_what_is_beyond_chance_and_the_mean_of_the_data_sets() -> None:
    text = with_studies(f"x\n{BEGIN}\nold\n{END}\ny\n", [_study("one", 0.02, 0.005), _study("two", 0.0, 0.0)])
    assert text.startswith("x\n")
    assert text.endswith("\ny\n")
    assert "old" not in text
    row = "| a: b | **+0.0200 (+0.0102..+0.0298)** | +0.0000 (+0.0000..+0.0000) | **+0.0100 (+0.0051..+0.0149)** |"
    assert text.count(row) == 4
    assert "- one: 1,200 users; last but 1, 9 cases; positive: like; words; c, 3 rows" in text
    assert interval(0.01, 0.006) == "+0.0100 (-0.0018..+0.0218)"


def test_studies_are_read_by_name_and_are_no_benchmarks(tmp_path: Path) -> None:
    for name, content in (_study("b", 0.1, 0.1), _study("a", 0.1, 0.1)):
        write_figures(tmp_path / f"vectors-{name}.json", content)
    assert [name for name, _ in load_studies(tmp_path)] == ["a", "b"]
    with pytest.raises(BenchmarkError, match="no result"):
        load_results(tmp_path)
    write_figures(tmp_path / "vectors-c.json", _study("a", 0.1, 0.1)[1])
    with pytest.raises(BenchmarkError, match="a, b, c are of the same conversations"):
        load_studies(tmp_path)
    write_figures(tmp_path / "vectors-c.json", {**_study("c", 0.1, 0.1)[1], "command": "recs run"})
    with pytest.raises(BenchmarkError, match="recs run"):
        load_studies(tmp_path)


def test_the_tables_in_docs_are_those_that_the_results_give() -> None:
    document, studies = VECTORS.read_text(), load_studies(RESULTS)
    assert {"redial", "amazon_small", "twitter_care"} <= {name for name, _ in studies}
    assert document == with_studies(document, studies)
    assert str(ROOT) not in document
