"""The tables of docs/evaluation.md: made of results that can be checked in the head, and those in the document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.evaluation import BEGIN, END, load_evaluations, pooled_lines, with_evaluations
from benchmarks.samples import ROOT
from benchmarks.table import EVALUATION, RESULTS, load_results
from recs.evaluation.statistics import paired_p
from recs.figures import figures_object, write_figures

SEED = 5
HELD_OUT = {"one": 3, "few": 5}


def _content(name: str, **methods: list[float]) -> dict[str, Any]:
    """Return a result of these users' NDCG@10 by method."""
    users = len(methods["hybrid"])
    figures: dict[str, float] = {"users": users, "users.all": users + 1, "seconds": 9.0, "seconds.flow": 7.0}
    figures |= {"seconds.evaluate": 1.5, **{f"users.{segment}": count for segment, count in HELD_OUT.items()}}
    for method, values in methods.items():
        mean = float(np.mean(values))
        figures |= {f"recall@10.{method}": mean / 2, f"ndcg@10.{method}": mean}
        figures |= {f"ndcg@10.{method}.low": mean - 0.1, f"ndcg@10.{method}.high": mean + 0.1}
        figures |= {f"ndcg@10.{method}.one": mean, f"ndcg@10.{method}.few": mean}
        figures |= {f"calibration_error@10.{method}": 0.02, f"calibration_error@10.{method}.chance": 0.01}
        if method != "hybrid":
            figures[f"difference.hybrid_vs.{method}"] = float(np.mean(methods["hybrid"])) - mean
            figures[f"p.hybrid_vs.{method}"] = paired_p(np.array(methods["hybrid"]), np.array(values), seed=SEED)
    place = {"score_from": 0.1, "score_to": 0.25, "predicted": 0.2, "observed": 0.3, "places": 1_200}
    data = [{"path": f"{name}/c.jsonl", "sha256": name * 9, "rows": 7}, {"path": "k", "sha256": "0" * 64, "rows": 2}]
    samples = {f"ndcg@10.{method}": values for method, values in methods.items()}
    card = {
        "split": "leave_last_out",
        "split_means": "the last one",
        "test_users": users,
        "test_users_without_a_new_target": 1,
        "train_conversations": 20,
        "train_users": 12,
        "candidates": "all",
        "new_only": "new",
        "positive": ["like"],
        "left_out": {"copies_of_a_test_conversation": 2, "conversations_cut_short": 0},
        "weights": {"intent": 0.25},
        "model": "words/float32",
        "seed": SEED,
        "intervals": "95%",
        "p": "paired",
    }
    return {
        **figures_object("recs evaluate", figures, data=data, samples=samples),
        "calibration": {"hybrid": {"cases": users, "bins": [place], "segments": {"one": place, "few": place}}},
        "protocol": card,
    }


def _results() -> list[tuple[str, dict[str, Any]]]:
    """Return two data sets: on the first `ease` is best, on the second `knn`, on average `knn`."""
    few = {"hybrid": [0.5] * 8, "ease": [0.7] * 8, "knn": [0.6] * 8}
    many = {"hybrid": [0.2, 0.4] * 10, "ease": [0.0] * 20, "knn": [0.3, 0.5] * 10}
    return [("few", _content("few", **few)), ("many", _content("many", **many))]


def test_the_best_baseline_on_average_is_tested_over_all_users() -> None:
    text = "\n".join(pooled_lines(_results()))
    assert "`hybrid` against `knn`" in text
    assert "28 test users: mean difference -0.1000, p = 0.0001" in text
    assert "**hybrid loses**" in text
    assert "| NDCG@10 | `knn` | `hybrid` | `ease` |" in text
    assert "| mean of the data sets | 0.500 | 0.400 | 0.350 |" in text


