"""Start the real servers that this machine has, run pytest or another command against them, stop them.

`python tests/real/real_servers.py [--require] [pytest's arguments]`, or `... --run COMMAND [arguments]`. A server
that is given by URL is not started: RECS_TEST_MONGO_URL, RECS_TEST_NEO4J_URL (and _PASSWORD), RECS_TEST_MILVUS_URL (and
_TOKEN), RECS_TEST_REDIS_URL, RECS_TEST_POSTGRES_URL. What is absent is named, and with --require ends it, except for
the two servers of RECS_TEST_SERVERS (a folder, `../shared/servers` by default) where that folder is absent.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import neo4j
import psycopg
import pymongo
import redis
from pymilvus import MilvusClient

from recs.embedded import process

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
START_SECONDS = 120
#: The contracts, the whole flow, the sidecar, and equal answers. What of it runs over embedded servers and files alone
#: is `make test`'s. Others that use stores can be named: tests/batch, tests/retrieval, tests/pipeline.
TESTS = ["tests/stores", "tests/pipeline/test_flow.py", "tests/app", "tests/real"]
TESTS += ["-k", "not embedded and not sqlite"]
FOLDER = Path(os.environ.get("RECS_TEST_SERVERS", ROOT.parent / "shared" / "servers"))


class AbsentError(Exception):
    """What is missing, and how to get it."""


@dataclass
class Real:
    """One server that was started: the variables that lead the tests to it, and how to see that it answers."""

    argv: list[str]
    variables: dict[str, str]
    probe: Callable[[], object]
    env: Mapping[str, str] | None = None
    stop_signal: int = signal.SIGTERM


def _mongo(folder: Path, port: int, password: str) -> Real:
    url = f"mongodb://{HOST}:{port}"

    def probe() -> None:
        with pymongo.MongoClient(url, serverSelectionTimeoutMS=1000) as client:
            client.admin.command("ping")

    return Real([_shared("mongodb"), str(folder), str(port)], {"RECS_TEST_MONGO_URL": url}, probe)


def _neo4j(folder: Path, port: int, password: str) -> Real:
    url = f"bolt://{HOST}:{port}"

    def probe() -> None:
        once = {"connection_timeout": 2, "max_transaction_retry_time": 0}
        with neo4j.GraphDatabase.driver(url, auth=("neo4j", password), **once) as driver:
            driver.execute_query("RETURN 1", database_="neo4j")

    variables = {"RECS_TEST_NEO4J_URL": url, "RECS_TEST_NEO4J_PASSWORD": password}
    env = os.environ | {"NEO4J_PASSWORD": password}
    return Real([_shared("neo4j"), str(folder), str(port)], variables, probe, env)


def _shared(name: str) -> str:
    start = FOLDER / name / "start"
    if not start.exists():
        raise AbsentError(f"no {start}")
    if shutil.which("java") is None:
        raise AbsentError("no java: Debian's default-jre-headless has it")
    return str(start)


def _milvus(folder: Path, port: int, password: str) -> Real:
    if find_spec("milvus") is None:
        raise AbsentError("the wheel milvus==2.3.5 is not installed: pip install '.[real]'")
    url, token = f"http://{HOST}:{port}", f"root:{password}"

    def probe() -> None:
        # A fresh server knows the published password alone.
        try:
            MilvusClient(url, token=token, timeout=5, dedicated=True).close()
        except Exception:
            client = MilvusClient(url, token="root:Milvus", timeout=5, dedicated=True)
            client.update_password("root", "Milvus", password)
            client.close()
            raise

    argv = [sys.executable, str(Path(__file__).with_name("milvus_standalone.py")), str(folder), str(port)]
    return Real(argv, {"RECS_TEST_MILVUS_URL": url, "RECS_TEST_MILVUS_TOKEN": token}, probe)


def _redis(folder: Path, port: int, password: str) -> Real:
    program = shutil.which("redis-server") or _absent("redis-server", "redis-server")
    url = f"redis://:{password}@{HOST}:{port}/0"
    config = folder / "redis.conf"
    config.touch(mode=0o600)
    config.write_text(f'bind {HOST}\nport {port}\ndir "{folder}"\nrequirepass {password}\nsave ""\n')

    def probe() -> None:
        with redis.Redis.from_url(url) as client:
            client.ping()

    return Real([program, str(config)], {"RECS_TEST_REDIS_URL": url}, probe)


def _postgresql(folder: Path, port: int, password: str) -> Real:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    binary = shutil.which("postgres") or (str(found[-1]) if found else _absent("postgres", "postgresql"))
    binaries = Path(binary).resolve().parent
    # PostgreSQL does not run as root.
    user = []
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    data = folder / "data"
    told = folder / "password"
    told.touch(mode=0o600)
    told.write_text(password)
    if user:
        shutil.chown(told, "postgres")
    initdb = [str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "-A", "scram-sha-256", "--no-sync"]
    # A locale that does not sort by code point, as most servers have: what is sorted must not rely on it.
    initdb += ["--encoding=UTF8", "--locale-provider=icu", "--icu-locale=en-US", "--locale=C.UTF-8"]
    done = subprocess.run([*user, *initdb, f"--pwfile={told}"], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"initdb: {done.stderr}")
    options = ["-c", f"listen_addresses={HOST}", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
    url = f"postgresql+psycopg://postgres:{password}@{HOST}:{port}/postgres"

    def probe() -> None:
        psycopg.connect(url.replace("+psycopg", ""), connect_timeout=2).close()

    argv = [*user, str(binaries / "postgres"), "-D", str(data), "-p", str(port), *options]
    # SIGINT is its fast shutdown; at SIGTERM it waits for clients.
    return Real(argv, {"RECS_TEST_POSTGRES_URL": url}, probe, stop_signal=signal.SIGINT)


def _absent(program: str, package: str) -> str:
    raise AbsentError(f"no {program}: Debian's {package} has it")


KINDS: dict[str, Callable[[Path, int, str], Real]] = {
    "mongo": _mongo,
    "neo4j": _neo4j,
    "milvus": _milvus,
    "redis": _redis,
    "postgres": _postgresql,
}


def start(folder: Path) -> tuple[list[tuple[subprocess.Popen[bytes], int]], dict[str, str], dict[str, str]]:
    """Start what is there side by side; return the processes, the variables for the tests, and what is absent."""
    started: dict[str, tuple[Real, subprocess.Popen[bytes]]] = {}
    absent: dict[str, str] = {}
    for name, make in KINDS.items():
        given = f"RECS_TEST_{name.upper()}_URL"
        if given in os.environ:
            print(f"{name}: {given}", flush=True)
            continue
        data = folder / name
        data.mkdir()
        try:
            real = make(data, _free_port(), secrets.token_urlsafe(24))
        except AbsentError as exc:
            absent[name] = str(exc)
            continue
        log = folder / f"{name}.log"
        running = process.spawn(real.argv, env=real.env, log_path=log, cwd=data, stop_signal=real.stop_signal)
        started[name] = real, running
    variables: dict[str, str] = {}
    for name, (real, running) in started.items():
        _wait(name, real, running, folder / f"{name}.log")
        print(f"{name}: started, process {running.pid}", flush=True)
        prefix = f"RECS_TEST_{name.upper()}"
        variables |= {**real.variables, f"{prefix}_PID": str(running.pid), f"{prefix}_FOLDER": str(folder / name)}
    return [(running, real.stop_signal) for real, running in started.values()], variables, absent


def _wait(name: str, real: Real, running: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            real.probe()
        except Exception as exc:
            if running.poll() is None and time.monotonic() < deadline:
                time.sleep(0.3)
                continue
            said = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{name} does not answer ({type(exc).__name__}: {exc}); it said: {said}") from exc
        return


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        return int(taken.getsockname()[1])


def main() -> int:
    arguments = sys.argv[1:]
    require = "--require" in arguments
    arguments = [argument for argument in arguments if argument != "--require"]
    # Ended by SIGTERM, it tidies up like after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="recs-real-"))
    folder.chmod(0o711)  # PostgreSQL's user has to get to its own
    running: list[tuple[subprocess.Popen[bytes], int]] = []
    try:
        running, variables, absent = start(folder)
        for name, why in absent.items():
            print(f"{name}: absent, its tests are skipped: {why}", flush=True)
        if require and set(absent) - (set() if FOLDER.is_dir() else {"mongo", "neo4j"}):
            return 1
        command = arguments[1:] if arguments[:1] == ["--run"] else _pytest(arguments)
        env = os.environ | variables | {"RECS_TEST_REAL": "1"}
        return subprocess.run(command, cwd=ROOT, env=env, check=False).returncode
    finally:
        for started, stop_signal in running:
            process.stop(started, stop_signal=stop_signal)
        shutil.rmtree(folder, ignore_errors=True)


def _pytest(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "pytest", *(arguments or TESTS)]


if __name__ == "__main__":
    sys.exit(main())
