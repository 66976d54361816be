"""`pipeline delayed`: what waits for its time, and how to call an event off. In: arguments. Out: tables, JSON."""

from __future__ import annotations

import json as _json
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Delayed events: see what waits, call one off.")

Topology = Annotated[str | None, typer.Option(help="Topology file or folder.", envvar="PIPELINE_TOPOLOGY")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]


@app.command("list")
def list_(
    types: Annotated[list[str] | None, typer.Option("--type", help="Only this event type; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most this many; 0 for all.")] = 50,
    topology: Topology = None,
    as_json: AsJson = False,
) -> None:
    """Show what waits, the soonest first. What falls due during the look is late by its length: milliseconds."""
    from pipeline.cli.common import run_async, start_logging
    from pipeline.delayed import look
    from pipeline.settings import load_settings
    from pipeline.topology.load import load_topology

    start_logging()
    settings = load_settings(topology=topology)
    found = run_async(look(settings, load_topology(settings.topology).topology, types or ()))
    shown = found[: limit or None]
    if as_json:
        typer.echo(_json.dumps([each.as_json() for each in shown]))
        return
    if not found:
        typer.echo("nothing waits")
        return

    from pipeline.cli.tables import print_table

    rows = [
        (
            each.id,
            each.type,
            each.due.strftime("%Y-%m-%d %H:%M:%S") if each.due else "?",
            f"{each.to}{' (retry)' if each.is_retry else ''}{' UNDELIVERABLE' if each.undeliverable else ''}",
        )
        for each in shown
    ]
    print_table(("id", "type", "due (UTC)", "to"), rows)
    if len(shown) < len(found):
        typer.echo(f"{len(shown)} of {len(found)} shown; --limit 0 shows all")


@app.command()
def cancel(
    event_id: Annotated[str, typer.Argument(help="The event's id.", metavar="ID")],
    topology: Topology = None,
    as_json: AsJson = False,
) -> None:
    """Take a delayed event out before it is due; it will not arrive.

    Exit codes: 0 cancelled; 1 no event waits under this id (it is due already, or never waited).
    """
    from pipeline.cli.common import run_async, start_logging
    from pipeline.dead_letters.printable import one_line
    from pipeline.delayed import cancel as call_off
    from pipeline.settings import load_settings
    from pipeline.topology.load import load_topology

    start_logging()
    settings = load_settings(topology=topology)
    done = run_async(call_off(settings, load_topology(settings.topology).topology, event_id))
    name = one_line(event_id, 80)
    if as_json:
        found = {"id": event_id, "cancelled": [each.as_json() for each in done.cancelled]}
        typer.echo(_json.dumps(found | {"retries": [each.as_json() for each in done.retries]}))
    elif done.cancelled:
        for each in done.cancelled:
            due = each.due.strftime("%Y-%m-%d %H:%M:%S UTC") if each.due else "?"
            typer.echo(f"cancelled {one_line(each.type, 80)} {name}, which was due at {due}")
    else:
        typer.echo(f"no event {name} waits: it is due already, was cancelled, or never waited", err=True)
    for each in () if as_json else done.retries:
        typer.echo(f"{name} waits to be tried again by {one_line(each.to, 80)}; that can't be cancelled", err=True)
    raise typer.Exit(0 if done.cancelled else 1)


@app.command()
def resend(topology: Topology = None, as_json: AsJson = False) -> None:
    """Publish again what nobody took when it was due; what still nobody takes stays.

    Exit codes: 0 nothing is left; 1 some is.
    """
    from dataclasses import asdict

    from pipeline.cli.common import run_async, start_logging
    from pipeline.delayed import resend as publish_again
    from pipeline.settings import load_settings
    from pipeline.topology.load import load_topology

    start_logging()
    settings = load_settings(topology=topology)
    done = run_async(publish_again(settings, load_topology(settings.topology).topology))
    if as_json:
        typer.echo(_json.dumps(asdict(done)))
    else:
        typer.echo(f"{done.sent} events published, {done.left} left")
        if done.why:
            typer.echo(f"the first that stays: {done.why}", err=True)
    raise typer.Exit(1 if done.left else 0)
