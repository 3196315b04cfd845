"""Cached recommendations of the real sidecar, against a constant answer and a bare Redis GET under the same server."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any
from urllib.parse import quote

import redis

from benchmarks.data import Input
from benchmarks.endpoints import KEY_PREFIX
from benchmarks.errors import BenchmarkError
from benchmarks.home import load_through_flow, log_path, running, temporary_home
from benchmarks.load import Client, Load, client_name, put_load
from benchmarks.samples import Samples, in_turn, load_average, result, told
from recs import embedded
from recs.cli.temporary_home import log_tail
from recs.settings import Settings

_START_SECONDS = 90.0
_WARM_UP_SECONDS = 2
#: Longer than any benchmark takes: an answer that expires under load would be computed again.
_CACHE_SECONDS = 86_400
_MISSES = 'recs_recommendation_cache_total{result="miss"}'


@dataclass(frozen=True, slots=True)
class Server:
    """A running HTTP server on loopback."""

    name: str
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers (names in lower case) and body; raises OSError where nothing answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, {n.lower(): v for n, v in response.getheaders()}, response.read()
        finally:
            connection.close()


def bench_serve(
    data: Input, *, users: int, seconds: int, rounds: int, connections: int, client: Client
) -> dict[str, Any]:
    """Return the figures of the sidecar's cached answers for some users of a file."""
    load = load_average()
    generator = client_name(client)
    with temporary_home() as settings:
        load_through_flow(settings, data.written(settings.home, settings), data.campaigns)
        with embedded.session(settings) as resolved, ExitStack() as servers:
            port = free_port()
            more = {"RECS_API_PORT": str(port), "RECS_CACHE_SECONDS": str(_CACHE_SECONDS)}
            sidecar = servers.enter_context(
                _server(settings, "sidecar", "app.api", port=port, path="/readyz", more=more)
            )
            paths = _paths(data, settings, users)
            bodies = _cached_answers(sidecar, paths)
            others = _others(servers, resolved, paths, bodies)
            misses = _misses(sidecar)
            samples = _measure([sidecar, *others], settings, paths, generator, seconds, rounds, connections)
            if _misses(sidecar) != misses:
                raise BenchmarkError("some answers were not cached while the cached answer was measured")
            _check_all_cached(sidecar, paths)
            return result(
                "serve",
                {"payload_bytes": median(map(len, bodies)), "users": len(paths)},
                samples,
                data=data.described(settings),
                conditions={
                    "load_average_before": load,
                    "load_generator": generator,
                    "load": f"{connections} connections, {seconds} s per server and round",
                    "servers": "uvicorn with one worker each, the same options; Redis is the embedded server",
                    "settings": f"RECS_CACHE_SECONDS={_CACHE_SECONDS}, else the defaults",
                },
            )


def _paths(data: Input, settings: Settings, users: int) -> list[str]:
    """Return the request paths of the first users of the file."""
    known = dict.fromkeys(c.user_id for c in data.accepted(settings))
    return [f"/recommendations/{quote(user_id, safe='')}" for user_id in list(known)[:users]]


def _cached_answers(sidecar: Server, paths: Sequence[str]) -> list[bytes]:
    """Ask for every path once, so that it is cached, and return the cached answers."""
    for path in paths:
        status, _, body = sidecar.get(path)
        if status != 200:
            raise BenchmarkError(f"{path} answered {status}: {body.decode(errors='replace')[:500]}")
    return _check_all_cached(sidecar, paths)


def _check_all_cached(sidecar: Server, paths: Sequence[str]) -> list[bytes]:
    """Return the answers; raises BenchmarkError where one is not a whole answer from the cache."""
    bodies = []
    for path in paths:
        status, _, body = sidecar.get(path)
        answer = json.loads(body)
        if status != 200 or not answer["cached"] or answer["degraded"] or not answer["items"]:
            raise BenchmarkError(f"{path} is not answered from the cache: {status} {body.decode()[:500]}")
        bodies.append(body)
    return bodies


