"""The supervisor: one process per home that owns the servers. `python -m recs.embedded._supervisor HOME`.

When it ends, however it ends, the servers end (see `process`). Clients talk to it over a loopback connection, one
JSON object per line each way, after a token from a file that only the owner can read. A connection that has asked for
servers is a lease: the kernel closes it when its process dies, so no lease outlives its holder. When the last lease is
gone and nothing is pinned, the supervisor stops its servers and ends.

It imports no driver and no settings, so that it starts fast and stays small: that a server answers is for its client
to find out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from recs.embedded._home import Home, log_tail
from recs.embedded._identity import Identity, end, family
from recs.embedded._servers import HOST, SERVERS, choose_port, port_is_free, prepare
from recs.embedded.process import keep_guard, spawn, stop
from recs.errors import RecsError

LINGER_SECONDS = 4.0
"""How long an unpinned supervisor waits for another client: a second command right after the first is spared a start.
"""
_STOP_SECONDS = 7.0
_QUIET_SECONDS = 60.0
"""A server that does not listen is given up when it has not used the processor for so long: on a busy machine a start
may take minutes (Prefect's takes 7 s of processor time), and a server that hangs uses none.
"""
_TICK_SECONDS = 0.1
_LOOK_SECONDS = 0.15

State = Literal["starting", "listening", "failed"]


@dataclass(slots=True)
class Running:
    """A server that was asked for."""

    service: str
    ports: dict[str, int]
    process: subprocess.Popen[bytes] | None
    identity: Identity | None
    log_offset: int
    busy_at: float
    """When it was last seen to have used the processor, on the monotonic clock."""
    processor_seconds: float = 0.0
    looked_at: float = 0.0
    state: State = "starting"
    error: str = ""
    tries: int = 1

    def describe(self) -> dict[str, Any]:
        pid = None if self.identity is None or self.state == "failed" else self.identity.pid
        return {"state": self.state, "port": self.ports[self.service], "pid": pid, "error": self.error}


@dataclass(slots=True)
class Supervisor:
    home: Home
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    running: dict[str, Running] = field(default_factory=dict)
    answering: set[str] = field(default_factory=set)
    """Servers that a client has had an answer from since they were started."""
    pinned: bool = False
    leases: int = 0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, announce: int) -> None:
        """Serve clients until there are none, or until told to stop; `announce` is closed once they can come."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.stopping.set)
        self._take_over()
        server = await asyncio.start_server(self._client, HOST, 0)
        port = server.sockets[0].getsockname()[1]
        own = Identity.of(os.getpid())
        self.home.write("supervisor.json", {"pid": own.pid, "created": own.created, "port": port, "token": self.token})
        os.write(announce, b"ready")
        os.dup2(sys.stderr.fileno(), announce)  # the launcher reads until this closes
        try:
            await self._watch()
        finally:
            # First of all: who comes from now on must wait for the lock and start a new supervisor.
            self.home.run("supervisor.json").unlink(missing_ok=True)
            server.close()
            await self._stop_all()
            self.stopped.set()
            await asyncio.sleep(0.05)  # lets the answer to `down` leave

    async def _watch(self) -> None:
        idle_since = time.monotonic()
        lock = self.home.run("supervisor.lock")
        while not self.stopping.is_set():
            for running in self.running.values():
                self._advance(running)
            keep_guard()
            if self.leases or self.pinned:
                idle_since = time.monotonic()
            if time.monotonic() - idle_since > LINGER_SECONDS or not lock.exists():  # the home was deleted
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), _TICK_SECONDS)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        leased = False
        try:
            hello = json.loads(await asyncio.wait_for(reader.readline(), 10))
            token = hello.get("token") if isinstance(hello, dict) else None
            if not secrets.compare_digest(str(token).encode(), self.token.encode()):
                return
            writer.write(b'{"ok": true}\n')
            while line := await reader.readline():
                request = json.loads(line)
                if request["op"] == "want" and not leased:
                    leased = True
                    self.leases += 1
                answer = await self._answer(request)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            pass  # the client died, or is no client of ours; either way this was its last word
        finally:
            self.leases -= leased
            writer.close()

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        match request["op"]:
            case "want":
                for service in request["services"]:
                    self._want(service)
            case "answering":
                self.answering.add(request["service"])
            case "pin":
                self.pinned = True
            case "down":
                self.stopping.set()
                await self.stopped.wait()
                return {"ok": True}
        for running in self.running.values():
            self._advance(running)
        return {
            "ok": True,
            "pinned": self.pinned,
            "servers": {
                name: running.describe() | {"answering": name in self.answering}
                for name, running in self.running.items()
            },
        }

    def _want(self, service: str) -> None:
        running = self.running.get(service)
        if running is None or running.state == "failed":
            self._start(service, tries=1)

    def _start(self, service: str, tries: int) -> None:
        self.answering.discard(service)
        remembered = self.home.read("ports.json")
        taken = [port for other in self.running.values() if other.service != service for port in other.ports.values()]
        running = Running(service, {service: 0}, None, None, 0, time.monotonic(), tries=tries)
        self.running[service] = running
        try:
            self.home.require_space()
            for name in (service, *SERVERS[service].extra_ports):
                running.ports[name] = choose_port(self.home, name, taken, _port(remembered.get(name)))
                taken.append(running.ports[name])
            launch = prepare(self.home, service, running.ports)
            log = self.home.log(service)
            running.log_offset = log.stat().st_size
            running.process = spawn(
                launch.argv,
                env=launch.env,
                log_path=log,
                cwd=self.home.data(service),
                stop_signal=SERVERS[service].stop_signal,
            )
            running.identity = Identity.of(running.process.pid)
            self._remember_servers()
            self.home.write("ports.json", remembered | running.ports)
        except (OSError, RecsError, psutil.NoSuchProcess) as exc:
            self._bury(running)
            self._fail(running, f"cannot be started: {exc}")

    def _advance(self, running: Running) -> None:
        """Move a server on: from starting to listening, or to failed where it has ended or listens for nobody."""
        process = running.process
        if process is None or running.state == "failed":
            return
        status = process.poll()
        if status is not None:
            # Between our look at the port and its own, another program may have taken it.
            robbed = running.state == "starting" and not all(port_is_free(port) for port in running.ports.values())
            self._bury(running)
            if robbed and running.tries < 4:
                self._start(running.service, running.tries + 1)
            else:
                self._fail(running, self._obituary(running, status))
        elif running.state == "starting":
            self._look_for_listener(running, process)

    def _look_for_listener(self, running: Running, process: subprocess.Popen[bytes]) -> None:
        # Clients ask many times a second, and looking through a family's sockets is dear: done as often as that, it
        # takes the processor from the very server that is waited for.
        if time.monotonic() - running.looked_at < _LOOK_SECONDS:
            return
        running.looked_at = time.monotonic()
        if _accepts(running.ports[running.service]) and _listens(process.pid, running.ports[running.service]):
            running.state = "listening"
            return
        now, used = time.monotonic(), _processor_seconds(process.pid)
        if used > running.processor_seconds + 0.05:
            running.busy_at, running.processor_seconds = now, used
        elif now - running.busy_at > _QUIET_SECONDS:
            self._bury(running)
            self._fail(running, self._obituary(running, None))

    def _obituary(self, running: Running, status: int | None) -> str:
        log, data = self.home.log(running.service), self.home.data(running.service)
        tail = log_tail(log, running.log_offset)
        how = f"hung, idle for {_QUIET_SECONDS:g} s," if status is None else f"ended with status {status}"
        when = "" if running.state == "listening" else " during its start"
        if "No space left on device" in tail:
            advice = f"the disk of {self.home.root} is full: free some space"
        elif when:
            advice = f"if its data is damaged, move {data} away and start again (what it held must be loaded again)"
        else:
            advice = "start it again with `recs up`"
        return f"{how}{when}; {advice}; the end of its log {log}:\n{tail or '    (empty)'}"

    def _fail(self, running: Running, error: str) -> None:
        running.state, running.error = "failed", error
        self.answering.discard(running.service)
        print(f"{running.service} {error}", file=sys.stderr, flush=True)

    def _bury(self, running: Running) -> None:
        """End a server that is of no use, and what an ended one has left behind."""
        if running.process is not None:
            stop(running.process, 0)

    async def _stop_all(self) -> None:
        live = [running for running in self.running.values() if running.process and running.process.poll() is None]
        for running in live:
            assert running.process is not None
            running.process.send_signal(SERVERS[running.service].stop_signal)
        deadline = time.monotonic() + _STOP_SECONDS
        while any(r.process and r.process.poll() is None for r in live) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for running in self.running.values():
            if running.process is not None:
                stop(running.process, 0)
        with contextlib.suppress(FileNotFoundError):  # the home itself may be gone
            self.home.write("servers.json", {})

    def _remember_servers(self) -> None:
        known = {
            name: {"pid": running.identity.pid, "created": running.identity.created}
            for name, running in self.running.items()
            if running.identity is not None
        }
        self.home.write("servers.json", known)

    def _take_over(self) -> None:
        """End what a predecessor that was killed has left; its guard is most likely at it already."""
        left = []
        for name, record in self.home.read("servers.json").items():
            try:
                identity = Identity(int(record["pid"]), float(record["created"]))
            except (KeyError, TypeError, ValueError):
                continue  # a damaged record names nobody
            if family([identity]):
                left.append((identity, SERVERS[name].stop_signal if name in SERVERS else signal.SIGTERM))
        end(left, _STOP_SECONDS)


def _port(remembered: object) -> int | None:
    return remembered if isinstance(remembered, int) and 0 < remembered < 65536 else None


def _accepts(port: int) -> bool:
    """Return whether anybody at all takes connections on a port. Cheap, and it never holds the port itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((HOST, port)) == 0


def _listens(pid: int, port: int) -> bool:
    """Return whether a process, or one that it started, listens on a port."""
    try:
        process = psutil.Process(pid)
        family_of = (process, *process.children(recursive=True))
        return any(_is_listener(found, port) for member in family_of for found in member.net_connections("tcp"))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _processor_seconds(pid: int) -> float:
    try:
        used = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(used.user + used.system)


def _is_listener(found: Any, port: int) -> bool:
    return bool(found.status == psutil.CONN_LISTEN and found.laddr and found.laddr.port == port)


def main() -> None:
    """Run the supervisor of a home unless it has one; says `ready`, `busy` or what is wrong on standard output."""
    home = Home.at(Path(sys.argv[1]))
    lock = home.try_lock("supervisor.lock")
    if lock is None:
        print("busy", end="", flush=True)
        return
    try:
        asyncio.run(Supervisor(home).serve(announce=sys.stdout.fileno()))
    finally:
        os.close(lock)


if __name__ == "__main__":
    main()
