"""The whole flow as a process of its own, against encoding the same texts alone."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from benchmarks.data import Input, encoded_texts
from benchmarks.errors import BenchmarkError
from benchmarks.home import Ended, flow_arguments, run_sampled, temporary_home
from benchmarks.samples import Samples, load_average, result, told
from recs import embedded
from recs.embed import Encoder
from recs.settings import Settings

_WARM_UP_TEXTS = 64


def bench_ingest(data: Input, *, rounds: int) -> dict[str, Any]:
    """Return the figures of loading a file into empty stores, and of loading it a second time."""
    load = load_average()
    samples = Samples()
    calibration: bytes | None = None
    for number in range(rounds):
        # New servers every time: the flow is only itself on empty stores.
        with temporary_home() as settings:
            remembered = settings.home / "calibration.json"
            if calibration is not None:
                # Calibrated anew, a noisy moment could give this round another arithmetic than the others.
                remembered.write_bytes(calibration)
            values, model = _round(data, settings, encode_first=number % 2 == 0)
            calibration = remembered.read_bytes() if remembered.exists() else None
            samples.add(values)
            described = data.described(settings)
        told(
            f"round {number + 1} of {rounds}: flow {values['seconds']:.1f} s, "
            f"encoding alone {values['encoding_seconds']:.1f} s, again {values['rerun_seconds']:.1f} s"
        )
    return result(
        "ingest",
        {},
        samples,
        data=described,
        conditions={
            "load_average_before": load,
            "encoder": model,
            "servers": "embedded, a Prefect server among them, up before the flow starts",
        },
    )


def _round(data: Input, settings: Settings, *, encode_first: bool) -> tuple[dict[str, float], str]:
    """Return one round's values: the flow and encoding alone, one after the other, then the flow again."""
    texts = encoded_texts(data.accepted(settings), data.catalogue(settings), settings)
    with embedded.session(settings, embedded.SERVICES) as resolved:
        conversations = data.written(resolved.home, resolved)
        # Also calibrates, which the flow remembers: both encode alike.
        encoder = Encoder.load(resolved)
        encoder.encode(texts[:_WARM_UP_TEXTS])
        if encode_first:
            encoding = _encode(encoder, texts)
            first, ended = _flow(resolved, conversations, data.campaigns, "first")
        else:
            first, ended = _flow(resolved, conversations, data.campaigns, "first")
            encoding = _encode(encoder, texts)
        again, _ = _flow(resolved, conversations, data.campaigns, "again")
    _check(first, again, len(texts))
    values = {
        "conversations_per_second": first["read"] / first["seconds"],
        "flow_over_encoding": first["seconds"] / encoding,
        "rerun_over_first": again["seconds"] / first["seconds"],
        "peak_rss_mb": ended.peak_rss_mb,
        "share_not_encoding": 1 - encoding / first["seconds"],
        "seconds": first["seconds"],
        "process_seconds": ended.seconds,
        "encoding_seconds": encoding,
        "rerun_seconds": again["seconds"],
        "read": first["read"],
        "embedded": first["embedded"],
    }
    stages = {name: value for name, value in first.items() if name.startswith("seconds.")}
    return {**values, **stages}, encoder.identity


def _encode(encoder: Encoder, texts: list[str]) -> float:
    """Return the seconds of encoding these texts and doing nothing else."""
    began = time.perf_counter()
    encoder.encode(texts)
    return time.perf_counter() - began


def _flow(settings: Settings, conversations: Path, campaigns: Path | None, name: str) -> tuple[dict[str, float], Ended]:
    """Run `python -m pipeline` and return its own figures and what was seen of the process."""
    out = settings.home / f"flow-{name}.json"
    ended = run_sampled(settings, "pipeline", *flow_arguments(conversations, campaigns, out))
    figures: dict[str, float] = json.loads(out.read_text())["figures"]
    return figures, ended


def _check(first: dict[str, float], again: dict[str, float], texts: int) -> None:
    """Raise BenchmarkError where the flow did other work than the one it is compared with."""
    if first["embedded"] != texts:
        raise BenchmarkError(
            f"the flow encoded {first['embedded']} texts, but encoding alone was measured on {texts}: "
            "the two cannot be compared"
        )
    if again["embedded"] or again["loaded"] or again["duplicate"] + again["rejected"] != again["read"]:
        raise BenchmarkError(f"the second run of the same file did not find it unchanged: {again}")
