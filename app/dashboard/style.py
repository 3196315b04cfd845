"""Colours that all pages and charts share, and the few rules of style that Streamlit's theme cannot express."""

from __future__ import annotations

#: Okabe and Ito's palette, one colour per component, the same everywhere.
COMPONENT_COLOURS = {
    "similar_users": "#0072B2",
    "engaged_alike": "#D55E00",
    "co_engagement": "#E69F00",
    "intent": "#009E73",
    "content": "#56B4E9",
    "engagement_prior": "#CC79A7",
}
OTHER_COLOUR = "#999999"
#: What can be read on each of them.
_ON_DARK, _ON_LIGHT = "#ffffff", "#111111"


_INK = {"light": "#1c1d29", "dark": "#ececf2"}


def ink(theme: str | None) -> str:
    """Return the colour of text on the page; Streamlit's theme does not reach into a chart's own labels."""
    return _INK.get(theme or "light", _INK["light"])


def colour(component: str) -> str:
    return COMPONENT_COLOURS.get(component, OTHER_COLOUR)


def text_colour(component: str) -> str:
    """Return a colour for text on a component's own, at a contrast of at least 4.5."""
    return _ON_DARK if component == "similar_users" else _ON_LIGHT


STYLE = """<style>
.stMainBlockContainer { max-width: 84rem; }
.lm { line-height: 1.5; overflow-wrap: anywhere; }
.lm code { font-size: .92em; padding: 0; background: none; color: inherit; }
.lm a { color: inherit; text-decoration: underline 1px; text-underline-offset: .2em; }
.lm .quiet { color: color-mix(in srgb, currentColor 78%, transparent); }
.lm time { text-decoration: underline dotted 1px; text-underline-offset: .2em; cursor: help; }
.lm h1 { font-size: 1.75rem; font-weight: 600; line-height: 1.25; margin: 0 0 .4rem; padding: 0; text-wrap: balance; }
.lm h1 code, .lm h2 code { font-size: .88em; }
.lm h2 { font-size: 1.2rem; font-weight: 600; line-height: 1.3; margin: 0 0 .2rem; padding: 0; }
.lm p { margin: 0 0 .5rem; }
.lm ul { margin: 0; padding: 0; list-style: none; }
.lm li { margin: 0 0 .9rem; padding: 0; }
.lm blockquote { margin: .3rem 0 0; padding: .1rem 0 .1rem .75rem; border-left: 2px solid
  color-mix(in srgb, currentColor 22%, transparent); color: inherit; }
.lm blockquote .who { display: block; font-size: .82rem; }
.lm .scroll { overflow-x: auto; }
.lm table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.lm caption { text-align: left; padding: 0 0 .4rem; }
.lm th, .lm td { padding: .38rem .7rem .38rem 0; text-align: left; vertical-align: top; font-weight: 400;
  border: 0; border-bottom: 1px solid color-mix(in srgb, currentColor 14%, transparent); }
.lm thead th { font-weight: 600; vertical-align: bottom; border-bottom-width: 2px; }
.lm th[scope=row] { min-width: 6rem; }
.lm .scroll th[scope=row] { min-width: 10rem; }
.lm .num { text-align: right; white-space: nowrap; }
.lm th.num { white-space: normal; overflow-wrap: normal; min-width: 4.5rem; width: 7rem; }
.lm th.num:first-child { min-width: 0; width: 3rem; }
.lm th:last-child, .lm td:last-child { padding-right: 0; }
.lm tr.chosen > * { font-weight: 600; }
.lm .key { display: inline-block; width: .7em; height: .7em; border-radius: 2px; margin-right: .35em; }
.lm .legend { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; font-size: .88rem; }
</style>"""