def test_what_is_not_clear_is_no_difference() -> None:
    alike = [("a", _content("a", hybrid=[0.1, 0.9] * 6, knn=[0.9, 0.1] * 6))]
    ahead = [("b", _content("b", hybrid=[0.3] * 12, knn=[0.2] * 12))]
    assert pooled_lines(alike) == []
    assert "**no clear difference**" in "\n".join(pooled_lines([*alike, *ahead]))
    assert "**hybrid is ahead**" in "\n".join(pooled_lines([*ahead, ("c", _content("c", hybrid=[0.3], knn=[0.2]))]))


def test_other_protocols_and_the_same_data_twice_are_not_pooled() -> None:
    (name, first), (_, second) = _results()
    second["protocol"]["split"] = "field"
    assert pooled_lines([(name, first), ("other", second)]) == []
    with pytest.raises(BenchmarkError, match="few, again are of the same conversations"):
        pooled_lines([(name, first), ("again", first)])


def test_a_data_set_has_its_losses_first_its_table_and_its_card() -> None:
    text = with_evaluations(f"before\n{BEGIN}\nold\n{END}\nafter\n", _results())
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "\nold\n" not in text
    few = text[text.index("### few") : text.index("### many")].splitlines()
    assert few[2].startswith("- hybrid loses to: ease (-0.2000, p = 0.00")
    heads = (
        "| method | Recall@10 | NDCG@10 (95%) | hybrid - it | p | one (3) | few (5) | calibration error (by chance) |"
    )
    assert any(line.startswith(heads) for line in few)
    assert any(
        line.startswith("| `ease` | 0.350 | 0.700 (0.600..0.800) | -0.200 | 0.00")
        and line.endswith("| 0.700 | 0.700 | 0.0200 (0.0100) |  |")
        for line in few
    )
    rows = [line.split("`")[1] for line in few if line.startswith("| `")]
    assert rows == ["ease", "knn", "hybrid"]
    assert "| score | 0.1..0.25 |" in few
    assert "| places | 1,200 |" in few
    assert any(line.startswith("By training conversations: one 0.2000 predicted, 0.3000 observed; few") for line in few)
    assert "- data: few/c.jsonl, 7 rows, sha256 fewfewfewfew; k, 2 rows, sha256 000000000000" in few
    assert "- left out of training: copies of a test conversation 2" in few
    assert "- seed: 5" in few
    assert "- weights: intent 0.25 (not learned)" in few
    assert any(
        "9 s: servers and flow, with the encoding, 7; learning weights 0; scoring and judging 2" in line for line in few
    )
    assert "- hybrid loses clearly to none" in "\n".join(
        with_evaluations(f"{BEGIN}{END}", [("x", _content("x", hybrid=[0.3], knn=[0.3]))]).splitlines()
    )


def test_written_twice_it_is_the_same() -> None:
    once = with_evaluations(f"a\n{BEGIN}\n{END}\nb\n", _results())
    assert with_evaluations(once, _results()) == once


@pytest.mark.parametrize("document", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{END}{END}"])
def test_a_document_without_marks_is_left_alone(document: str) -> None:
    with pytest.raises(BenchmarkError, match="once each"):
        with_evaluations(document, _results())


def test_files_are_read_by_name_cold_starts_last(tmp_path: Path) -> None:
    cold = _content("c", hybrid=[0.5], knn=[0.5])
    cold["protocol"]["split"] = "field"
    for name, content in (("a-cold", cold), *_results()):
        write_figures(tmp_path / f"evaluation-{name}.json", content)
    assert [name for name, _ in load_evaluations(tmp_path)] == ["few", "many", "a-cold"]
    with pytest.raises(BenchmarkError, match="no result"):
        load_results(tmp_path)  # they are no benchmarks
    write_figures(tmp_path / "evaluation-z.json", {**cold, "command": "recs run"})
    with pytest.raises(BenchmarkError, match="recs run"):
        load_evaluations(tmp_path)


def test_the_tables_in_docs_are_those_that_the_results_give() -> None:
    document = EVALUATION.read_text()
    results = load_evaluations(RESULTS)
    assert document == with_evaluations(document, results)
    assert {"redial", "amazon_small"} <= {name for name, _ in results}
    assert str(ROOT) not in document
