"""The sidecar's answers, through a process and a socket."""

from __future__ import annotations

import json
import math
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import httpx
import pytest
from api_data import ECHO_TEXT, ODD_IDS
from api_server import Server

from recs.bootstrap import Stores
from recs.model import Preferences, Recommendations
from recs.privacy import Pseudonyms
from recs.settings import Settings


@pytest.fixture
def names(published: Stores, api_settings: Settings) -> Pseudonyms:
    return Pseudonyms.of_installation(published.state, api_settings.home)


def recommended(answer: httpx.Response) -> Recommendations:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    return Recommendations.model_validate_json(answer.content)


def test_campaigns_are_ranked_and_the_parts_are_the_score(api: Server) -> None:
    answer = recommended(api.get("/recommendations/anna"))
    assert (answer.user_id, answer.generation, answer.strategy, answer.degraded) == ("anna", 1, "hybrid", [])
    assert [(i.rank, i.campaign_id, i.name) for i in answer.items][:4] == [
        (1, "k4", "Stay with us"),
        (2, "k1", "Desks"),
        (3, "k3", "Shelves"),
        (4, "k2", "Chairs"),
    ]
    parts = [{p.component: p.contribution for p in item.breakdown} for item in answer.items]
    assert parts[0]["intent"] == 2
    assert parts[1]["similar_users"] == pytest.approx(1, abs=1e-6)
    assert parts[2]["co_engagement"] == pytest.approx(0.5, abs=1e-6)
    assert parts[2]["similar_users"] == pytest.approx(0.2, abs=1e-6)
    assert parts[3]["engagement_prior"] == pytest.approx(math.log(2) / 8, abs=1e-9)
    for item in answer.items:
        assert sum(part.contribution for part in item.breakdown) == item.score
        assert item.evidence == []
    assert {s.campaign_id: s.reason for s in answer.suppressed} == {
        "k0": "already_converted",
        "k5": "disliked",
        "k7": "campaign_paused",
        "k8": "campaign_ended",
        "k9": "campaign_not_started",
    }


def test_k_cuts_the_list(api: Server) -> None:
    assert [i.campaign_id for i in recommended(api.get("/recommendations/anna", k=2)).items] == ["k4", "k1"]


@pytest.mark.parametrize(
    ("query", "items", "explained"),
    [
        ("", 6, False),
        ("k=2", 2, False),
        ("k=0002", 2, False),
        ("k=2&explain=true", 2, True),
        ("explain=true&k=2", 2, True),
        ("explain=true", 6, True),
        ("explain=false", 6, False),
        ("explain=1&k=3", 3, True),
        ("k=100&other=1", 6, False),
    ],
)
def test_a_question_may_be_put_in_any_way(api: Server, query: str, items: int, explained: bool) -> None:
    answer = recommended(api.get(f"/recommendations/anna?{query}"))
    assert len(answer.items) == items
    assert bool(answer.items[0].evidence) == explained


@pytest.mark.parametrize("explain", [False, True])
def test_the_second_answer_is_a_copy_of_the_first(api: Server, published: Stores, explain: bool) -> None:
    published.cache.clear()
    asked = [api.get("/recommendations/anna", explain=explain) for _ in range(2)]
    first, second = map(recommended, asked)
    assert [a.headers["x-recommendation-cache"] for a in asked] == ["miss", "hit"]
    assert (first.cached, second.cached) == (False, True)
    assert second.model_copy(update={"cached": False}) == first


def test_the_same_question_at_once_is_computed_once(api: Server, published: Stores) -> None:
    published.cache.clear()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: recommended(api.get("/recommendations/carl")), range(8)))
    assert len({a.recommendation_id for a in answers}) == 1
    assert sum(not a.cached for a in answers) == 1


def test_a_user_of_whom_nothing_is_known_gets_what_is_popular(api: Server) -> None:
    answer = recommended(api.get("/recommendations/nobody"))
    assert answer.strategy == "popular"
    assert [i.campaign_id for i in answer.items[:4]] == ["k1", "echo/campaign", "k0", "k2"]


def test_what_a_user_allows_holds_from_the_next_request_on(api: Server, published: Stores) -> None:
    assert recommended(api.get("/recommendations/nothing")).items == []
    assert {s.reason for s in recommended(api.get("/recommendations/nothing")).suppressed} == {"opted_out"}
    suppressed = {s.campaign_id: s.reason for s in recommended(api.get("/recommendations/no post")).suppressed}
    assert suppressed["k6"] == "channel_opt_out"
    hidden = recommended(api.get("/recommendations/hidden"))
    assert hidden.strategy == "popular"
    assert recommended(api.get("/recommendations/late")).items
    assert recommended(api.get("/recommendations/late")).cached
    published.state.put_preferences([Preferences(user_id="late", channels=())])
    assert recommended(api.get("/recommendations/late")).items == []


