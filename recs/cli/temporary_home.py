"""A home for one measurement: no server and no file of the user's is touched, and nothing is left behind."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from recs import embedded
from recs.cli.python_process import CHECKOUT, module_argv
from recs.embedded import process
from recs.errors import RunError
from recs.settings import Settings, load_settings

#: Settings that lead to servers. What is measured fills stores with anything; the user's are none of its business.
_CONNECTIONS = (
    "mongo_url",
    "mongo_database",
    "milvus_url",
    "milvus_token",
    "neo4j_url",
    "neo4j_user",
    "neo4j_password",
    "neo4j_database",
    "sql_url",
    "state_url",
    "redis_url",
    "prefect_url",
    "dask_address",
)


@contextmanager
def temporary_home(prefix: str) -> Iterator[Settings]:
    """Yield the environment's settings with a new home and embedded servers; both are gone afterwards."""
    home = Path(tempfile.mkdtemp(prefix=prefix))
    connections = {name: Settings.model_fields[name].get_default() for name in _CONNECTIONS}
    settings = load_settings().model_copy(update={**connections, "home": home})
    try:
        yield settings
    finally:
        embedded.down(settings)
        shutil.rmtree(home)


def environment(settings: Settings, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a process that works in a temporary home."""
    unwanted = {f"RECS_{name.upper()}" for name in _CONNECTIONS}
    kept = {name: value for name, value in os.environ.items() if name.upper() not in unwanted}
    path = os.pathsep.join([str(CHECKOUT), *filter(None, [kept.get("PYTHONPATH")])])
    return {**kept, "RECS_HOME": str(settings.home), "PYTHONPATH": path, **(more or {})}


def load_through_flow(settings: Settings, conversations: Path | None = None, campaigns: Path | None = None) -> None:
    """Take files through the flow, as a process, into the home's stores; without any, what is left to do is done.

    Raises RunError where it fails.
    """
    log = settings.home / "flow.log"
    arguments = [] if conversations is None else [str(conversations.resolve())]
    if campaigns is not None:
        arguments += ["--campaigns", str(campaigns.resolve())]
    child = process.spawn(
        module_argv("pipeline", *arguments), env=environment(settings), log_path=log, cwd=settings.home
    )
    try:
        status = child.wait()
    finally:
        process.stop(child)
    if status:
        raise RunError(f"the flow ended with exit status {status}:\n{log_tail(log)}")


def log_tail(path: Path, characters: int = 2_000) -> str:
    """Return the end of a log, to be told when its process failed."""
    return path.read_text(errors="replace")[-characters:].strip() if path.exists() else "(no output)"
