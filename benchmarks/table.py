"""Result files into `docs/performance.md`, and one result into a table for a terminal."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.samples import ROOT

RESULTS = ROOT / "benchmarks" / "results"
DOCUMENT = ROOT / "docs" / "performance.md"
EVALUATION = ROOT / "docs" / "evaluation.md"
VECTORS = ROOT / "docs" / "vectors.md"

#: Files of other results, which are kept beside these; see benchmarks/evaluation.py and benchmarks/vectors_page.py.
EVALUATIONS = "evaluation-*.json"
STUDIES = "vectors-*.json"

#: Names that bind, in the order of the table; what else was measured follows them.
FIXED = {
    "embed": ("texts_per_second", "over_library_default", "cosine_min"),
    "ingest": ("conversations_per_second", "flow_over_encoding", "rerun_over_first", "peak_rss_mb"),
    "retrieve": ("median_ms", "p99_over_median", "over_critical_path"),
    "serve": ("requests_per_second", "cached_over_constant", "cached_over_bare_redis", "p99_over_constant"),
    "stores": (),
}

#: What has a page of its own.
STUDY = "vectors"

_HEAD = """\
# Performance

Written by `python -m benchmarks table` from the files in `benchmarks/results/`; `benchmarks/README.md` says what each
figure means and how it is measured. Change the results, not this page.

Machines are shared and noisy and absolute figures drift between them: compare ratios, and look at the spread. A
figure is the median over the rounds of one run, the spread its smallest and greatest round. A figure without a spread
is not taken per round.
"""


def load_results(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the results of a folder with their files' names, in the order of the benchmarks, then by name.

    Evaluations and studies are left out.
    """
    paths = sorted(path for path in folder.glob("*.json") if not (path.match(EVALUATIONS) or path.match(STUDIES)))
    found = [(path.stem, json.loads(path.read_text())) for path in paths]
    if not found:
        raise BenchmarkError(f"there is no result in {folder}; `python -m benchmarks embed --json FILE` writes one")
    order = list(FIXED)
    return sorted(found, key=lambda item: (order.index(_what(item[1])), item[0]))


def performance_page(results: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Return the page: first the figures whose names bind, then everything else by result."""
    lines = [
        _HEAD,
        "## Figures",
        "",
        "| command | data | machine | figure | median | spread |",
        "|---|---|---|---|---|---|",
    ]
    for _, content in results:
        what = _what(content)
        for name in FIXED[what]:
            value, spread = _cells(content, name)
            lines.append(
                f"| `{_command(content)}` | {_data(content)} | {machine(content)} | `{name}` | {value} | {spread} |"
            )
    lines += ["", "## Results in full"]
    for name, content in results:
        lines += ["", f"### {name}", "", f"`{_command(content)}`, {content['at']}", ""]
        lines += [f"- {key.replace('_', ' ')}: {value}" for key, value in _facts(content).items()]
        if _what(content) == "stores":
            lines += stores_tables(content)
            continue
        lines += ["", "| figure | median | spread |", "|---|---|---|"]
        lines += [f"| `{figure}` | {' | '.join(_cells(content, figure))} |" for figure in _ordered(content)]
    return "\n".join(lines) + "\n"


#: Kinds of figures of `stores`, and what they are.
_STORES = (
    ("users_per_second", "loaded, users per second"),
    ("aggregate_seconds", "aggregation in SQL, seconds"),
    ("query_ms", "a query, median milliseconds"),
    ("memory_mb", "memory of the server, MiB"),
    ("disk_mb", "on disk, MiB"),
    ("recall", "share of the exact 200 nearest that are found"),
)


def stores_tables(content: Mapping[str, Any]) -> list[str]:
    """Return the figures of `stores` as tables, one per kind: what by number of users and set of servers.

    Names are KIND.USERS.WHAT.SET.
    """
    figures: Mapping[str, float] = content["figures"]
    lines: list[str] = []
    for kind, title in _STORES:
        names = [name.split(".", 2)[1:] for name in figures if name.startswith(f"{kind}.")]
        if not names:
            continue
        sizes = sorted({int(size) for size, _ in names})
        sets = sorted({rest.rpartition(".")[2] for _, rest in names})
        whats = list(dict.fromkeys(rest.rpartition(".")[0] for _, rest in names))
        heads = [f"{size:,} users, {which}" for size in sizes for which in sets]
        lines += ["", f"| {title} | {' | '.join(heads)} |", "|---" + "|--:" * len(heads) + "|"]
        for what in whats:
            cells = [figures.get(f"{kind}.{size}.{what}.{which}") for size in sizes for which in sets]
            told = ["" if cell is None else number(cell) for cell in cells]
            lines.append(f"| {what} | {' | '.join(told)} |")
    return lines


def terminal_table(content: Mapping[str, Any]) -> str:
    """Return a result as a person reads it in a terminal."""
    rows = [("figure", "median", "spread over rounds"), *((name, *_cells(content, name)) for name in _ordered(content))]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [f"{r[0]:<{widths[0]}}  {r[1]:>{widths[1]}}  {r[2]}".rstrip() for r in rows]
    facts = [f"{key.replace('_', ' ')}: {value}" for key, value in _facts(content).items()]
    return "\n".join([*lines, "", *facts])


def _what(content: Mapping[str, Any]) -> str:
    what = str(content["command"]).removeprefix("recs bench ")
    if what not in FIXED and what != STUDY:
        raise BenchmarkError(f"a result of {content['command']!r}; results of recs bench {', '.join(FIXED)} are known")
    return what


def _ordered(content: Mapping[str, Any]) -> list[str]:
    fixed = FIXED.get(_what(content), ())
    missing = [name for name in fixed if name not in content["figures"]]
    if missing:
        raise BenchmarkError(f"a result of {content['command']} lacks the figures {', '.join(missing)}")
    return [*fixed, *(name for name in content["figures"] if name not in fixed)]


def _cells(content: Mapping[str, Any], name: str) -> tuple[str, str]:
    rounds = content["samples"].get(name, [])
    spread = f"{number(min(rounds))}..{number(max(rounds))} ({len(rounds)})" if rounds else ""
    return number(content["figures"][name]), spread


def number(value: float) -> str:
    """Return a number with four significant digits, whole ones whole."""
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:#.4g}" if abs(value) >= 0.001 else f"{value:.1e}"


def _data(content: Mapping[str, Any]) -> str:
    first = content["data"][0]
    return f"{first['path']} ({first['rows']:,} rows)"


def machine(content: Mapping[str, Any]) -> str:
    """Return in words what a result was taken on."""
    told = content["machine"]
    return f"{told['processor']}, {told['cores']} cores, {told['memory_gib']:.0f} GiB"


def files(content: Mapping[str, Any]) -> str:
    """Return in words what a result was taken from."""
    return "; ".join(f"{d['path']}, {d['rows']:,} rows, sha256 {d['sha256'][:12]}" for d in content["data"])


def versions(content: Mapping[str, Any]) -> str:
    """Return in words what a result was taken with."""
    return ", ".join(map(" ".join, content["versions"].items()))


def _command(content: Mapping[str, Any]) -> str:
    return shlex.join([*str(content["command"]).split(), *content["conditions"].get("arguments", [])])


def _facts(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return in words what the figures were taken on."""
    told = {k: v for k, v in content["conditions"].items() if k != "arguments"}
    return {"data": files(content), "machine": machine(content), **told, "versions": versions(content)}
