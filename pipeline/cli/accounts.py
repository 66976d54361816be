"""`pipeline accounts`: published = processed + dead-lettered, counted from broker and databases."""

from __future__ import annotations

import json as _json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.cli.common import run_async, start_logging

HEADINGS = ("published", "processed", "retried", "dead-lettered", "duplicates\nignored", "missing", "seconds")
WIDTH = 110  # columns off a terminal


def accounts(
    topology: Annotated[str | None, typer.Option(help="Topology file or folder.", envvar="PIPELINE_TOPOLOGY")] = None,
    source: Annotated[str, typer.Option(help="Only events of this CloudEvents source and what they caused.")] = "",
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Check the books: every published event is processed or a dead letter, once, for every subscription.

    Needs a stream bound to the exchange with `#` in the topology. Exit codes: 0 they balance; 1 they do not.
    """
    from pipeline.accounts import accounts
    from pipeline.settings import load_settings
    from pipeline.topology.load import load_topology

    start_logging("warning")
    settings = load_settings(topology=topology)
    found = run_async(accounts(settings, load_topology(settings.topology).topology, source))
    if json:
        books = [{**asdict(account), "balances": account.balances} for account in found]
        typer.echo(_json.dumps({"accounts": books, "balance": all(account.balances for account in found)}))
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table(title="published = processed + dead-lettered")
        table.add_column("subscription")
        for heading in HEADINGS:
            table.add_column(heading, justify="right", no_wrap=True)
        for each in found:
            numbers = (each.published, each.processed, each.retried, each.dead_lettered, each.duplicates, each.missing)
            table.add_row(each.subscription, *(f"{number:,}" for number in numbers), f"{each.seconds:,.1f}")
        Console(width=None if sys.stdout.isatty() else WIDTH).print(table)
        for each in found:
            if each.missing:
                typer.echo(f"{each.subscription}: {each.missing} events are nowhere, e.g. {', '.join(each.examples)}")
            if each.twice:
                typer.echo(f"{each.subscription}: {each.twice} events are processed and dead letters as well")
    raise typer.Exit(0 if all(account.balances for account in found) else 1)
