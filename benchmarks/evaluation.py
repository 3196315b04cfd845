"""Results of `recs evaluate` into the tables of `docs/evaluation.md`, and the test over all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.errors import BenchmarkError
from benchmarks.table import EVALUATIONS, files, machine, versions
from recs.evaluation import Evaluation
from recs.evaluation.evaluate import LIST, SEGMENTS, SERVED, TESTED
from recs.evaluation.report import LEVEL, standing, weights_line
from recs.evaluation.statistics import paired_p

BEGIN = "<!-- from here to the end mark: written by `python -m benchmarks table` from benchmarks/results/ -->"
END = "<!-- end of what is written by `python -m benchmarks table` -->"

#: The protocol whose results are tested together.
POOLED = "leave_last_out"

Result = tuple[str, Mapping[str, Any]]


def load_evaluations(folder: Path) -> list[Result]:
    """Return the evaluations of a folder with the names of their data, those of the pooled protocol first, by name."""
    found = [
        (path.stem.removeprefix("evaluation-"), json.loads(path.read_text()))
        for path in sorted(folder.glob(EVALUATIONS))
    ]
    for name, content in found:
        if content["command"] != "recs evaluate":
            raise BenchmarkError(f"evaluation-{name}.json is of {content['command']!r}; one of recs evaluate is needed")
    return sorted(found, key=lambda item: (item[1]["protocol"]["split"] != POOLED, item[0]))


def with_evaluations(document: str, results: Sequence[Result]) -> str:
    """Return a document with the tables of these results between its marks, in place of what is there."""
    lines = pooled_lines(results)
    for name, content in results:
        lines += [f"### {name}", "", *_result_lines(content)]
    return between_marks(document, lines)


def between_marks(document: str, lines: Sequence[str]) -> str:
    """Return a document with these lines between its marks, in place of what is there.

    Raises BenchmarkError where it does not have each mark once, in order.
    """
    if document.count(BEGIN) != 1 or document.count(END) != 1 or document.index(BEGIN) > document.index(END):
        raise BenchmarkError(f"the document needs the lines {BEGIN!r} and {END!r}, once each, in this order")
    before, rest = document.split(BEGIN)
    return before + "\n".join([BEGIN, "", *lines, END]) + rest.partition(END)[2]


def pooled_lines(results: Sequence[Result]) -> list[str]:
    """Return the test over the users of all results that leave the last out; nothing where there are fewer than two.

    The served ranking is compared with the one baseline that is best on average over the data sets. Raises
    BenchmarkError where two results are of the same data, whose users would be counted twice.
    """
    pooled = [(name, content) for name, content in results if content["protocol"]["split"] == POOLED]
    if len(pooled) < 2:
        return []
    if len({content["data"][0]["sha256"] for _, content in pooled}) < len(pooled):
        raise BenchmarkError(f"two of {', '.join(name for name, _ in pooled)} are of the same conversations; keep one")
    means = {
        method: float(np.mean([content["figures"][f"{TESTED}.{method}"] for _, content in pooled]))
        for method in _methods(pooled[0][1])
        if all(method in _methods(content) for _, content in pooled)
    }
    ordered = sorted(means, key=lambda method: -means[method])
    best = next(method for method in ordered if method != SERVED)
    served, other = (
        np.concatenate([np.array(content["samples"][f"{TESTED}.{method}"]) for _, content in pooled])
        for method in (SERVED, best)
    )
    p = paired_p(served, other, seed=int(pooled[0][1]["protocol"]["seed"]))
    difference = float((served - other).mean())
    verdict = "no clear difference" if p > LEVEL else f"{SERVED} {'is ahead' if difference > 0 else 'loses'}"
    return [
        "### All test users together",
        "",
        f"`{SERVED}` against `{best}`, the baseline whose NDCG@10 is best on average over the data sets "
        f"({' and '.join(name for name, _ in pooled)}), over their {len(served):,} test users: "
        f"mean difference {difference:+.4f}, p = {p:.4f} (paired randomisation test): **{verdict}**.",
        "",
        "| NDCG@10 | " + " | ".join(f"`{method}`" for method in ordered) + " |",
        "|---" + "|--:" * len(ordered) + "|",
        "| mean of the data sets | " + " | ".join(_short(means[method]) for method in ordered) + " |",
        *(
            f"| {name} | " + " | ".join(_short(content["figures"][f"{TESTED}.{method}"]) for method in ordered) + " |"
            for name, content in pooled
        ),
        "",
    ]


def _methods(content: Mapping[str, Any]) -> list[str]:
    return [name.removeprefix(f"{TESTED}.") for name in content["samples"] if name.startswith(f"{TESTED}.")]


def _result_lines(content: Mapping[str, Any]) -> list[str]:
    """Return one result: in words what the served ranking loses to, first; the table; what it was made of."""
    figures: Mapping[str, float] = content["figures"]
    methods = _methods(content)
    segments = [name for name in SEGMENTS if f"users.{name}" in figures]
    found = Evaluation(
        users=int(figures["users"]),
        users_all=int(figures["users.all"]),
        segments={name: int(figures[f"users.{name}"]) for name in segments},
        methods=tuple(methods),
        figures=dict(figures),
    )
    told = standing(found).splitlines()
    if not told[0].startswith(f"{SERVED} loses"):
        told.insert(0, f"{SERVED} loses clearly to none")
    heads = [
        *("method", "Recall@10", "NDCG@10 (95%)", f"{SERVED} - it", "p"),
        *(f"{name} ({found.segments[name]:,})" for name in segments),
        *("calibration error (by chance)", "AUC"),
    ]
    lines = [f"- {line}" for line in told]
    lines += ["", "| " + " | ".join(heads) + " |", "|---" + "|--:" * (len(heads) - 1) + "|"]
    for method in sorted(methods, key=lambda method: -figures[f"{TESTED}.{method}"]):
        low, high = figures[f"{TESTED}.{method}.low"], figures[f"{TESTED}.{method}.high"]
        difference, p = figures.get(f"difference.{SERVED}_vs.{method}"), figures.get(f"p.{SERVED}_vs.{method}")
        error, chance = (figures.get(f"calibration_error@{LIST}.{method}{ending}") for ending in ("", ".chance"))
        cells = [
            f"`{method}`",
            _short(figures[f"recall@10.{method}"]),
            f"{_short(figures[f'{TESTED}.{method}'])} ({_short(low)}..{_short(high)})",
            "" if difference is None else f"{difference:+.3f}",
            "" if p is None else f"{p:.4f}",
            *(_short(figures[f"{TESTED}.{method}.{segment}"]) for segment in segments),
            "" if error is None or chance is None else f"{error:.4f} ({chance:.4f})",
            _short(figures.get(f"auc@{LIST}.{method}")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, "", *_reliability_lines(content), *_card_lines(content), ""]


def _reliability_lines(content: Mapping[str, Any]) -> list[str]:
    """Return the served ranking's shares of hits by score, predicted beside observed."""
    served = content.get("calibration", {}).get(SERVED)
    if served is None:
        return []
    return [
        f"Share of hits in the first {LIST} of `{SERVED}`, by score, predicted from the other half of the users:",
        "",
        "| score | " + " | ".join(f"{b['score_from']:.3g}..{b['score_to']:.3g}" for b in served["bins"]) + " |",
        "|---" + "|--:" * len(served["bins"]) + "|",
        *(
            f"| {what} | " + " | ".join(f"{b[what]:.4f}" for b in served["bins"]) + " |"
            for what in ("predicted", "observed")
        ),
        "| places | " + " | ".join(f"{b['places']:,}" for b in served["bins"]) + " |",
        "",
        *_by_segment(served["segments"]),
    ]


