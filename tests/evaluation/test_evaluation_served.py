"""What is evaluated is what is served: the same scores, in the same order, from stores that hold training alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from evaluation_data import POSITIVE, conversation, dataset
from support import ROOT, WordEncoder, fresh_settings, load

from recs.bootstrap import connect
from recs.errors import LeakError, RunError
from recs.evaluation import arrays_of, baseline_methods, evaluate, leave_last_out, split_by_field
from recs.evaluation.metrics import ranking
from recs.evaluation.served import hybrid, require_unseen, words_of
from recs.model import Message
from recs.retrieval import Recommender

#: `recs evaluate` starts servers and loads a model; beside other work on a small machine that takes minutes.
LIMIT_SECONDS = 900

#: The methods whose figures have fixed names.
FIXED = (
    *("hybrid", "popularity", "popularity_by_category", "top5_neighbours", "user_knn_text", "user_knn", "item_knn"),
    *("ease", "als", "bpr", "random", "repeat"),
)

SAID = {"g": "garden seeds and a spade", "b": "a cot for the baby"}


def company():
    """Six gardeners and six parents with two to three conversations each, and one who never said a word."""
    rows = [
        conversation(
            f"{kind}{user}-{turn}",
            f"{kind}{user}",
            10 * turn + user,
            *((campaign, "like") for campaign in likes[(user + turn) % 3 : (user + turn) % 3 + 2]),
            text=f"{SAID[kind]} number{user}",
        )
        for kind, likes in (("g", "abca"), ("b", "defd"))
        for user in range(6)
        for turn in range(2 + user % 2)
    ]
    silent = [
        conversation(f"s-{turn}", "silent", turn, (c, "like"), said=(Message(role="agent", text="hello"),))
        for turn, c in enumerate("ab")
    ]
    return dataset(*rows, *silent)


@pytest.fixture(scope="module")
def trained(servers, tmp_path_factory):
    settings = fresh_settings(servers, tmp_path_factory.mktemp("evaluation"), "evaluation")
    stores = connect(settings, timeout_seconds=settings.load_timeout_seconds)
    data, encoder = company(), WordEncoder()
    split = leave_last_out(data, POSITIVE)
    load(stores, settings, encoder, [s.conversation for s in split.train], data.campaigns)
    recommender = Recommender(stores, settings, encoder=lambda: encoder)
    yield data, split, stores, recommender, settings
    recommender.close()
    stores.close()


def test_the_order_is_that_of_the_recommender(trained):
    data, split, stores, recommender, _ = trained
    require_unseen(stores, split)
    arrays = arrays_of(split, data.campaigns, POSITIVE)
    cases = np.arange(arrays.n_cases)
    scores = hybrid(recommender, arrays, split.cases)(cases)
    order = ranking(scores, arrays.had.toarray() == 0)
    assert len(split.cases) == 13
    for i, case in enumerate(split.cases):
        answer = recommender.recommend(case.user_id, k=100, use_cache=False, explain=False)
        served = [item.campaign_id for item in answer.items]
        evaluated = [arrays.campaign_ids[column] for column in order[i]]
        assert served == evaluated[: len(served)]
        assert [item.score for item in answer.items] == scores[i, order[i, : len(served)]].tolist()
        # What the filters of serving leave out here is what new-only leaves out.
        assert {s.campaign_id for s in answer.suppressed} == {
            arrays.campaign_ids[column] for column in arrays.had[[i]].indices
        }


def test_the_words_of_users_are_means_of_what_the_flow_has_stored(trained):
    data, split, stores, recommender, _ = trained
    arrays = arrays_of(split, data.campaigns, POSITIVE)
    words = words_of(stores, stores.state.generation(), recommender, split, arrays)
    assert np.isnan(words.users).all(axis=1).tolist() == [u == "silent" for u in arrays.user_ids]
    assert np.array_equal(words.cases, words.users[arrays.rows], equal_nan=True)
    index = stores.vectors.open(stores.state.generation().build)
    mean = np.mean(list(index.get("conversations", ["g1-0", "g1-1"]).values()), axis=0)
    assert words.users[arrays.user_ids.index("g1")] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)
    found = evaluate(
        arrays,
        {"hybrid": hybrid(recommender, arrays, split.cases), **baseline_methods(arrays, words)},
    )
    assert {"user_knn_text", "top5_neighbours"} <= set(found.methods)
    assert found.figures["recall@5.hybrid"] == 1.0  # six campaigns, of which at least one is known


def test_a_query_is_scored_as_a_text(trained):
    data, _, stores, recommender, _ = trained
    said = (Message(role="user", text="baby cot"), Message(role="agent", text="here"))
    nothing = (Message(role="agent", text="hello"),)
    found = dataset(
        conversation("train", "g0", 1, ("a", "like"), split="dev"),
        conversation("test1", "new", 2, ("d", "like"), said=said, split="test"),
        conversation("test2", "silent", 2, ("d", "like"), said=nothing, split="test"),
    )
    split = split_by_field(found, POSITIVE, "split")
    arrays = arrays_of(split, data.campaigns, POSITIVE)
    by_words, by_nothing = hybrid(recommender, arrays, split.cases)(np.array([0, 1]))
    answer = recommender.recommend_text(["baby cot"], k=100, explain=False)
    order = ranking(by_words[None], np.ones((1, 6), dtype=bool))[0]
    assert [item.campaign_id for item in answer.items] == [arrays.campaign_ids[c] for c in order]
    popular = recommender.recommend("nobody at all", k=100, use_cache=False, explain=False)
    order = ranking(by_nothing[None], np.ones((1, 6), dtype=bool))[0]
    assert popular.strategy == "popular"
    assert [item.campaign_id for item in popular.items] == [arrays.campaign_ids[c] for c in order]
    words = words_of(stores, stores.state.generation(), recommender, split, arrays)
    assert np.isnan(words.cases).all(axis=1).tolist() == [False, True]


def test_stores_that_hold_the_answer_are_refused(trained):
    data, split, stores, recommender, _ = trained
    seen = dataset(*(s.conversation for s in split.train))
    with pytest.raises(LeakError, match="the stores hold conversation"):
        require_unseen(stores, leave_last_out(seen, POSITIVE))
    fewer = arrays_of(split, data.campaigns[1:], POSITIVE)
    with pytest.raises(RunError, match="another catalogue"):
        hybrid(recommender, fewer, split.cases)(np.array([0]))


def test_a_store_that_does_not_answer_is_no_result(trained, closed_port):
    data, split, _, _, settings = trained
    stores = connect(settings.model_copy(update={"milvus_url": f"http://127.0.0.1:{closed_port}"}))
    recommender = Recommender(stores, settings)
    try:
        arrays = arrays_of(split, data.campaigns, POSITIVE)
        with pytest.raises(RunError, match="without vectors"):
            hybrid(recommender, arrays, split.cases)(np.array([0]))
    finally:
        recommender.close()
        stores.close()


def recs(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command with its temporary files in a folder of the test's."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    code = "import sys; from recs.cli import main; sys.argv[0] = 'recs'; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "evaluate", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
        timeout=LIMIT_SECONDS,
    )
    assert not list(temporary.glob("recs-evaluate-*"))
    return done


def written(folder: Path) -> tuple[str, str]:
    data = company()
    paths = folder / "conversations.jsonl", folder / "campaigns.jsonl"
    paths[0].write_text("".join(s.conversation.model_dump_json() + "\n" for s in data.conversations))
    paths[1].write_text("".join(c.model_dump_json() + "\n" for c in data.campaigns))
    return str(paths[0]), str(paths[1])


@pytest.mark.servers
@pytest.mark.timeout(LIMIT_SECONDS)
def test_the_command_writes_table_and_figures(tmp_path):
    conversations, campaigns = written(tmp_path)
    out = tmp_path / "out.json"
    done = recs(conversations, "--campaigns", campaigns, "--json", str(out), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    figures = content["figures"]
    methods = [*FIXED, "popularity_before"]
    for method in methods:
        assert method in done.stdout
        assert {f"recall@10.{method}", f"ndcg@10.{method}"} <= set(figures)
        assert method == "hybrid" or f"p.hybrid_vs.{method}" in figures
        assert f"calibration_error@10.{method}" in figures
        assert sum(b["places"] for b in content["calibration"][method]["bins"]) > 0
        assert 0 <= figures[f"seconds.{method}"] <= figures["seconds.evaluate"]
    assert figures["seconds.flow"] + figures["seconds.evaluate"] <= figures["seconds"]
    assert f"{figures['seconds']:.0f} s in all: {figures['seconds.flow']:.0f} servers and flow" in done.stderr
    assert content["command"] == "recs evaluate"
    assert figures["users"] == len(content["samples"]["ndcg@10.hybrid"])
    assert np.mean(content["samples"]["ndcg@10.hybrid"]) == pytest.approx(figures["ndcg@10.hybrid"])
    assert [d["rows"] for d in content["data"]] == [len(company().conversations), 6]
    card = content["protocol"]
    assert card["split"] == "leave_last_out"
    assert card["test_users"] == figures["users"]
    assert card["seed"] == 20260301
    assert card["data"] == content["data"]
    assert all(len(d["sha256"]) == 64 and d["sha256"] in done.stdout for d in card["data"])
    assert set(content["samples"]) <= set(figures)
    assert all(isinstance(value, int | float) for value in figures.values())
    assert str(tmp_path) not in out.read_text()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--positive", "like,love"], "--positive 'like,love': one or more of view"),
        (["--split-field", "split", "--time-quantile", "0.8"], "two ways to split"),
        (["--time-quantile", "2"], "more than 0 and less than 1"),
        (["--split-field", "nowhere"], "its values are None"),
        (["--positive", "dislike"], "nobody to test"),
    ],
)
def test_what_cannot_be_evaluated_is_said_before_anything_starts(tmp_path, options, told):
    conversations, campaigns = written(tmp_path)
    done = recs(conversations, "--campaigns", campaigns, *options, folder=tmp_path)
    assert done.returncode == 1
    assert told in done.stderr
    assert done.stdout == ""
