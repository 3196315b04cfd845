"""The page of quality: can the numbers be trusted?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from app.dashboard import charts, markup
from app.dashboard.opening import Workbench
from app.dashboard.states import failed, nothing, on_workbench
from app.dashboard.style import ink
from recs.errors import RecsError
from recs.evaluation.report import LEVEL, SPLITS, kept_evaluation, weights_line
from recs.explain import METHOD_NAMES

_HOW = (
    "NDCG@10 is how well the first ten places are used: 1 where all that a person took next comes first, 0 where none "
    "of it is among them. It is a mean over people whose last conversation was held back; the bar is its 95% interval. "
    "Differences are judged by a paired test on the same people."
)

_FORMATS = {
    "NDCG@10": st.column_config.NumberColumn(format="%.3f"),
    "Recall@10": st.column_config.NumberColumn(format="%.3f"),
    "Ours is ahead by": st.column_config.NumberColumn(format="%+.3f"),
    "By chance (p)": st.column_config.NumberColumn(
        format="%.4f", help="How likely so great a difference is where there is none; under .05 we call it one."
    ),
}


def page() -> None:
    """Show the page on the process's own clients."""
    on_workbench(show)


def show(bench: Workbench) -> None:
    """Show the evaluation that was kept last beside its baselines."""
    try:
        found = kept_evaluation(bench.stores.state)
    except RecsError as exc:
        failed(exc)
        return
    if found is None:
        nothing(
            "No evaluation is kept yet.",
            "recs evaluate CONVERSATIONS --campaigns CAMPAIGNS --keep",
            "holds conversations back, asks the served ranking for what was held back, compares it with twelve "
            "baselines, and shows the result here.",
        )
        return
    rows = methods(found)
    st.header(markup.as_markdown(headline(rows)))
    card = found["protocol"]
    st.caption(
        markup.as_markdown(
            f"{card['test_users']:,} people tested on {found['data'][0]['path']}, {found['at'][:10]}; "
            f"{SPLITS.get(card['split'], card['split'])}."
        )
    )
    st.echarts_chart(
        charts.intervals(rows, ink=ink(st.context.theme.type)),
        height=charts.intervals_height(rows),
        renderer="svg",
        key="methods",
        alt=charts.intervals_in_words(rows),
    )
    with st.popover("How is this computed?"):
        st.write(_HOW)
    st.dataframe(
        _table(rows), hide_index=True, width="stretch", height="content", placeholder="", column_config=_FORMATS
    )
    st.subheader("Weights")
    st.write(markup.as_markdown(weights_line(card)))
    with st.expander("Protocol"):
        st.json(card, expanded=1)


def methods(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each method with its figures, the best NDCG@10 first; p and difference are None for the served one."""
    figures = found["figures"]
    names = [name.removeprefix("ndcg@10.") for name in figures if name.startswith("ndcg@10.") and name.count(".") == 1]
    rows = [
        {
            "method": name,
            "name": METHOD_NAMES.get(name, name),
            "ndcg": figures[f"ndcg@10.{name}"],
            "low": figures[f"ndcg@10.{name}.low"],
            "high": figures[f"ndcg@10.{name}.high"],
            "recall": figures[f"recall@10.{name}"],
            "p": figures.get(f"p.hybrid_vs.{name}"),
            "difference": figures.get(f"difference.hybrid_vs.{name}"),
        }
        for name in names
    ]
    return sorted(rows, key=lambda row: (-row["ndcg"], row["method"]))


def headline(rows: list[dict[str, Any]]) -> str:
    """Return the finding: what the served ranking loses to first, what it cannot be told from, what it beats."""
    others = [row for row in rows if row["difference"] is not None]
    lost = [row["name"] for row in others if row["p"] <= LEVEL and row["difference"] < 0]
    level = [row["name"] for row in others if row["p"] > LEVEL]
    won = len(others) - len(lost) - len(level)
    if lost:
        return f"Our ranking loses to {_listed(lost)}; it beats {won} of {len(others)} others"
    if level:
        return f"Our ranking beats {won} of {len(others)} others and cannot be told from {_listed(level)}"
    return f"Our ranking beats all {len(others)} others"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Ranking by": [row["name"] for row in rows],
            "NDCG@10": [row["ndcg"] for row in rows],
            "95% interval": [f"{row['low']:.3f} to {row['high']:.3f}" for row in rows],
            "Recall@10": [row["recall"] for row in rows],
            "Ours is ahead by": [row["difference"] for row in rows],
            "By chance (p)": [row["p"] for row in rows],
        }
    )
