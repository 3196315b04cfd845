"""The fitted classifier as the state store keeps it, one per encoder."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from recs.intents.classifier import IntentClassifier
from recs.stores.ports import StateStore


def weights_of(identity: str) -> str:
    """Return model and weights of an encoder's identity, without the arithmetic that each machine chooses."""
    return identity.rpartition("/")[0]


def keep_classifier(state: StateStore, classifier: IntentClassifier) -> None:
    state.put_artifact(_name(classifier.model), classifier.to_bytes())


def is_kept(state: StateStore, model: str) -> bool:
    """Return whether a classifier over the vectors of an encoder (its identity) is there."""
    return state.artifact_digest(_name(weights_of(model))) is not None


def kept_classifier(state: StateStore, model: str) -> IntentClassifier | None:
    """Return the classifier over the vectors of an encoder (its identity), None where none was fitted."""
    kept = state.artifact(_name(weights_of(model)))
    return None if kept is None else IntentClassifier.from_bytes(kept)


class ClassifierKeeper:
    """Holds the classifier that was asked for last; one that was fitted meanwhile is noticed by the next request."""

    def __init__(self, state: StateStore) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._held: tuple[str, str, IntentClassifier | None] | None = None

    def intent_of(self, vector: NDArray[np.floating], model: str) -> str | None:
        """Return the intent of a vector (dim,) of an encoder, None where the classifier abstains or there is none."""
        return self.intents_of(vector[None], model)[0]

    def intents_of(self, vectors: NDArray[np.floating], model: str) -> list[str | None]:
        """Return the intent of each of the vectors (n, dim), as `intent_of` does."""
        digest = self._state.artifact_digest(_name(weights_of(model)))
        if digest is None:
            return [None] * len(vectors)
        with self._lock:
            if self._held is None or self._held[:2] != (model, digest):
                self._held = (model, digest, kept_classifier(self._state, model))
            classifier = self._held[2]
        if classifier is None or not len(vectors):
            return [None] * len(vectors)
        return [prediction.intent for prediction in classifier.predict(vectors)]


def _name(weights: str) -> str:
    return f"intents:{weights}"
