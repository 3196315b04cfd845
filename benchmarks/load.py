"""Requests from several connections at once: wrk where it is installed, else a client in Python.

`python -m benchmarks.load URL PATHS_FILE --connections N --seconds S` is that client; it prints what wrk's script
prints. It takes several times wrk's CPU time per request, so on few cores it slows fast servers more than slow ones:
ratios that were taken with it are nearer to 1 than they are.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import typer

from benchmarks.errors import BenchmarkError
from benchmarks.samples import ROOT, percentile

Client = Literal["auto", "wrk", "python"]

_SCRIPT = Path(__file__).with_name("load.lua")


@dataclass(frozen=True, slots=True)
class Load:
    """What came of some seconds of requests."""

    requests: int
    seconds: float
    median_ms: float
    p99_ms: float
    errors: int
    """Answers other than 2xx and 3xx, connections that failed, answers that did not come."""

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.seconds


def client_name(client: Client) -> str:
    """Return the load generator that is used, with its version; raises BenchmarkError where it is not there."""
    wrk = shutil.which("wrk")
    if client == "python" or (client == "auto" and wrk is None):
        return "python asyncio client"
    if wrk is None:
        raise BenchmarkError("wrk is not installed (Debian: `apt-get install wrk`); --client python does without")
    # It exits with 1 after telling its version.
    told = subprocess.run([wrk, "-v"], capture_output=True, text=True, check=False)
    return " ".join((told.stdout + told.stderr).split()[:2])


def put_load(client: str, url: str, paths_file: Path, *, connections: int, seconds: int) -> Load:
    """Ask a server for the paths of a file in turn for so long; `client` is what `client_name` returned.

    Raises BenchmarkError where the generator failed or any answer was not a good one.
    """
    if client.startswith("wrk"):
        command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "-s", str(_SCRIPT), url]
        command += ["--", str(paths_file)]
    else:
        command = [sys.executable, "-m", "benchmarks.load", url, str(paths_file)]
        command += ["--connections", str(connections), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=seconds + 60)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise BenchmarkError(f"{client} failed with exit status {done.returncode}: {done.stdout}{done.stderr}")
    load = Load(**json.loads(lines[-1]))
    if load.errors or not load.requests:
        raise BenchmarkError(f"{url} gave {load.requests} answers and {load.errors} errors: nothing was measured")
    return load


class _Connection(asyncio.Protocol):
    """One keep-alive connection that asks again as soon as it has the answer."""

    def __init__(self, requests: list[bytes], start: int, latencies: list[float]) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.errors = 0
        self._requests = requests
        self._turn = start
        self._latencies = latencies
        self._buffer = b""
        self._asked = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask(transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.lower().split(b"\r\n")
        length = next((int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")), None)
        if length is None:
            raise BenchmarkError(f"an answer without Content-Length, which this client needs: {head!r}")
        if len(body) < length:
            return
        self._latencies.append(time.perf_counter() - self._asked)
        self.errors += not lines[0].split(b" ")[1].startswith((b"2", b"3"))
        self._buffer = body[length:]
        if self._transport is not None:
            self._ask(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self.errors += 1  # it was not `stop` that ended it
        self.closed.set_result(None)

    def stop(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _ask(self, transport: asyncio.Transport) -> None:
        self._turn = (self._turn + 1) % len(self._requests)
        self._asked = time.perf_counter()
        transport.write(self._requests[self._turn])


async def _load(url: str, paths: list[str], connections: int, seconds: float) -> Load:
    target = urlsplit(url)
    host, port = str(target.hostname), int(target.port or 80)
    requests = [f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode() for path in paths]
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    opened = [
        (await loop.create_connection(lambda i=i: _Connection(requests, i, latencies), host, port))[1]  # type: ignore[misc]
        for i in range(connections)
    ]
    await asyncio.sleep(seconds)
    for connection in opened:
        connection.stop()
    spent = time.perf_counter() - began
    await asyncio.gather(*(connection.closed for connection in opened))
    if not latencies:
        raise BenchmarkError(f"{url} gave no answer within {seconds:g} s")
    return Load(
        requests=len(latencies),
        seconds=spent,
        median_ms=percentile(latencies, 0.5) * 1000,
        p99_ms=percentile(latencies, 0.99) * 1000,
        errors=sum(connection.errors for connection in opened),
    )


def main(
    url: str,
    paths_file: Path,
    connections: Annotated[int, typer.Option(min=1)] = 16,
    seconds: Annotated[float, typer.Option()] = 5.0,
) -> None:
    """Put load on a server and print what came of it as one line of JSON."""
    load = asyncio.run(_load(url, paths_file.read_text().splitlines(), connections, seconds))
    print(
        json.dumps(
            {
                "requests": load.requests,
                "seconds": load.seconds,
                "median_ms": load.median_ms,
                "p99_ms": load.p99_ms,
                "errors": load.errors,
            }
        )
    )


if __name__ == "__main__":
    typer.run(main)
