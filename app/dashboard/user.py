"""The page of a user: what would we offer, and why?"""

from __future__ import annotations

import html
from datetime import UTC, datetime
from typing import Any

import streamlit as st

from app.dashboard import charts, markup, words
from app.dashboard.lookup import View, example_user, example_words, look_up_user, look_up_words
from app.dashboard.opening import Workbench
from app.dashboard.states import failed, nothing_published, on_workbench
from app.dashboard.style import ink
from recs.errors import InputError, RecsError, StoreUnavailableError
from recs.explain import COMPONENT_METHODS, COMPONENT_NAMES

#: What stands in the address: `user`, `by` ("words"; a user is the default) and `campaign`. Words never do.
_BY = {"user": "A user", "words": "What somebody said"}


def page() -> None:
    """Show the page on the process's own clients."""
    on_workbench(show)


def show(bench: Workbench) -> None:
    """Show the page. The address is what holds: widgets follow it, and write to it."""
    try:
        if not bench.stores.state.head().generation:
            nothing_published()
            return
        view = _asked(bench)
        if view is not None:
            _answer(view)
        elif st.query_params.get("by") != "words":
            st.info("There is no example to open with. Type a user id, or look up by what somebody said.")
    except RecsError as exc:
        failed(exc)


# -- what is asked ---------------------------------------------------------------------------------------------------


def _asked(bench: Workbench) -> View | None:
    by = "words" if st.query_params.get("by") == "words" else "user"
    _follow("by", by)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.segmented_control(
            "Look up by",
            list(_BY),
            format_func=_BY.__getitem__,
            key="by",
            required=True,
            on_change=_ask_by,
            label_visibility="collapsed",
        )
        if by == "user":
            return _asked_user(bench)
    return _asked_words(bench)


def _asked_user(bench: Workbench) -> View | None:
    user_id = st.query_params.get("user", "")
    if not user_id.strip():
        user_id = _example(bench)
    _follow("user", user_id)
    st.text_input(
        "User id",
        key="user",
        on_change=_ask_user,
        placeholder="User id",
        label_visibility="collapsed",
        max_chars=2_000,
        width=320,
    )
    return look_up_user(bench, user_id) if user_id else None


def _asked_words(bench: Workbench) -> View | None:
    if "words" not in st.session_state:
        user_id = _example(bench)
        st.session_state["words"] = example_words(bench.stores, user_id) if user_id else ""
    st.text_area(
        "What somebody said, one message per line. It stays on this page: it is neither stored nor put in the address.",
        key="words",
        height=90,
        persist_state="session",
    )
    try:
        with st.spinner("Reading the words; the first time loads the language model and takes some seconds …"):
            return look_up_words(bench, st.session_state["words"])
    except InputError:
        st.info("Type or paste what somebody said, then press Ctrl and Enter.")
        return None


def _example(bench: Workbench) -> str:
    """Return the user whom the page opens with, the same for the whole session; empty where there is none."""
    if "example" not in st.session_state:
        try:
            st.session_state["example"] = example_user(bench.stores) or ""
        except StoreUnavailableError as exc:
            # An example is a courtesy: whoever has an id can go on.
            st.warning(f"{words.missing_sentence(exc.store)} `recs status` shows more.")
            return ""
    return str(st.session_state["example"])


def _follow(key: str, value: str) -> None:
    """Let a widget show what the address says."""
    if st.session_state.get(key) != value:
        st.session_state[key] = value


def _ask_by() -> None:
    """Switch the mode; the user asked for stays in the address, for the way back."""
    user = {"user": st.query_params["user"]} if "user" in st.query_params else {}
    st.query_params.from_dict(user | ({"by": "words"} if st.session_state["by"] == "words" else {}))


def _ask_user() -> None:
    if st.query_params.get("by") == "words":
        return  # the box is gone; the browser may still report it for a moment
    user_id = st.session_state["user"].strip()
    st.query_params.from_dict({"user": user_id} if user_id else {})


