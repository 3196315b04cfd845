"""The protocol on real data, beside reference numbers that others found on it. Skips where the data is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from recs.evaluation import (
    arrays_of,
    baseline_methods,
    check_leaks,
    evaluate,
    leave_last_out,
    read_dataset,
    split_by_field,
)

DATA = Path(__file__).parents[3] / "shared" / "data"
LIKED = ("like", "convert")

# Recall@10, new-only, with what a figure may be off by: standard errors where the reference tells them, else the
# 95% interval's half width of some 270 and 410 users.
REFERENCE = {
    "redial": {
        "popularity": (0.056, 0.009),
        "item_knn": (0.046, 0.02),
        "user_knn": (0.066, 0.02),
        "ease": (0.063, 0.02),
    },
    "amazon_small": {
        "popularity": (0.015, 0.005),
        "popularity_by_category": (0.259, 0.005),
        "item_knn": (0.358, 0.04),
        "user_knn": (0.389, 0.01),
        "ease": (0.376, 0.04),
    },
}


def data(name):
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"the real data {name} is not there")
    return read_dataset(folder / "conversations.jsonl.gz", folder / "campaigns.jsonl.gz", max_record_bytes=2**24)


@pytest.mark.parametrize("name", REFERENCE)
def test_leave_last_out(name):
    found = data(name)
    split = leave_last_out(found, LIKED)
    check_leaks(split.train, split)
    arrays = arrays_of(split, found.campaigns, LIKED)
    methods = baseline_methods(arrays, None)
    figures = evaluate(arrays, {method: methods[method] for method in REFERENCE[name]}).figures
    for method, (recall, tolerance) in REFERENCE[name].items():
        assert figures[f"recall@10.{method}"] == pytest.approx(recall, abs=tolerance), method


@pytest.mark.parametrize(
    ("name", "actions", "recall"), [("twitter_care", ("mention",), 0.308), ("sgd", ("view", "convert"), 0.186)]
)
def test_cold_start(name, actions, recall):
    found = data(name)
    split = split_by_field(found, actions, "split")
    check_leaks(split.train, split)
    arrays = arrays_of(split, found.campaigns, actions)
    methods = baseline_methods(arrays, None)
    figures = evaluate(arrays, {n: methods[n] for n in ("popularity", "popularity_by_category")}).figures
    assert figures["recall@10.popularity"] == pytest.approx(recall, abs=0.005)
    if name == "twitter_care":  # within the brand
        assert figures["recall@10.popularity_by_category"] == pytest.approx(0.528, abs=0.005)
