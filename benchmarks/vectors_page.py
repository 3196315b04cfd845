"""Results of `recs bench vectors` into the tables of `docs/vectors.md`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.errors import BenchmarkError
from benchmarks.evaluation import between_marks
from benchmarks.table import STUDIES, STUDY, files, machine, versions

Study = tuple[str, Mapping[str, Any]]

#: Of a normal distribution: an interval of 95%.
_ERRORS = 1.96

#: What is measured, and how it is called, in the order of the tables.
_MEASURES = {"blend": "The blend", "text": "Similar users alone"}


def load_studies(folder: Path) -> list[Study]:
    """Return the studies of a folder with the names of their data, by name."""
    found = [
        (path.stem.removeprefix(f"{STUDY}-"), json.loads(path.read_text())) for path in sorted(folder.glob(STUDIES))
    ]
    for name, content in found:
        if content["command"] != f"recs bench {STUDY}":
            raise BenchmarkError(f"vectors-{name}.json is of {content['command']!r}, not of recs bench {STUDY}")
    if len({content["data"][0]["sha256"] for _, content in found}) < len(found):
        raise BenchmarkError(f"two of {', '.join(name for name, _ in found)} are of the same conversations; keep one")
    return found


def with_studies(document: str, studies: Sequence[Study]) -> str:
    """Return a document with the tables of these studies between its marks."""
    lines: list[str] = []
    for measure, title in _MEASURES.items():
        lines += [f"### {title}", "", *_table(measure, "", _ways(studies[0][1], measure), studies), ""]
    tested = _ways(studies[0][1], "blend", "test.")
    if tested:
        lines += ["### The test part, for what was chosen", ""]
        for measure, title in _MEASURES.items():
            lines += [f"{title}:", "", *_table(measure, "test.", tested, studies), ""]
    lines += ["### What it was taken on", ""]
    for name, content in studies:
        users, conditions = content["figures"]["users"], content["conditions"]
        lines.append(
            f"- {name}: {users:,} users; {conditions['folds']}; positive: {conditions['positive']}; "
            f"{conditions['encoder']}; {files(content)}; {content['at']}, {machine(content)}; {versions(content)}"
        )
    return between_marks(document, [*lines, ""])


def interval(difference: float, error: float) -> str:
    """Return a difference with its 95% interval, in bold where 0 is not within."""
    low, high = difference - _ERRORS * error, difference + _ERRORS * error
    shown = f"{difference:+.4f} ({low:+.4f}..{high:+.4f})"
    return f"**{shown}**" if low > 0 or high < 0 else shown


def _table(measure: str, prefix: str, ways: Sequence[str], studies: Sequence[Study]) -> list[str]:
    heads = ["", *(name for name, _ in studies), "mean of the data sets"]
    present = [content["figures"][f"{prefix}ndcg@10.{measure}.present"] for _, content in studies]
    lines = [
        f"| {' | '.join(heads)} |",
        "|---" + "|--:" * (len(heads) - 1) + "|",
        f"| present way, NDCG@10 | {' | '.join(f'{value:.4f}' for value in (*present, float(np.mean(present))))} |",
    ]
    for way in ways:
        name = f"{measure}.{way}"
        pairs = [
            (
                float(content["figures"][f"{prefix}difference.{name}"]),
                float(content["figures"][f"{prefix}error.{name}"]),
            )
            for _, content in studies
        ]
        pooled = (float(np.mean([d for d, _ in pairs])), float(np.sqrt(sum(e * e for _, e in pairs)) / len(pairs)))
        lines.append(f"| {way} | {' | '.join(interval(*pair) for pair in (*pairs, pooled))} |")
    return lines


def _ways(content: Mapping[str, Any], measure: str, prefix: str = "") -> list[str]:
    start = f"{prefix}difference.{measure}."
    return [name.removeprefix(start) for name in content["figures"] if name.startswith(start)]
