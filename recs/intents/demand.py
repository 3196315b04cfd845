"""Demand with no campaign: what conversations are about that no active campaign is meant for."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recs.batch.intents import Predictor
from recs.bootstrap import Stores
from recs.embed import normalise_text, text_key
from recs.embed.vectors import unit
from recs.errors import NotFoundError
from recs.intents.clusters import LEAST, Trend, characteristic_words, cluster, trend, words_of
from recs.model import StoredConversation
from recs.privacy import mask_text
from recs.retrieval.catalogue import Catalogue, load_catalogue
from recs.sampling import Sample
from recs.settings import Settings
from recs.stores.ports import CampaignNode, VectorIndex

if TYPE_CHECKING:
    import pandas as pd

#: Conversations without an intent that are clustered, those of one intent and those that are served that are looked
#: into; of more, these are the ones with the least hashes of their ids.
SAMPLE = 20_000
SAMPLE_OF_INTENT = 1_000
_QUOTES = 3
#: Conversations next to the centre among which the quotes are looked for.
_CANDIDATES = 12
_TELLING_CHARS = 20
_BATCH = 500


@dataclass(frozen=True, slots=True)
class DemandQuote:
    conversation_id: str
    text: str
    """One message of the user's, with contact and account data masked."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One group of conversations that no active campaign is meant for."""

    intent: str | None
    """The intent, labelled or predicted, that no active campaign targets; None for a cluster of those without any."""
    size: int
    """Conversations; an estimate where only a sample was clustered."""
    labelled: int
    """Those of them that bear the intent as a label; the others were taken for it."""
    share: float
    """Of all conversations."""
    trend: Trend | None
    """From the older half of all conversations to the newer; None where too few have a time."""
    words: tuple[str, ...]
    quotes: tuple[DemandQuote, ...]
    campaign_id: str | None
    """The active campaign whose text is nearest, None where no active campaign has a text."""
    campaign: str | None
    nearness: float | None
    """Mean cosine of the conversations with that campaign's text."""


