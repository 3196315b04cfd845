"""Routes that recommend: campaigns for a user or a text, users like a user, users for a campaign."""

from __future__ import annotations

from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel
from starlette.convertors import register_url_convertor

from app.api.ids import IdConvertor
from app.api.problems import documented
from app.api.schemas import (
    AUDIENCE_EXAMPLE,
    COUNTERFACTUAL_EXAMPLE,
    EXPLANATION_EXAMPLE,
    MAX_K,
    NEIGHBOURS_EXAMPLE,
    RECOMMENDATIONS_EXAMPLE,
    STABILITY_EXAMPLE,
    Neighbours,
    TextRequest,
)
from app.api.service import Service
from recs.model import Audience, Counterfactual, Explanation, Recommendations, Stability, TakenAway

# Routes say {user_id:id}; the name must be known before the first of them.
register_url_convertor("id", IdConvertor())

router = APIRouter(tags=["recommendations"])


def service_of(request: Request) -> Service:
    """Return the service of the application that took the request."""
    return cast(Service, request.app.state.service)


ServiceOf = Annotated[Service, Depends(service_of)]
UserId = Annotated[str, Path(description="Any characters, percent-encoded; slashes may stay as they are.")]
CampaignId = Annotated[str, Path(description="Any characters, percent-encoded; slashes may stay as they are.")]
K = Annotated[int, Query(ge=1, le=MAX_K, description="Campaigns to return at most.")]
Explain = Annotated[
    bool, Query(description="Whether to return evidence. Other users are shown under pseudonyms, quotes are masked.")
]


def _answered(model: type[BaseModel], example: dict[str, Any], *errors: int) -> dict[str, Any]:
    """Return what the routes here have in common: the model, its example and the problems."""
    ok = {"model": model, "content": {"application/json": {"example": example}}}
    return {"response_model": model, "responses": {200: ok, **documented(*errors)}}


def json_response(body: bytes, *, cache: str | None = None) -> Response:
    """Return JSON that is written already. It is about a person: nobody between us and the client may keep it."""
    headers = {"Cache-Control": "no-store"}
    if cache is not None:
        headers["X-Recommendation-Cache"] = cache
    return Response(body, headers=headers, media_type="application/json")


@router.get(
    "/recommendations/{user_id:id}",
    summary="Campaigns for a user",
    **_answered(Recommendations, RECOMMENDATIONS_EXAMPLE, 421, 422, 500, 503),
)
async def recommendations(service: ServiceOf, user_id: UserId, k: K = 10, explain: Explain = False) -> Response:
    """The best campaigns for a user, each with the parts of its score. A user of whom nothing is known gets what is
    popular (`strategy`). Answers are kept for some minutes; copies share their `recommendation_id`."""
    body, hit = await service.recommend(user_id, k, explain)
    return json_response(body, cache="hit" if hit else "miss")


@router.post(
    "/recommendations",
    summary="Campaigns for somebody not known yet",
    **_answered(Recommendations, RECOMMENDATIONS_EXAMPLE, 400, 413, 421, 422, 500, 503),
)
async def recommendations_for_text(service: ServiceOf, asked: TextRequest) -> Response:
    """The best campaigns for somebody of whom only a text, or a few messages, are known. Nothing of it is stored but
    the answer."""
    return json_response(await service.recommend_text(asked.texts(), asked.k, asked.explain))


@router.get(
    "/users/{user_id:id}/neighbours",
    summary="Users who talk alike",
    **_answered(Neighbours, NEIGHBOURS_EXAMPLE, 404, 421, 422, 500, 503),
)
async def neighbours(
    service: ServiceOf,
    user_id: UserId,
    k: Annotated[int, Query(ge=1, le=100, description="Users to return at most.")] = 5,
) -> Response:
    """The users who talk most like a user, under pseudonyms: they are other customers."""
    generation, found = await service.neighbours(user_id, k)
    answer = Neighbours(user_id=user_id, generation=generation, neighbours=found)
    return json_response(answer.model_dump_json().encode())


@router.get(
    "/users/{user_id:id}/explanation",
    summary="What a campaign's place hangs on",
    **_answered(Explanation, EXPLANATION_EXAMPLE, 404, 421, 422, 500, 503),
)
async def explanation(
    service: ServiceOf, user_id: UserId, campaign_id: Annotated[str, Query(description="A campaign.")]
) -> Response:
    """What the rank and score of a campaign would be without each neighbour that its evidence names, each of the user's
    own campaigns and latest conversations, and which neighbours met it and did not take it. Other users are shown under
    pseudonyms."""
    return json_response((await service.explanation(user_id, campaign_id)).model_dump_json().encode())


@router.get(
    "/users/{user_id:id}/counterfactual",
    summary="A user's list without something",
    **_answered(Counterfactual, COUNTERFACTUAL_EXAMPLE, 404, 421, 422, 500, 503),
)
async def counterfactual(
    service: ServiceOf,
    user_id: UserId,
    without: Annotated[TakenAway, Query(description="What is taken away.")],
    without_id: Annotated[
        str, Query(description="Its id: a neighbour's pseudonym, or a conversation or campaign of the user's own.")
    ],
    campaign_id: Annotated[str | None, Query(description="This campaign alone instead of the list.")] = None,
    k: K = 10,
) -> Response:
    """Ranks and scores before and after one neighbour, one own conversation or one own campaign is taken away, computed
    by the scorer of every other answer."""
    told = await service.counterfactual(user_id, without, without_id, campaign_id, k)
    return json_response(told.model_dump_json().encode())


@router.get(
    "/users/{user_id:id}/stability",
    summary="How much of a list hangs on single messages",
    **_answered(Stability, STABILITY_EXAMPLE, 404, 421, 422, 500, 503),
)
async def stability(service: ServiceOf, user_id: UserId) -> Response:
    """The share of the first five campaigns that stays when each of the user's latest messages is left out by itself.
    The messages are masked."""
    return json_response((await service.stability(user_id)).model_dump_json().encode())


@router.get(
    "/campaigns/{campaign_id:id}/audience",
    summary="Users who should get a campaign",
    **_answered(Audience, AUDIENCE_EXAMPLE, 404, 421, 422, 500, 503),
)
async def audience(
    service: ServiceOf,
    campaign_id: CampaignId,
    limit: Annotated[int, Query(ge=1, le=1000, description="Users to return at most.")] = 100,
) -> Response:
    """The users who should get a campaign, best first, with the parts of their scores. The ids are real: reaching
    these users is what an audience is for."""
    return json_response((await service.audience(campaign_id, limit)).model_dump_json().encode())
