"""Starting the parts that `recs` must not import: the flow, the sidecar, the dashboard, the benchmarks."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer

from recs.embedded import process
from recs.errors import RecsError

CHECKOUT = Path(__file__).resolve().parents[2]


def module_argv(module: str, *arguments: str) -> list[str]:
    """Return the command line of `python -m module`; raises RecsError where there is no such module."""
    top = module.partition(".")[0]
    if not (CHECKOUT / top).is_dir() and importlib.util.find_spec(top) is None:
        raise RecsError(f"{module} is not part of the installed package: work from a checkout, set up by `make setup`")
    return [sys.executable, "-m", module, *arguments]


def start(
    argv: Sequence[str], *, log_path: Path | None = None, variables: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a process that ends when this one ends, however it ends; the checkout's modules are found from anywhere.

    `variables` are added to its environment.
    """
    paths = [str(CHECKOUT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(variables or {})}
    return process.spawn(argv, env=env, log_path=log_path)


def run_to_end(argv: Sequence[str], *, variables: Mapping[str, str] | None = None) -> None:
    """Run a process and leave with its exit status; Ctrl-C reaches it and is waited for."""
    child = start(argv, variables=variables)
    try:
        status = child.wait()
    except KeyboardInterrupt:
        process.stop(child, stop_signal=signal.SIGINT)
        raise
    finally:
        process.forget(child)
    if status:
        raise typer.Exit(status if status > 0 else 1)
