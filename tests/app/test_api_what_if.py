"""Explanations over REST: what the recommender says, with other users under pseudonyms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from api_data import ODD_IDS
from api_server import Server

from app.api.evidence import mask_stability, veil_counterfactual, veil_explanation
from recs.bootstrap import Stores
from recs.model import Counterfactual, Explanation, Stability
from recs.privacy import Pseudonyms
from recs.retrieval import Recommender
from recs.settings import Settings

OTHERS = ("ben@example.com", "carl", "hidden")


@pytest.fixture
def names(published: Stores, api_settings: Settings) -> Pseudonyms:
    return Pseudonyms.of_installation(published.state, api_settings.home)


@pytest.fixture
def recommender(published: Stores, api_settings: Settings) -> Iterator[Recommender]:
    recommender = Recommender(published, api_settings)
    yield recommender
    recommender.close()


def test_an_explanation_is_the_recommenders_and_names_nobody(
    api: Server, names: Pseudonyms, recommender: Recommender
) -> None:
    answer = api.get("/users/anna/explanation", campaign_id="k3")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    told = Explanation.model_validate_json(answer.content)
    plain = recommender.explanation("anna", "k3")
    assert told == veil_explanation(plain, names)
    assert {e.without_id for e in plain.effects if e.without == "neighbour"} == {"carl"}
    assert [v.user_id for v in told.dissent.voices] == [names.of("user", "carl")]
    assert not any(other in answer.text for other in OTHERS)
    # k0, which she converted on, leads to k3.
    assert ("campaign", "k0") in {(e.without, e.without_id) for e in told.effects}


def test_a_neighbour_is_taken_away_by_the_pseudonym(api: Server, names: Pseudonyms, recommender: Recommender) -> None:
    asked = {"without": "neighbour", "without_id": names.of("user", "carl")}
    answer = api.get("/users/anna/counterfactual", **asked, k=4)
    assert answer.status_code == 200, answer.text
    told = Counterfactual.model_validate_json(answer.content)
    assert told == veil_counterfactual(recommender.counterfactual("anna", "neighbour", "carl", k=4), names)
    assert told.without_id == names.of("user", "carl")
    assert not any(other in answer.text for other in OTHERS)
    # Ben has all the say now: 1 for k1 and k2 alike, which stand out less than k1 did alone.
    desks = next(move for move in told.items if move.campaign_id == "k1")
    parts = {part.component: part for part in desks.parts}
    assert parts["similar_users"].before == pytest.approx(1, abs=1e-6)
    assert parts["similar_users"].after == pytest.approx(math.sqrt(1.29 / 2), abs=1e-6)
    one = api.get("/users/anna/counterfactual", **asked, campaign_id="echo/campaign").json()
    assert [move["campaign_id"] for move in one["items"]] == ["echo/campaign"]


def test_an_own_campaign_is_taken_away(api: Server, recommender: Recommender) -> None:
    answer = api.get("/users/anna/counterfactual", without="campaign", without_id="k0").json()
    assert answer == recommender.counterfactual("anna", "campaign", "k0").model_dump(mode="json")
    # Never met, it may be offered.
    (seen,) = (move for move in answer["items"] if move["campaign_id"] == "k0")
    assert (seen["reason_before"], seen["reason_after"]) == ("already_converted", None)


def test_stability_shows_masked_words(api: Server, recommender: Recommender) -> None:
    answer = api.get("/users/anna/stability")
    told = Stability.model_validate_json(answer.content)
    assert told == mask_stability(recommender.stability("anna"))
    assert [turn.text for turn in told.turns] == ["Call me at [phone] about the desk"]


@pytest.mark.parametrize("user_id", ODD_IDS, ids=ascii)
def test_an_id_may_hold_any_character(api: Server, user_id: str) -> None:
    encoded = quote(user_id, safe="").replace(".", "%2E")
    told = api.get(f"/users/{encoded}/explanation", campaign_id="echo/campaign").json()
    assert (told["user_id"], told["campaign_id"]) == (user_id, "echo/campaign")
    listed = api.get(f"/users/{encoded}/counterfactual", without="campaign", without_id="k0").json()
    assert (listed["user_id"], listed["without_name"]) == (user_id, "Lamps")
    assert api.get(f"/users/{encoded}/stability").json()["user_id"] == user_id


@pytest.mark.parametrize(
    ("path", "asked", "status", "code"),
    [
        ("/users/nobody/explanation", {"campaign_id": "k1"}, 404, "not_found"),
        ("/users/hidden/explanation", {"campaign_id": "k1"}, 404, "not_found"),
        ("/users/anna/explanation", {"campaign_id": "none"}, 404, "not_found"),
        ("/users/anna/explanation", {}, 422, "invalid_request"),
        # The real id of a neighbour is no way to learn whether that customer is one.
        ("/users/anna/counterfactual", {"without": "neighbour", "without_id": "carl"}, 404, "not_found"),
        ("/users/anna/counterfactual", {"without": "conversation", "without_id": "c9"}, 404, "not_found"),
        ("/users/anna/counterfactual", {"without": "campaign", "without_id": "k1"}, 404, "not_found"),
        ("/users/anna/counterfactual", {"without": "intent", "without_id": "buy"}, 422, "invalid_request"),
        ("/users/anna/counterfactual", {"without": "campaign"}, 422, "invalid_request"),
        ("/users/hidden/stability", {}, 404, "not_found"),
        ("/users//stability", {}, 404, "unknown_route"),
    ],
)
def test_what_cannot_be_told_is_a_problem(
    api: Server, path: str, asked: dict[str, str], status: int, code: str
) -> None:
    answer = api.get(path, **asked)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert not any(other in answer.text for other in OTHERS if other not in asked.values() and other not in path)
