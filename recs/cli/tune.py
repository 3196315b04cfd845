"""`recs tune`: weights learned from the past."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from recs.batch.fits import Who, forget_fits, keep_fit, kept_fits
from recs.bootstrap import open_stores
from recs.cli.app import app
from recs.cli.evaluate import actions_of
from recs.cli.python_process import module_argv, run_to_end
from recs.errors import NotFoundError
from recs.evaluation.evaluate import SEED
from recs.evaluation.learning import learn_weights
from recs.explain import COMPONENT_NAMES
from recs.settings import load_settings


@app.command("tune")
def tune_command(
    positive: Annotated[str, typer.Option(help="Actions that count as taking a campaign.")] = "like,convert",
    texts: Annotated[
        bool, typer.Option("--texts", help="Learn the weights for those of whom only words are known.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Print what was learned last, and learn nothing.")] = False,
    default: Annotated[bool, typer.Option("--default", help="Return to the default weights, and publish.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Learn and print; keep and publish nothing.")] = False,
    seed: Annotated[int, typer.Option(help="Of whatever is drawn.")] = SEED,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Learn the weights of the score's components from what users took so far, and publish with them.

    A weight leaves its default only on evidence: little data changes nothing.
    """
    actions = actions_of(positive)
    who: Who = "texts" if texts else "users"
    settings = load_settings()
    with open_stores(settings, timeout_seconds=settings.load_timeout_seconds) as (resolved, stores):
        if show:
            _print(kept_fits(stores.state).told(), as_json)
            return
        with stores.state.run_lock(f"tune-{uuid.uuid4().hex[:12]}"):
            generation = stores.state.generation()
            if generation is None:
                raise NotFoundError("nothing has been published yet; `recs run FILE --campaigns FILE` does")
            if default:
                forget_fits(stores.state)
            else:
                print("trying weights on what users took last", file=sys.stderr, flush=True)
                _, told = learn_weights(stores, resolved, generation, actions=actions, seed=seed, who=who)
                _print({who: told}, as_json)
                if not dry_run:
                    keep_fit(stores.state, who, told)
        if settings.weights and not dry_run:
            print("RECS_WEIGHTS is set and overrules what was learned", file=sys.stderr)
    if not dry_run:
        run_to_end(module_argv("pipeline"))


def _print(fits: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(fits, indent=1))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # a pipe has no width of its own
    if not fits:
        console.print("Nothing was learned yet: the default weights are in use.")
    for who, fit in fits.items():
        data = fit["data"]
        console.print(
            f"Weights for {who}, learned {fit['at']} from {data['conversations']:,} conversations of "
            f"{data['users']:,} users, tried on {fit['cases']:,} cases of {fit['users']:,} users "
            f"({', '.join(f'{name}: {count}' for name, count in fit['folds'].items()) or 'no fold is large enough'})"
        )
        table = Table("component", "default", "learned", "NDCG@10 alone")
        for name, weight in fit["weights"].items():
            alone = fit["alone"].get(name)
            table.add_row(
                COMPONENT_NAMES.get(name, name),
                f"{fit['default'][name]:g}",
                f"{weight:g}",
                "" if alone is None else f"{alone:.4f}",
            )
        console.print(table)
        if fit["steps"]:
            console.print(
                f"NDCG@10 {fit['ndcg_default']:.4f} by default, {fit['ndcg']:.4f} as learned, on the cases that it was "
                f"learned from; gain per user {fit['gain_low']:+.4f} to {fit['gain_high']:+.4f} (95%)"
            )
        else:
            console.print(
                f"NDCG@10 {fit['ndcg_default']:.4f}: no change gains more than chance might, the default stays."
            )
