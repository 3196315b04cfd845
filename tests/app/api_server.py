"""The sidecar as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from pydantic import SecretStr

from recs.settings import Settings

CHECKOUT = Path(__file__).parents[2]


@dataclass
class Server:
    """A sidecar that runs."""

    process: subprocess.Popen[str]
    url: str
    log: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def get(self, path: str, **params: object) -> httpx.Response:
        return httpx.get(self.url + path, params=params or None, timeout=30)  # type: ignore[arg-type]

    def post(self, path: str, body: object) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=120)


@contextmanager
def api_process(environment: Mapping[str, str]) -> Iterator[Server]:
    """Run `python -m app.api` on a port of its own with these variables, until the block ends."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RECS_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "app.api"],
        cwd=CHECKOUT,
        env={**inherited, "RECS_API_PORT": "0", "RECS_LOG_LEVEL": "info", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process, process.stderr as stderr:
        try:
            first = stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", first)
            assert found, f"the sidecar does not tell its address: {first}{stderr.read()}"
            server = Server(process, found.group())
            reader = threading.Thread(target=lambda: server.log.extend(stderr))
            reader.start()
            yield server
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(20)
        reader.join(5)


def wait_until_ready(server: Server, *, seconds: float = 60) -> None:
    """Return once /readyz says yes."""
    deadline = time.monotonic() + seconds
    while (answer := server.get("/readyz")).status_code != 200:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)


def wait_until_open(server: Server, *, seconds: float = 60) -> None:
    """Return once the stores are open, whether or not all of them answer."""
    deadline = time.monotonic() + seconds
    while server.get("/recommendations/anybody").json().get("code") == "starting":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def as_environment(settings: Settings) -> dict[str, str]:
    """Return the RECS_* variables that say what these settings say."""
    values = {
        name: getattr(settings, name)
        # Not a port from the environment of the tests: each sidecar has one of its own.
        for name in settings.model_fields_set - {"api_port"}
        if getattr(settings, name) is not None
    }
    return {
        f"RECS_{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in values.items()
    }
