"""Which ways from messages to similar users are better than the present one, on folds within the training part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

from benchmarks import vector_ways as ways
from benchmarks.data import Input
from benchmarks.errors import BenchmarkError
from benchmarks.home import temporary_home
from benchmarks.samples import Samples, load_average, result, told
from benchmarks.vector_ways import PRESENT, Floats, Known, Said, Way
from recs.batch.vectors import campaign_text
from recs.embed import Encoder, TextEncoder, normalise_text
from recs.embed.vectors import unit
from recs.errors import InputError
from recs.evaluation import Arrays, Dataset, Split, arrays_of, leave_last_out, metrics, read_dataset, split_at_quantile
from recs.evaluation import split_by_field as split_at_field
from recs.evaluation.split import moment, positives
from recs.model import ACTION_STRENGTH, Action, Message, StoredConversation
from recs.ranking import ease_weights
from recs.settings import Settings

#: What the text component is blended with: weights of values that are z-scored per user.
BLEND = {"ease": 1.0, "text": 0.3, "content": 0.3, "popularity": 0.1}

#: Parts of the training part that are held back once more, by time.
_QUANTILES = (0.6, 0.8)
_WINDOWS = (0.4, 0.6, 0.8, 1.0)

_LIST = 10
_SECONDS_PER_DAY = 86400.0


def _with(**changes: Any) -> Way:
    return replace(PRESENT, **changes)


_BM25 = partial(ways.bm25, found=300)
_BM25_ONCE = partial(ways.bm25, query="once", found=300)
_AGENT = ways.agent_too(0.5)
#: Three quarters of the way is left: much of what whitening gains, without giving noise the weight of a subject.
_EVENED = ways.evened(64, 0.25)

_BOTH = ways.users_by_both(_BM25_ONCE, 0.15)

#: Group, then what is changed against the present way, and how.
WAYS: Mapping[str, Mapping[str, Way]] = {
    "messages that count": {
        "the agent's too": _with(messages=ways.agent_too(1.0)),
        "the agent's at half weight": _with(messages=_AGENT),
        "the agent's at .3": _with(messages=ways.agent_too(0.3)),
        "first 1": _with(messages=ways.first(1)),
        "first 3": _with(messages=ways.first(3)),
        "last 1": _with(messages=ways.last(1)),
        "last 3": _with(messages=ways.last(3)),
        "longest 1": _with(messages=ways.longest(1)),
        "longest 3": _with(messages=ways.longest(3)),
        "of 20 characters or more": _with(messages=ways.at_least(20)),
        "of 40 characters or more": _with(messages=ways.at_least(40)),
    },
    "weights of messages": {
        "by root of the length": _with(messages=ways.by_length(0.5)),
        "by length": _with(messages=ways.by_length(1.0)),
        "by rare words (SIF)": _with(messages=ways.by_rare_words),
        "by rare words, by length": _with(messages=lambda s: ways.by_rare_words(s) * s.chars),
    },
    "from messages to a user": {
        "conversations at length 1": _with(pooling="unit"),
        "sum of messages": _with(pooling="sum"),
        "sum of messages by length": _with(pooling="sum", messages=ways.by_length(1.0)),
        "maximum": _with(pooling="max"),
    },
    "recency": {
        "none": _with(conversations=ways.alike),
        "half-life 30 days": _with(conversations=ways.half_life_days(30.0)),
        "half-life 90 days": _with(conversations=ways.half_life_days(90.0)),
        "half-life 365 days": _with(conversations=ways.half_life_days(365.0)),
        "half-life 1 conversation": _with(conversations=ways.half_life_conversations(1.0)),
        "half-life 3 conversations": _with(conversations=ways.half_life_conversations(3.0)),
        "half-life 10 conversations": _with(conversations=ways.half_life_conversations(10.0)),
        "half-life 30 conversations": _with(conversations=ways.half_life_conversations(30.0)),
        "newest conversation": _with(conversations=ways.newest),
    },
    "space": {
        "not centred": _with(space=ways.centred(0.0)),
        "half centred": _with(space=ways.centred(0.5)),
        "without 1 component": _with(space=ways.without_components(1)),
        "without 2 components": _with(space=ways.without_components(2)),
        "without 5 components": _with(space=ways.without_components(5)),
        "whitened": _with(space=ways.whitened()),
        "whitened, 64 dimensions": _with(space=ways.whitened(64)),
        "whitened, 128 dimensions": _with(space=ways.whitened(128)),
        "whitened by an eighth": _with(space=ways.whitened(None, 0.125)),
        "whitened by a quarter": _with(space=ways.whitened(None, 0.25)),
        "half whitened": _with(space=ways.whitened(None, 0.5)),
        "half whitened, 128 dimensions": _with(space=ways.whitened(128, 0.5)),
        "8 components evened by a quarter": _with(space=ways.evened(8, 0.25)),
        "64 components evened by a quarter": _with(space=_EVENED),
        "64 components evened by half": _with(space=ways.evened(64, 0.5)),
        "64 components evened": _with(space=ways.evened(64, 1.0)),
        "half whitened on conversations": _with(space=ways.whitened(None, 0.5), fitted_to="conversations"),
        "whitened on conversations": _with(space=ways.whitened(), fitted_to="conversations"),
    },
    "neighbours": {
        **{f"{n} neighbours": _with(neighbours=n) for n in (50, 100, 200, 400)},
        **{f"power {p}": _with(power=float(p)) for p in (1, 2, 4, 5, 7)},
        "100 neighbours, power 5": _with(neighbours=100, power=5.0),
        "all strengths": _with(evidence="strength"),
        "all strengths, 200 neighbours": _with(evidence="strength", neighbours=200),
    },
    "conversations as neighbours": {
        "300, summed per user": _with(ask=ways.conversations_by_text("sum")),
        "100, summed per user": _with(ask=ways.conversations_by_text("sum"), neighbours=100),
        "1,000, summed per user": _with(ask=ways.conversations_by_text("sum"), neighbours=1000),
        "best per user": _with(ask=ways.conversations_by_text("max")),
        "300, for what was taken in them": _with(ask=ways.conversations_by_text("own")),
        "100, for what was taken in them": _with(ask=ways.conversations_by_text("own"), neighbours=100),
        "each of one's own to the best per user": _with(ask=ways.users_by_conversations),
        "each of one's own, power 5": _with(ask=ways.users_by_conversations, power=5.0),
    },
    "words": {
        "BM25 of all users": _with(ask=ways.users_by_words(ways.bm25)),
        "BM25, the first 300": _with(ask=ways.users_by_words(_BM25)),
        "BM25, the first 300, a word once": _with(ask=ways.users_by_words(_BM25_ONCE)),
        "TF-IDF cosine": _with(ask=ways.users_by_words(ways.tf_idf)),
        "vectors .85, BM25 .15": _with(ask=_BOTH, power=1.0),
        "vectors .7, BM25 .3": _with(ask=ways.users_by_both(_BM25_ONCE, 0.3), power=1.0),
        "vectors .5, BM25 .5": _with(ask=ways.users_by_both(_BM25_ONCE, 0.5), power=1.0),
        "vectors .7, TF-IDF .3": _with(ask=ways.users_by_both(ways.tf_idf, 0.3), power=1.0),
        "vectors .5, TF-IDF .5": _with(ask=ways.users_by_both(ways.tf_idf, 0.5), power=1.0),
        "reciprocal ranks with BM25": _with(ask=ways.users_by_ranks(_BM25_ONCE), power=1.0),
        "reciprocal ranks with TF-IDF": _with(ask=ways.users_by_ranks(ways.tf_idf), power=1.0),
    },
    "together": {
        "agent at half, 64 evened by a quarter": _with(messages=_AGENT, space=_EVENED),
        "agent at half, whitened by a quarter": _with(messages=_AGENT, space=ways.whitened(None, 0.25)),
        "agent at half, power 4": _with(messages=_AGENT, power=4.0),
        "agent at half, BM25 .15": _with(messages=_AGENT, ask=_BOTH, power=1.0),
        "64 evened by a quarter, BM25 .15": _with(space=_EVENED, ask=_BOTH, power=1.0),
        "agent at half, 64 evened by a quarter, BM25 .15": _with(messages=_AGENT, space=_EVENED, ask=_BOTH, power=1.0),
    },
}


def every_way() -> dict[str, Way]:
    """Return the ways by GROUP: CHANGE."""
    return {f"{group}: {change}": way for group, changes in WAYS.items() for change, way in changes.items()}


def bench_vectors(
    data: Input,
    *,
    actions: Collection[Action],
    inner: int,
    split_field: str | None = None,
    tested: Sequence[str] = (),
    encoder: TextEncoder | None = None,
) -> dict[str, Any]:
    """Return how much better each way is than the present one, over users of the validation folds.

    The test part is looked at for the ways of `tested` alone.
    """
    if data.campaigns is None:
        raise InputError("--data needs its --campaigns: there is nothing to rank without a catalogue")
    known = every_way()
    for name in tested:
        if name not in known:
            raise InputError(f"--test {name!r} is no way; there are {', '.join(map(repr, known))}")
    load = load_average()
    with temporary_home() as settings:
        dataset = read_dataset(data.conversations, data.campaigns, max_record_bytes=settings.max_record_bytes)
        corpus = Corpus.of(dataset, encoder or Encoder.load(settings), settings)
        figures: dict[str, float] = {}
        folds = dict(_folds(dataset, actions, inner, split_field))
        test = folds.pop("test")
        seen = _judge(corpus, folds, actions, known)
        figures |= _figures("", seen)
        if tested:
            figures |= _figures(
                "test.", _judge(corpus, {"test": test}, actions, {name: known[name] for name in tested})
            )
        return result(
            "vectors",
            figures,
            Samples(),
            data=data.described(settings),
            conditions={
                "load_average_before": load,
                "encoder": corpus.identity,
                "positive": ", ".join(sorted(actions)),
                "folds": "; ".join(f"{name}, {cases:,} cases" for name, cases in seen.cases.items()),
                "blend": ", ".join(f"{name} {weight:g}" for name, weight in BLEND.items()),
            },
        )


@dataclass(frozen=True, slots=True)
class Corpus:
    """All texts of a data set, encoded."""

    dataset: Dataset
    identity: str
    row: Mapping[str, int]
    """By normalised text; a text of which nothing is left has none."""
    vectors: NDArray[np.float32]
    words: sparse.csr_array
    campaigns: Floats
    """(n_campaigns, dim) at length 1 from the mean campaign, zeros for those without words."""
    max_text_chars: int

    @classmethod
    def of(cls, dataset: Dataset, encoder: TextEncoder, settings: Settings) -> Corpus:
        """Encode each distinct text once."""
        limit = settings.max_text_chars
        said = (m.text for s in dataset.conversations for m in s.conversation.messages)
        described = [normalise_text(campaign_text(c), limit) for c in dataset.campaigns]
        texts = list(dict.fromkeys(w for w in (*(normalise_text(t, limit) for t in said), *described) if w))
        told(f"encoding {len(texts):,} texts")
        vectors = encoder.encode(texts)
        row = {text: place for place, text in enumerate(texts)}
        counts = CountVectorizer(stop_words="english", min_df=min(2, len(texts))).fit_transform(texts)
        known = np.array([bool(w) for w in described])
        campaigns = np.zeros((len(described), vectors.shape[1]))
        own = vectors[[row[w] for w in described if w]].astype(np.float64)
        if len(own):
            campaigns[known] = unit(own - own.mean(axis=0))
        return cls(dataset, encoder.identity, row, vectors, sparse.csr_array(counts), campaigns, limit)

    def rows(self, messages: Sequence[Message]) -> list[tuple[int, bool, int]]:
        """Return (text, whether the user said it, its length) of each message that holds words."""
        found = ((normalise_text(m.text, self.max_text_chars), m.role == "user") for m in messages)
        return [(self.row[words], own, len(words)) for words, own in found if words]


@dataclass(frozen=True, slots=True)
class Fold:
    """One split: what a way sees of it, and what it is judged by."""

    known: Known
    people: tuple[str, ...]
    """(n_cases,): who asks."""
    unseen: NDArray[np.bool_]
    """(n_cases, n_campaigns): what may be ranked."""
    targets: NDArray[np.bool_]
    popularity: Floats
    """(n_campaigns,)."""
    rest: Floats
    """(n_cases, n_campaigns): the blend but for text."""

    @classmethod
    def of(cls, corpus: Corpus, split: Split, actions: Collection[Action]) -> Fold:
        """Return a split's fold, of the cases whose words are known and that have a new target."""
        arrays = arrays_of(split, corpus.dataset.campaigns, actions)
        said, trained, speaker_of = _said(corpus, split, arrays)
        asked = (
            np.asarray(arrays.targets.sum(axis=1)).ravel()
            > np.asarray(arrays.targets.multiply(arrays.had).sum(axis=1)).ravel()
        )
        cases = np.flatnonzero(asked & np.isin(speaker_of, said.speaker))
        if not cases.size:
            raise BenchmarkError(f"nobody of the fold {split.name} can be asked for: no words, or nothing new")
        unseen = arrays.had[cases].toarray() == 0
        known = Known(
            said,
            speaker_of[cases],
            arrays.taken,
            _strengths(split, arrays),
            _taken_in(trained, arrays, actions),
        )
        return cls(
            known=known,
            people=tuple(split.cases[case].user_id for case in cases),
            unseen=unseen,
            targets=(arrays.targets[cases].toarray() > 0) & unseen,
            popularity=np.log1p(arrays.takers()),
            rest=_rest(corpus, arrays, known, cases),
        )

    def ndcg(self, shares: Floats) -> tuple[Floats, Floats]:
        """Return NDCG@10 per case of the text component alone, popularity settling ties, and of the blend."""
        least = 1e-9 * self.popularity / max(1.0, self.popularity.max(initial=0.0))
        blend = self.rest + BLEND["text"] * _standard(shares)
        return ndcg(shares + least, self.unseen, self.targets), ndcg(blend, self.unseen, self.targets)


