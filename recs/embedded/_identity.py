"""Which process is meant, beyond its number: numbers are used again, and only our own processes may be signalled."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Identity:
    """A process by number and time of birth. We start each as the leader of a session of its own."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> Identity:
        """Return the identity of a live process; raises psutil.NoSuchProcess."""
        return cls(pid, psutil.Process(pid).create_time())

    def process(self) -> psutil.Process | None:
        """Return the process while it lives; a zombie has ended."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < 0.05
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def alive(self) -> bool:
        return self.process() is not None


def family(leaders: Iterable[Identity]) -> list[psutil.Process]:
    """Return the live processes of the sessions that these processes lead, the leaders included."""
    wanted = {leader.pid: leader for leader in leaders}
    if not wanted:
        return []
    # Where the number has gone to another process, the session of that number is not ours.
    foreign = {pid for pid, leader in wanted.items() if psutil.pid_exists(pid) and not _same(leader)}
    found = []
    for process in psutil.process_iter():
        try:
            leader = wanted.get(os.getsid(process.pid))
            if leader is None or leader.pid in foreign:
                continue
            if process.create_time() >= leader.created - 0.05 and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError, PermissionError):
            continue  # gone meanwhile, or another user's and so not ours
    return found


def _same(leader: Identity) -> bool:
    try:
        return abs(psutil.Process(leader.pid).create_time() - leader.created) < 0.05
    except psutil.NoSuchProcess:
        return False


def end(leaders: Sequence[tuple[Identity, int]], polite_seconds: float) -> None:
    """End these processes and the rest of their sessions: each leader by its signal, later all by SIGKILL."""
    for leader, stop_signal in leaders:
        signal_identity(leader, stop_signal)
    identities = [leader for leader, _ in leaders]
    deadline = time.monotonic() + polite_seconds
    while any(identity.alive() for identity in identities) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in family(identities):
        _kill(process)


def signal_identity(identity: Identity, number: int) -> bool:
    """Signal a process if it is still the one that is meant; returns whether it was."""
    process = identity.process()
    if process is None:
        return False
    try:
        process.send_signal(signal.Signals(number))
    except psutil.NoSuchProcess:
        return False
    return True


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