def _by_segment(segments: Mapping[str, Mapping[str, float]]) -> list[str]:
    if len(segments) < 2:
        return []
    told = [f"{name} {b['predicted']:.4f} predicted, {b['observed']:.4f} observed" for name, b in segments.items()]
    return [f"By training conversations: {'; '.join(told)}.", ""]


def _card_lines(content: Mapping[str, Any]) -> list[str]:
    card, figures = content["protocol"], content["figures"]
    seconds = f"{figures['seconds']:.0f} s" if "seconds" in figures else ""
    if "seconds.flow" in figures:
        seconds += (
            f": servers and flow, with the encoding, {figures['seconds.flow']:.0f}; "
            f"learning weights {figures.get('seconds.tune', 0):.0f}; "
            f"scoring and judging {figures['seconds.evaluate']:.0f}"
        )
    left_out = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in card["left_out"].items() if n)
    facts = {
        "data": files(content),
        "split": card["split_means"],
        "users": f"{card['test_users']:,} tested, {card['test_users_without_a_new_target']:,} without a new target; "
        f"{card['train_conversations']:,} conversations of {card['train_users']:,} users to learn from",
        "candidates": f"{card['candidates']}; {card['new_only']}",
        "positive": ", ".join(card["positive"]),
        "left out of training": left_out,
        "weights": weights_line(card),
        "model": card["model"],
        "seed": card["seed"],
        "intervals": card["intervals"],
        "p": card["p"],
        "taken": f"{content['at']}, {machine(content)}" + (f", {seconds}" if seconds else ""),
        "versions": versions(content),
    }
    return [f"- {name}: {value}" for name, value in facts.items() if value]


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