def ndcg(scores: Floats, allowed: NDArray[np.bool_], targets: NDArray[np.bool_]) -> Floats:
    """Return NDCG@10 as `recs.evaluation.metrics` does, (n_cases,), without putting what is not asked for in order.

    Many times quicker where there are thousands of campaigns and few targets, and asked for some hundred times.
    """
    scores = np.where(allowed, np.round(scores, metrics.DECIMALS), -np.inf)
    case, column = np.nonzero(targets)
    own = scores[case, column][:, None]
    ahead = scores[case] > own
    ahead |= (scores[case] == own) & (np.arange(scores.shape[1]) < column[:, None])
    rank = ahead.sum(axis=1) + 1
    gains = np.bincount(case, np.where(rank <= _LIST, 1.0 / np.log2(rank + 1.0), 0.0), minlength=len(scores))
    ideal = np.cumsum(1.0 / np.log2(np.arange(_LIST) + 2.0))
    return np.asarray(gains / ideal[np.minimum(targets.sum(axis=1), _LIST) - 1])


@dataclass(frozen=True, slots=True)
class _Seen:
    """NDCG@10 per user, the mean over all their cases."""

    cases: dict[str, int]
    values: dict[str, Floats]
    """`text.WAY` and `blend.WAY`, each (n_users,); the present way's are `text.present` and `blend.present`."""


def _judge(corpus: Corpus, folds: Mapping[str, Split], actions: Collection[Action], asked: Mapping[str, Way]) -> _Seen:
    people: list[str] = []
    values: defaultdict[str, list[Floats]] = defaultdict(list)
    cases = {}
    for name, split in folds.items():
        fold = Fold.of(corpus, split, actions)
        cases[name] = len(fold.people)
        people += fold.people
        for label, way in {"present": PRESENT, **asked}.items():
            alone, blend = fold.ndcg(way.scores(fold.known))
            values[f"text.{label}"].append(alone)
            values[f"blend.{label}"].append(blend)
        told(f"{name}: {len(fold.people):,} cases")
    place = np.unique(people, return_inverse=True)[1]
    count = np.bincount(place)
    return _Seen(cases, {k: np.bincount(place, np.concatenate(v)) / count for k, v in values.items()})


def _figures(prefix: str, seen: _Seen) -> dict[str, float]:
    """Return the mean NDCG@10 of the present way, and per way the mean difference from it with its standard error."""
    figures: dict[str, float] = {f"{prefix}users": len(seen.values["text.present"])}
    for measure in ("text", "blend"):
        present = seen.values[f"{measure}.present"]
        figures[f"{prefix}ndcg@10.{measure}.present"] = round(float(present.mean()), 6)
        for name, values in seen.values.items():
            if name.startswith(f"{measure}.") and name != f"{measure}.present":
                difference = values - present
                error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
                figures[f"{prefix}difference.{name}"] = round(float(difference.mean()), 6)
                figures[f"{prefix}error.{name}"] = round(float(error), 6)
    return figures


