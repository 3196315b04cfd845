"""`recs up`, `recs down`, `recs status`: the embedded servers."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from recs import embedded
from recs.cli.app import app
from recs.errors import EmbeddedServerError
from recs.settings import load_settings

_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def up(
    services: Annotated[list[str] | None, typer.Argument(help="Which; all when none is named.")] = None,
    as_json: _Json = False,
) -> None:
    """Start the embedded servers; they stay until `recs down`."""
    _show(embedded.up(load_settings(), services or embedded.SERVICES), as_json)


@app.command()
def down(as_json: _Json = False) -> None:
    """Stop the embedded servers of this home, whoever started them."""
    _show(embedded.down(load_settings()), as_json)


@app.command()
def status(as_json: _Json = False) -> None:
    """Show each server's address, process, memory and data. Starts nothing."""
    _show(embedded.status(load_settings()), as_json)


def _show(servers: list[embedded.ServerStatus], as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(server) for server in servers], indent=1))
        return
    table = Table("server", "state", "address", "pid", "memory", "data", box=None, pad_edge=False)
    for server in servers:
        table.add_row(
            server.service,
            server.state,
            server.url or "",
            "" if server.pid is None else str(server.pid),
            _megabytes(server.memory_bytes),
            _megabytes(server.data_bytes),
        )
    console = Console()
    # A pipe has no width of its own, and a cut address is of no use.
    console.print(table, width=console.width if console.is_terminal else 200, soft_wrap=True)
    failed = [f"the embedded server {server.service} {server.error}" for server in servers if server.error]
    if failed:
        raise EmbeddedServerError("\n".join(failed))


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 2**20:.1f} MB"
