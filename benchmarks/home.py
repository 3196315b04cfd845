"""A home of a benchmark's own: no server and no file of the user's is touched, and nothing is left behind."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.errors import BenchmarkError
from benchmarks.samples import ROOT
from recs import embedded
from recs.cli.python_process import module_argv
from recs.cli.temporary_home import environment, log_tail
from recs.cli.temporary_home import temporary_home as home_of_its_own
from recs.embedded import process
from recs.settings import Settings

#: The kernel keeps the peak of the process itself; children alone could peak between two looks. Looking costs CPU.
_SAMPLE_SECONDS = 0.2
_MIB = 2**20


@contextmanager
def temporary_home() -> Iterator[Settings]:
    """Yield the environment's settings with a new home and embedded servers; both are gone afterwards."""
    with home_of_its_own("recs-bench-") as settings:
        yield settings


@contextmanager
def running(
    settings: Settings, module: str, *arguments: str, more: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a running `python -m module` in the home; its output goes to a log there. It is ended on exit."""
    child = process.spawn(
        module_argv(module, *arguments),
        env=environment(settings, more),
        log_path=log_path(settings, module, *arguments[:1]),
        cwd=ROOT,
    )
    try:
        yield child
    finally:
        process.stop(child)


def log_path(settings: Settings, module: str, *arguments: str) -> Path:
    """Return where the output of a process of the benchmark goes."""
    name = "-".join([module, *(Path(a).stem for a in arguments)])
    return settings.home / f"bench-{name}.log"


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that has ended well."""

    seconds: float
    peak_rss_mb: float
    """Most resident memory of the process and its children at one time, MiB."""


def run_sampled(settings: Settings, module: str, *arguments: str) -> Ended:
    """Run `python -m module` to its end beside a watch on its memory. Raises BenchmarkError where it fails."""
    began = time.perf_counter()
    with running(settings, module, *arguments) as child:
        peak = 0.0
        while child.poll() is None:
            peak = max(peak, _resident(child.pid))
            time.sleep(_SAMPLE_SECONDS)
        seconds = time.perf_counter() - began
    if child.returncode:
        tail = log_tail(log_path(settings, module, *arguments[:1]))
        raise BenchmarkError(f"`python -m {module}` ended with exit status {child.returncode}:\n{tail}")
    return Ended(seconds, peak / _MIB)


def _resident(pid: int) -> float:
    """Return the resident bytes of a process with its children; for the process alone the kernel's own high-water
    mark counts where there is one, because it misses no peak between two looks."""
    try:
        main = psutil.Process(pid)
        children = sum(_rss(child) for child in main.children(recursive=True))
        return max(_rss(main) + children, _high_water(pid))
    except psutil.NoSuchProcess:
        return 0.0  # it has ended since; what was seen before counts


def _rss(process_: psutil.Process) -> int:
    try:
        return int(process_.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0  # a child that ended between being listed and being looked at


def _high_water(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0  # no such file on this system, or the process has ended
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) * 1024
    return 0.0


def load_through_flow(settings: Settings, conversations: Path, campaigns: Path | None) -> None:
    """Take a file through the flow into the home's stores.

    Afterwards all servers are down: a Prefect server that nobody needs any more would take CPU time from what is
    measured next.
    """
    with embedded.session(settings, embedded.SERVICES):
        run_sampled(settings, "pipeline", *flow_arguments(conversations, campaigns))
    embedded.down(settings)


def flow_arguments(conversations: Path, campaigns: Path | None, json_out: Path | None = None) -> Sequence[str]:
    """Return the arguments of `python -m pipeline`."""
    arguments = [str(conversations.resolve())]
    if campaigns is not None:
        arguments += ["--campaigns", str(campaigns.resolve())]
    if json_out is not None:
        arguments += ["--json", str(json_out)]
    return arguments
