"""The typer application that every command module registers with."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="recs",
    help="Campaign recommendations from conversations, with the evidence for every score.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
