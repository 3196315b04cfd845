"""Children that die with this process, however it dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from recs.embedded._identity import Identity, end

_EXEC = Path(__file__).with_name("_exec.py")


class _Guard:
    """The guard process of this process: there while there are children. See `_guard.py`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._watched: dict[int, tuple[Identity, int]] = {}

    def watch(self, identity: Identity, stop_signal: int) -> None:
        with self._lock:
            if self._owner != os.getpid():  # after a fork the children are our parent's
                self._owner, self._process, self._watched = os.getpid(), None, {}
            self._watched[identity.pid] = (identity, stop_signal)
            self._tell(f"+{identity.pid} {identity.created!r} {stop_signal}\n")

    def identity(self, pid: int) -> Identity | None:
        with self._lock:
            watched = self._watched.get(pid)
            return None if watched is None else watched[0]

    def forget(self, pid: int) -> None:
        with self._lock:
            if self._owner != os.getpid() or self._watched.pop(pid, None) is None:
                return
            if self._watched:
                self._tell(f"-{pid}\n")
            elif self._process is not None:
                self._dismiss(self._process)
                self._process = None

    def keep(self) -> None:
        """Start the guard again where somebody killed it."""
        with self._lock:
            if self._owner == os.getpid() and self._process is not None and self._process.poll() is not None:
                self._start()

    def _tell(self, line: str) -> None:
        if self._process is None or self._process.poll() is not None:
            self._start()
            return
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            self._start()

    def _start(self) -> None:
        """Start a guard that knows all children."""
        if self._process is not None:
            self._dismiss(self._process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "recs.embedded._guard", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        for identity, stop_signal in self._watched.values():
            self._process.stdin.write(f"+{identity.pid} {identity.created!r} {stop_signal}\n".encode())
        self._process.stdin.flush()

    @staticmethod
    def _dismiss(process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it was killed: closing flushes what it never read
            process.stdin.close()
        process.wait()


_guard = _Guard()


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None,
    log_path: Path | None,
    cwd: Path | None = None,
    stop_signal: int = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start a child that gets `stop_signal` when this process dies, however it dies, and SIGKILL soon after.

    The child leads a session of its own, so Ctrl-C does not reach it: `stop` it. Its output is appended to
    `log_path`, or goes where ours goes. `env` None hands on this process's environment.
    """
    # The kernel takes the end of the thread that forked for the end of the parent. Children of other threads are
    # left to the guard alone.
    tied = stop_signal if threading.current_thread() is threading.main_thread() else 0
    command = [sys.executable, "-I", "-S", str(_EXEC), "tied", str(int(tied)), str(os.getpid()), *argv]
    log = None if log_path is None else log_path.open("ab")
    try:
        process = subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=None if log is None else subprocess.STDOUT,
            start_new_session=True,
        )
    finally:
        if log is not None:
            log.close()
    try:
        _guard.watch(Identity.of(process.pid), stop_signal)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


def spawn_detached(argv: Sequence[str], *, env: Mapping[str, str] | None, log_path: Path, cwd: Path) -> str:
    """Start a process that outlives this one, and return what it wrote to standard output until it closed that.

    Its standard error is appended to `log_path`.
    """
    command = [sys.executable, "-I", "-S", str(_EXEC), "detached", "0", "0", *argv]
    with log_path.open("ab") as log:
        done = subprocess.run(
            command,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            check=False,
        )
    return done.stdout.decode(errors="replace")


def stop(process: subprocess.Popen[bytes], seconds: float = 10, *, stop_signal: int = signal.SIGTERM) -> None:
    """End a child of `spawn` and all that it started: politely, and by SIGKILL after `seconds`."""
    identity = _guard.identity(process.pid)
    if process.poll() is None:
        process.send_signal(stop_signal)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    if identity is not None:
        end([(identity, stop_signal)], 0)
    _guard.forget(process.pid)


def forget(process: subprocess.Popen[bytes]) -> None:
    """Tell the guard of a child that has ended by itself."""
    _guard.forget(process.pid)


def keep_guard() -> None:
    """See to it that the guard is alive; a process that runs for long calls this now and then."""
    _guard.keep()
