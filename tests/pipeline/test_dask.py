"""The flow on Dask workers: one scheduler and two worker processes, one of which is killed half-way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from distributed import Client
from prefect_dask.task_runners import PrefectDaskFuture
from support import ROOT, environment, fresh_settings, run_python

from pipeline.parts import DaskWorkers
from recs.batch.check import check_stores
from recs.batch.fingerprint import fingerprint
from recs.bootstrap import connect
from recs.embedded import process
from recs.errors import RunError, StoreError

BATCH = 8
CONVERSATIONS = 120


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A slice of the sample, its catalogue, its preferences."""
    folder = tmp_path_factory.mktemp("sample")
    conversations = json.loads((ROOT / "data/sample_conversations.json").read_text())[:CONVERSATIONS]
    (folder / "c.jsonl").write_text("".join(json.dumps(c) + "\n" for c in conversations))
    options = ["--campaigns", "data/sample_campaigns.json", "--preferences", "data/sample_preferences.jsonl"]
    return [str(folder / "c.jsonl"), *(o if o.startswith("--") else str(ROOT / o) for o in options)]


class Cluster:
    """A scheduler and its workers, each a process with a home and a working directory of its own."""

    def __init__(self, folder: Path, workers: int) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            self._spawn("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-jupyter")
            self.address = self._await("scheduler", r"Scheduler at: +(tcp://127\.0\.0\.1:\d+)")
            options = [
                "--no-nanny",
                "--no-dashboard",
                "--nthreads",
                "2",
                "--host",
                "127.0.0.1",
                "--local-directory",
                ".",
            ]
            self.workers = [self._spawn("worker", self.address, *options, name=f"w{n}") for n in range(workers)]
            for number in range(workers):
                self._await(f"w{number}", r"Registered to: +(tcp://\S+)")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        for child in self._processes[::-1]:
            process.stop(child)

    def _spawn(self, what: str, *options: str, name: str = "") -> subprocess.Popen[bytes]:
        home = self._folder / (name or what)
        home.mkdir(parents=True)
        argv = [sys.executable, "-m", "dask", what, *options, *(["--name", name] if name else [])]
        # As on another machine: nothing of the run's settings, nothing of the checkout. One thread for arithmetic each:
        # two processes that take all cores hold one another up.
        hidden = ("RECS_", "PREFECT_", "PYTHONPATH")
        env = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
        env |= {"HOME": str(home), "OMP_NUM_THREADS": "1"}
        self._processes.append(process.spawn(argv, env=env, log_path=home.with_suffix(".log"), cwd=home))
        return self._processes[-1]

    def _await(self, name: str, pattern: str) -> str:
        log = self._folder / f"{name}.log"
        deadline = time.monotonic() + 60
        while not (found := re.search(pattern, log.read_text())):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        return found[1]


@pytest.fixture
def cluster(tmp_path):
    started = Cluster(tmp_path / "dask", workers=2)
    yield started
    started.stop()


@pytest.fixture(scope="module")
def in_threads(prefect_servers, sample, tmp_path_factory):
    """Fingerprint and figures of the same run without Dask."""
    home = tmp_path_factory.mktemp("threads")
    settings = fresh_settings(prefect_servers, home, "threads")
    done = run_python(settings, "pipeline", *sample, "--json", str(home / "out.json"))
    assert done.returncode == 0, done.stderr
    return state_of(settings)[0], figures(home / "out.json")


def state_of(settings):
    stores = connect(settings, timeout_seconds=settings.load_timeout_seconds)
    try:
        return fingerprint(stores), check_stores(stores, max_text_chars=20_000).findings
    finally:
        stores.close()


def figures(path):
    return json.loads(path.read_text())["figures"]


COUNTS = ("read", "loaded", "updated", "duplicate", "rejected", "embedded")


@pytest.mark.timeout(600)
def test_a_worker_that_is_killed_half_way_loses_and_doubles_nothing(
    in_threads, prefect_servers, sample, cluster, tmp_path
):
    settings = fresh_settings(prefect_servers, tmp_path / "run", "dask").model_copy(
        update={"dask_address": cluster.address, "batch_size": BATCH}
    )
    out = tmp_path / "out.json"
    stores = connect(settings, timeout_seconds=settings.load_timeout_seconds)
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline", *sample, "--json", str(out)],
        env=environment(settings),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as flow:
        while flow.poll() is None and conversations_with_vectors(stores) < CONVERSATIONS / 4:
            time.sleep(0.05)
        there = conversations_with_vectors(stores)
        cluster.workers[0].kill()
        _, said = flow.communicate(timeout=400)
    stores.close()
    assert flow.returncode == 0, said
    assert there < CONVERSATIONS
    found, findings = state_of(settings)
    assert findings == []
    assert found == in_threads[0]
    counts = figures(out)
    assert {name: counts[name] for name in COUNTS} == {name: in_threads[1][name] for name in COUNTS}
    assert in_threads[1]["processes"] == 1
    assert counts["processes"] > 1

    again = run_python(settings, "pipeline", *sample, "--json", str(out))
    assert again.returncode == 0, again.stderr
    assert "nothing changed" in again.stdout
    assert figures(out)["duplicate"] == CONVERSATIONS
    assert state_of(settings)[0] == found


@pytest.mark.parametrize("done", [False, True], ids=["in hand", "done"])
def test_a_part_that_is_lost_with_the_last_worker_is_not_waited_for_for_ever(tmp_path, done):
    """Not even one that was done: what it returned was in that worker's memory."""
    alone = Cluster(tmp_path / "dask", workers=1)
    try:
        with Client(alone.address, set_as_default=False) as client:
            future = client.submit(time.sleep, 0 if done else 60)
            while done and not future.done():
                time.sleep(0.05)
            alone.workers[0].kill()
            workers = DaskWorkers(client, alone.address, patience_seconds=2)
            with pytest.raises(RunError, match="has had no worker for 2 s"):
                workers.result(PrefectDaskFuture(uuid.uuid4(), future))
    finally:
        alone.stop()


def conversations_with_vectors(stores):
    try:
        return stores.vectors.open("b1").count("conversations")
    except StoreError:
        return 0  # the build is not made yet


def test_without_a_worker_or_a_scheduler_the_run_says_so(prefect_servers, sample, tmp_path, monkeypatch, closed_port):
    settings = fresh_settings(prefect_servers, tmp_path / "run", "nodask")
    alone = Cluster(tmp_path / "dask", workers=0)
    try:
        told = run_python(settings.model_copy(update={"dask_address": alone.address}), "pipeline", *sample)
    finally:
        alone.stop()
    assert told.returncode == 1
    assert told.stderr.splitlines()[-1].startswith(
        f"recs: no worker is connected to the Dask scheduler at {alone.address}"
    )
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "2s")
    address = f"tcp://127.0.0.1:{closed_port}"
    told = run_python(settings.model_copy(update={"dask_address": address}), "pipeline", *sample)
    assert told.returncode == 1
    assert f"recs: no Dask scheduler can be reached at RECS_DASK_ADDRESS={address}" in told.stderr
    assert "Traceback" not in told.stderr
    stores = connect(settings)
    assert stores.documents.count() == 0
    assert stores.state.running() is None
    stores.close()
