"""Charts as ECharts options, which are plain data. No Streamlit here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.dashboard.markup import components_of
from app.dashboard.style import colour, text_colour
from app.dashboard.words import number
from recs.explain import COMPONENT_NAMES
from recs.model import Item

Option = dict[str, Any]

_ROW_PIXELS = 38
_MARGIN_PIXELS = 8
_NAME_PIXELS = 168
#: A part narrower than this share of the chart has no room for its number; the table has it.
_ROOM = 0.085
#: Puts the total at the end of the stack: a bar of no length would stand at zero.
_SLIVER = 1e-9


def bars_height(items: Sequence[Item]) -> int:
    return _MARGIN_PIXELS + _ROW_PIXELS * len(items)


def bars(items: Sequence[Item], chosen: str | None, *, ink: str, selectable: bool = True) -> Option:
    """Return one horizontal bar per campaign, stacked by component, negative parts left of zero, the total at the end.

    The items' order is kept, the first on top; `ink` is the colour of names and totals. Series i is component i of
    `components_of(items)`, its data are the items.
    """
    components = components_of(items)
    least = min((_sum(item, -1) for item in items), default=0.0)
    most = max((_sum(item, 1) for item in items), default=0.0)
    width = most - least
    series: list[Option] = []
    for name in components:
        parts = [next((p.contribution for p in item.breakdown if p.component == name), 0.0) for item in items]
        series.append(
            {
                "name": COMPONENT_NAMES.get(name, name),
                "type": "bar",
                "stack": "score",
                "barWidth": "62%",
                "color": colour(name),
                "data": [_part(part, width) for part in parts],
                "label": {"show": True, "color": text_colour(name), "fontSize": 12, "position": "inside"},
                "selectedMode": "single" if selectable else False,
                "select": {"itemStyle": {"borderWidth": 0, "color": colour(name)}},
                "cursor": "pointer" if selectable else "default",
                "emphasis": {"disabled": True},
            }
        )
    total = {
        "name": "score",
        "type": "bar",
        "stack": "score",
        "silent": True,
        "data": [
            {"value": _SLIVER, "label": {"formatter": number(item.score), "fontWeight": "bold"}} for item in items
        ],
        "label": {"show": True, "position": "right", "distance": 8, "fontSize": 13, "color": ink},
        "tooltip": {"show": False},
        "markLine": {
            "silent": True,
            "symbol": "none",
            "label": {"show": False},
            "lineStyle": {"type": "solid", "width": 1, "color": "#8a8a99"},
            "data": [{"xAxis": 0}],
        },
    }
    return {
        "animation": False,
        "grid": {"left": _NAME_PIXELS, "right": 52, "top": 4, "bottom": 4, "outerBoundsMode": "none"},
        "legend": {"show": False},
        "tooltip": {"trigger": "item", "formatter": "{a}: {c}", "confine": True},
        "xAxis": {
            "type": "value",
            "min": round(least * 1.02, 4),
            "max": round(most * 1.02, 4) or 1,
            "axisLabel": {"show": False},
            "axisLine": {"show": False},
            "axisTick": {"show": False},
            "splitLine": {"show": False},
        },
        "yAxis": {
            "type": "category",
            "inverse": True,
            "axisTick": {"show": False},
            "axisLine": {"show": False},
            "axisLabel": {
                "width": _NAME_PIXELS - 14,
                "overflow": "truncate",
                "fontSize": 13,
                "interval": 0,
                "color": ink,
            },
            "data": [
                {"value": f"{item.rank}. {item.name}", "textStyle": {"fontWeight": "bold", "color": ink}}
                if item.campaign_id == chosen
                else f"{item.rank}. {item.name}"
                for item in items
            ],
        },
        "series": [*series, total],
    }


def intervals_height(rows: Sequence[Mapping[str, Any]]) -> int:
    return 2 * _MARGIN_PIXELS + 28 * len(rows) + 36


def intervals(rows: Sequence[Mapping[str, Any]], *, ink: str) -> Option:
    """Return one line per method: its NDCG@10 as a dot on the bar of its 95% interval, ours in the accent colour.

    Rows have `method`, `name`, `ndcg`, `low` and `high`; their order is kept, the first on top.
    """
    ours, others = colour("similar_users"), "#9a9aa8"
    axis = {"axisTick": {"show": False}, "axisLine": {"show": False}}
    shades = [ours if row["method"] == "hybrid" else others for row in rows]
    bar = {"type": "bar", "stack": "interval", "barWidth": 8, "silent": True, "emphasis": {"disabled": True}}
    return {
        "animation": False,
        "grid": {"left": 210, "right": 52, "top": 4, "bottom": 36, "outerBoundsMode": "none"},
        "xAxis": {
            "type": "value",
            "min": 0,
            "name": "NDCG@10",
            "nameLocation": "middle",
            "nameGap": 22,
            "nameTextStyle": {"color": ink},
            "axisLabel": {"color": ink},
            "splitLine": {"lineStyle": {"color": "#8a8a9933"}},
            **axis,
        },
        "yAxis": {
            "type": "category",
            "inverse": True,
            "axisLabel": {"width": 200, "overflow": "truncate", "fontSize": 13, "interval": 0, "color": ink},
            "data": [str(row["name"]) for row in rows],
            **axis,
        },
        "series": [
            {**bar, "data": [{"value": row["low"], "itemStyle": {"color": "transparent"}} for row in rows]},
            {
                **bar,
                "data": [
                    {"value": row["high"] - row["low"], "itemStyle": {"color": shade, "opacity": 0.55}}
                    for row, shade in zip(rows, shades, strict=True)
                ],
            },
            {
                "type": "scatter",
                "symbolSize": 9,
                "silent": True,
                "data": [
                    {"value": [row["ndcg"], i], "itemStyle": {"color": shade}}
                    for i, (row, shade) in enumerate(zip(rows, shades, strict=True))
                ],
            },
        ],
    }


def intervals_in_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what the intervals show, for those who do not see them."""
    said = [f"{row['name']} {row['ndcg']:.3f} ({row['low']:.3f} to {row['high']:.3f})" for row in rows]
    return f"NDCG@10 with 95% intervals, best first: {'; '.join(said)}."


def bars_in_words(items: Sequence[Item]) -> str:
    """Return what the bars show, for those who do not see them."""
    said = []
    for item in items[:3]:
        parts = sorted((p for p in item.breakdown if p.contribution), key=lambda p: -abs(p.contribution))
        named = ", ".join(f"{COMPONENT_NAMES.get(p.component, p.component)} {number(p.contribution)}" for p in parts)
        said.append(f"{item.rank}. {item.name} {number(item.score)} ({named})")
    rest = len(items) - len(said)
    more = f"; {rest} more, all in the table below" if rest > 0 else ""
    return f"Stacked bars of the parts of each score, best campaign first: {'; '.join(said)}{more}."


def newly_selected(before: Sequence[tuple[int, int]], now: Sequence[tuple[int, int]]) -> int | None:
    """Return the place of the item whose bar was chosen last, from two selections of (series, item); None if none."""
    return next((item for series, item in now if (series, item) not in set(before)), None)


def _sum(item: Item, sign: int) -> float:
    """Return the sum of an item's negative or positive parts."""
    return sum(p.contribution for p in item.breakdown if p.contribution * sign > 0)


def _part(part: float, width: float) -> Option:
    roomy = width > 0 and abs(part) / width >= _ROOM
    return {"value": round(part, 4), "label": {"show": roomy, "formatter": number(part)}}