def _misses(sidecar: Server) -> float:
    """Return how many answers the sidecar had to compute since it started, as it counts them itself."""
    status, _, body = sidecar.get("/metrics")
    for line in body.decode().splitlines():
        if line.startswith(_MISSES):
            return float(line.removeprefix(_MISSES))
    raise BenchmarkError(f"/metrics answered {status} without {_MISSES}: it cannot be told whether answers were cached")


def _others(servers: ExitStack, settings: Settings, paths: Sequence[str], bodies: Sequence[bytes]) -> list[Server]:
    """Start what the sidecar is compared with, on the same answers, and check what it answers."""
    typical = sorted(bodies, key=len)[len(bodies) // 2]
    body_file = settings.home / "constant-body"
    body_file.write_bytes(typical)
    with redis.Redis.from_url(str(settings.redis_url)) as client:
        for path, body in zip(paths, bodies, strict=True):
            client.set(KEY_PREFIX + path.encode(), body)
    constant, bare = free_port(), free_port()
    module = "benchmarks.endpoints"
    found = [
        servers.enter_context(
            _server(
                settings, "constant", module, "constant", "--port", str(constant), "--body", str(body_file),
                port=constant, path=paths[0],
            )
        ),
        servers.enter_context(
            _server(
                settings, "bare_redis", module, "redis", "--port", str(bare), "--url", str(settings.redis_url),
                port=bare, path=paths[0],
            )
        ),
    ]  # fmt: skip
    for server, expected in zip(found, ([typical] * len(paths), bodies), strict=True):
        for path, body in zip(paths, expected, strict=True):
            if server.get(path)[::2] != (200, body):
                raise BenchmarkError(f"the {server.name} server does not answer {path} with what was cached")
    return found


def _measure(
    servers: Sequence[Server],
    settings: Settings,
    paths: Sequence[str],
    generator: str,
    seconds: int,
    rounds: int,
    connections: int,
) -> Samples:
    paths_file = settings.home / "paths"
    paths_file.write_text("\n".join(paths) + "\n")

    def put(server: Server, duration: int) -> Load:
        return put_load(generator, server.url, paths_file, connections=connections, seconds=duration)

    for server in servers:
        put(server, min(_WARM_UP_SECONDS, seconds))
    samples = Samples()
    for number in range(rounds):
        loads = {server.name: put(server, seconds) for server in in_turn(servers, number)}
        samples.add(_figures(loads["sidecar"], loads["constant"], loads["bare_redis"]))
        told(
            f"round {number + 1} of {rounds}: requests/s "
            + ", ".join(f"{s.name} {loads[s.name].requests_per_second:,.0f}" for s in servers)
        )
    return samples


def _figures(cached: Load, constant: Load, bare: Load) -> dict[str, float]:
    return {
        "requests_per_second": cached.requests_per_second,
        "cached_over_constant": cached.requests_per_second / constant.requests_per_second,
        "cached_over_bare_redis": cached.requests_per_second / bare.requests_per_second,
        "p99_over_constant": cached.p99_ms / constant.p99_ms,
        "median_ms": cached.median_ms,
        "p99_ms": cached.p99_ms,
        "constant_requests_per_second": constant.requests_per_second,
        "constant_p99_ms": constant.p99_ms,
        "bare_redis_requests_per_second": bare.requests_per_second,
        "bare_redis_p99_ms": bare.p99_ms,
    }


@contextmanager
def _server(
    settings: Settings,
    name: str,
    module: str,
    *arguments: str,
    port: int,
    path: str,
    more: dict[str, str] | None = None,
) -> Iterator[Server]:
    """Yield a server of a process of its own once it answers a path with 200."""
    server = Server(name, port)
    with running(settings, module, *arguments, more=more) as child:
        deadline = time.monotonic() + _START_SECONDS
        log = log_path(settings, module, *arguments[:1])
        while not _answers(server, path):
            if child.poll() is not None or time.monotonic() > deadline:
                raise BenchmarkError(f"the {name} server does not answer {path}; its log ends:\n{log_tail(log)}")
            time.sleep(0.1)
        yield server


def _answers(server: Server, path: str) -> bool:
    try:
        return server.get(path)[0] == 200
    except OSError:
        return False  # it does not listen yet


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
