"""The one shape of every error: RFC 9457 problem documents with a stable `code`."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Literal

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from recs.errors import (
    EmbeddedServerError,
    InputError,
    ModelError,
    NotFoundError,
    OtherModelError,
    SchemaVersionError,
    SettingsError,
    StoreError,
    StoreUnavailableError,
)

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
#: What a client should wait before it asks again.
RETRY_AFTER_SECONDS = 2

Code = Literal[
    "bad_request",
    "unknown_route",
    "not_found",
    "method_not_allowed",
    "body_too_large",
    "misdirected_request",
    "invalid_request",
    "internal_error",
    "store_unavailable",
    "not_published",
    "not_ready",
    "other_version",
    "other_model",
    "starting",
    "timeout",
]

_CODE_OF_STATUS: Mapping[int, Code] = {
    404: "unknown_route",
    405: "method_not_allowed",
    413: "body_too_large",
    421: "misdirected_request",
    422: "invalid_request",
}

#: Errors of ours that are about the installation and never name a user; their text may be logged.
_SAFE_TO_LOG = (EmbeddedServerError, ModelError, SchemaVersionError, SettingsError)


_EXPECTED = (InputError, NotFoundError, OtherModelError, SchemaVersionError, StoreUnavailableError)


class FieldProblem(BaseModel):
    where: str = Field(description="Place of the value: `query.k`, `body.messages.0.text`.")
    message: str


class Problem(BaseModel):
    """An error. `code` is stable; `detail` is for people and may change."""

    type: str = Field(default="about:blank", description="Always about:blank: `status` and `code` say it all.")
    title: str = Field(description="The name of the HTTP status.")
    status: int
    code: Code
    detail: str
    errors: list[FieldProblem] = Field(default=[], description="What is wrong where, for `invalid_request`.")
    stores: list[str] = Field(default=[], description="Stores that are missing, where that is the reason.")


class ProblemError(HTTPException):
    """A problem that a route or the edge states itself."""

    def __init__(
        self,
        status: int,
        code: Code,
        detail: str,
        *,
        stores: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        self.code = code
        self.stores = stores


def unavailable(code: Code, detail: str, *, stores: Sequence[str] = ()) -> ProblemError:
    """Return the 503 that tells a client to come back."""
    return ProblemError(503, code, detail, stores=stores)


def problem_response(
    status: int,
    code: Code,
    detail: str,
    *,
    errors: Sequence[FieldProblem] = (),
    stores: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a problem document as a response."""
    body = Problem(
        title=HTTPStatus(status).phrase, status=status, code=code, detail=detail, errors=list(errors), stores=[*stores]
    )
    sent = {"Cache-Control": "no-store", **(headers or {})}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        sent.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    return Response(body.model_dump_json(), status, sent, media_type=MEDIA_TYPE)


def internal_error(exc: Exception, route: str, method: str) -> Response:
    """Log an error that nobody expected and return a problem that tells nothing of it.

    The log names the error and where it came from. Its text may hold somebody's id or words and is left out.
    """
    frames = traceback.extract_tb(exc.__traceback__)
    log.error(
        "request failed",
        method=method,
        route=route,
        error=type(exc).__name__,
        text=str(exc) if isinstance(exc, _SAFE_TO_LOG) else None,
        store=exc.store if isinstance(exc, StoreError) else None,
        at=[f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames[-4:]],
    )
    return problem_response(500, "internal_error", "The request could not be answered; the log of the server says why.")


def problem_of(exc: Exception, method: str) -> Response | None:
    """Return the problem that an expected error is, None for one that nobody expects."""
    match exc:
        case ProblemError():
            return problem_response(exc.status_code, exc.code, exc.detail, stores=exc.stores, headers=exc.headers)
        case HTTPException():
            code = _CODE_OF_STATUS.get(exc.status_code, "bad_request")
            detail = {
                "unknown_route": "There is no such route; /docs lists them.",
                "method_not_allowed": f"This route does not take {method}.",
            }.get(code, exc.detail)
            return problem_response(exc.status_code, code, detail, headers=exc.headers)
        case RequestValidationError():
            # What was met is not repeated: it may be somebody's words.
            errors = [FieldProblem(where=".".join(map(str, e["loc"])), message=_message(e)) for e in exc.errors()]
            detail = "The request has values that cannot be used."
            return problem_response(422, "invalid_request", detail, errors=errors)
        case InputError():
            return problem_response(422, "invalid_request", str(exc))
        case NotFoundError():
            return problem_response(404, "not_found", str(exc))
        case SchemaVersionError():
            # The text names the store's address, which is no business of a client's.
            log.error("store holds data of another version", store=exc.store, text=str(exc))
            detail = f"The {exc.store} store holds data of another version than this sidecar reads; its log says more."
            return problem_response(503, "other_version", detail, stores=[exc.store])
        case OtherModelError():
            log.error("texts cannot be compared", text=str(exc))
            return problem_response(503, "other_model", str(exc))
        case StoreUnavailableError():
            log.info("store did not answer", store=exc.store)
            detail = f"The {exc.store} store does not answer, and there is no honest answer without it."
            return problem_response(503, "store_unavailable", detail, stores=[exc.store])
        case _:
            return None


def add_handlers(app: FastAPI) -> None:
    """Let FastAPI answer every expected error with its problem; the others are met at the edge."""

    async def handle(request: Request, exc: Exception) -> Response:
        response = problem_of(exc, request.method)
        if response is None:
            raise exc
        return response

    for kind in (HTTPException, RequestValidationError, *_EXPECTED):
        app.add_exception_handler(kind, handle)


def _message(error: Mapping[str, Any]) -> str:
    return str(error["msg"]).removeprefix("Value error, ")


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of these error statuses."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }
