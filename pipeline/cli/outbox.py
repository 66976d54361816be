"""`pipeline outbox`: what the gateway accepted and is not published yet. In: arguments. Out: numbers, or a relay."""

from __future__ import annotations

import json as _json
from dataclasses import asdict
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Accepted events on their way to the broker.")

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object.")]
LogLevel = Annotated[str, typer.Option(help="debug, info, warning or error.", envvar="PIPELINE_LOG_LEVEL")]
JsonLogs = Annotated[bool | None, typer.Option("--json/--no-json", help="Logs as JSON lines; default: off a terminal.")]
OlderThan = Annotated[str, typer.Option("--older-than", help="Only those published longer ago: 12h, 30d.")]


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show how many accepted events wait to be published, since when, and which relay is at work."""
    from pipeline.cli.common import run_async
    from pipeline.outbox.looking import look
    from pipeline.settings import load_settings

    found = run_async(look(load_settings()))
    if as_json:
        oldest = None if found.oldest is None else found.oldest.isoformat()
        typer.echo(_json.dumps({**asdict(found), "oldest": oldest}))
        return
    age = "" if found.oldest_age is None else f", the oldest for {found.oldest_age:,.1f} s"
    typer.echo(f"waiting    {found.waiting:,}{age}")
    typer.echo(f"accepted   {found.accepted:,}")
    typer.echo(f"published  {found.published:,}")
    typer.echo(f"relay      {found.relay or 'none is at work: start one with `pipeline outbox relay`'}")


@app.command()
def relay(log_level: LogLevel = "info", json: JsonLogs = None) -> None:
    """Publish what waits, in order, for as long as it runs; of several relays one is active. SIGTERM ends it in order.

    Exit codes: 0 ended in order; 2 configuration; 5 the database can't be used at the start.
    """
    from pipeline.cli.common import run_async, start_logging
    from pipeline.outbox.process import run_relay
    from pipeline.settings import load_settings

    start_logging(log_level, json)
    run_async(run_relay(load_settings()))


@app.command()
def forget(older_than: OlderThan, as_json: AsJson = False) -> None:
    """Delete events that were published long ago. One that waits is never deleted.

    A request that repeats an event that is forgotten makes a new one.
    """
    from pipeline.cli.common import run_async
    from pipeline.outbox.looking import forget
    from pipeline.settings import load_settings

    count = run_async(forget(load_settings(), older_than))
    typer.echo(_json.dumps({"forgotten": count}) if as_json else f"{count:,} published events forgotten")
