"""Settings in, settings out: which servers a caller needs, and how it reaches them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit, urlunsplit

import psutil

from recs.embedded._client import Connection, ServerState, connect, find, listening, wait_gone, want
from recs.embedded._home import Home, log_tail, size_of
from recs.embedded._identity import Identity, end, family
from recs.embedded._probes import load_driver, probe
from recs.embedded._servers import connection, require_packages
from recs.errors import EmbeddedServerError

if TYPE_CHECKING:  # the supervisor imports this package and must stay small
    from recs.settings import Settings

SERVICES = ("mongo", "milvus", "neo4j", "redis", "prefect")
STORES = ("mongo", "milvus", "neo4j", "redis")

_ANSWER_SECONDS = 60.0
_DOWN_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What is known of one server without asking it anything."""

    service: str
    state: Literal["up", "starting", "down", "failed", "external"]
    """up: its process runs and listens; external: the user has set its URL, nothing here is started or looked at."""
    url: str | None = None
    """Where it is reached, passwords hidden."""
    pid: int | None = None
    memory_bytes: int | None = None
    """Resident memory of its process and their children."""
    data_bytes: int | None = None
    error: str = ""


@contextmanager
def session(settings: Settings, services: Sequence[str] = STORES) -> Iterator[Settings]:
    """Yield settings in which every URL these services need is set.

    Starts the embedded servers among them that are not up, and keeps them up until exit. A URL that is set already is
    left alone. Raises EmbeddedServerError that says what was met and what to do.
    """
    needed = _embedded(settings, services)
    home = Home.at(settings.home)
    files = _file_urls(settings, home)
    if not needed:
        yield settings.model_copy(update=files)
        return
    lease, addresses = _start(settings, home, needed)
    try:
        yield settings.model_copy(update=files | addresses)
    finally:
        lease.close()


def up(settings: Settings, services: Sequence[str] = SERVICES) -> list[ServerStatus]:
    """Start the embedded servers that are not up, to stay until `down`; returns the status of all."""
    needed = _embedded(settings, services)
    if needed:
        lease, _ = _start(settings, Home.at(settings.home), needed)
        try:
            lease.ask({"op": "pin"})
        finally:
            lease.close()
    return status(settings)


def down(settings: Settings) -> list[ServerStatus]:
    """Stop all embedded servers of the home, whoever uses them; returns the status of all."""
    home = Home.at(settings.home)
    identity = _identity(home.read("supervisor.json"))
    if found := find(home):
        try:
            found.ask({"op": "down"})
        except OSError:
            pass  # it may close the connection before we have read the answer; whether it ended is seen below
        finally:
            found.close()
    if not wait_gone(home, identity, _DOWN_SECONDS) and identity is not None:
        end([(identity, signal.SIGTERM)], 1)  # it hangs; its guard ends the servers
    left = [known for record in home.read("servers.json").values() if (known := _identity(record)) and family([known])]
    if left:
        end([(known, signal.SIGTERM) for known in left], 5)
    return status(settings)


def status(settings: Settings) -> list[ServerStatus]:
    """Return the status of every server; starts nothing."""
    home = Home.at(settings.home)
    states: dict[str, Any] = {}
    if found := find(home):
        try:
            states = found.ask({"op": "poll"})["servers"]
        except OSError:
            states = {}  # it has ended since: all are down
        finally:
            found.close()
    return [_status(settings, home, service, states.get(service)) for service in SERVICES]


def _status(settings: Settings, home: Home, service: str, state: Mapping[str, Any] | None) -> ServerStatus:
    if url := getattr(settings, f"{service}_url"):
        return ServerStatus(service, "external", _without_password(url))
    data = size_of(home.data(service))
    if state is None:
        return ServerStatus(service, "down", data_bytes=data)
    if state["state"] == "failed":
        return ServerStatus(service, "failed", data_bytes=data, error=state["error"])
    url = connection(home, service, state["port"])[f"{service}_url"]
    return ServerStatus(
        service,
        "up" if state["state"] == "listening" else "starting",
        _without_password(url),
        state["pid"],
        _memory(state["pid"]),
        data,
    )


