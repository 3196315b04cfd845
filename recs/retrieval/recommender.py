"""The use case of the product: ranked campaigns for a user or a text, each with the evidence for its score."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from recs.bootstrap import Stores
from recs.embed import TextEncoder, conversation_vector, normalise_text
from recs.embed.vectors import unit
from recs.errors import InputError, NotFoundError, OtherModelError, StoreUnavailableError
from recs.intents.kept import ClassifierKeeper
from recs.model import (
    Audience,
    Counterfactual,
    Explanation,
    Generation,
    Head,
    Item,
    Neighbour,
    Recommendations,
    Stability,
    Strategy,
    Suppressed,
    TakenAway,
)
from recs.retrieval.audience import audience_of
from recs.retrieval.catalogue import CatalogueKeeper
from recs.retrieval.counterfactual import WhatIf
from recs.retrieval.evidence import Explainer
from recs.retrieval.scoring import Scored, Scorer
from recs.retrieval.signals import Signals
from recs.retrieval.stability import TOP, TURNS, stability, stability_of_user
from recs.settings import Settings

MAX_SUPPRESSED = 100
#: The layout of a cached answer, part of its key: a process never reads what another version of this package kept. To
#: be raised with every change of `Recommendations`, or of what its numbers mean; a test reminds of the former.
ANSWER_VERSION = 2
_THREADS = 16


class Recommender:
    """Answers from one set of stores. May be used from several threads; `close` ends its own."""

    def __init__(
        self,
        stores: Stores,
        settings: Settings,
        *,
        encoder: Callable[[], TextEncoder] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`encoder` is called when the first text comes in; `clock` tells what campaign dates are compared with."""
        self._stores = stores
        self._settings = settings
        self._encoder = encoder
        self._clock = clock
        self._catalogues = CatalogueKeeper(stores)
        self._intents = ClassifierKeeper(stores.state)
        self._generation: Generation | None = None
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="recs-retrieval")

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    # -- what is asked -----------------------------------------------------------------------------------------------

    def recommend(self, user_id: str, *, k: int = 10, explain: bool = True, use_cache: bool = True) -> Recommendations:
        """Return the k best campaigns for a user, from the cache where the same was asked lately.

        A user of whom nothing is known gets what is popular, marked as such. Raises NotFoundError before the first
        publish and StoreUnavailableError where an honest answer is impossible without the store.
        """
        head = self._stores.state.head()
        key = self.cache_key(head, user_id, k, explain)
        if use_cache:
            held = self.cached(key)
            if held is not None:
                return Recommendations.model_validate_json(held)
        answer = self.compute(head, user_id, k=k, explain=explain)
        if use_cache:
            self.keep(key, answer)
        return answer

    def recommend_text(self, texts: Sequence[str], *, k: int = 10, explain: bool = True) -> Recommendations:
        """Return the k best campaigns for somebody of whom only these messages are known.

        Raises InputError where there is nothing to embed, and OtherModelError where the encoder is not of the model
        that the generation's vectors are of.
        """
        scorer, signals = self._of_text(texts)
        return self._answer(None, "text", scorer, signals, k=k, explain=explain)

    def score(self, user_id: str) -> tuple[Signals, Scored]:
        """Return every campaign's score for a user, and what it came from: what `recommend` ranks, filters and shows.

        Raises as `recommend` does. Nothing is recorded as shown.
        """
        scorer = self._scorer(self._stores.state.head())
        signals = scorer.signals(user_id)
        return signals, scorer.score(signals)

    def score_text(self, texts: Sequence[str]) -> tuple[Signals, Scored]:
        """Return every campaign's score for somebody of whom only these messages are known, as `score` does."""
        scorer, signals = self._of_text(texts)
        return signals, scorer.score(signals)

    def neighbours(self, user_id: str, *, k: int | None = None) -> list[Neighbour]:
        """Return the k users who talk most like a user. Raises NotFoundError for a user without a vector."""
        scorer = self._scorer(self._stores.state.head())
        own = self._stores.state.preferences([user_id]).get(user_id)
        vector = self._stores.vectors.open(scorer.generation.build, lagging=True).get("users", [user_id]).get(user_id)
        if vector is None or (own is not None and not own.profiling):
            raise NotFoundError(f"no words of user {user_id!r} are known that may be compared")
        size = k or self._settings.shown_neighbours
        # The order is settled among a pool, so a short list is cut from a longer one.
        pool = scorer.gatherer().pool(vector, leave_out=user_id, size=max(size, self._settings.neighbour_pool))
        return [Neighbour(user_id=u, similarity=round(s, 6)) for u, s in pool[:size]]

    def audience(self, campaign_id: str, *, limit: int = 100) -> Audience:
        """Return the users who should get a campaign, best first, scored exactly as `recommend` scores them."""
        scorer = self._scorer(self._stores.state.head())
        if campaign_id not in scorer.catalogue.position:
            raise NotFoundError(f"campaign {campaign_id!r} is not known")
        return audience_of(self._stores, scorer, campaign_id, limit=limit)

    def counterfactual(
        self, user_id: str, without: TakenAway, without_id: str, *, campaign_id: str | None = None, k: int = 10
    ) -> Counterfactual:
        """Return a user's list as it would be without one neighbour, own conversation or own campaign.

        Of the k best before and those that come in, or of one campaign. Raises NotFoundError for what is not known
        and for a user who opted out of profiling; see `WhatIf`.
        """
        return self.what_if(user_id).counterfactual(without, without_id, campaign_id=campaign_id, k=k)

    def explanation(self, user_id: str, campaign_id: str) -> Explanation:
        """Return what the place of a campaign in a user's list hangs on, and who of the neighbours did not take it."""
        return self.what_if(user_id).explanation(campaign_id)

    def stability(self, user_id: str, *, k: int = TOP, limit: int = TURNS) -> Stability:
        """Return how much of a user's first k campaigns stays as each of the latest `limit` messages is left out."""
        what_if = self.what_if(user_id)
        return stability_of_user(what_if, self._stores, self._settings, user_id, k=k, limit=limit)

    def stability_text(self, texts: Sequence[str], *, k: int = TOP, limit: int = TURNS) -> Stability:
        """Return the same for somebody of whom only these messages are known.

        Of a single message nothing is left to ask with. Raises as `recommend_text` does.
        """
        said = self._message_vectors(texts)
        scorer = self._scorer(self._stores.state.head())
        self._require_model_of(scorer.generation)
        vectors = np.stack([vector for _, vector in said])
        degraded: list[frozenset[str]] = []

        def top(rows: NDArray[np.float32]) -> list[str]:
            signals = self._signals_of_vector(scorer, unit(conversation_vector(rows)))
            degraded.append(signals.degraded)
            for store in degraded[0] ^ signals.degraded:
                raise StoreUnavailableError(store, "did not answer throughout, so lists cannot be compared")
            scored = scorer.score(signals)
            return [scored.ids[i] for i in scored.order.tolist() if scored.reasons[i] is None][:k]

        found = stability(
            [(None, index, texts[index]) for index, _ in said],
            top(vectors),
            (lambda place: top(np.delete(vectors, place, axis=0))) if len(said) > 1 else None,
            user_id=None,
            generation=scorer.generation.number,
            k=k,
            limit=limit,
        )
        return found.model_copy(update={"degraded": sorted(degraded[0])})

    def what_if(self, user_id: str) -> WhatIf:
        """Return what tells how things would stand for a user, were something not the case."""
        scorer = self._scorer(self._stores.state.head())
        return WhatIf(self._stores, scorer, self._settings, self._intents, user_id)

    # -- its parts, which the sidecar and the workbench use too ------------------------------------------------------

    def generation(self, head: Head) -> Generation:
        """Return the generation of a head; raises NotFoundError where nothing was published yet."""
        held = self._generation
        if held is not None and held.number == head.generation:
            return held
        generation = self._stores.state.generation(head.generation) if head.generation else None
        if generation is None:
            raise NotFoundError("nothing has been published yet; `recs run FILE --campaigns FILE` does")
        self._generation = generation
        return generation

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vector of somebody's messages, (dim,) at length 1; raises InputError where there are no words."""
        return unit(conversation_vector(np.stack([vector for _, vector in self._message_vectors(texts)])))

    def _message_vectors(self, texts: Sequence[str]) -> list[tuple[int, NDArray[np.float32]]]:
        """Return position and vector (dim,) of each text that holds words; raises InputError where none does."""
        if self._encoder is None:
            raise InputError("this recommender was opened without an encoder and cannot read texts")
        words = [(i, w) for i, t in enumerate(texts) if (w := normalise_text(t, self._settings.max_text_chars))]
        if not words:
            raise InputError("there are no words in the text; at least one message of role user must hold some")
        vectors = self._encoder().encode([w for _, w in words])
        return [(i, vector) for (i, _), vector in zip(words, vectors, strict=True)]

    def _require_model_of(self, generation: Generation) -> None:
        assert self._encoder is not None, "a text was embedded"
        own = self._encoder().identity
        # Arithmetic may differ between machines; weights may not.
        if own.rpartition("/")[0] != generation.model.rpartition("/")[0]:
            raise OtherModelError(
                f"generation {generation.number} is of model {generation.model}, texts are embedded with {own} here: "
                "set RECS_MODEL to the generation's model and start again, or publish with this one by "
                "`recs run --rebuild`"
            )

    def cache_key(self, head: Head, user_id: str, k: int, explain: bool, *, form: str = "") -> str:
        """Return the key of an answer; every publish and every live change makes a new one.

        `form` sets apart what is not kept as `compute` returns it, such as evidence under pseudonyms.
        """
        weights = json.dumps(self._settings.weights, sort_keys=True)
        asked = hashlib.sha256(f"{k}\0{explain}\0{form}\0{weights}\0{user_id}".encode()).hexdigest()
        return f"answer{ANSWER_VERSION}:{head.generation}.{head.revision}:{asked}"

    def cached(self, key: str) -> bytes | None:
        """Return a cached answer as JSON, marked as cached; None where there is none or the cache does not answer."""
        try:
            return self._stores.cache.get(key)
        except StoreUnavailableError:
            # A cache that is down costs time, not correctness: the answer is computed, and says that it went without.
            return None

    def keep(self, key: str, answer: Recommendations) -> None:
        """Cache an answer unless it is degraded: what is missing from it may be back in a moment."""
        if answer.degraded:
            return
        copy = answer.model_copy(update={"cached": True})
        try:
            self._stores.cache.set(key, copy.model_dump_json().encode(), self._settings.cache_seconds)
        except StoreUnavailableError as exc:
            answer.degraded.append(exc.store)

    def compute(self, head: Head, user_id: str, *, k: int, explain: bool) -> Recommendations:
        """Return a fresh answer and record it as shown."""
        scorer = self._scorer(head)
        return self._answer(user_id, "hybrid", scorer, scorer.signals(user_id), k=k, explain=explain)

    def _of_text(self, texts: Sequence[str]) -> tuple[Scorer, Signals]:
        vector = self.embed(texts)
        scorer = self._scorer(self._stores.state.head())
        self._require_model_of(scorer.generation)
        return scorer, self._signals_of_vector(scorer, vector)

    def _signals_of_vector(self, scorer: Scorer, vector: NDArray[np.float32]) -> Signals:
        intent = self._intents.intent_of(vector, scorer.generation.model)
        return scorer.gatherer().for_vector(vector, intent=intent)

    def _scorer(self, head: Head) -> Scorer:
        generation = self.generation(head)
        return Scorer(
            self._stores,
            self._settings,
            generation,
            self._catalogues.at(head, generation),
            self._executor,
            now=self._clock(),
        )

    def _answer(
        self,
        user_id: str | None,
        strategy: Strategy,
        scorer: Scorer,
        signals: Signals,
        *,
        k: int,
        explain: bool,
    ) -> Recommendations:
        if strategy == "hybrid" and not signals.personal:
            strategy = "popular"
        scored = scorer.score(signals)
        catalogue = scorer.catalogue
        order = scored.order.tolist()
        offered = [i for i in order if scored.reasons[i] is None][:k]
        items = [
            Item(
                rank=rank,
                campaign_id=catalogue.ids[i],
                name=catalogue.nodes[i].name,
                score=float(scored.scores[i]),
                breakdown=scored.breakdown(i),
            )
            for rank, i in enumerate(offered, start=1)
        ]
        degraded = set(signals.degraded)
        if explain:
            explainer = Explainer(self._stores, scorer.generation, catalogue, self._settings)
            degraded |= explainer.explain(items, signals, user_id)
        suppressed = [
            Suppressed(campaign_id=catalogue.ids[i], reason=reason)
            for i in order
            if (reason := scored.reasons[i]) is not None
        ]
        answer = Recommendations(
            user_id=user_id,
            recommendation_id=uuid.uuid4().hex,
            generation=scorer.generation.number,
            strategy=strategy,
            degraded=sorted(degraded),
            items=items,
            suppressed=suppressed[:MAX_SUPPRESSED],
        )
        # Evidence is about other people, who may be erased or withdraw consent: it is shown, but not kept.
        kept = answer.model_copy(update={"items": [item.model_copy(update={"evidence": []}) for item in items]})
        self._stores.state.record_shown(answer.recommendation_id, user_id, answer.generation, kept.model_dump_json())
        return answer
