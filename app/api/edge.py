"""The outermost layer of every request: whole ids in paths, limits, counts, and a last answer to any error."""

from __future__ import annotations

import functools
import ipaddress
import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.metrics import Metrics
from app.api.problems import internal_error, problem_response

MAX_BODY_BYTES = 1_000_000


class Edge:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        # Routes are matched with the path as it was sent: decoded, "a%2Fneighbours" and "a/neighbours" are one.
        scope["path"] = scope["raw_path"].decode("latin-1")
        self._metrics.began()
        try:
            await self._answer(scope, receive, watched)
        except Exception as exc:  # noqa: BLE001  (whatever it is, the client gets a problem document, the log its cause)
            response = internal_error(exc, route_of(scope), scope["method"])
            if not status:
                await response(scope, receive, watched)
        finally:
            self._metrics.ended(scope["method"], route_of(scope), status, time.perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = None
        for name, value in scope["headers"]:
            if name == b"content-length":
                length = int(value)
            elif name == b"host" and not _is_own_name(value):
                response = problem_response(
                    421, "misdirected_request", "Without keys, requests are taken for localhost and IP addresses only."
                )
                await response(scope, receive, send)
                return
        if length is not None and length > MAX_BODY_BYTES:
            response = problem_response(413, "body_too_large", _TOO_LARGE, headers={"Connection": "close"})
            await response(scope, receive, send)
        else:
            await self._app(scope, receive if scope["method"] == "GET" else _limited(receive), send)


_TOO_LARGE = f"A body may have {MAX_BODY_BYTES} bytes."


def _limited(receive: Receive) -> Receive:
    """Return a receive that ends with 413 where a body sent in chunks grows too large."""
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            raise HTTPException(413, _TOO_LARGE, {"Connection": "close"})
        return message

    return counted


@functools.lru_cache(maxsize=64)
def _is_own_name(host: bytes) -> bool:
    """Return whether a Host header is one that no foreign web page can bring a browser to send.

    A page whose own name is made to resolve to 127.0.0.1 (DNS rebinding) could otherwise read answers.
    """
    name, colon, port = host.decode("latin-1").rpartition(":")
    if not colon or not port.isdecimal():
        name = host.decode("latin-1")
    if name.lower() == "localhost":
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def route_of(scope: Scope) -> str:
    """Return the template of the route that took a request, `unmatched` where none did."""
    route = scope.get("route")
    template: str | None = (
        scope.get("route_template") or getattr(route, "path_format", None) or getattr(route, "path", None)
    )
    return template or "unmatched"