def _folds(
    data: Dataset, actions: Collection[Action], inner: int, split_field: str | None
) -> Iterator[tuple[str, Split]]:
    """Yield the test split as `test`, and those within its training part by what they are."""
    if split_field is not None:
        test = split_at_field(data, actions, split_field)
        yield "test", test
        moments = sorted(moment(s) for s in test.train)
        edges = [moments[min(int(share * len(moments)), len(moments) - 1)] for share in _WINDOWS]
        for number, (begin, end) in enumerate(pairwise(edges), start=1):
            inside = [s for s in test.train if moment(s) < end or end == edges[-1]]
            told_apart = [_of_part(s, split_field, "test" if moment(s) >= begin else "train") for s in inside]
            windowed = replace(data, conversations=tuple(told_apart))
            yield f"window {number} of time", split_at_field(windowed, actions, split_field)
        return
    test = split = leave_last_out(data, actions)
    yield "test", test
    for number in range(1, inner + 1):
        split = leave_last_out(replace(data, conversations=split.train), actions)
        yield f"last but {number}", split
    for quantile in _QUANTILES:
        yield (
            f"from {quantile:g} of the time on",
            split_at_quantile(replace(data, conversations=test.train), actions, quantile),
        )


def _of_part(stored: StoredConversation, field: str, value: str) -> StoredConversation:
    return replace(stored, conversation=stored.conversation.model_copy(update={field: value}))


