"""The right to run, between threads and between processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from recs.errors import RunError
from recs.stores import run_lock
from recs.stores.state import SqlState
from recs.stores.state_schema import RUN_LOCK


@pytest.fixture
def store(sql_url: str) -> Iterator[SqlState]:
    opened = SqlState(sql_url, timeout_seconds=20)
    yield opened
    opened.close()


HOLDER = """
import sys, time
from recs.stores.state import SqlState
with SqlState(sys.argv[1], timeout_seconds=20).run_lock("held"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold_elsewhere(sql_url: str) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts processes that hold the run lock until they are killed."""
    started: list[subprocess.Popen[str]] = []

    def hold() -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", HOLDER, sql_url], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


class TestRunLock:
    def test_one_run_at_a_time(self, store: SqlState) -> None:
        busy = rf"run r1 has been running since 20.* process {os.getpid()};"
        with store.run_lock("r1"), pytest.raises(RunError, match=busy), store.run_lock("r2"):
            pytest.fail("two runs hold the lock")
        with store.run_lock("r2"):
            pass

    def test_a_failed_run_gives_it_back(self, store: SqlState) -> None:
        with pytest.raises(KeyboardInterrupt), store.run_lock("r1"):
            raise KeyboardInterrupt
        with store.run_lock("r2"):
            pass

    def test_threads_contend(self, store: SqlState) -> None:
        inside, most, ran = 0, 0, 0

        def work(thread: int) -> None:
            nonlocal inside, most, ran
            for i in range(10):
                with contextlib.suppress(RunError), store.run_lock(f"{thread}-{i}"):
                    inside += 1
                    ran += 1
                    most = max(most, inside)
                    time.sleep(0.001)
                    inside -= 1

        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(work, thread) for thread in range(8)]:
                done.result()
        assert most == 1
        assert ran >= 1  # how many get in beside the others depends on the machine

    @pytest.mark.parametrize("reaped", [True, False], ids=["reaped", "zombie"])
    def test_a_killed_holder_is_taken_over_at_once(
        self, store: SqlState, hold_elsewhere: Callable[[], subprocess.Popen[str]], reaped: bool
    ) -> None:
        holder = hold_elsewhere()
        with pytest.raises(RunError, match=f"run held .* process {holder.pid}"), store.run_lock("mine"):
            pass
        holder.send_signal(signal.SIGKILL)
        if reaped:
            holder.wait()
        else:
            time.sleep(0.5)
        with store.run_lock("mine"):
            pass

    def test_a_later_process_of_the_same_number_is_not_the_holder(self, store: SqlState) -> None:
        with store.run_lock("r1"):
            _change_lock(store, process_mark="1")
            with store.run_lock("r2"):
                pass

    def test_another_host_is_taken_over_after_a_minute_of_silence(self, store: SqlState) -> None:
        with store.run_lock("r1"):
            with store._db.read() as connection:
                beat = connection.execute(sa.select(RUN_LOCK.c.heartbeat)).scalar_one()
            _change_lock(store, host="far", machine="far", pid=1, heartbeat=beat - 50)
            with pytest.raises(RunError, match="on far, process 1;"), store.run_lock("r2"):
                pass
            _change_lock(store, heartbeat=beat - 61)
            with store.run_lock("r2"):
                pass

    def test_a_frozen_process_here_is_taken_over_after_a_minute(self, store: SqlState) -> None:
        with store.run_lock("r1"):
            _change_lock(store, heartbeat=0.0)  # the clock was set: no reason to doubt it
            with pytest.raises(RunError), store.run_lock("r2"):
                pass
            _change_lock(store, heartbeat_monotonic=time.monotonic() - 61)
            with store.run_lock("r2"):
                pass

    def test_the_holder_shows_signs_of_life(self, store: SqlState, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(run_lock, "HEARTBEAT_SECONDS", 0.02)
        with store.run_lock("r1"):
            _change_lock(store, heartbeat=0.0)
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                with store._db.read() as connection:
                    if connection.execute(sa.select(RUN_LOCK.c.heartbeat)).scalar_one() > 0:
                        return
                time.sleep(0.01)
        pytest.fail("no heartbeat")

    def test_a_taken_over_holder_does_not_free_the_new_one(self, store: SqlState) -> None:
        old = store.run_lock("r1")
        old.__enter__()
        _change_lock(store, process_mark="1")
        with store.run_lock("r2"):
            old.__exit__(None, None, None)
            with pytest.raises(RunError, match="run r2"), store.run_lock("r3"):
                pass


def _change_lock(store: SqlState, **values: Any) -> None:
    with store._db.write() as connection:
        connection.execute(RUN_LOCK.update().values(**values))