def test_evidence_names_nobody_else_and_quotes_are_masked(api: Server, names: Pseudonyms) -> None:
    raw = api.get("/recommendations/anna", explain=True)
    answer = recommended(raw)
    desks = next(i for i in answer.items if i.campaign_id == "k1")
    ben, carl = names.of("user", "ben@example.com"), names.of("user", "carl")
    by_user = {e.user_id: e for e in desks.evidence if e.kind == "neighbour"}
    assert set(by_user) == {ben, carl}
    quote_, own = by_user[ben].quote, by_user[ben].own_quote
    assert quote_ is not None
    assert own is not None
    assert quote_.text == "My card [card] was charged twice, write to [e-mail]"
    assert quote_.conversation_id == names.of("conversation", "conversation of ben@example.com")
    assert (own.conversation_id, own.text) == ("conversation of anna", "Call me at [phone] about the desk")
    for secret in ("ben@", "carl", "hidden", "4111", "7946"):
        assert secret not in raw.text
    # A copy from the cache holds no more than the first answer did.
    assert recommended(api.get("/recommendations/anna", explain=True)).items == answer.items


def test_a_text_is_answered_from_its_own_words(api: Server, names: Pseudonyms) -> None:
    answer = recommended(api.post("/recommendations", {"text": ECHO_TEXT, "k": 3, "explain": True}))
    assert (answer.user_id, answer.strategy) == (None, "text")
    assert answer.items[0].campaign_id == "echo/campaign"
    nearest = answer.items[0].evidence[0]
    assert nearest.user_id == names.of("user", "echo")
    assert nearest.similarity == pytest.approx(1, abs=0.02)
    assert sum(part.contribution for part in answer.items[0].breakdown) == answer.items[0].score
    messages = [{"role": "user", "text": ECHO_TEXT}, {"role": "agent", "text": "Which colour?", "at": None}]
    same = recommended(api.post("/recommendations", {"messages": messages, "k": 3}))
    assert [i.score for i in same.items] == [i.score for i in answer.items]
    assert same.items[0].evidence == []


def test_neighbours_are_pseudonyms(api: Server, names: Pseudonyms) -> None:
    answer = api.get("/users/anna/neighbours", k=2)
    assert answer.status_code == 200
    assert (answer.json()["user_id"], answer.json()["generation"]) == ("anna", 1)
    near = answer.json()["neighbours"]
    assert {n["user_id"] for n in near} == {names.of("user", "ben@example.com"), names.of("user", "carl")}
    assert [n["similarity"] for n in near] == pytest.approx([0.8, 0.8], abs=1e-5)


def test_an_audience_has_real_ids_and_the_users_own_scores(api: Server) -> None:
    audience = api.get("/campaigns/k3/audience", limit=5).json()
    assert audience["campaign_id"] == "k3"
    scores = {m["user_id"]: m["score"] for m in audience["members"]}
    assert scores["anna"] == next(
        i.score for i in recommended(api.get("/recommendations/anna")).items if i.campaign_id == "k3"
    )
    assert api.get("/campaigns/echo/campaign/audience").json()["campaign_id"] == "echo/campaign"
    assert api.get("/campaigns/echo%2Fcampaign/audience").json()["campaign_id"] == "echo/campaign"


# -- ids ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user_id", ODD_IDS, ids=ascii)
def test_an_id_may_hold_any_character(api: Server, user_id: str) -> None:
    # Dots are encoded too: clients may take a segment of "." out of a path.
    encoded = quote(user_id, safe="").replace(".", "%2E")
    answer = recommended(api.get(f"/recommendations/{encoded}"))
    assert answer.user_id == user_id
    assert answer.suppressed[0].model_dump() == {"campaign_id": "k0", "reason": "already_converted"}
    assert api.get(f"/users/{encoded}/neighbours").json()["user_id"] == user_id