def _said(corpus: Corpus, split: Split, arrays: Arrays) -> tuple[Said, list[StoredConversation], NDArray[np.intp]]:
    """Return what is said in a split, the training conversations in its order, and who speaks in each case.

    A case that has no words of its own speaks as -1.
    """
    n_users = len(arrays.user_ids)
    number = {user_id: place for place, user_id in enumerate(arrays.user_ids)}
    theirs: defaultdict[int, list[StoredConversation]] = defaultdict(list)
    for stored in sorted(split.train, key=StoredConversation.order_key):
        theirs[number[stored.conversation.user_id]].append(stored)
    messages: list[tuple[int, bool, int]] = []
    conversation: list[int] = []
    speaker: list[int] = []
    age: list[float] = []
    days: list[float] = []
    trained = []

    def add(who: int, spoken: Sequence[tuple[list[tuple[int, bool, int]], float | None]]) -> None:
        times = [at for _, at in spoken if at is not None]
        timed = len(times) == len(spoken)
        for place, (rows, at) in enumerate(spoken):
            conversation.extend([len(speaker)] * len(rows))
            messages.extend(rows)
            speaker.append(who)
            age.append(len(spoken) - 1.0 - place)
            days.append((max(times) - at) / _SECONDS_PER_DAY if timed and at is not None else np.nan)

    for who in range(n_users):
        spoken = []
        for stored in theirs[who]:
            rows, at = corpus.rows(stored.conversation.messages), stored.conversation.started_at
            if any(own for _, own, _ in rows):
                spoken.append((rows, at.timestamp() if at is not None else None))
                trained.append(stored)
        add(who, spoken)
    speaker_of = arrays.rows.copy()
    for case, what in enumerate(split.cases):
        if what.query is not None:
            rows = corpus.rows([Message(role="user", text=text) for text in what.query])
            speaker_of[case] = n_users + case if rows else -1
            if rows:
                add(n_users + case, [(rows, None)])
    text, own, chars = (np.array(column) for column in zip(*messages, strict=True))
    said = Said(
        vectors=corpus.vectors,
        words=corpus.words,
        text=text.astype(np.intp),
        conversation=np.array(conversation, dtype=np.intp),
        own=own.astype(np.bool_),
        chars=chars.astype(np.float64),
        speaker=np.array(speaker, dtype=np.intp),
        age=np.array(age),
        days=np.array(days),
        n_users=n_users,
        n_speakers=n_users + len(split.cases),
    )
    return said, trained, speaker_of


