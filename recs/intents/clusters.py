"""Groups of conversations about the same, what sets them apart, and whether they grow. Arrays in, arrays out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recs.embed.vectors import unit

Trend = Literal["rising", "falling", "steady"]

SEED = 0
#: Smaller groups are not told of.
LEAST = 10
#: First there are many small clusters of about this size, at most so many; then those whose centres are alike, by the
#: cosine, become one. Members further than `_NEAR` from the centre belong to none. docs/intents.md compares others.
_PER_CLUSTER = 20
_MOST_CLUSTERS = 300
_ALIKE = 0.6
_NEAR = 0.5
_ROUNDS = 3

#: A share that moved by less than this factor is steady, however many conversations say so.
_MOVED = 1.2
_Z = 1.96

#: Words that a group uses more often than everybody by less than this factor say nothing of it.
_MORE_OFTEN = 2.0

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")

Labels = NDArray[np.intp]


def cluster(vectors: NDArray[np.floating], *, least: int = LEAST, seed: int = SEED) -> Labels:
    """Return the cluster of each vector, (n, dim) to (n,), from 0 for the largest on; -1 where there is none for it.

    The same vectors in the same order give the same clusters.
    """
    x = unit(vectors)
    if len(x) < least:
        return np.full(len(x), -1, dtype=np.intp)
    labels = _merged(x, _many(x, seed))
    for _ in range(_ROUNDS):
        present = np.unique(labels[labels >= 0])
        if not len(present):
            break
        likeness = x @ unit(np.stack([x[labels == i].mean(axis=0) for i in present])).T
        nearest = likeness.argmax(axis=1)
        labels = np.where(likeness[np.arange(len(x)), nearest] >= _NEAR, present[nearest], -1)
    sizes = Counter(labels[labels >= 0].tolist())
    kept = sorted((i for i, size in sizes.items() if size >= least), key=lambda i: (-sizes[i], i))
    place = {old: new for new, old in enumerate(kept)}
    return np.array([place.get(i, -1) for i in labels.tolist()], dtype=np.intp)


def _many(x: NDArray[np.float32], seed: int) -> Labels:
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    count = min(_MOST_CLUSTERS, len(x) // _PER_CLUSTER)
    if count < 2:
        return np.zeros(len(x), dtype=np.intp)
    with threadpool_limits(1):
        found = MiniBatchKMeans(count, random_state=seed, n_init=3, batch_size=1024).fit_predict(x)
    return np.asarray(found, dtype=np.intp)


def _merged(x: NDArray[np.float32], labels: Labels) -> Labels:
    from sklearn.cluster import AgglomerativeClustering

    present = np.unique(labels)
    if len(present) < 2:
        return labels
    centres = unit(np.stack([x[labels == i].mean(axis=0) for i in present]))
    groups = AgglomerativeClustering(None, distance_threshold=1 - _ALIKE, metric="cosine", linkage="average")
    into = np.zeros(int(present.max()) + 1, dtype=np.intp)
    into[present] = groups.fit_predict(centres)
    return into[labels]


def words_of(text: str) -> set[str]:
    """Return the distinct words of a text, in lower case; letters of any script, three or more, apostrophes inside."""
    return {word for word in _WORD.findall(text.lower()) if len(word) >= 3}


def characteristic_words(
    inside: Mapping[str, int], size: int, everywhere: Mapping[str, int], total: int, *, n: int = 8
) -> tuple[str, ...]:
    """Return the n words that set a group apart, most telling first; ties fall by the alphabet.

    `inside` and `everywhere` map words to the number of conversations that use them, of `size` in the group and of
    `total` in all, the group among them. In the manner of c-TF-IDF a word is worth the share of the group's
    conversations that use it, times the logarithm of how much greater that share is than overall. Counted per
    conversation, so that nobody is heard twice. Left out are words of fewer than 3 conversations or of a twentieth of
    the group, and those that are not used twice as often as overall.
    """
    often = {word: count / size for word, count in inside.items() if count >= max(3, size / 20)}
    if size < total:
        more = {word: share * total / everywhere[word] for word, share in often.items()}
        often = {word: share * float(np.log(more[word])) for word, share in often.items() if more[word] >= _MORE_OFTEN}
    return tuple(sorted(often, key=lambda word: (-round(often[word], 9), word))[:n])


def trend(times: NDArray[np.float64], all_times: NDArray[np.float64]) -> Trend | None:
    """Return whether a group's share of all conversations grew from the older half of them to the newer.

    `times` (n,) and `all_times` (m,) are in seconds, those unknown left out. Steady is what moved by less than a fifth,
    or by no more than chance would (two proportions, 95%). None where fewer than 10 of the group have a time, or where
    all conversations are of one time.
    """
    if len(times) < LEAST or not len(all_times) or all_times.min() == all_times.max():
        return None
    middle = np.median(all_times)
    if middle == all_times.max():  # most are of the newest time
        middle = all_times[all_times < middle].max()
    before, since = int((all_times <= middle).sum()), int((all_times > middle).sum())
    old, new = int((times <= middle).sum()), int((times > middle).sum())
    shares = old / before, new / since
    pooled = (old + new) / (before + since)
    error = np.sqrt(pooled * (1 - pooled) * (1 / before + 1 / since))
    moved = max(shares) >= _MOVED * min(shares) and (error == 0 or abs(shares[1] - shares[0]) >= _Z * error)
    if not moved or shares[0] == shares[1]:
        return "steady"
    return "rising" if shares[1] > shares[0] else "falling"