@pytest.mark.parametrize(
    ("target", "user_id"),
    [
        ("/recommendations/a/b", "a/b"),
        ("/recommendations/a%2fb", "a/b"),
        ("/recommendations/a//b/", "a//b/"),
        ("/recommendations//", "/"),
        ("/recommendations/.", "."),
        ("/recommendations/..", ".."),
        ("/recommendations/%252F", "%2F"),
        ("/recommendations/a+b%20c", "a+b c"),
        ("/recommendations/{user_id}", "{user_id}"),
        ("/users/a/b/neighbours", "a/b"),
        ("/users/x/neighbours/neighbours", "x/neighbours"),
        ("/users/x%2Fneighbours/neighbours", "x/neighbours"),
        ("http://127.0.0.1/recommendations/a%2Fb", "a/b"),
    ],
)
def test_a_path_is_read_as_it_was_sent(api: Server, target: str, user_id: str) -> None:
    status, body = over_socket(api, f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert status == 200, body
    assert json.loads(body)["user_id"] == user_id


def over_socket(api: Server, request: bytes) -> tuple[int, bytes]:
    """Send bytes as they are; return the status and the body."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
        connection.sendall(request)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


# -- errors ------------------------------------------------------------------------------------------------------------

PROBLEM_KEYS = {"type", "title", "status", "code", "detail", "errors", "stores"}


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, object]:
    """The one shape that every error has."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    body = answer.json()
    assert set(body) == PROBLEM_KEYS
    assert (body["type"], body["status"], body["code"]) == ("about:blank", status, code)
    assert body["title"]
    assert body["detail"]
    assert ("retry-after" in answer.headers) == (status == 503)
    assert "Traceback" not in answer.text
    return dict(body)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/recommendations/anna?k=0", 422, "invalid_request"),
        ("GET", "/recommendations/anna?k=101", 422, "invalid_request"),
        ("GET", "/recommendations/anna?k=000", 422, "invalid_request"),
        ("GET", "/recommendations/anna?k=", 422, "invalid_request"),
        ("GET", "/recommendations/anna?k=ten", 422, "invalid_request"),
        ("GET", "/recommendations/anna?explain=maybe", 422, "invalid_request"),
        ("GET", "/users/anna/neighbours?k=0", 422, "invalid_request"),
        ("GET", "/campaigns/k1/audience?limit=1001", 422, "invalid_request"),
        ("GET", "/recommendations/%FF", 422, "invalid_request"),
        ("GET", "/users/nobody/neighbours", 404, "not_found"),
        ("GET", "/users/hidden/neighbours", 404, "not_found"),
        ("GET", "/campaigns/none/audience", 404, "not_found"),
        ("GET", "/nowhere", 404, "unknown_route"),
        ("GET", "/recommendations/", 404, "unknown_route"),
        ("GET", "/users//neighbours", 404, "unknown_route"),
        ("GET", "/static-offline-docs/nothing.js", 404, "unknown_route"),
        ("GET", "/recommendations", 405, "method_not_allowed"),
        ("DELETE", "/recommendations/anna", 405, "method_not_allowed"),
        ("PROPFIND", "/healthz", 405, "method_not_allowed"),
    ],
)
def test_every_error_is_a_problem_document(api: Server, method: str, path: str, status: int, code: str) -> None:
    assert_problem(httpx.request(method, api.url + path, timeout=30), status, code)


@pytest.mark.parametrize(
    ("body", "status", "code", "where"),
    [
        (b"", 422, "invalid_request", "body"),
        (b"{", 422, "invalid_request", "body.1"),
        (b"[]", 422, "invalid_request", "body"),
        (b"{}", 422, "invalid_request", "body"),
        (b'{"text": "a", "messages": [{"text": "b"}]}', 422, "invalid_request", "body"),
        (b'{"text": 3}', 422, "invalid_request", "body.text"),
        (b'{"text": "a", "k": 0}', 422, "invalid_request", "body.k"),
        (b'{"text": "a", "limit": 3}', 422, "invalid_request", "body.limit"),
        (b'{"text": "\\ud800"}', 422, "invalid_request", "body.text"),
        (json.dumps({"text": "a" * 20_001}).encode(), 422, "invalid_request", "body.text"),
        (json.dumps({"messages": []}).encode(), 422, "invalid_request", "body.messages"),
        (json.dumps({"messages": [{"text": "a"}] * 101}).encode(), 422, "invalid_request", "body.messages"),
        (json.dumps({"messages": [{"role": "robot", "text": "a"}]}).encode(), 422, "invalid_request", None),
        (b'{"text": " \\u200b "}', 422, "invalid_request", None),
        (b'{"messages": [{"role": "agent", "text": "hello"}]}', 422, "invalid_request", None),
        (b'{"text": "\xff"}', 400, "bad_request", None),
        (b"[" * 100_000, 400, "bad_request", None),
        (b'{"text": "' + b"a" * 1_000_000 + b'"}', 413, "body_too_large", None),
    ],
)
def test_every_bad_body_is_a_problem_document(
    api: Server, body: bytes, status: int, code: str, where: str | None
) -> None:
    answer = httpx.post(
        api.url + "/recommendations", content=body, headers={"Content-Type": "application/json"}, timeout=60
    )
    problem = assert_problem(answer, status, code)
    if where is not None:
        errors = problem["errors"]
        assert isinstance(errors, list)
        assert errors[0]["where"] == where
    # What was sent is not repeated.
    assert "aaaa" not in answer.text


