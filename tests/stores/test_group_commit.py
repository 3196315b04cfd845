"""Rows of several threads in one commit."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from recs.errors import StoreUnavailableError
from recs.stores.group_commit import GroupCommit


class TestGroupCommit:
    def test_rows_that_wait_are_written_together(self) -> None:
        writes: list[list[int]] = []
        first_write, go_on = threading.Event(), threading.Event()

        def write(rows: Any) -> None:
            writes.append(sorted(rows))
            first_write.set()
            go_on.wait(10)

        commits = GroupCommit("state", write, timeout_seconds=10)
        with ThreadPoolExecutor(5) as pool:
            pool.submit(commits.put, 0)
            first_write.wait(10)
            waiting = [pool.submit(commits.put, i) for i in range(1, 5)]
            while len(commits._queue) < 4:
                time.sleep(0.001)
            go_on.set()
            for done in waiting:
                done.result()
        assert writes == [[0], [1, 2, 3, 4]]

    def test_waiting_for_a_turn_is_bounded(self) -> None:
        release = threading.Event()
        commits: GroupCommit[int] = GroupCommit("state", lambda rows: (release.wait(10), None)[1], timeout_seconds=0.1)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(commits.put, 0)
            while not commits._turn.locked():
                time.sleep(0.001)
            with pytest.raises(StoreUnavailableError, match="no turn"):
                commits.put(1)
            assert commits._queue == []
            release.set()

    def test_an_outage_reaches_everyone(self) -> None:
        def write(rows: Any) -> None:
            raise StoreUnavailableError("state", "away")

        commits: GroupCommit[int] = GroupCommit("state", write, timeout_seconds=1)
        with pytest.raises(StoreUnavailableError, match="away"):
            commits.put(1)
