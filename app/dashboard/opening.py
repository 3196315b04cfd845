"""The workbench's clients: opened once per process and shared by all sessions, so thread-safe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

import streamlit as st

from recs import embedded
from recs.bootstrap import Stores, connect
from recs.embed import Encoder, TextEncoder
from recs.model import Neighbour, Recommendations
from recs.retrieval import Recommender
from recs.settings import Settings, load_settings


class Answers(Protocol):
    """What the pages ask of a `recs.retrieval.Recommender`."""

    def recommend(self, user_id: str, *, k: int = 10) -> Recommendations: ...

    def recommend_text(self, texts: Sequence[str], *, k: int = 10) -> Recommendations: ...

    def neighbours(self, user_id: str, *, k: int | None = None) -> list[Neighbour]: ...


@dataclass(frozen=True, slots=True)
class Workbench:
    """What a page is handed."""

    settings: Settings
    stores: Stores
    recommender: Answers
    close: Callable[[], None] = field(default=lambda: None)


@st.cache_resource(show_spinner="Opening the stores …", on_release=lambda bench: bench.close())
def workbench() -> Workbench:
    """Return the open clients; embedded servers are started where no URL is set.

    Raises RecsError where they cannot be opened; nothing is kept then, so the next run tries again.
    """
    with ExitStack() as exits:
        settings = exits.enter_context(embedded.session(load_settings()))
        stores = connect(settings)
        exits.callback(stores.close)
        recommender = Recommender(stores, settings, encoder=_encoder)
        exits.callback(recommender.close)
        return Workbench(settings, stores, recommender, exits.pop_all().close)


@st.cache_resource(show_spinner=False)
def _encoder() -> TextEncoder:
    """Return the embedding model, loaded when the first words come in."""
    return Encoder.load(load_settings())
