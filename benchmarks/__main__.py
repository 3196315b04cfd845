"""`python -m benchmarks WHAT`: measure. `recs bench WHAT` starts this as a process."""

from __future__ import annotations

import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.data import SAMPLE, Input, given
from benchmarks.errors import BenchmarkError
from benchmarks.load import Client
from benchmarks.samples import shown_path, told
from benchmarks.table import (
    DOCUMENT,
    EVALUATION,
    FIXED,
    RESULTS,
    VECTORS,
    load_results,
    performance_page,
    terminal_table,
)
from recs.errors import InputError, RecsError
from recs.figures import write_figures
from recs.model import ACTIONS

app = typer.Typer(
    name="recs bench",
    help="Measure in a temporary home; --json OUT writes the figures, without it they are printed as a table.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

_Data = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Conversations; the sample by default.")]
_Campaigns = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="Their catalogue; the sample's for the sample.")
]
_Limit = Annotated[int | None, typer.Option(min=1, help="Take the first so many conversations.")]
_Rounds = Annotated[int, typer.Option(min=1, help="Rounds that the medians are taken over.")]
_Json = Annotated[Path | None, typer.Option("--json", dir_okay=False, help="Write the figures here.")]


@app.command()
def embed(
    data: _Data = None,
    limit: _Limit = None,
    texts: Annotated[int, typer.Option(min=1, help="Distinct texts to encode, at most.")] = 1_000,
    rounds: _Rounds = 5,
    json_out: _Json = None,
) -> None:
    """Texts per second of the encoder, against the library's own encode."""
    from benchmarks.embed import bench_embed

    _report(bench_embed(Input(data or SAMPLE, None, limit), texts=texts, rounds=rounds), json_out)


@app.command()
def ingest(
    data: _Data = None,
    campaigns: _Campaigns = None,
    limit: _Limit = None,
    rounds: _Rounds = 3,
    json_out: _Json = None,
) -> None:
    """Conversations per second and memory of the whole flow, against encoding alone and against a second run."""
    from benchmarks.ingest import bench_ingest

    _report(bench_ingest(given(data, campaigns, limit), rounds=rounds), json_out)


@app.command()
def retrieve(
    data: _Data = None,
    campaigns: _Campaigns = None,
    limit: _Limit = None,
    users: Annotated[int | None, typer.Option(min=10, help="Synthetic users instead of data.")] = None,
    requests: Annotated[int, typer.Option(min=1, help="Requests per round.")] = 200,
    rounds: _Rounds = 5,
    json_out: _Json = None,
) -> None:
    """The uncached request, against the store calls that must follow one another."""
    from benchmarks.retrieve import bench_retrieve

    if users is not None and (data, campaigns, limit) != (None, None, None):
        raise InputError("--users makes data up; it cannot be given with --data, --campaigns or --limit")
    source = given(data, campaigns, limit) if users is None else None
    _report(bench_retrieve(source, users=users or 0, requests=requests, rounds=rounds), json_out)


@app.command()
def serve(
    data: _Data = None,
    campaigns: _Campaigns = None,
    limit: _Limit = None,
    users: Annotated[int, typer.Option(min=1, help="Users whose cached answers are asked for in turn.")] = 64,
    seconds: Annotated[int, typer.Option(min=1, help="Load per server and round.")] = 5,
    rounds: _Rounds = 5,
    connections: Annotated[int, typer.Option(min=1)] = 16,
    client: Annotated[Client, typer.Option(help="Load generator; auto takes wrk where it is installed.")] = "auto",
    json_out: _Json = None,
) -> None:
    """Cached recommendations of the sidecar, against a constant answer and a bare Redis GET."""
    from benchmarks.serve import bench_serve

    measured = bench_serve(
        given(data, campaigns, limit),
        users=users,
        seconds=seconds,
        rounds=rounds,
        connections=connections,
        client=client,
    )
    _report(measured, json_out)


