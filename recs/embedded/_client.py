"""A client's connection to the supervisor of a home, which it starts where there is none."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

from recs.embedded._home import Home, log_tail
from recs.embedded._identity import Identity
from recs.embedded._servers import HOST
from recs.embedded.process import spawn_detached
from recs.errors import EmbeddedServerError

_CONNECT_SECONDS = 60.0
"""Longest wait for a supervisor: a predecessor may take some 15 s to stop its servers first."""
_ANSWER_SECONDS = 30.0
_START_SECONDS = 900.0
"""A backstop: the supervisor itself gives a server up that hangs."""


class ServerState(TypedDict):
    """What the supervisor knows of a server."""

    state: str
    port: int
    pid: int | None
    error: str
    answering: bool


class Connection:
    """Requests and answers, one JSON object per line. A lease from `want` on, until it is closed."""

    def __init__(self, home: Home, port: int, token: str) -> None:
        self.home = home
        self._socket = socket.create_connection((HOST, port), timeout=5)
        try:
            self._socket.settimeout(_ANSWER_SECONDS)
            self._file = self._socket.makefile("rwb")
            self.ask({"token": token})
        except BaseException:
            self._socket.close()
            raise

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer; raises ConnectionError where the supervisor is gone."""
        self._file.write(json.dumps(request).encode() + b"\n")
        self._file.flush()
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the supervisor has closed the connection")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def find(home: Home) -> Connection | None:
    """Return a connection to the home's supervisor, None where it has none that answers."""
    record = home.read("supervisor.json")
    try:
        identity = Identity(int(record["pid"]), float(record["created"]))
        port, token = int(record["port"]), str(record["token"])
    except (KeyError, TypeError, ValueError):
        return None
    if not identity.alive():
        return None  # its record outlived it; whatever has its port now must not get the token
    try:
        return Connection(home, port, token)
    except (OSError, ValueError):
        return None


def connect(home: Home) -> Connection:
    """Return a connection to the home's supervisor, which is started where there is none."""
    home.prepare()
    deadline = time.monotonic() + _CONNECT_SECONDS
    while time.monotonic() < deadline:
        if found := find(home):
            return found
        if not home.is_locked("supervisor.lock"):
            with home.locked("start.lock"):
                if found := find(home):
                    return found
                home.bring_up_to_date()
                _launch(home)
        time.sleep(0.03)
    raise EmbeddedServerError(
        f"the supervisor of {home.root} neither answers nor ends (its process is in {home.run('supervisor.json')}, "
        f"its log is {home.log('supervisor')}): run `recs down`, then try again"
    )


def _launch(home: Home) -> None:
    log = home.log("supervisor")
    log.touch(mode=0o600)
    offset = log.stat().st_size
    argv = [sys.executable, "-m", "recs.embedded._supervisor", str(home.root)]
    said = spawn_detached(argv, env=None, log_path=log, cwd=home.root)
    if said not in ("ready", "busy"):
        tail = log_tail(log, offset) or "    (empty)"
        raise EmbeddedServerError(f"the supervisor of {home.root} cannot be started; the end of its log {log}:\n{tail}")


def want(connection: Connection, services: Sequence[str]) -> dict[str, ServerState]:
    """Ask for servers, which are started where they are not up; returns their states at once."""
    return _states(connection.ask({"op": "want", "services": list(services)}), services)


def listening(connection: Connection, services: Sequence[str]) -> Iterator[tuple[str, ServerState]]:
    """Yield each of these servers once it listens; raises EmbeddedServerError where one cannot be started."""
    deadline = time.monotonic() + _START_SECONDS
    waiting = set(services)
    while waiting:
        states = _states(connection.ask({"op": "poll"}), sorted(waiting))
        for name, state in states.items():
            if state["state"] == "listening":
                waiting.discard(name)
                yield name, state
        if time.monotonic() > deadline:
            raise EmbeddedServerError(f"embedded servers not up after {_START_SECONDS:g} s: {', '.join(waiting)}")
        if waiting:
            time.sleep(0.03)


def _states(answer: dict[str, Any], services: Sequence[str]) -> dict[str, ServerState]:
    states: dict[str, ServerState] = {name: answer["servers"][name] for name in services}
    failed = [f"the embedded server {name} {state['error']}" for name, state in states.items() if state["error"]]
    if failed:
        raise EmbeddedServerError("\n".join(failed))
    return states


def wait_gone(home: Home, supervisor: Identity | None, seconds: float) -> bool:
    """Return whether the supervisor of a home has let go of it, and has ended, within so many seconds."""
    deadline = time.monotonic() + seconds
    while home.is_locked("supervisor.lock") or (supervisor is not None and supervisor.alive()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.03)
    return True
