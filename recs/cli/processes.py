"""`recs demo`, `serve`, `dashboard`, `lab`, `bench`: the parts that run as processes of their own."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from recs import embedded
from recs.bootstrap import connect
from recs.cli.app import app
from recs.cli.python_process import CHECKOUT, module_argv, run_to_end, start
from recs.embed import Encoder
from recs.embedded import process
from recs.errors import InputError, RecsError
from recs.explain import describe_recommendations
from recs.retrieval import Recommender
from recs.settings import Settings, load_settings

_START_SECONDS = 120.0

#: A user of the sample with several conversations, and what somebody new might say.
_EXAMPLE_USERS = 2


@app.command()
def serve() -> None:
    """Start the REST sidecar on RECS_API_PORT."""
    run_to_end(module_argv("app.api"))


@app.command()
def dashboard() -> None:
    """Start the workbench on RECS_DASHBOARD_PORT."""
    settings = load_settings()
    with embedded.session(settings):
        run_to_end(_dashboard_argv(settings))


@app.command()
def lab() -> None:
    """Open JupyterLab in the notebooks folder, with the stores up."""
    folder = CHECKOUT / "notebooks"
    with embedded.session(load_settings()):
        run_to_end(module_argv("jupyterlab", "--notebook-dir", str(folder if folder.is_dir() else CHECKOUT)))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(
    context: typer.Context, what: Annotated[str, typer.Argument(help="embed, ingest, retrieve, serve or stores.")]
) -> None:
    """Measure; every benchmark works in a temporary home and takes --json OUT."""
    run_to_end(module_argv("benchmarks", what, *context.args))


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Stop after the recommendations are printed.")] = False,
) -> None:
    """Take the sample data through the flow, print recommendations, and start the sidecar and the workbench."""
    sample = CHECKOUT / "data"
    if not (sample / "sample_conversations.json").is_file():
        raise InputError("the sample data is not part of the installed package: run the demo from a checkout")
    settings = load_settings()
    _refuse_taken_ports(settings, once)
    with embedded.session(settings, embedded.SERVICES) as resolved:
        _load_sample(sample)
        _show_examples(resolved)
        if once:
            return
        with ExitStack() as running:
            logs = resolved.home.resolve() / "logs"
            servers = {
                "sidecar": (module_argv("app.api"), f"http://127.0.0.1:{settings.api_port}", "/healthz"),
                "workbench": (
                    _dashboard_argv(settings),
                    f"http://127.0.0.1:{settings.dashboard_port}",
                    "/_stcore/health",
                ),
            }
            for name, (argv, _, _) in servers.items():
                running.enter_context(_server(argv, logs / f"{name}.log"))
            for name, (_, url, path) in servers.items():
                _await_answer(name, url + path, logs / f"{name}.log")
            print(
                f"\nREST sidecar  {servers['sidecar'][1]}/docs"
                f"\nworkbench     {servers['workbench'][1]}"
                f"\nPrefect UI    {str(resolved.prefect_url).removesuffix('/api')}"
                "\nCtrl-C ends all of it.",
                flush=True,
            )
            try:
                while True:
                    time.sleep(3600)
            except KeyboardInterrupt:
                print("\nstopping", flush=True)


def _load_sample(sample: Path) -> None:
    child = start(
        module_argv(
            "pipeline",
            str(sample / "sample_conversations.json"),
            "--campaigns",
            str(sample / "sample_campaigns.json"),
            "--preferences",
            str(sample / "sample_preferences.jsonl"),
        )
    )
    try:
        status = child.wait()
    finally:
        process.stop(child)
    if status:
        raise RecsError(f"the flow ended with exit status {status}; its messages are above")


def _show_examples(resolved: Settings) -> None:
    """Print what the product is for: campaigns for two users of the sample and for somebody new."""
    stores = connect(resolved, timeout_seconds=resolved.load_timeout_seconds)
    recommender = Recommender(stores, resolved, encoder=lambda: Encoder.load(resolved))
    try:
        busiest = sorted(stores.graph.engaged_with(sorted(stores.graph.campaigns()), 2_000), key=lambda e: e.user_id)
        users = list(dict.fromkeys(edge.user_id for edge in busiest if edge.action == "convert"))[:_EXAMPLE_USERS]
        for user_id in users:
            print("\n" + describe_recommendations(recommender.recommend(user_id, k=3)))
        said = "We are expecting a baby in May and the nursery is still empty."
        print(f'\nSomebody new says: "{said}"')
        print(describe_recommendations(recommender.recommend_text([said], k=3)), flush=True)
    finally:
        recommender.close()
        stores.close()


def _refuse_taken_ports(settings: Settings, once: bool) -> None:
    for name in () if once else ("api_port", "dashboard_port"):
        port = getattr(settings, name)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as exc:
                raise InputError(
                    f"port {port} is taken by another program; set RECS_{name.upper()} to a free one"
                ) from exc


def _dashboard_argv(settings: Settings) -> list[str]:
    options = {
        "server.address": "127.0.0.1",
        "server.port": str(settings.dashboard_port),
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
    }
    page = str(CHECKOUT / "app" / "dashboard" / "main.py")
    return module_argv("streamlit", "run", page, *(f"--{name}={value}" for name, value in options.items()))


@contextmanager
def _server(argv: list[str], log_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    child = start(argv, log_path=log_path)
    try:
        yield child
    finally:
        process.stop(child)


def _await_answer(name: str, url: str, log_path: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310  (a loopback address of ours)
                return
        except OSError:
            time.sleep(0.2)
    raise RecsError(f"the {name} did not answer at {url} within {_START_SECONDS:.0f} s; see {log_path}")
