"""What the sidecar is compared with: `python -m benchmarks.endpoints constant|redis`, one uvicorn worker each.

`constant` answers every request with the same bytes, the most that any ASGI application can do under this server;
`redis` answers with what it GETs under the request's path. Neither routes, validates, counts or logs.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from redis.asyncio import Redis
from starlette.types import ASGIApp, Receive, Scope, Send

KEY_PREFIX = b"bench:"
_BACKLOG = 2048

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def constant_app(body: bytes) -> ASGIApp:
    """Return an application that answers everything with one body."""
    headers = _headers(body)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "this application has no other protocol"
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def redis_app(url: str) -> ASGIApp:
    """Return an application that answers with what Redis holds under the path, 404 where it holds nothing."""
    client = Redis.from_url(url)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "this application has no other protocol"
        held = await client.get(KEY_PREFIX + scope["raw_path"])
        body = held if isinstance(held, bytes) else b""
        status = 404 if held is None else 200
        await send({"type": "http.response.start", "status": status, "headers": _headers(body)})
        await send({"type": "http.response.body", "body": body})

    return app


def _headers(body: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]


@cli.command()
def constant(
    port: Annotated[int, typer.Option()],
    body: Annotated[Path, typer.Option(help="File whose bytes are the answer.")],
) -> None:
    """Answer everything with the bytes of a file."""
    _serve(constant_app(body.read_bytes()), port)


@cli.command()
def redis(port: Annotated[int, typer.Option()], url: Annotated[str, typer.Option()]) -> None:
    """Answer with what Redis holds under the path."""
    _serve(redis_app(url), port)


def _serve(app: ASGIApp, port: int) -> None:
    """Serve as `app.api` does; an option that differs would be measured as if it were the application."""
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        ws="none",
        proxy_headers=False,
        lifespan="off",
    )
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(_BACKLOG)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    cli()