def _embedded(settings: Settings, services: Sequence[str]) -> list[str]:
    """Return those of the services whose URL the user has not set, in the order of SERVICES."""
    unknown = sorted(set(services) - set(SERVICES))
    if unknown:
        raise EmbeddedServerError(f"no embedded server is called {', '.join(unknown)}; there are {', '.join(SERVICES)}")
    return [name for name in SERVICES if name in services and getattr(settings, f"{name}_url") is None]


def _start(settings: Settings, home: Home, needed: Sequence[str]) -> tuple[Connection, dict[str, Any]]:
    """Return a lease on the servers, which all have answered a query, and the settings that reach them."""
    require_packages(needed)
    lease = connect(home)
    try:
        states = want(lease, needed)
        unproven = [name for name in needed if not states[name]["answering"]]
        if unproven:
            states |= _prove(lease, unproven, settings.mongo_database)
    except OSError as exc:
        lease.close()
        raise EmbeddedServerError(
            f"the supervisor of {home.root} ended while servers were starting ({exc}); its log is "
            f"{home.log('supervisor')}; try again"
        ) from exc
    except BaseException:
        lease.close()
        raise
    merged: dict[str, Any] = {}
    for name in needed:
        merged |= connection(home, name, states[name]["port"])
    if "neo4j_password" in merged:
        from pydantic import SecretStr  # here, to keep it out of the supervisor

        merged["neo4j_password"] = SecretStr(merged["neo4j_password"])
    return lease, merged


def _prove(lease: Connection, services: Sequence[str], mongo_database: str) -> dict[str, ServerState]:
    """Return the servers' states once each has answered a real query. Drivers load while the servers start."""
    home, given_up = lease.home, threading.Event()
    gates: dict[str, Future[ServerState]] = {name: Future() for name in services}

    def prove(name: str) -> None:
        load_driver(name)
        address = connection(home, name, gates[name].result()["port"])
        try:
            probe(name, address, mongo_database, seconds=_ANSWER_SECONDS, given_up=given_up)
        except EmbeddedServerError as exc:
            raise EmbeddedServerError(
                f"the embedded server {name} listens but {exc}; if its data is damaged, move {home.data(name)} away "
                f"and start again; the end of its log {home.log(name)}:\n{log_tail(home.log(name), 0)}"
            ) from exc

    with ThreadPoolExecutor(len(services), thread_name_prefix="probe") as pool:
        proofs = {name: pool.submit(prove, name) for name in services}
        try:
            for name, state in listening(lease, services):
                gates[name].set_result(state)
            for name, proof in proofs.items():
                proof.result()
                lease.ask({"op": "answering", "service": name})
        finally:
            given_up.set()
            for gate in gates.values():
                gate.cancel()  # lets go of those who still wait
    return {name: gate.result() for name, gate in gates.items()}


def _file_urls(settings: Settings, home: Home) -> dict[str, str]:
    """Return the URLs of the SQLite files that stand in where no SQL server is set."""
    files = {
        f"{name}_url": f"sqlite:///{home.root / 'data' / file}"
        for name, file in (("sql", "analytics.db"), ("state", "state.db"))
        if getattr(settings, f"{name}_url") is None
    }
    if files:
        home.prepare()
    return files


def _identity(record: Mapping[str, Any]) -> Identity | None:
    try:
        return Identity(int(record["pid"]), float(record["created"]))
    except (KeyError, TypeError, ValueError):
        return None


def _memory(pid: int | None) -> int | None:
    if pid is None:
        return None
    try:
        process = psutil.Process(pid)
        return sum(int(member.memory_info().rss) for member in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return None


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, place = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:***@{place}"))