def _ask_campaign() -> None:
    _point_at(st.session_state["campaign"])


def _point_at(campaign_id: str) -> None:
    """Put a campaign, and the user it is chosen for, into the address."""
    if st.query_params.get("by") != "words":
        st.query_params["user"] = st.session_state["user"]
    st.query_params["campaign"] = campaign_id


# -- the answer ------------------------------------------------------------------------------------------------------


def _answer(view: View) -> None:
    for role in view.missing:
        st.warning(f"{words.missing_sentence(role)} `recs status` shows more.")
    st.html(markup.block(markup.heading(view), markup.profile_line(view, datetime.now(UTC))))
    items = view.answer.items
    if items:
        chosen = _chosen(view)
        left, right = st.columns([11, 9], gap="large")
        with left:
            _bars(view, chosen)
            if view.similar:
                _similar(view)
        with right, st.container(gap="xsmall"):
            _evidence(view, chosen)
        _section("The same as a table", markup.breakdown_table(items, chosen))
    elif view.similar:
        _similar(view)
    if view.answer.suppressed:
        held = words.counted(len(view.answer.suppressed), "campaign")
        _section(f"{held} held back", markup.left_out_list(view))
    _method(view)


def _similar(view: View) -> None:
    _section(f"The {len(view.similar)} users who talk most alike", markup.similar_table(view))


def _section(title: str, body: str) -> None:
    st.html(markup.block(f"<h2>{html.escape(title)}</h2>", body))


def _chosen(view: View) -> str:
    ids = [item.campaign_id for item in view.answer.items]
    asked = st.query_params.get("campaign")
    return asked if asked in ids else ids[0]


def _bars(view: View, chosen: str) -> None:
    items = view.answer.items
    st.html(markup.block("<h2>Score, by what it is made of</h2>", markup.legend(markup.components_of(items))))
    key = f"bars {view.answer.user_id}"
    before = st.session_state.get(f"{key} before", [])
    state: Any = st.echarts_chart(
        charts.bars(items, chosen, ink=ink(st.context.theme.type)),
        height=charts.bars_height(items),
        renderer="svg",
        key=key,
        on_select="rerun",
        alt=charts.bars_in_words(items),
    )
    now = [(group["series_index"], index) for group in state.selection.selected for index in group["data_indices"]]
    st.session_state[f"{key} before"] = now
    place = charts.newly_selected(before, now)
    if place is not None and place < len(items) and items[place].campaign_id != chosen:
        _point_at(items[place].campaign_id)
        st.rerun()


def _evidence(view: View, chosen: str) -> None:
    items = {item.campaign_id: item for item in view.answer.items}
    st.html(markup.block("<h2>Why this campaign?</h2>"))
    _follow("campaign", chosen)
    st.selectbox(
        "Campaign",
        list(items),
        format_func=lambda campaign_id: f"{items[campaign_id].rank}. {items[campaign_id].name}",
        key="campaign",
        on_change=_ask_campaign,
        label_visibility="collapsed",
    )
    st.html(markup.block(markup.evidence_list(items[chosen], view)))


def _method(view: View) -> None:
    with st.expander("How is this computed?"):
        methods = "\n".join(f"- **{COMPONENT_NAMES[name]}**: {said}" for name, said in COMPONENT_METHODS.items())
        st.markdown(
            "A score is a sum of parts. Each part is a value, divided by a constant of the current generation so that "
            "values can be compared, times a weight: learned from past engagement where that is better beyond chance, "
            "else the default, or set by hand. A part left of zero speaks against the campaign. "
            "Similarity is the cosine of two users' words after the mean user is "
            "taken off, from −1 to 1. What the user has taken, what is paused or out of its dates, and what they do "
            f"not want is held back whatever its score.\n\n{methods}\n\n"
            f"This answer: generation {view.answer.generation}, recommendation `{view.answer.recommendation_id}`"
            f"{', from the cache' if view.answer.cached else ''}. `docs/workbench.md` says more."
        )
