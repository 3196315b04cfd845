"""Groups of conversations: found among noise, the same every time, named by their words, growing or shrinking."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from recs.intents.clusters import characteristic_words, cluster, trend, words_of


def planted(*sizes, noise=100, dim=64, seed=0):
    rng = np.random.default_rng(seed)
    around = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    groups = [around[i] + 0.08 * rng.normal(size=(size, dim)) for i, size in enumerate(sizes)]
    vectors = np.vstack([*groups, rng.normal(size=(noise, dim))]).astype(np.float32)
    truth = np.repeat([*range(len(sizes)), -1], [*sizes, noise])
    order = rng.permutation(len(truth))
    return vectors[order], truth[order]


def test_groups_are_found_among_noise_largest_first():
    vectors, truth = planted(80, 50, 20)
    found = cluster(vectors)
    for group in range(3):
        [(label, count)] = Counter(found[truth == group].tolist()).most_common(1)
        assert label == group
        assert count >= 0.9 * (truth == group).sum()
    assert (found[truth == -1] == -1).mean() > 0.9


def test_the_same_vectors_give_the_same_clusters():
    vectors, _ = planted(60, 40)
    assert np.array_equal(cluster(vectors), cluster(vectors))


@pytest.mark.parametrize("count", [0, 1, 9, 10, 25])
def test_few_vectors(count):
    vectors, _ = planted(count, noise=0)
    found = cluster(vectors)
    assert found.shape == (count,)
    assert set(found.tolist()) == ({0} if count >= 10 else {-1} if count else set())


def test_words_that_set_a_group_apart():
    inside = Counter(bike=8, the=9, rent=6, once=2)
    everywhere = Counter(bike=9, the=90, rent=30, once=2)
    # bike .8 x ln(.8 / .09), rent .6 x ln(.6 / .3); everybody says the, and two alone say once.
    assert characteristic_words(inside, 10, everywhere, 100) == ("bike", "rent")
    assert characteristic_words(inside, 10, everywhere, 100, n=1) == ("bike",)
    assert characteristic_words(Counter(), 0, everywhere, 100) == ()
    assert characteristic_words(inside, 10, inside, 10) == ("the", "bike", "rent")


def test_words():
    assert words_of("Où est MON vélo? It's #42, o-k") == {"est", "mon", "vélo", "it's"}


def test_trends():
    everything = np.arange(1000.0)
    assert trend(np.arange(600.0, 700.0), everything) == "rising"
    assert trend(np.arange(100.0, 200.0), everything) == "falling"
    assert trend(np.arange(0.0, 1000.0, 10.0), everything) == "steady"
    # Six to four may well be chance.
    assert trend(np.array([*range(4), *range(900, 906)], dtype=float), everything) == "steady"
    assert trend(np.arange(9.0), everything) is None
    assert trend(np.ones(20), np.ones(50)) is None
    assert trend(np.empty(0), np.empty(0)) is None
    # Most are of the newest time: the older part is what came before.
    late = np.array([*range(100), *[200.0] * 200])
    assert trend(np.full(30, 200.0), late) == "rising"
