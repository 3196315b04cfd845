"""A run in words and numbers: for the terminal, for Prefect, for `--json`."""

from __future__ import annotations

from typing import Any

from pipeline.run import STAGES, Run
from recs.figures import figures_object

FIGURES = ("read", "loaded", "updated", "duplicate", "rejected", "rejected_engagements", "repaired", "embedded")


def artifact_markdown(run: Run, outcome: str, generation: int | None) -> str:
    """Return the report that Prefect's UI shows."""
    lines = [
        f"# Run `{run.run_id}`: {outcome}" + (f", generation {generation}" if generation else ""),
        "",
        "| input | bytes | records | sha256 |",
        "|---|---|---|---|",
        *(f"| {i['path']} | {i['bytes']:,} | {i['rows']:,} | `{i['sha256'][:16]}` |" for i in run.inputs),
        "",
        "| count | |",
        "|---|---|",
        *(f"| {name.replace('_', ' ')} | {count:,} |" for name, count in sorted(run.counts.items())),
        "",
        "| stage | seconds of work |",
        "|---|---|",
        *(f"| {name} | {run.timings[name]:.2f} |" for name in STAGES if name in run.timings),
    ]
    if len(run.places) > 1:
        lines += ["", "Done by " + "; ".join(sorted(run.places)) + "."]
    if run.reject_codes:
        lines += ["", f"`recs quarantine list --run {run.run_id}` shows every rejected record with its reason."]
    return "\n".join(lines)


def run_figures(run: Run, seconds: float) -> dict[str, Any]:
    """Return the object that `recs run --json OUT` writes."""
    figures = {name: run.counts.get(name, 0) for name in FIGURES} | {"processes": len(run.places)}
    stages = {f"seconds.{name.replace(' ', '_')}": round(s, 3) for name, s in run.timings.items()}
    data = [{"path": i["path"], "sha256": i["sha256"], "rows": i["rows"]} for i in run.inputs]
    return figures_object("recs run", {**figures, "seconds": round(seconds, 3), **stages}, data=data)


def summary(run: Run, outcome: str, generation: int | None, seconds: float) -> str:
    """Return what a person reads at the end of a run."""
    c = run.counts
    told = {
        "published": f"published generation {generation}",
        "unchanged": "nothing changed, nothing published",
    }[outcome]
    text = (
        f"run {run.run_id}: {told} in {seconds:.1f} s\n"
        f"read {c['read']:,} = loaded {c['loaded']:,} (of which updated {c['updated']:,}) + duplicate "
        f"{c['duplicate']:,} + rejected {c['rejected']:,}; embedded {c['embedded']:,} texts"
    )
    if c["rejected"] or c["rejected_engagements"]:
        text += (
            f"\nin the quarantine: {c['rejected']:,} records, {c['rejected_engagements']:,} engagements; "
            "`recs quarantine list` shows why"
        )
    return text
