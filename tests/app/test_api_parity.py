"""What `recs evaluate` judges is what the sidecar answers: the same campaigns, order and scores, over HTTP."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from api_server import api_process, as_environment, wait_until_ready
from support import ROOT, fresh_settings, load

from recs.bootstrap import connect
from recs.evaluation import Dataset, arrays_of, leave_last_out, read_dataset
from recs.evaluation.metrics import ranking
from recs.evaluation.served import hybrid, require_unseen
from recs.model import Preferences
from recs.retrieval import Recommender

DATA = Path(__file__).parents[3] / "shared" / "data"
POSITIVE = ("like", "convert")
#: Beside other work on a small machine, servers and embedding take minutes.
pytestmark = pytest.mark.timeout(900)

#: What the sidecar returns at most.
MOST = 100
#: So many users of each data set, in order of their ids: to embed all that was said takes minutes.
USERS = {"sample": 200, "amazon_small": 250}

#: Reasons that are not about what is new to the user: the filters, which an evaluation leaves off.
FILTERS = {
    *("opted_out", "channel_opt_out", "campaign_paused", "campaign_ended", "campaign_not_started"),
    *("disliked", "frequency_cap"),
}


def given(name):
    """Return a part of a data set with its whole catalogue, and what its users have chosen."""
    chosen = []
    if name == "sample":
        files = ROOT / "data/sample_conversations.json", ROOT / "data/sample_campaigns.json"
        lines = (ROOT / "data/sample_preferences.jsonl").read_text().splitlines()
        chosen = [Preferences.model_validate_json(line) for line in lines]
    else:
        files = DATA / name / "conversations.jsonl.gz", DATA / name / "campaigns.jsonl.gz"
        if not files[0].is_file():
            pytest.skip(f"the real data {name} is not there")
    found = read_dataset(*files, max_record_bytes=2**24)
    users = set(sorted({s.conversation.user_id for s in found.conversations})[: USERS[name]])
    few = tuple(s for s in found.conversations if s.conversation.user_id in users)
    return Dataset(few, found.campaigns), chosen


@pytest.fixture(scope="module", params=USERS)
def served(request, servers, encoder, tmp_path_factory):
    """The training part of a data set behind a sidecar, and the recommender that an evaluation asks."""
    data, preferences = given(request.param)
    # The arithmetic of the encoder is calibrated once per home: the sidecar must not come to another one.
    precision = encoder.identity.rpartition("/")[2]
    own = servers.model_copy(update={"precision": precision})
    settings = fresh_settings(own, tmp_path_factory.mktemp("parity"), "parity")
    stores = connect(settings, timeout_seconds=settings.load_timeout_seconds)
    split = leave_last_out(data, POSITIVE)
    stores.state.put_preferences(preferences)
    load(stores, settings, encoder, [s.conversation for s in split.train], data.campaigns)
    require_unseen(stores, split)
    recommender = Recommender(stores, settings, encoder=lambda: encoder)
    with api_process(as_environment(settings)) as api:
        wait_until_ready(api)
        yield data, split, recommender, api
    recommender.close()
    stores.close()
    fresh_settings(servers, tmp_path_factory.mktemp("left"), "parity")


def items_of(answer):
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["degraded"] == []
    assert len(body["suppressed"]) < 100  # all of them are told
    return body, [(item["campaign_id"], item["score"]) for item in body["items"]]


def test_a_user_is_served_what_is_evaluated(served):
    data, split, recommender, api = served
    arrays = arrays_of(split, data.campaigns, POSITIVE)
    cases = np.arange(arrays.n_cases)
    scores = hybrid(recommender, arrays, split.cases)(cases)
    had = arrays.had.toarray() > 0
    order = ranking(scores, ~had)
    compared, strategies = 0, set()
    for row, case in enumerate(split.cases):
        user_id = case.user_id
        path = f"/recommendations/{quote(user_id, safe='')}"
        body, items = items_of(api.get(path, k=MOST, explain="false"))
        suppressed = {s["campaign_id"]: s["reason"] for s in body["suppressed"]}
        taken = {arrays.campaign_ids[column] for column in np.flatnonzero(had[row])}
        assert taken <= set(suppressed)
        assert {reason for campaign_id, reason in suppressed.items() if campaign_id not in taken} <= FILTERS
        new = [(arrays.campaign_ids[column], scores[row, column]) for column in order[row]]
        assert items == [(c, score) for c, score in new if c not in suppressed][:MOST], user_id
        compared += len(items)
        strategies.add(body["strategy"])
    assert len(cases) >= 40
    assert compared >= 10 * len(cases)
    assert "hybrid" in strategies


@pytest.mark.parametrize(
    "messages",
    [
        [("user", "Where is my parcel? It should have been here on Monday.")],
        [("agent", "Hello, how can I help?"), ("user", "It broke after a week."), ("user", "I want my money back")],
    ],
)
def test_a_text_is_served_as_it_is_evaluated(served, messages):
    _, _, recommender, api = served
    texts = [text for role, text in messages if role == "user"]
    signals, scored = recommender.score_text(texts)
    assert not signals.degraded
    asked = {"text": texts[0]} if len(messages) == 1 else {"messages": [{"role": r, "text": t} for r, t in messages]}
    body, items = items_of(api.post("/recommendations", {**asked, "k": MOST}))
    suppressed = {s["campaign_id"]: s["reason"] for s in body["suppressed"]}
    assert set(suppressed.values()) <= FILTERS
    expected = [(scored.ids[i], scored.scores[i]) for i in scored.order.tolist()]
    assert items == [(c, score) for c, score in expected if c not in suppressed][:MOST]
    assert len(items) >= 10
    assert body["strategy"] == "text"
