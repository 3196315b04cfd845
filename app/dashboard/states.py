"""What all pages show when something is missing: what it is, what still works, what to do."""

from __future__ import annotations

import html
from collections.abc import Callable

import streamlit as st

from app.dashboard import markup, words
from app.dashboard.opening import Workbench, workbench
from recs.errors import RecsError, StoreUnavailableError


def on_workbench(show: Callable[[Workbench], None]) -> None:
    """Show a page on the process's own clients, or why they cannot be opened."""
    try:
        bench = workbench()
    except RecsError as exc:
        _cannot_open(exc)
        return
    show(bench)


def nothing(title: str, command: str, what_it_does: str) -> None:
    """Say that there is nothing to show yet, and the command that brings it."""
    st.html(markup.block(f"<h1>{html.escape(title)}</h1>", f"<p>This command {html.escape(what_it_does)}</p>"))
    st.code(command, language="bash", wrap_lines=True)


def nothing_published() -> None:
    """Say that no conversations were loaded yet."""
    nothing(
        "Nothing has been published yet",
        "recs run data/sample_conversations.json --campaigns data/sample_campaigns.json "
        "--preferences data/sample_preferences.jsonl",
        "loads conversations and campaigns; it takes a minute or two for the sample. Then reload this page.",
    )


def failed(exc: RecsError) -> None:
    """Say what went wrong, never with a stack trace; for a store that is away, which one and what still works."""
    if isinstance(exc, StoreUnavailableError):
        name = words.ROLE_NAMES.get(exc.store, exc.store)
        st.error(
            f"The {name} does not answer, and without it no honest answer can be given, so none is shown. "
            "The other parts of the product are not touched. `recs status` shows what is up; `recs up` starts the "
            "embedded servers."
        )
        _try_again()
    else:
        st.error(markup.as_markdown(f"This cannot be answered: {exc}"))


def _cannot_open(exc: RecsError) -> None:
    """Say that the stores cannot be opened, and why."""
    st.error("The stores cannot be opened, so there is nothing to show. `recs status` shows what is up. The reason:")
    st.code(str(exc), language=None, wrap_lines=True)
    _try_again()


def _try_again() -> None:
    if st.button("Try again"):
        workbench.clear()
        st.rerun()