def test_a_body_that_comes_in_chunks_is_bounded_too(api: Server) -> None:
    answer = httpx.post(
        api.url + "/recommendations",
        content=(b" " * 100_000 for _ in range(11)),
        headers={"Content-Type": "application/json"},
    )
    assert_problem(answer, 413, "body_too_large")


def test_a_page_of_another_name_cannot_ask(api: Server) -> None:
    """A page whose name resolves to 127.0.0.1 could otherwise read what the sidecar knows."""
    for host in ("evil.example", "localhost.evil.example:8000", ""):
        assert_problem(httpx.get(api.url + "/recommendations/anna", headers={"Host": host}), 421, "misdirected_request")
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:8000", "10.0.0.7"):
        assert httpx.get(api.url + "/healthz", headers={"Host": host}).status_code == 200


# -- operation ---------------------------------------------------------------------------------------------------------


def test_health_readiness_and_version(api: Server) -> None:
    assert api.get("/healthz").json() == {"status": "ok"}
    ready = api.get("/readyz").json()
    assert (ready["status"], ready["generation"]) == ("ready", 1)
    assert set(ready["stores"]) == {"documents", "vectors", "graph", "metrics", "state", "cache"}
    version = api.get("/version").json()
    assert (version["api"], version["generation"]) == ("1", 1)
    assert version["model"].startswith("all-MiniLM-L6-v2")
    assert version["libraries"]["fastapi"]


def test_counts_and_log_hold_routes_and_no_ids(api: Server) -> None:
    secret = "somebody-7f3a"
    api.get(f"/recommendations/{secret}")
    api.get(f"/users/{secret}/neighbours")
    api.get(f"/nowhere/{secret}")
    httpx.request("BREW", f"{api.url}/{secret}")
    text = api.get("/metrics").text
    assert 'recs_http_requests_total{method="GET",route="/recommendations/{user_id}",status="200"}' in text
    assert 'recs_http_requests_total{method="GET",route="/users/{user_id}/neighbours",status="404"}' in text
    assert 'recs_http_requests_total{method="GET",route="unmatched",status="404"}' in text
    assert 'method="other"' in text
    assert 'recs_recommendation_cache_total{result="hit"}' in text
    for held in (text, "".join(api.log)):
        assert secret not in held
        assert "anna" not in held
        assert "Traceback" not in held


def test_the_documentation_needs_no_internet(api: Server) -> None:
    page = api.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f"/static-offline-docs/{asset}" in page
        assert api.get(f"/static-offline-docs/{asset}").status_code == 200


def test_the_description_names_problems_and_examples(api: Server) -> None:
    described = api.get("/openapi.json").json()
    assert set(described["components"]["schemas"]["Problem"]["properties"]) == PROBLEM_KEYS
    for path, methods in described["paths"].items():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                if status != "200":
                    assert list(response["content"]) == ["application/problem+json"], (path, status)
                elif path not in ("/healthz", "/readyz", "/metrics", "/version"):
                    assert response["content"]["application/json"]["example"]
    assert set(described["paths"]) >= {
        "/recommendations/{user_id}",
        "/recommendations",
        "/users/{user_id}/neighbours",
        "/campaigns/{campaign_id}/audience",
    }


def test_keep_alive_connections_are_answered_quickly(api: Server) -> None:
    """A cached answer takes a few milliseconds; the bound leaves room for a machine that is busy."""
    with httpx.Client(base_url=api.url) as client:
        client.get("/recommendations/anna")
        took = []
        for _ in range(50):
            began = time.perf_counter()
            assert client.get("/recommendations/anna").headers["x-recommendation-cache"] == "hit"
            took.append(time.perf_counter() - began)
    assert sorted(took)[25] < 0.05
