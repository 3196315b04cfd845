"""Homes of a test's own, and what runs in them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from recs.settings import Settings

LIMIT_SECONDS = 20.0
"""Within which nothing may be left, whatever ended things."""

_CLIENT = """
import sys, time
from pathlib import Path
from recs import embedded
from recs.settings import Settings
urls = dict.fromkeys(("mongo_url", "milvus_url", "neo4j_url", "redis_url", "prefect_url", "sql_url", "state_url"))
with embedded.session(Settings(home=Path(sys.argv[1]), **urls), sys.argv[2:]) as settings:
    print(settings.redis_url, flush=True)
    time.sleep(600)
"""


def settings_at(home: Path, **more: str) -> Settings:
    """Return settings that know nothing of the environment's servers."""
    unset = dict.fromkeys(("mongo_url", "milvus_url", "neo4j_url", "sql_url", "state_url", "redis_url", "prefect_url"))
    return Settings(home=home, **(unset | more))


def start_client(home: Path, *services: str) -> subprocess.Popen[str]:
    """Start a process that holds a session; its first line of output, once it has one, is the cache's URL."""
    return subprocess.Popen(
        [sys.executable, "-c", _CLIENT, str(home), *services], stdout=subprocess.PIPE, text=True, cwd=home.parent
    )


def processes_of(home: Path) -> dict[int, str]:
    """Return the live processes that work in a home or name it on their command line."""
    found = {}
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == psutil.Process().pid:
                continue
            command = " ".join(process.cmdline())
            if Path(process.cwd()).is_relative_to(home) or str(home) in command:
                found[process.pid] = command
        except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
            continue
    return found


def wait_until(condition: Callable[[], bool], seconds: float = LIMIT_SECONDS) -> bool:
    """Return whether a condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