@app.command()
def stores(
    users: Annotated[list[int] | None, typer.Option(min=100, help="Numbers of users; may be repeated.")] = None,
    real: Annotated[bool, typer.Option("--real", help="Put the empty servers of RECS_TEST_*_URL beside.")] = False,
    rounds: _Rounds = 5,
    json_out: _Json = None,
) -> None:
    """Load and query times, memory and disk of each store at growing numbers of users."""
    from benchmarks.stores import bench_stores

    _report(bench_stores(users or [2_000, 20_000, 100_000], rounds=rounds, real=real), json_out)


@app.command()
def vectors(
    data: _Data = None,
    campaigns: _Campaigns = None,
    positive: Annotated[
        list[str] | None, typer.Option(help="What counts as taking a campaign, like and convert; may be repeated.")
    ] = None,
    split_field: Annotated[
        str | None, typer.Option(help="Conversations by themselves: train where the field says dev, test where test.")
    ] = None,
    inner: Annotated[int, typer.Option(min=0, help="How often the last conversation is held back once more.")] = 2,
    test: Annotated[list[str] | None, typer.Option(help="A way to look at the test part for; may be repeated.")] = None,
    json_out: _Json = None,
) -> None:
    """Ways from messages to similar users, against the present one, on folds within the training part."""
    from benchmarks.vectors import bench_vectors

    asked = positive or ["like", "convert"]
    if not set(asked) <= set(ACTIONS):
        raise InputError(f"--positive {', '.join(asked)}: {', '.join(ACTIONS)} are allowed")
    measured = bench_vectors(
        given(data, campaigns),
        actions=[action for action in ACTIONS if action in asked],
        inner=inner,
        split_field=split_field,
        tested=test or [],
    )
    _report(measured, json_out)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def scale() -> None:
    """Not there yet."""
    raise InputError(f"there is no benchmark of scale yet; there are {', '.join(FIXED)}")


@app.command()
def table(
    results: Annotated[Path, typer.Option(exists=True, file_okay=False)] = RESULTS,
    out: Annotated[Path, typer.Option(dir_okay=False)] = DOCUMENT,
    evaluation_out: Annotated[Path, typer.Option(exists=True, dir_okay=False)] = EVALUATION,
    vectors_out: Annotated[Path, typer.Option(exists=True, dir_okay=False)] = VECTORS,
) -> None:
    """Write docs/performance.md, and the tables of docs/evaluation.md and docs/vectors.md, from the result files."""
    from benchmarks.evaluation import load_evaluations, with_evaluations
    from benchmarks.vectors_page import load_studies, with_studies

    out.write_text(performance_page(load_results(results)))
    told(f"wrote {shown_path(out)}")
    evaluations = load_evaluations(results)
    if evaluations:
        evaluation_out.write_text(with_evaluations(evaluation_out.read_text(), evaluations))
        told(f"wrote {shown_path(evaluation_out)}")
    studies = load_studies(results)
    if studies:
        vectors_out.write_text(with_studies(vectors_out.read_text(), studies))
        told(f"wrote {shown_path(vectors_out)}")


def _report(content: dict[str, Any], json_out: Path | None) -> None:
    content["conditions"]["arguments"] = _arguments(sys.argv[2:])
    if json_out is None:
        print(terminal_table(content))
        return
    try:
        write_figures(json_out, content)
    except OSError as exc:
        # A measurement takes minutes: what cannot be written is at least shown.
        print(terminal_table(content))
        raise BenchmarkError(f"the figures cannot be written to {json_out}: {exc.strerror}") from exc
    told(f"wrote {shown_path(json_out)}")


def _arguments(argv: list[str]) -> list[str]:
    """Return the arguments as a result holds them: without --json, and without this machine's paths."""
    kept: list[str] = []
    rest = iter(argv)
    for argument in rest:
        if argument == "--json":
            next(rest, None)
        elif not argument.startswith("--json="):
            name, equals, value = argument.rpartition("=")
            kept.append(f"{name}{equals}{shown_path(Path(value)) if Path(value).is_file() else value}")
    return kept


if __name__ == "__main__":
    if not sys.warnoptions:
        # Notes of libraries to developers; `python -W default -m benchmarks` shows them.
        warnings.simplefilter("ignore")
    # Ended from outside, it still stops its servers and removes its home.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app()
    except RecsError as exc:
        print(f"recs: {exc}", file=sys.stderr)
        sys.exit(1)
