"""The right to run, held by one batch run at a time over all processes and hosts that share a state store.

The holder's row says who it is and gets a heartbeat every few seconds. It may be taken over when the holder is gone:
at once where it ran on this machine and its process is no more, else after a minute without a heartbeat. A holder
that was frozen for that long and wakes up finds that its generation is refused (`StateStore.publish`).
"""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection

from recs.errors import RunError, StoreError
from recs.stores.sql import Database
from recs.stores.state_schema import RUN_LOCK

_log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 5.0
LOST_AFTER_SECONDS = 60.0

_FREE: dict[str, None] = {column.name: None for column in RUN_LOCK.columns if column.name != "id"}


@contextmanager
def hold(database: Database, run_id: str) -> Iterator[None]:
    """Hold the right to run inside the `with` block; raises RunError where another run holds it."""
    token = uuid.uuid4().hex
    _take(database, run_id, token)
    done = threading.Event()
    heart = threading.Thread(target=_beat, args=(database, run_id, token, done), name="recs-run-lock", daemon=True)
    heart.start()
    try:
        yield
    finally:
        done.set()
        heart.join()
        _release(database, run_id, token)


def _take(database: Database, run_id: str, token: str) -> None:
    with database.write() as connection:
        # SQLite lets one writer in at a time; elsewhere the row is locked until this transaction ends.
        holder = connection.execute(sa.select(RUN_LOCK).with_for_update()).one()
        now = _now(database, connection)
        if holder.run_id is not None and not _is_gone(holder, now):
            raise RunError(
                f"run {holder.run_id} has been running since {holder.since:%Y-%m-%d %H:%M:%S} UTC on "
                f"{holder.host}, process {holder.pid}; wait for it to end, or end it, before starting run {run_id}"
            )
        if holder.run_id is not None:
            _log.warning("taking over the lock of a run that is gone", run_id=holder.run_id, pid=holder.pid)
        connection.execute(
            RUN_LOCK.update().values(
                run_id=run_id,
                token=token,
                host=platform.node(),
                machine=_machine(),
                pid=os.getpid(),
                process_mark=_process_mark(os.getpid()),
                since=datetime.now(UTC),
                heartbeat=now,
                heartbeat_monotonic=time.monotonic(),
            )
        )


def _beat(database: Database, run_id: str, token: str, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT_SECONDS):
        try:
            with database.write() as connection:
                held = connection.execute(
                    RUN_LOCK.update()
                    .where(RUN_LOCK.c.token == token)
                    .values(heartbeat=_now(database, connection), heartbeat_monotonic=time.monotonic())
                ).rowcount
        except StoreError as exc:
            # The run may go on: there are further beats before the lock counts as lost.
            _log.warning("a heartbeat of the run failed", run_id=run_id, error=str(exc))
            continue
        if not held:
            _log.error("the lock of this run was taken over; it will not be able to publish", run_id=run_id)
            return


def _release(database: Database, run_id: str, token: str) -> None:
    try:
        with database.write() as connection:
            connection.execute(RUN_LOCK.update().where(RUN_LOCK.c.token == token).values(**_FREE))
    except StoreError as exc:
        # Raising here would hide how the run itself ended. Without heartbeats the lock lapses.
        _log.warning("the lock of the run could not be released; it lapses", run_id=run_id, error=str(exc))


def _is_gone(holder: sa.Row[Any], now: float) -> bool:
    if holder.machine != _machine():
        return bool(now - holder.heartbeat > LOST_AFTER_SECONDS)
    if not _is_running(holder.pid, holder.process_mark):
        return True
    # On one machine the monotonic clock is shared; unlike the wall clock nobody sets it.
    return bool(time.monotonic() - holder.heartbeat_monotonic > LOST_AFTER_SECONDS)


def _now(database: Database, connection: Connection) -> float:
    """Return seconds since 1970 by one clock for all hosts: the server's. An SQLite file is on this host."""
    if database.is_sqlite:
        return time.time()
    return float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())


def _machine() -> str:
    """Return what tells apart any two places where one process number means two processes.

    Host names repeat, in containers above all, so the boot and the process namespace are part of it where the system
    tells them.
    """
    parts = [platform.node()]
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if boot.exists():
        parts.append(boot.read_text(encoding="ascii").strip())
    if namespace.exists():
        parts.append(str(namespace.readlink()))
    return " ".join(parts)


def _is_running(pid: int, mark: str) -> bool:
    try:
        return _process_mark(pid) == mark
    except psutil.AccessDenied:
        return True  # it exists, and is not ours to look at


def _process_mark(pid: int) -> str | None:
    """Return what tells a process from a later one of the same number, None where there is no such process."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        if sys.platform == "linux":
            # Start in clock ticks since boot: a time of day would move when the clock is set.
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            return stat.rpartition(")")[2].split()[19]
        return str(process.create_time())
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return None
