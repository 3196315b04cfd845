"""The shortest way to the answer that is asked for most: a user's recommendations, mostly from the cache."""

from __future__ import annotations

import re
from typing import cast

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.ids import IdConvertor
from app.api.problems import problem_of
from app.api.schemas import MAX_K
from app.api.service import Service

_PREFIX = "/recommendations/"
_TEMPLATE = "/recommendations/{user_id}"
_PLAIN_QUERY = re.compile(rb"(?:k=(?P<k>[0-9]{1,3}))?(?:(?:^|&)explain=(?P<explain>true|false))?")
_READ_ID = IdConvertor().convert


class Shortcut:
    """ASGI middleware that answers `GET /recommendations/{user_id}` in its plain form, as the route would.

    FastAPI's routing and reading of parameters takes more time than finding a cached answer. Whatever is not plain,
    such as a k that is no number, goes on to the route and gets its problem there.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        plain = _plain_question(scope)
        if plain is None:
            await self._app(scope, receive, send)
            return
        k, explain = plain
        scope["route_template"] = _TEMPLATE
        try:
            user_id = _READ_ID(scope["path"][len(_PREFIX) :])
            body, hit = await cast(Service, scope["app"].state.service).recommend(user_id, k, explain)
        except Exception as exc:
            response = problem_of(exc, "GET")
            if response is None:
                raise
            await response(scope, receive, send)
            return
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"x-recommendation-cache", b"hit" if hit else b"miss"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _plain_question(scope: Scope) -> tuple[int, bool] | None:
    """Return k and explain of a request that is one of these in plain form."""
    if scope["type"] != "http" or scope["method"] != "GET":
        return None
    path = scope["path"]
    if not path.startswith(_PREFIX) or len(path) == len(_PREFIX):
        return None
    query = _PLAIN_QUERY.fullmatch(scope["query_string"])
    if query is None:
        return None
    k = 10 if query["k"] is None else int(query["k"])
    return (k, query["explain"] == b"true") if 1 <= k <= MAX_K else None
