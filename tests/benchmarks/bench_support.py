"""Benchmarks as processes, on as little data as they take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

#: Beside other work on a small machine, servers and imports alone take minutes.
LIMIT_SECONDS = 900


def bench(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `python -m benchmarks` with its temporary files in a folder of the test's."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        timeout=LIMIT_SECONDS,
    )


def figures_of(*arguments: str, folder: Path) -> dict[str, Any]:
    """Return what a benchmark writes, after checking what holds for all: figures are medians, nothing is left."""
    temporary = folder / "tmp"
    temporary.mkdir()
    out = folder / "out.json"
    done = bench(*arguments, "--json", str(out), folder=temporary)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert not list(temporary.glob("recs-bench-*"))
    text = out.read_text()
    content: dict[str, Any] = json.loads(text)
    assert str(ROOT) not in text
    assert str(folder) not in text
    assert content["command"] == f"recs bench {arguments[0]}"
    assert content["data"]
    assert all(isinstance(value, int | float) for value in content["figures"].values())
    assert set(content["samples"]) <= set(content["figures"])
    assert "--json" not in content["conditions"]["arguments"]
    return content


def conversations(path: Path, users: int = 8) -> Path:
    """Write two short conversations per user with engagements of the sample's campaigns."""
    lines = [
        json.dumps(
            {
                "conversation_id": f"c{user}-{turn}",
                "user_id": f"user {user}/x",
                "started_at": f"2026-01-0{turn + 1}T10:00:00Z",
                "messages": [{"role": "user", "text": f"I would like to know about {topic}"}],
                "intent": "delivery_status",
                "engagements": [{"campaign_id": f"k0{1 + (user + turn) % 5}", "action": "like"}],
            }
        )
        for user in range(users)
        for turn, topic in enumerate(("delivery", f"desk number {user}"))
    ]
    path.write_text("\n".join(lines) + "\n")
    return path
