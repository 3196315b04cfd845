"""Children that die with their parent."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from embedded_support import wait_until

from recs.embedded.process import spawn, stop

# A child that heeds no polite signal and has a child of its own.
_STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # ignores it by inheritance
print(inner.pid, flush=True)
time.sleep(600)
"""
_PARENT = f"""
import sys, threading, time
from pathlib import Path
from recs.embedded.process import spawn
def start():
    child = spawn([sys.executable, "-c", {_STUBBORN!r}], env=None, log_path=Path(sys.argv[1]))
    print(child.pid, flush=True)
if sys.argv[2] == "thread":
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
else:
    start()
time.sleep(600)
"""


@pytest.mark.parametrize("where", ["main", "thread"])
def test_child_and_grandchild_end_when_the_parent_is_killed(tmp_path: Path, where: str) -> None:
    log = tmp_path / "child.log"
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(log), where], stdout=subprocess.PIPE, text=True
    ) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        assert wait_until(lambda: log.exists() and log.read_text().strip().isdigit())
        grandchild = psutil.Process(int(log.read_text()))
        time.sleep(1)  # the end of the thread that started it must not be the end of a child
        assert child.is_running()
        parent.kill()
        parent.wait()
    assert wait_until(lambda: not _lives(child) and not _lives(grandchild))


def test_stop_ends_a_child_and_what_it_started(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    child = spawn([sys.executable, "-c", _STUBBORN], env=None, log_path=log, cwd=tmp_path)
    assert wait_until(lambda: log.exists() and log.read_text().strip().isdigit())
    grandchild = psutil.Process(int(log.read_text()))
    stop(child, seconds=0.5)
    assert child.returncode == -signal.SIGKILL
    assert not _lives(grandchild)
    stop(child)  # twice is harmless


def test_a_program_that_does_not_exist_says_so(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    child = spawn(["no-such-program-anywhere"], env=None, log_path=log)
    child.wait(10)
    stop(child)
    assert child.returncode != 0
    assert "No such file" in log.read_text()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
