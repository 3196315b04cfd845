"""Serve the sidecar: `python -m app.api`."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import signal
import socket
import sys

import structlog
import uvicorn

from app.api.application import create_app
from recs.errors import RecsError, SettingsError
from recs.settings import Settings, load_settings

#: Requests under way get so long to end before the server does.
_GRACE_SECONDS = 3
_BACKLOG = 2048


def main() -> int:
    """Serve until SIGTERM or SIGINT; returns 1 where that is not possible, with the reason on standard error."""
    try:
        settings = load_settings()
        _log_to_stderr(settings.log_level)
        with listen(settings.api_host, settings.api_port, guarded=settings.api_guarded) as listener:
            return serve(settings, listener)
    except RecsError as exc:
        print(f"recs: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def serve(settings: Settings, listener: socket.socket) -> int:
    """Serve on a socket that listens until a signal comes; raises what made the stores impossible to open."""
    failures: list[Exception] = []

    def give_up(exc: Exception) -> None:
        failures.append(exc)
        server.should_exit = True

    config = uvicorn.Config(
        create_app(settings, give_up=give_up),
        access_log=False,  # it would hold ids
        log_config=None,
        log_level=settings.log_level,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        ws="none",
        # Nobody stands between us and a client on this machine whose word on addresses counts.
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    # When it has ended, the server raises the signal again for those who were there before: SIGTERM would then look
    # like a crash. Being told to end is a success.
    signal.signal(signal.SIGTERM, lambda *_: None)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"Likeminded API on http://{shown}:{port}, documentation on http://{shown}:{port}/docs", file=sys.stderr)
    with contextlib.suppress(KeyboardInterrupt):  # the same for SIGINT
        server.run(sockets=[listener])
    if failures:
        raise failures[0]
    return 0


def listen(host: str, port: int, *, guarded: bool = False) -> socket.socket:
    """Return a listening socket on a loopback address, or on any where something else keeps strangers away.

    Raises SettingsError where others could reach it, or the port is taken.
    """
    address = ipaddress.ip_address("127.0.0.1") if host == "localhost" else _address(host)
    if address is None or not (address.is_loopback or guarded):
        raise SettingsError(
            f"RECS_API_HOST={host!r}: without API keys the sidecar answers whoever reaches it, so it listens on this "
            "machine alone; use 127.0.0.1, ::1 or localhost, or set RECS_API_GUARDED where nobody else gets to it"
        )
    listener = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address), port))
        listener.listen(_BACKLOG)
    except OSError as exc:
        listener.close()
        raise SettingsError(f"RECS_API_PORT={port}: {address} port {port} cannot be used: {exc.strerror}") from exc
    return listener


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _log_to_stderr(level: str) -> None:
    """Write our log and that of libraries to standard error, one line per event."""
    number = getattr(logging, level.upper())
    logging.basicConfig(stream=sys.stderr, level=number, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    structlog.configure(
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.add_log_level,
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"], drop_missing=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


if __name__ == "__main__":
    sys.exit(main())
