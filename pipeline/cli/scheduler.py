"""`pipeline scheduler`: publish the events of the topology's schedules, and see when they come. Out: a log; a table."""

from __future__ import annotations

import json as _json
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Schedules: events at set times.")

Topology = Annotated[str | None, typer.Option(help="Topology file or folder.", envvar="PIPELINE_TOPOLOGY")]


@app.command()
def start(
    topology: Topology = None,
    log_level: Annotated[
        str, typer.Option(help="debug, info, warning or error.", envvar="PIPELINE_LOG_LEVEL")
    ] = "info",
    json: Annotated[
        bool | None, typer.Option("--json/--no-json", help="Logs as JSON lines; default: off a terminal.")
    ] = None,
) -> None:
    """Publish the events of all schedules until Ctrl-C or SIGTERM. Start as many as you like: one of them is active.

    Exit codes: 0 ended; 2 no schedules, or one that can't be; 4 broker, or the topology is not applied.
    """
    from pipeline.cli.common import run_async, start_logging
    from pipeline.scheduler import run_scheduler
    from pipeline.settings import load_settings
    from pipeline.topology.load import load_topology

    start_logging(log_level, json)
    settings = load_settings(topology=topology)
    run_async(run_scheduler(settings, load_topology(settings.topology).topology))


@app.command("list")
def list_(
    count: Annotated[int, typer.Option("--next", min=1, max=1000, help="How many ticks of each.")] = 3,
    topology: Topology = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Show the schedules and their next ticks. Needs no broker."""
    from zoneinfo import ZoneInfo

    from pipeline.cli.common import start_logging
    from pipeline.event import utc_now
    from pipeline.scheduler.ticks import next_ticks
    from pipeline.settings import load_settings
    from pipeline.topology.load import load_topology

    start_logging()
    schedules = load_topology(load_settings(topology=topology).topology).topology.schedules.values()
    coming = {each.name: next_ticks(each, utc_now(), count) for each in schedules}
    if as_json:
        found = [
            {
                "name": each.name,
                "rule": each.rule,
                "event": each.event,
                "missed": each.missed,
                "next": [tick.isoformat() for tick in coming[each.name]],
            }
            for each in schedules
        ]
        typer.echo(_json.dumps(found))
        return
    if not schedules:
        typer.echo("the topology has no schedules")
        return

    from pipeline.cli.tables import print_table

    rows = [
        (each.name, each.rule, each.event, each.missed, f"{tick.astimezone(ZoneInfo(each.timezone)):%a %F %T %Z}")
        for each in schedules
        for tick in coming[each.name]
    ]
    # A schedule's own words once, its further ticks below.
    names = [name for name, *_ in rows]
    shown = [row if names.index(row[0]) == at else ("", "", "", "", row[4]) for at, row in enumerate(rows)]
    print_table(("name", "rule", "event", "missed", "next"), shown)
