"""What an evaluation says for itself: the protocol card, the table, the plain words."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from recs.evaluation.arrays import Arrays
from recs.evaluation.evaluate import KS, LIST, SEGMENTS, SERVED, TESTED, Evaluation
from recs.evaluation.split import Split
from recs.evaluation.statistics import PERMUTATIONS, RESAMPLES
from recs.figures import versions
from recs.stores.ports import StateStore

SPLITS = {
    "leave_last_out": "per user with two or more conversations that hold a positive, the last of them is the test",
    "time": "all conversations from a quantile of their times on are the test, one case per user",
    "field": "a field says which conversations are the test; the query is what was said before the agent's last turn",
}

_KEPT = "evaluation"

#: Differences with a greater p than this are told as no difference.
LEVEL = 0.05


def protocol_card(
    split: Split,
    arrays: Arrays,
    found: Evaluation,
    *,
    positive: Collection[str],
    seed: int,
    data: Sequence[Mapping[str, Any]],
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """Return all that the numbers depend on; `data` has path, sha256 and rows of each file."""
    return {
        "data": list(data),
        "versions": versions(),
        "split": split.name,
        "split_means": SPLITS[split.name],
        **more,
        "positive": sorted(positive),
        "candidates": f"the whole catalogue of {arrays.n_campaigns:,} campaigns",
        "new_only": "what the user took in training is neither a target nor ranked; figures ending in .all leave it in",
        "filters": "of campaign status and dates, consent and frequency cap: off for every method",
        "train_conversations": len(split.train),
        "train_users": len(arrays.user_ids),
        "test_users": found.users,
        "test_users_without_a_new_target": found.users_all - found.users,
        "segments": {
            name: {"training_conversations": SEGMENTS[name], "users": n} for name, n in found.segments.items()
        },
        "left_out": split.left_out,
        "leaks": "none: training was read back from its file and checked, the stores asked for what is held out",
        "seed": seed,
        "intervals": f"95%, percentile bootstrap over test users, {RESAMPLES:,} resamples",
        "p": f"paired randomisation test on per-user NDCG@10, two-sided, {PERMUTATIONS:,} permutations",
        "ks": list(KS),
    }


def reliability(found: Evaluation) -> dict[str, Any]:
    """Return per method the predicted beside the observed share of hits, by bin of scores and by segment."""
    return {
        name: {
            "cases": calibrated.cases,
            "bins": [b._asdict() for b in calibrated.bins],
            "segments": {segment: b._asdict() for segment, b in calibrated.groups.items()},
        }
        for name, calibrated in found.calibration.items()
    }


def keep_evaluation(state: StateStore, content: Mapping[str, Any]) -> None:
    """Keep what `recs evaluate` writes, without the values per user, in place of what was kept before."""
    kept = {name: value for name, value in content.items() if name != "samples"}
    state.put_artifact(_KEPT, json.dumps(kept, sort_keys=True).encode())


def kept_evaluation(state: StateStore) -> dict[str, Any] | None:
    """Return the evaluation that was kept last, None where there is none."""
    body = state.artifact(_KEPT)
    return None if body is None else dict(json.loads(body))


def print_report(found: Evaluation, card: dict[str, Any], console: Console) -> None:
    """Print the table of all methods, best NDCG@10 first, the segments, and how the served ranking stands."""
    figures = found.figures
    ordered = sorted(found.methods, key=lambda name: -figures[f"{TESTED}.{name}"])
    table = Table(
        "method", "recall@10", "95%", "ndcg@10", "95%", "mrr", "hit@10", "coverage", "novelty", "p vs hybrid",
        "recall all", "ndcg all", "calib. error", "auc", box=None, pad_edge=False,
    )  # fmt: skip
    for name in ordered:
        p = figures.get(f"p.{SERVED}_vs.{name}")
        table.add_row(
            name,
            *_with_interval(found, "recall@10", name),
            *_with_interval(found, TESTED, name),
            _short(figures[f"mrr.{name}"]),
            _short(figures[f"hit_rate@10.{name}"]),
            _short(figures[f"coverage@{LIST}.{name}"]),
            f"{figures[f'novelty@{LIST}.{name}']:.1f}",
            "" if p is None else f"{p:.4f}",
            _short(figures[f"recall@10.{name}.all"]),
            _short(figures[f"{TESTED}.{name}.all"]),
            _short(figures.get(f"calibration_error@{LIST}.{name}")),
            _short(figures.get(f"auc@{LIST}.{name}")),
        )
    console.print(table, soft_wrap=True)
    if len(found.segments) > 1:
        console.print()
        names = [f"{name} ({count:,})" for name, count in found.segments.items()]
        by_segment = Table("ndcg@10 by training conversations", *names, box=None, pad_edge=False)
        for name in ordered:
            by_segment.add_row(name, *(_short(figures[f"{TESTED}.{name}.{segment}"]) for segment in found.segments))
        console.print(by_segment, soft_wrap=True)
    console.print()
    console.print(standing(found), highlight=False, soft_wrap=True)
    for file in card["data"]:
        console.print(
            f"{file['path']}: {file['rows']:,} rows, sha256 {file['sha256']}", highlight=False, soft_wrap=True
        )
    console.print(f"weights: {weights_line(card)}", highlight=False, soft_wrap=True)
    for key in ("split_means", "candidates", "new_only", "filters", "left_out", "seed"):
        console.print(f"{key}: {card[key]}", highlight=False, soft_wrap=True)
    console.print(
        f"{found.users:,} test users, {card['train_conversations']:,} conversations of {card['train_users']:,} users "
        "to learn from",
        highlight=False,
        soft_wrap=True,
    )


def weights_line(card: Mapping[str, Any]) -> str:
    """Return in words which weights were evaluated, and how they came about."""
    weights = card.get("text_weights") or card.get("weights") or {}
    told = ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
    fit = card.get("fit")
    if fit is None:
        return f"{told} (not learned)"
    if not fit["steps"]:
        return f"{told} (the default: nothing else gains beyond chance on {fit['cases']:,} validation cases)"
    return (
        f"{told} (learned on {fit['cases']:,} validation cases of training: NDCG@10 {fit['ndcg_default']:.4f} by "
        f"default, {fit['ndcg']:.4f} learned)"
    )


def standing(found: Evaluation) -> str:
    """Return in words where the served ranking stands by NDCG@10, losses first."""
    figures = found.figures
    others = [name for name in found.methods if name != SERVED]
    if SERVED not in found.methods or not others:
        return "the served ranking was not evaluated"
    behind: list[str] = []
    ahead: list[str] = []
    level: list[str] = []
    for name in others:
        told = f"{name} ({figures[f'difference.{SERVED}_vs.{name}']:+.4f}, p = {figures[f'p.{SERVED}_vs.{name}']:.4f})"
        if figures[f"p.{SERVED}_vs.{name}"] > LEVEL:
            level.append(told)
        else:
            (ahead if figures[f"difference.{SERVED}_vs.{name}"] > 0 else behind).append(told)
    lines = []
    for what, names in ((f"{SERVED} loses to", behind), ("no clear difference to", level), (f"{SERVED} beats", ahead)):
        if names:
            lines.append(f"{what}: {', '.join(names)}")
    return "\n".join(lines)


def _with_interval(found: Evaluation, metric: str, name: str) -> tuple[str, str]:
    figures = found.figures
    low, high = figures[f"{metric}.{name}.low"], figures[f"{metric}.{name}.high"]
    return _short(figures[f"{metric}.{name}"]), f"{_short(low)}..{_short(high)}"


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
