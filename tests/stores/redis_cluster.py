"""A Redis cluster of three primaries on this machine, of the same program that the embedded cache is."""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from recs.embedded import process
from recs.embedded._servers import HOST, valkey_server

_SLOTS = 16_384
_NODES = 3
_START_SECONDS = 60


@dataclass
class Node:
    port: int
    bus_port: int
    config: Path
    running: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start it again; it still knows its slots and the others."""
        self.running = _spawn(self.config)

    def stop(self) -> None:
        process.stop(self.running, stop_signal=signal.SIGKILL)


@dataclass(frozen=True)
class Cluster:
    nodes: list[Node]
    password: str

    @property
    def url(self) -> str:
        hosts = ",".join(f"{HOST}:{node.port}" for node in self.nodes)
        return f"redis+cluster://:{self.password}@{hosts}"

    def client(self, node: Node) -> redis.Redis:
        return redis.Redis(host=HOST, port=node.port, password=self.password, decode_responses=True)

    def wait(self) -> None:
        """Return once every node says that all slots are served."""
        deadline = time.monotonic() + _START_SECONDS
        for node in self.nodes:
            while (said := self._state(node)) != ("ok", str(_NODES)):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the cluster does not come together: {said}, node on port {node.port}")
                time.sleep(0.05)

    def _state(self, node: Node) -> tuple[str, str]:
        try:
            with self.client(node) as client:
                info = client.cluster("info")
        except redis.ConnectionError as exc:
            return str(exc), ""
        return info["cluster_state"], info["cluster_size"]


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    password = secrets.token_urlsafe(24)
    with ExitStack() as stack:
        nodes = [_start(folder / str(i), password) for i in range(_NODES)]
        for node in nodes:
            stack.callback(node.stop)
        cluster = Cluster(nodes, password)
        _join(cluster)
        cluster.wait()
        yield cluster


def _start(folder: Path, password: str) -> Node:
    folder.mkdir(parents=True)
    port, bus_port = _free_ports()
    config = folder / "valkey.conf"
    config.touch(mode=0o600)
    lines = {
        "bind": HOST,
        "port": port,
        "cluster-enabled": "yes",
        "cluster-port": bus_port,
        "cluster-announce-ip": HOST,
        "cluster-config-file": "nodes.conf",
        # A node that is stopped for a moment is not given up meanwhile.
        "cluster-node-timeout": 60_000,
        "requirepass": password,
        "masterauth": password,
        "dir": f'"{folder}"',
        "save": '""',
        "always-show-logo": "no",
    }
    config.write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
    return Node(port, bus_port, config, _spawn(config))


def _spawn(config: Path) -> subprocess.Popen[bytes]:
    argv = [str(valkey_server()), str(config)]
    return process.spawn(argv, env=None, log_path=config.with_name("log"), cwd=config.parent)


def _join(cluster: Cluster) -> None:
    first, *others = cluster.nodes
    bounds = [_SLOTS * i // _NODES for i in range(_NODES + 1)]
    for i, node in enumerate(cluster.nodes):
        _wait_for(cluster, node)
        with cluster.client(node) as client:
            client.cluster("addslotsrange", bounds[i], bounds[i + 1] - 1)
    with cluster.client(first) as client:
        for other in others:
            client.cluster("meet", HOST, other.port, other.bus_port)


def _wait_for(cluster: Cluster, node: Node) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            with cluster.client(node) as client:
                client.ping()
                return
        except redis.ConnectionError as exc:
            if node.running.poll() is not None or time.monotonic() > deadline:
                said = node.config.with_name("log").read_text()[-1000:]
                raise RuntimeError(f"the node on port {node.port} does not answer; it said: {said}") from exc
        time.sleep(0.05)


def _free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as two:
        for taken in (one, two):
            taken.bind((HOST, 0))
        return [one.getsockname()[1], two.getsockname()[1]]
