"""Texts per second of our encoder against the library's own `encode`, on the same model and the same texts."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import Input, distinct_texts
from benchmarks.errors import BenchmarkError
from benchmarks.home import temporary_home
from benchmarks.samples import Samples, in_turn, load_average, result, told
from recs.embed import Encoder
from recs.embed.vectors import unit
from recs.settings import Settings

_SEED = 20260301
_WARM_UP_TEXTS = 64

Encode = Callable[[Sequence[str]], NDArray[np.float32]]


def bench_embed(data: Input, *, texts: int, rounds: int) -> dict[str, Any]:
    """Return the figures of encoding a sample of a file's distinct texts."""
    load = load_average()
    with temporary_home() as settings:
        words, available = _sample(data, settings, texts)
        ours = Encoder.load(settings)
        library = Encoder.load(settings.model_copy(update={"precision": "float32"})).model
        encoders: dict[str, Encode] = {"ours": ours.encode, "library": lambda t: _encoded(library.encode(list(t)))}
        if not ours.identity.endswith("/float32"):
            # How much of the difference is arithmetic and how much the batches.
            encoders["library_same_precision"] = lambda t: _encoded(ours.model.encode(list(t)))
        for encode in encoders.values():
            encode(words[:_WARM_UP_TEXTS])
        samples = Samples()
        for number in range(rounds):
            seconds, vectors = _round(encoders, words, number)
            samples.add(_figures(seconds, vectors, len(words)))
            told(f"round {number + 1} of {rounds}: " + ", ".join(f"{n} {s:.2f} s" for n, s in seconds.items()))
        tokens = [len(ids) for ids in library.tokenizer(words, truncation=True)["input_ids"]]
        return result(
            "embed",
            {
                "texts": len(words),
                "median_text_chars": median(len(w) for w in words),
                "median_text_tokens": median(tokens),
            },
            samples,
            data=data.described(settings),
            conditions={
                "load_average_before": load,
                "encoder": ours.identity,
                "library": f"{type(library).__name__}.encode with its own defaults, float32",
                "texts": f"{len(words):,} of {available:,} distinct texts of users, seed {_SEED}",
            },
        )


def _sample(data: Input, settings: Settings, size: int) -> tuple[list[str], int]:
    """Return a random sample of the users' distinct texts, in the file's order, and how many there are in all."""
    available = distinct_texts([t for c in data.accepted(settings) for t in c.user_texts()], settings)
    if not available:
        raise BenchmarkError("no user says anything in these conversations: there is nothing to encode")
    chosen = sorted(random.Random(_SEED).sample(range(len(available)), min(size, len(available))))
    return [available[i] for i in chosen], len(available)


def _round(
    encoders: dict[str, Encode], words: Sequence[str], number: int
) -> tuple[dict[str, float], dict[str, NDArray[np.float32]]]:
    seconds, vectors = {}, {}
    for name in in_turn(list(encoders), number):
        began = time.perf_counter()
        vectors[name] = encoders[name](words)
        seconds[name] = time.perf_counter() - began
    return seconds, vectors


def _figures(seconds: dict[str, float], vectors: dict[str, NDArray[np.float32]], count: int) -> dict[str, float]:
    cosines = (unit(vectors["ours"]).astype(np.float64) * unit(vectors["library"]).astype(np.float64)).sum(axis=1)
    figures = {
        "texts_per_second": count / seconds["ours"],
        "over_library_default": seconds["library"] / seconds["ours"],
        "cosine_min": float(cosines.min()),
        "library_texts_per_second": count / seconds["library"],
    }
    if "library_same_precision" in seconds:
        figures["over_library_same_precision"] = seconds["library_same_precision"] / seconds["ours"]
    return figures


def _encoded(vectors: Any) -> NDArray[np.float32]:
    """Return what the library gave as float32, (n_texts, dim)."""
    return np.asarray(vectors, dtype=np.float32)