def _strengths(split: Split, arrays: Arrays) -> sparse.csr_array:
    """Return each user's strongest engagement per campaign, a dislike before all others."""
    user = {user_id: place for place, user_id in enumerate(arrays.user_ids)}
    column = {campaign_id: place for place, campaign_id in enumerate(arrays.campaign_ids)}
    found: dict[tuple[int, int], float] = {}
    for stored in split.train:
        for e in stored.conversation.engagements:
            if e.campaign_id in column:
                key = (user[stored.conversation.user_id], column[e.campaign_id])
                strength, before = ACTION_STRENGTH[e.action], found.get(key, 0.0)
                found[key] = min(strength, before) if min(strength, before) < 0 else max(strength, before)
    rows, columns = np.array(list(found), dtype=np.intp).reshape(-1, 2).T
    return sparse.csr_array((np.array(list(found.values())), (rows, columns)), shape=arrays.taken.shape)


def _taken_in(
    conversations: Sequence[StoredConversation], arrays: Arrays, actions: Collection[Action]
) -> sparse.csr_array:
    column = {campaign_id: place for place, campaign_id in enumerate(arrays.campaign_ids)}
    pairs = [
        (place, column[campaign_id])
        for place, stored in enumerate(conversations)
        for campaign_id in positives(stored.conversation, actions)
        if campaign_id in column
    ]
    rows, columns = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
    return sparse.csr_array((np.ones(len(pairs)), (rows, columns)), shape=(len(conversations), arrays.n_campaigns))


def _rest(corpus: Corpus, arrays: Arrays, known: Known, cases: NDArray[np.intp]) -> Floats:
    """Return the weighted sum of what the text component is blended with, (n_cases, n_campaigns)."""
    taken = np.zeros((len(cases), arrays.n_campaigns))
    inside = np.flatnonzero(arrays.rows[cases] >= 0)
    taken[inside] = arrays.taken[arrays.rows[cases][inside]].toarray()
    engaged = np.flatnonzero(arrays.takers())
    ease = np.zeros_like(taken)
    ease[:, engaged] = taken[:, engaged] @ ease_weights(arrays.taken[:, engaged])
    vectors = ways.speaker_vectors(known.said, PRESENT)
    users = vectors[: known.said.n_users]
    words = vectors[known.asking] - users[users.any(axis=1)].mean(axis=0)
    profiles = np.where(taken.any(axis=1, keepdims=True), taken @ corpus.campaigns, words)
    content = unit(profiles) @ corpus.campaigns.T
    popularity = np.tile(np.log1p(arrays.takers()), (len(cases), 1))
    parts = {"ease": ease, "content": content, "popularity": popularity}
    return np.asarray(sum(BLEND[name] * _standard(values) for name, values in parts.items()))


def _standard(values: Floats) -> Floats:
    """Return each row from its mean, by its standard deviation; zeros where all are equal."""
    deviation = values.std(axis=1, keepdims=True)
    return np.asarray((values - values.mean(axis=1, keepdims=True)) / np.where(deviation > 1e-12, deviation, 1.0))
