"""Weights that were learned, kept beside the data for the generations to come; `recs.evaluation.learning` learns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from recs.ranking import COMPONENTS
from recs.stores.ports import StateStore

Who = Literal["users", "texts"]

_NAME = "ranking fits"


@dataclass(frozen=True, slots=True)
class KeptFits:
    """What was learned last: for users, and for those of whom only words are known."""

    fits: Mapping[str, Mapping[str, Any]]

    def weights(self, who: Who) -> dict[str, float]:
        """Return the learned weights of the components that there are; empty where none were learned."""
        weights = self.fits.get(who, {}).get("weights", {})
        return {name: float(weights[name]) for name in COMPONENTS if name in weights}

    def told(self) -> dict[str, Any]:
        """Return what is kept with a generation."""
        return {who: dict(fit) for who, fit in self.fits.items()}


def kept_fits(state: StateStore) -> KeptFits:
    """Return what is kept; nothing where nothing was learned yet."""
    body = state.artifact(_NAME)
    return KeptFits({} if body is None else json.loads(body))


def keep_fit(state: StateStore, who: Who, told: Mapping[str, Any]) -> None:
    """Keep a fit, in place of the one of the same kind, for every generation from the next one on.

    `told` holds the `weights` and whatever shall be known of how they were learned, as JSON can hold it.
    """
    state.put_artifact(_NAME, json.dumps({**kept_fits(state).fits, who: dict(told)}, sort_keys=True).encode())
    state.mark_dirty()


def forget_fits(state: StateStore) -> None:
    """Return to the default weights from the next generation on."""
    state.put_artifact(_NAME, b"{}")
    state.mark_dirty()