@dataclass(frozen=True, slots=True)
class DemandReport:
    """Demand with no campaign, largest first."""

    conversations: int
    """All that were looked at; users who opted out of profiling are left out."""
    with_no_campaign: int
    """Those whose intent no active campaign targets, and those without any intent."""
    without_intent: int
    clustered: int
    """Those without an intent that were clustered; fewer than `without_intent` where it was a sample."""
    served_nearness: float | None
    """The median nearness of intents that active campaigns do target, to compare with; None where there are none."""
    demands: tuple[Demand, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def frame(self) -> pd.DataFrame:
        """Return a row per demand, for a notebook."""
        import pandas as pd

        columns = list(Demand.__dataclass_fields__)
        rows = [{**asdict(d), "words": " ".join(d.words), "quotes": [q.text for q in d.quotes]} for d in self.demands]
        return pd.DataFrame(rows, columns=columns)

    def text(self) -> str:
        """Return the report for a terminal."""
        if not self.conversations:
            return "no conversations are stored"
        lines = [
            f"{self.with_no_campaign:,} of {self.conversations:,} conversations "
            f"({self.with_no_campaign / self.conversations:.0%}) are about something that no active campaign targets"
        ]
        if self.clustered < self.without_intent:
            lines.append(f"clusters are of a sample of {self.clustered:,} of {self.without_intent:,}; sizes are scaled")
        for i, d in enumerate(self.demands, start=1):
            lines += _lines(i, d, self.served_nearness)
        if not self.demands:
            lines.append(f"no group of {LEAST} or more is among them")
        return "\n".join(lines)


def _lines(place: int, demand: Demand, served: float | None) -> list[str]:
    name = f"intent {demand.intent.replace('_', ' ')}" if demand.intent else "no intent"
    moving = f", {demand.trend}" if demand.trend else ""
    lines = [f"{place:3}. {demand.size:,} conversations ({demand.share:.1%}{moving}), {name}: {' '.join(demand.words)}"]
    if demand.campaign is not None and demand.nearness is not None:
        compared = "" if served is None else f"; what campaigns target is at {served:.2f}"
        lines.append(
            f"       nearest campaign: {demand.campaign} [{demand.campaign_id}] {demand.nearness:.2f}{compared}"
        )
    for quote in demand.quotes:
        said = " ".join(quote.text.split())
        lines.append(f'       - "{said if len(said) <= 110 else said[:109].rstrip() + "…"}"')
    return lines


class _Group:
    """Conversations that belong together, as they are met: all are counted, those with the least hashes kept."""

    def __init__(self, size: int) -> None:
        self._sample = Sample(size)
        self.labelled = 0
        self.times = array("d")

    def add(self, stored: StoredConversation) -> None:
        c = stored.conversation
        self._sample.add(c.conversation_id)
        self.labelled += bool(c.intent)
        if c.started_at is not None:
            self.times.append(c.started_at.timestamp())

    @property
    def ids(self) -> list[str]:
        return self._sample.ids

    @property
    def count(self) -> int:
        return self._sample.count


def unmet_demand(stores: Stores, settings: Settings, *, now: datetime | None = None) -> DemandReport:
    """Return what conversations are about that no active campaign is meant for, largest first.

    One group per intent, labelled or predicted, that no active campaign targets; the conversations without any intent
    in clusters. Groups of fewer than 10 are left out. `now` is what campaign dates are compared with. The same stores
    give the same report. Memory is bounded by the samples, and 8 bytes per conversation. Raises NotFoundError before
    the first publish.
    """
    generation = stores.state.generation()
    if generation is None:
        raise NotFoundError("nothing has been published yet; `recs run FILE --campaigns FILE` does")
    index = stores.vectors.open(generation.build)
    catalogue = load_catalogue(stores, generation)
    at = now or datetime.now(UTC)
    active = [i for i, node in enumerate(catalogue.nodes) if _is_active(node, at)]
    targeted = {intent for i in active for intent in catalogue.nodes[i].intents}

    served: dict[str, _Group] = {}
    unmet: dict[str, _Group] = {}
    nothing, everything = _Group(SAMPLE), _Group(0)
    for stored, intent in _with_intents(stores, Predictor(stores, index, generation.model)):
        everything.add(stored)
        if intent is None:
            nothing.add(stored)
        else:
            (served if intent in targeted else unmet).setdefault(intent, _Group(SAMPLE_OF_INTENT)).add(stored)

    look = _Look(stores, index, catalogue, active, settings.max_text_chars)
    # Words are telling in comparison with what is said elsewhere, so all samples are read first.
    for intent, group in sorted(served.items()):
        look.read(group.ids, f"served {intent}")
    for intent, group in sorted(unmet.items()):
        look.read(group.ids, f"unmet {intent}")
    clusters = look.clusters(nothing.ids)
    for label, ids in sorted(clusters.items()):
        look.read(ids, label)

    all_times = np.asarray(everything.times)
    found = [
        look.demand(f"unmet {intent}", group.ids, intent=intent, size=group.count, labelled=group.labelled)
        | {"share": group.count / everything.count, "trend": trend(np.asarray(group.times), all_times)}
        for intent, group in sorted(unmet.items())
        if group.count >= LEAST
    ]
    for label, ids in sorted(clusters.items()):
        if label >= 0:
            size = round(len(ids) * nothing.count / len(nothing.ids))
            found.append(
                look.demand(label, ids, intent=None, size=size, labelled=0)
                | {"share": size / everything.count, "trend": trend(look.times(ids), all_times)}
            )
    found.sort(key=lambda d: (-d["size"], d["intent"] or "", d["words"]))
    near = [look.nearest(group.ids)[1] for _, group in sorted(served.items()) if group.count >= LEAST]
    compared = [value for value in near if value is not None]
    return DemandReport(
        conversations=everything.count,
        with_no_campaign=nothing.count + sum(group.count for group in unmet.values()),
        without_intent=nothing.count,
        clustered=len(nothing.ids),
        served_nearness=round(float(np.median(compared)), 4) if compared else None,
        demands=tuple(Demand(**(d | {"share": round(d["share"], 6)})) for d in found),
    )


def _is_active(node: CampaignNode, now: datetime) -> bool:
    begun = node.starts_at is None or node.starts_at <= now
    return node.status == "active" and begun and (node.ends_at is None or now < node.ends_at)


def _with_intents(stores: Stores, predictor: Predictor) -> Iterator[tuple[StoredConversation, str | None]]:
    """Yield every conversation, without its texts, with its label, or else with what it is taken for."""
    excluded = stores.state.profiling_opt_outs()
    rest = (s for s in stores.documents.scan(texts=False) if s.conversation.user_id not in excluded)
    while batch := list(islice(rest, _BATCH)):
        predicted = predictor.intents(batch)
        for stored in batch:
            c = stored.conversation
            yield stored, c.intent or predicted.get(c.conversation_id)


class _Look:
    """Looks into samples of conversations: their words, their times, their vectors, the campaigns next to them."""

    def __init__(
        self, stores: Stores, index: VectorIndex, catalogue: Catalogue, active: Sequence[int], max_chars: int
    ) -> None:
        self._stores = stores
        self._index = index
        self._max_chars = max_chars
        self._words: dict[Hashable, Counter[str]] = {}
        self._heard: Counter[Hashable] = Counter()
        self._everywhere: Counter[str] = Counter()
        self._times: dict[str, float] = {}
        self._nodes = [catalogue.nodes[i] for i in active if not np.isnan(catalogue.vectors[i]).any()]
        columns = [catalogue.position[node.campaign_id] for node in self._nodes]
        self._campaigns = unit(catalogue.vectors[columns])

    def read(self, ids: Sequence[str], key: Hashable) -> None:
        """Take in the words and times of conversations; `key` names the group that they are of."""
        inside = self._words.setdefault(key, Counter())
        for start in range(0, len(ids), _BATCH):
            for stored in self._stores.documents.get(ids[start : start + _BATCH]):
                c = stored.conversation
                words = words_of(" ".join(normalise_text(text, self._max_chars) for text in c.user_texts()))
                inside.update(words)
                self._everywhere.update(words)
                self._heard[key] += 1
                if c.started_at is not None:
                    self._times[c.conversation_id] = c.started_at.timestamp()

    def times(self, ids: Sequence[str]) -> NDArray[np.float64]:
        """Return the times of those that were read and have one, in seconds."""
        return np.array([self._times[i] for i in ids if i in self._times])

    def clusters(self, ids: Sequence[str]) -> dict[int, list[str]]:
        """Return the conversations of each cluster; under -1 those that belong to none, the silent ones left out."""
        vectors = self._vectors(ids)
        members: dict[int, list[str]] = {}
        if vectors:
            for conversation_id, label in zip(vectors, cluster(np.stack([*vectors.values()])).tolist(), strict=True):
                members.setdefault(label, []).append(conversation_id)
        return members

    def nearest(self, ids: Sequence[str]) -> tuple[CampaignNode | None, float | None]:
        """Return the active campaign whose text is nearest to conversations, and the mean cosine with it."""
        vectors = self._vectors(ids)
        if not vectors or not self._nodes:
            return None, None
        cosines = self._campaigns @ unit(np.stack([*vectors.values()])).mean(axis=0)
        best = int(np.argmax(np.round(cosines, 6)))
        return self._nodes[best], round(float(cosines[best]), 4)

    def demand(self, key: Hashable, ids: Sequence[str], **known: Any) -> dict[str, Any]:
        """Return what there is to tell of the group of conversations that was read under a key."""
        node, nearness = self.nearest(ids)
        words = characteristic_words(self._words[key], self._heard[key], self._everywhere, self._heard.total())
        return {
            **known,
            "words": words,
            "quotes": self._quotes(ids),
            "campaign_id": None if node is None else node.campaign_id,
            "campaign": None if node is None else node.name,
            "nearness": nearness,
        }

    def _vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the vectors of those that have one, in the order asked for."""
        found: dict[str, NDArray[np.float32]] = {}
        for start in range(0, len(ids), _BATCH):
            some = self._index.get("conversations", ids[start : start + _BATCH])
            found.update((i, some[i]) for i in ids[start : start + _BATCH] if i in some)
        return found

    def _quotes(self, ids: Sequence[str]) -> tuple[DemandQuote, ...]:
        """Return up to three messages next to the centre, each of another user."""
        vectors = self._vectors(ids)
        if not vectors:
            return ()
        matrix = unit(np.stack([*vectors.values()]))
        centre = unit(matrix.mean(axis=0))
        names = list(vectors)
        order = np.lexsort((np.arange(len(names)), -np.round(matrix @ centre, 6)))
        candidates = self._stores.documents.get([names[i] for i in order[:_CANDIDATES].tolist()])
        quotes: dict[str, DemandQuote] = {}
        for stored in candidates:
            c = stored.conversation
            text = self._nearest_message(stored, centre)
            if text is not None and c.user_id not in quotes:
                quotes[c.user_id] = DemandQuote(c.conversation_id, mask_text(text))
        return tuple(islice(quotes.values(), _QUOTES))

    def _nearest_message(self, stored: StoredConversation, centre: NDArray[np.float32]) -> str | None:
        texts = {text_key(w): t for t in stored.conversation.user_texts() if (w := normalise_text(t, self._max_chars))}
        telling = {key: text for key, text in texts.items() if len(text) >= _TELLING_CHARS} or texts
        vectors = self._index.get("texts", sorted(telling))
        if not vectors:
            return None
        return telling[max(sorted(vectors), key=lambda key: round(float(vectors[key] @ centre), 6))]
