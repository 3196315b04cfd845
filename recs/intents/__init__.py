"""Intents: predicted for conversations without a label, measured, and those that no campaign serves.

from recs.intents import confusion, evaluate, fit, most_confused, per_intent, unmet_demand
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recs.intents.classifier import IntentClassifier, Prediction, fit
    from recs.intents.demand import unmet_demand
    from recs.intents.measure import IntentEvaluation, confusion, evaluate, most_confused, per_intent

_WHERE = {
    "IntentClassifier": "classifier",
    "Prediction": "classifier",
    "fit": "classifier",
    "unmet_demand": "demand",
    "IntentEvaluation": "measure",
    "confusion": "measure",
    "evaluate": "measure",
    "most_confused": "measure",
    "per_intent": "measure",
}

__all__ = [
    "IntentClassifier",
    "IntentEvaluation",
    "Prediction",
    "confusion",
    "evaluate",
    "fit",
    "most_confused",
    "per_intent",
    "unmet_demand",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for: the batch flow and serving need the classifier alone."""
    import importlib

    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
