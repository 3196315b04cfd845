"""One generation's way of scoring: signals in, scores with their parts and the reasons against a campaign out."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from recs.bootstrap import Stores
from recs.model import Action, BreakdownPart, Generation, Preferences
from recs.ranking import COMPONENTS, DEFAULT_WEIGHTS, contributions, normalise, rank_order, scores, suppression_reason
from recs.ranking.filters import Reason
from recs.retrieval.catalogue import Catalogue
from recs.retrieval.signals import Gatherer, Signals
from recs.settings import Settings


@dataclass(frozen=True, slots=True)
class Scored:
    """Every campaign of the catalogue for one user; arrays have one column per campaign."""

    values: NDArray[np.float64]
    """Normalised, (n_components, n_campaigns); NaN where a component cannot say anything."""
    parts: NDArray[np.float64]
    """Contributions, (n_components, n_campaigns)."""
    scores: NDArray[np.float64]
    order: NDArray[np.intp]
    """Columns from best to worst."""
    reasons: tuple[Reason | None, ...]
    """Why a campaign must not be offered, None where it may."""
    weights: Mapping[str, float]
    ids: tuple[str, ...]
    """The campaigns, sorted: the columns."""

    def breakdown(self, column: int) -> list[BreakdownPart]:
        """Return one campaign's parts, in the order of COMPONENTS."""
        return [
            BreakdownPart(
                component=name,
                weight=self.weights[name],
                value=None if np.isnan(self.values[row, column]) else float(self.values[row, column]),
                contribution=float(self.parts[row, column]),
            )
            for row, name in enumerate(COMPONENTS)
        ]


class Scorer:
    """Scores users against one generation and one snapshot of the catalogue."""

    def __init__(
        self,
        stores: Stores,
        settings: Settings,
        generation: Generation,
        catalogue: Catalogue,
        executor: Executor,
        *,
        now: datetime,
    ) -> None:
        self.generation = generation
        self.catalogue = catalogue
        self._stores = stores
        self._settings = settings
        self._executor = executor
        self._now = now

    def weights(self, *, text: bool = False) -> dict[str, float]:
        """Return the weight of each component: set by hand, else fitted with the generation, else the default.

        `text` asks for those of somebody of whom only words are known.
        """
        generation = self.generation
        fitted = {**generation.weights, **(generation.text_weights if text else {})}
        return {**DEFAULT_WEIGHTS, **fitted, **(self._settings.weights or {})}

    def gatherer(self) -> Gatherer:
        """Return a gatherer for one request."""
        return Gatherer(
            self._stores, self.generation, self.catalogue, self._executor, pool_size=self._settings.neighbour_pool
        )

    @property
    def views_since(self) -> datetime:
        """From when on views of a campaign count towards the frequency cap."""
        return self._now - timedelta(days=self._settings.frequency_cap_days)

    def signals(self, user_id: str) -> Signals:
        """Return what the stores know of a user."""
        return self.gatherer().for_user(user_id, views_since=self.views_since)

    def score(self, signals: Signals) -> Scored:
        """Return every campaign's score, parts and reason for being left out."""
        values = normalise(signals.raw, [self.generation.scales.get(name, 1.0) for name in COMPONENTS])
        weights = self.weights(text=signals.known.text)
        parts = contributions(values, [weights[name] for name in COMPONENTS])
        total = scores(parts)
        return Scored(
            values=values,
            parts=parts,
            scores=total,
            order=rank_order(total, self.catalogue.ids),
            reasons=self._reasons(signals),
            weights=weights,
            ids=self.catalogue.ids,
        )

    def _reasons(self, signals: Signals) -> tuple[Reason | None, ...]:
        preferences = signals.preferences or Preferences(user_id="")
        own: dict[str, set[Action]] = {}
        for edge in signals.own.engagements if signals.own else ():
            own.setdefault(edge.campaign_id, set()).add(edge.action)
        any_channel = preferences.allows_any_channel()
        return tuple(
            suppression_reason(
                status=node.status,
                starts_at=node.starts_at,
                ends_at=node.ends_at,
                now=self._now,
                any_channel_allowed=any_channel,
                channel_allowed=preferences.allows_channel(node.channel),
                own_actions=own.get(node.campaign_id, ()),
                new_only=self._settings.new_only,
                recent_views=signals.recent_views.get(node.campaign_id, 0),
                frequency_cap=self._settings.frequency_cap,
            )
            for node in self.catalogue.nodes
        )
