"""Ways from messages to the campaigns of similar users: which messages count, and what is alike.

Arrays in, arrays out. Somebody who speaks is a training user or, after those, a case that is known by a query alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recs.embed.vectors import HALF_LIFE_CONVERSATIONS, unit

Floats = NDArray[np.float64]
Places = NDArray[np.intp]

#: The smoothing of word frequencies and the constants of BM25 that their authors suggest, and that of rank fusion.
SIF_A = 1e-3
BM25_K1, BM25_B = 1.2, 0.75
RRF_C = 60.0


@dataclass(frozen=True, slots=True)
class Said:
    """What was said, from old to new: messages by conversation, conversations by speaker, speakers in order."""

    vectors: NDArray[np.float32]
    """(n_texts, dim), each of length 1."""
    words: sparse.csr_array
    """(n_texts, n_words), how often a text has a word."""
    text: Places
    """(n_messages,): the message's text."""
    conversation: Places
    """(n_messages,): the conversation it is of, each with at least one of the user's own messages."""
    own: NDArray[np.bool_]
    """(n_messages,): whether the user said it; else the agent did."""
    chars: Floats
    """(n_messages,)."""
    speaker: Places
    """(n_conversations,)."""
    age: Floats
    """(n_conversations,): how many conversations the speaker had since."""
    days: Floats
    """(n_conversations,): days until the speaker's newest; NaN throughout for a speaker with one that has no time."""
    n_users: int
    n_speakers: int

    def rank(self, key: Floats) -> Places:
        """Return the place of each message among the user's own of its conversation, by key, the least first."""
        order = np.lexsort((np.where(self.own, key, np.inf), self.conversation))
        starts = np.searchsorted(self.conversation, self.conversation)
        ranks = np.empty(len(order), dtype=np.intp)
        ranks[order] = np.arange(len(order)) - starts[order]
        return ranks

    def order(self) -> Floats:
        """Return the place of each message, (n_messages,), the oldest first."""
        return np.arange(len(self.text), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Known:
    """One fold as a way sees it."""

    said: Said
    asking: Places
    """(n_cases,): the speaker of each case."""
    taken: sparse.csr_array
    """(n_users, n_campaigns), 1 where the user took the campaign."""
    strength: sparse.csr_array
    """(n_users, n_campaigns), the strength in [-1, 1] of any engagement."""
    taken_in: sparse.csr_array
    """(n_conversations of training users, n_campaigns), 1 where it was taken in the very conversation."""


#: Returns a weight of 0 or more per message, (n_messages,), or per conversation, (n_conversations,).
Weigh = Callable[[Said], Floats]
#: Takes the vectors that it is fitted to, returns what is done to a vector.
Space = Callable[[Floats], Callable[[Floats], Floats]]


@dataclass(frozen=True, slots=True)
class Votes:
    """Who has a say in each case, and for what."""

    weights: Floats
    """(n_cases, n_voters); what is not above 0 has none."""
    campaigns: sparse.csr_array
    """(n_voters, n_campaigns)."""


Ask = Callable[[Known, "Way"], Votes]


@dataclass(frozen=True, slots=True)
class Way:
    """One way; what is not said is as it is served."""

    messages: Weigh
    conversations: Weigh
    space: Space
    ask: Ask
    pooling: Literal["mean", "unit", "sum", "max"] = "mean"
    """Of a conversation's messages: their mean, that at length 1, their sum; or the greatest in each direction."""
    fitted_to: Literal["users", "conversations"] = "users"
    """What the space is fitted to."""
    evidence: Literal["taken", "strength"] = "taken"
    neighbours: int = 300
    power: float = 3.0

    def scores(self, known: Known) -> Floats:
        """Return the share of each case's voters behind each campaign, (n_cases, n_campaigns)."""
        votes = self.ask(known, self)
        weights = np.clip(votes.weights, 0.0, None) ** self.power
        if weights.shape[1] > self.neighbours:
            least = np.partition(weights, -self.neighbours, axis=1)[:, -self.neighbours][:, None]
            weights = np.where(weights >= least, weights, 0.0)
        total = weights.sum(axis=1, keepdims=True)
        return np.asarray((votes.campaigns.T @ (weights / np.where(total > 0, total, 1.0)).T).T)


# Messages


def own_messages(said: Said) -> Floats:
    return said.own.astype(np.float64)


def agent_too(weight: float) -> Weigh:
    """Weigh the user's own messages 1 and the agent's less."""
    return lambda said: np.where(said.own, 1.0, weight)


def first(count: int) -> Weigh:
    return lambda said: (said.own & (said.rank(said.order()) < count)).astype(np.float64)


def last(count: int) -> Weigh:
    return lambda said: (said.own & (said.rank(-said.order()) < count)).astype(np.float64)


def longest(count: int) -> Weigh:
    return lambda said: (said.own & (said.rank(-said.chars) < count)).astype(np.float64)


def at_least(chars: int) -> Weigh:
    return lambda said: (said.own & (said.chars >= chars)).astype(np.float64)


def by_length(power: float) -> Weigh:
    return lambda said: np.where(said.own, said.chars**power, 0.0)


def by_rare_words(said: Said) -> Floats:
    """Return the mean of a / (a + p(word)) over a message's words, p its share of all words of users.

    Source: S. Arora, Y. Liang, T. Ma, A simple but tough-to-beat baseline for sentence embeddings, ICLR 2017; there
    the weights are those of word vectors.
    """
    texts = said.text[said.own & (said.speaker[said.conversation] < said.n_users)]
    counts = np.asarray(said.words[texts].sum(axis=0)).ravel()
    rarity = SIF_A / (SIF_A + counts / max(1.0, counts.sum()))
    length = np.asarray(said.words.sum(axis=1)).ravel()
    return np.asarray(said.own * ((said.words @ rarity) / np.maximum(length, 1.0))[said.text])


# Conversations


def alike(said: Said) -> Floats:
    return np.ones(len(said.speaker))


def half_life_conversations(half_life: float) -> Weigh:
    return lambda said: np.exp2(-said.age / half_life)


def half_life_days(half_life: float) -> Weigh:
    """Weigh by days as the flow does: where a speaker's times are not all known, by conversations."""
    return lambda said: np.where(
        np.isnan(said.days), np.exp2(-said.age / HALF_LIFE_CONVERSATIONS), np.exp2(-said.days / half_life)
    )


def newest(said: Said) -> Floats:
    return np.asarray(said.age == 0, dtype=np.float64)


# Space


def centred(share: float = 1.0) -> Space:
    def fit(vectors: Floats) -> Callable[[Floats], Floats]:
        centre = share * vectors.mean(axis=0)
        return lambda given: given - centre

    return fit


def without_components(count: int) -> Space:
    """Take off the mean and the first principal components.

    Source: J. Mu, P. Viswanath, All-but-the-top: simple and effective postprocessing for word representations, ICLR
    2018.
    """

    def fit(vectors: Floats) -> Callable[[Floats], Floats]:
        centre = vectors.mean(axis=0)
        top = np.linalg.svd(vectors - centre, full_matrices=False)[2][:count]
        return lambda given: (given - centre) - (given - centre) @ top.T @ top

    return fit


def whitened(dimensions: int | None = None, power: float = 1.0) -> Space:
    """Give the first principal components the same variance; with a power below 1 only more nearly the same.

    Source: J. Su et al., Whitening sentence representations for better semantics and faster retrieval, 2021.
    """

    def fit(vectors: Floats) -> Callable[[Floats], Floats]:
        centre = vectors.mean(axis=0)
        _, sizes, axes = np.linalg.svd(vectors - centre, full_matrices=False)
        kept = np.flatnonzero(sizes > 1e-6 * sizes.max(initial=0.0))[:dimensions]
        turned = axes[kept].T / sizes[kept] ** power
        return lambda given: (given - centre) @ turned

    return fit


def evened(count: int, power: float) -> Space:
    """Bring the first principal components down towards the size of the next one: a power of 1 all the way, 0 not."""

    def fit(vectors: Floats) -> Callable[[Floats], Floats]:
        centre = vectors.mean(axis=0)
        _, sizes, axes = np.linalg.svd(vectors - centre, full_matrices=False)
        some = max(0, min(count, int((sizes > 1e-6 * sizes[0]).sum()) - 1)) if sizes.size else 0
        off = 1.0 - (sizes[some] / sizes[:some]) ** power if some else np.zeros(0)
        return lambda given: (given - centre) - ((given - centre) @ axes[:some].T * off) @ axes[:some]

    return fit


# Likeness


def users_by_text(known: Known, way: Way) -> Votes:
    """Ask the users whose vectors are most like."""
    return Votes(text_likeness(known, way), evidence(known, way))


def users_by_words(likeness: Callable[[Known], Floats]) -> Ask:
    """Ask the users whose words are most like."""
    return lambda known, way: Votes(likeness(known), evidence(known, way))


def users_by_both(words: Callable[[Known], Floats], share: float) -> Ask:
    """Ask by the cubed likeness of vectors and that of words, both of length 1 over a case's users, in these shares."""

    def ask(known: Known, way: Way) -> Votes:
        both = [unit(np.clip(found, 0.0, None) ** 3) for found in (text_likeness(known, way), words(known))]
        return Votes((1 - share) * both[0] + share * both[1], evidence(known, way))

    return ask


def users_by_ranks(words: Callable[[Known], Floats]) -> Ask:
    """Ask by the summed reciprocal ranks of both likenesses.

    Source: G. Cormack, C. Clarke, S. Buettcher, Reciprocal rank fusion outperforms Condorcet and individual rank
    learning methods, SIGIR 2009.
    """

    def ask(known: Known, way: Way) -> Votes:
        fused = np.zeros((len(known.asking), known.said.n_users))
        for found in (text_likeness(known, way), words(known)):
            ranks = np.argsort(np.argsort(-found, axis=1, kind="stable"), axis=1) + 1
            fused += np.where(found > 0, 1.0 / (RRF_C + ranks), 0.0)
        return Votes(without_self(known, fused), evidence(known, way))

    return ask


def conversations_by_text(voting: Literal["sum", "max", "own"]) -> Ask:
    """Ask the conversations most like the case's vector, each for what its user took, or for what was taken in it.

    A user with several of them counts by their sum or by the best of them.
    """

    def ask(known: Known, way: Way) -> Votes:
        said = known.said
        speakers, conversations = speaker_vectors(said, way), conversation_vectors(said, way)
        training = said.speaker < said.n_users
        move = way.space(np.asarray(unit(conversations[training]), dtype=np.float64))
        found = _cosines(move(speakers[known.asking]), move(_unit64(conversations[training])))
        speaker = said.speaker[training]
        found = np.where(speaker[None, :] == known.asking[:, None], 0.0, found)
        if voting == "own":
            return Votes(found, known.taken_in)
        if voting == "max":
            return Votes(_best(found, speaker, said.n_users), evidence(known, way))
        return Votes(found, evidence(known, way)[speaker])

    return ask


def users_by_conversations(known: Known, way: Way) -> Votes:
    """Ask the users of whom one conversation is like, on the mean over the case's own conversations by their weights.

    Source: O. Khattab, M. Zaharia, ColBERT, SIGIR 2020: there it is words of a query and of a passage.
    """
    said = known.said
    training = said.speaker < said.n_users
    conversations = _unit64(conversation_vectors(said, way))
    moved = way.space(conversations[training])(conversations)
    weights = way.conversations(said)
    found = np.zeros((len(known.asking), said.n_users))
    for row, speaker in enumerate(known.asking.tolist()):
        mine = np.flatnonzero(said.speaker == speaker)
        best = _best(_cosines(moved[mine], moved[training]), said.speaker[training], said.n_users)
        found[row] = weights[mine] @ best / weights[mine].sum()
    return Votes(without_self(known, found), evidence(known, way))


def bm25(known: Known, *, query: Literal["counts", "once"] = "counts", found: int | None = None) -> Floats:
    """Return the BM25 of each user's words, all together, for those of each case; (n_cases, n_users).

    The query's words count as often as they are said, as in Milvus, or once. `found` is how many users a search
    returns: they count by what they have beyond the last of them, since any two users share the words that all use.

    Source: S. Robertson, H. Zaragoza, The probabilistic relevance framework: BM25 and beyond, 2009.
    """
    counts = _words_of_speakers(known.said)
    users = counts[: known.said.n_users]
    length = np.asarray(users.sum(axis=1)).ravel()
    having = np.asarray((users > 0).sum(axis=0)).ravel()
    idf = np.log1p((users.shape[0] - having + 0.5) / (having + 0.5))
    weights = users.tocoo()
    norm = BM25_K1 * (1 - BM25_B + BM25_B * length / max(1e-9, length.mean()))
    weights.data = weights.data * (BM25_K1 + 1) / (weights.data + norm[weights.row]) * idf[weights.col]
    asked = counts[known.asking]
    if query == "once":
        asked = (asked > 0).astype(np.float64)
    scores = without_self(known, np.asarray((asked @ weights.tocsr().T).toarray()))
    if found is not None and found < scores.shape[1]:
        scores = scores - np.partition(scores, -found, axis=1)[:, -found][:, None]
    return np.clip(scores, 0.0, None)


def tf_idf(known: Known) -> Floats:
    """Return the cosine of the words of each case with each user's, log counts by inverse user frequency."""
    counts = _words_of_speakers(known.said)
    having = np.asarray((counts[: known.said.n_users] > 0).sum(axis=0)).ravel()
    weights = counts.copy()
    weights.data = np.log1p(weights.data)
    weights = (weights @ sparse.diags_array(np.log((known.said.n_users + 1.0) / (having + 1.0)))).tocsr()
    norms = np.sqrt(np.asarray(weights.multiply(weights).sum(axis=1)).ravel())
    weights = (sparse.diags_array(1.0 / np.where(norms > 0, norms, 1.0)) @ weights).tocsr()
    return without_self(known, np.asarray((weights[known.asking] @ weights[: known.said.n_users].T).toarray()))


# Parts


def conversation_vectors(said: Said, way: Way) -> Floats:
    """Return (n_conversations, dim); a conversation with no message that counts takes all of the user's own."""
    shape = len(said.speaker)
    if way.pooling == "max":
        starts = np.searchsorted(said.conversation, np.arange(shape))
        spoken = np.where(said.own[:, None], said.vectors[said.text], -np.inf)
        return np.asarray(np.maximum.reduceat(spoken, starts, axis=0), dtype=np.float64)
    weights = way.messages(said)
    total = np.bincount(said.conversation, weights, minlength=shape)
    weights = np.where((total > 0)[said.conversation], weights, said.own)
    total = np.bincount(said.conversation, weights, minlength=shape)
    if way.pooling != "sum":
        weights = weights / total[said.conversation]
    gather = sparse.csr_array((weights, (said.conversation, said.text)), shape=(shape, len(said.vectors)))
    found = np.asarray(gather @ said.vectors.astype(np.float64))
    return _unit64(found) if way.pooling == "unit" else found


def speaker_vectors(said: Said, way: Way) -> Floats:
    """Return (n_speakers, dim) at length 1, zeros for those who said nothing."""
    conversations = conversation_vectors(said, way)
    if way.pooling == "max":
        best = np.full((said.n_speakers, conversations.shape[1]), -np.inf)
        np.maximum.at(best, said.speaker, conversations)
        return _unit64(np.where(np.isfinite(best), best, 0.0))
    weights = way.conversations(said)
    shape = (said.n_speakers, len(said.speaker))
    gather = sparse.csr_array((weights, (said.speaker, np.arange(shape[1]))), shape=shape)
    return _unit64(np.asarray(gather @ conversations))


def text_likeness(known: Known, way: Way) -> Floats:
    """Return the cosine of each case with each user in the way's space, (n_cases, n_users)."""
    said = known.said
    vectors = speaker_vectors(said, way)
    spoken = np.asarray(vectors.any(axis=1))
    if way.fitted_to == "users":
        fitted = vectors[: said.n_users][spoken[: said.n_users]]
    else:
        fitted = _unit64(conversation_vectors(said, way)[said.speaker < said.n_users])
    moved = way.space(fitted)(vectors)
    moved[~spoken] = 0.0
    return without_self(known, _cosines(moved[known.asking], moved[: said.n_users]))


def evidence(known: Known, way: Way) -> sparse.csr_array:
    return known.taken if way.evidence == "taken" else known.strength


def without_self(known: Known, found: Floats) -> Floats:
    """Return (n_cases, n_users) with 0 where the case is the user."""
    inside = np.flatnonzero(known.asking < known.said.n_users)
    found = found.copy()
    found[inside, known.asking[inside]] = 0.0
    return found


def _words_of_speakers(said: Said) -> sparse.csr_array:
    speaker = said.speaker[said.conversation[said.own]]
    shape = (said.n_speakers, len(said.vectors))
    gather = sparse.csr_array((np.ones(len(speaker)), (speaker, said.text[said.own])), shape=shape)
    return (gather @ said.words).tocsr()


def _best(found: Floats, speaker: Places, n_users: int) -> Floats:
    """Return the greatest of each user's conversations, (n_rows, n_users), -1 for users without one."""
    best = np.full((len(found), n_users), -1.0)
    present, starts = np.unique(speaker, return_index=True)
    best[:, present] = np.maximum.reduceat(found, starts, axis=1)
    return best


def _cosines(queries: Floats, others: Floats) -> Floats:
    return np.asarray(_unit64(queries) @ _unit64(others).T)


def _unit64(vectors: Floats) -> Floats:
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(norm == 0, 1, norm))


#: As the product does it: what every other way is compared with.
PRESENT = Way(own_messages, half_life_days(180.0), centred(), users_by_text)
