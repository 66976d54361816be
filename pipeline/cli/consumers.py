"""`pipeline consumers`: worker processes and what they serve."""

from __future__ import annotations

import json as _json
import sys
from typing import Annotated, Any

import typer

from pipeline.cli.common import run_async, start_logging

WIDTH = 120  # columns off a terminal
STYLES = {"live": "green", "stalled": "yellow", "gone": "red"}


def consumers(
    topology: Annotated[str | None, typer.Option(help="Topology file or folder.", envvar="PIPELINE_TOPOLOGY")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show worker processes and what they serve.

    live: it tells that it works, and consumes its queues. stalled: it tells so, but has no consumer on a queue. gone:
    it did not end in order, and has not been heard of for 20 s. Exit codes: 0 all are live; 1 one is stalled or gone,
    or a database or the broker could not be asked.
    """
    from pipeline.observe.consumers import crew, unserved
    from pipeline.settings import load_settings
    from pipeline.topology.load import load_topology

    start_logging("warning")
    settings = load_settings(topology=topology)
    declared = load_topology(settings.topology).topology
    found = run_async(crew(settings, declared))
    nobody = unserved(declared, found)
    if json:
        listed = [_as_json(each) for each in found.consumers]
        typer.echo(_json.dumps({"consumers": listed, "unserved": nobody, "unknown": dict(found.unknown)}))
    else:
        _print(found.consumers)
        for name in nobody:
            typer.echo(f"no worker process serves {name}")
        for name, why in found.unknown.items():
            typer.echo(f"{name} could not be asked: {why}", err=True)
    bad = found.unknown or any(each.state != "live" for each in found.consumers)
    raise typer.Exit(1 if bad else 0)


def _print(views: Any) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from pipeline.event import utc_now

    if not views:
        return
    table = Table()
    for heading in ("state", "serves", "host", "process", "version", "started", "last seen"):
        table.add_column(heading, no_wrap=heading != "serves")
    for each in views:
        serves = "\n".join(
            escape(f"{one.subscription}: {', '.join(one.event_types)}")
            + (" [yellow](no consumer)[/]" if one.consuming is False and each.state != "gone" else "")
            for one in each.serves
        )
        state = f"[{STYLES[each.state]}]{each.state}[/]"
        silence = f"{max(0.0, (utc_now() - each.last_seen).total_seconds()):,.0f} s ago"
        started = f"{each.started:%Y-%m-%d %H:%M:%S}Z"
        table.add_row(state, serves, escape(each.host), str(each.process), each.version, started, silence)
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)


def _as_json(view: Any) -> dict[str, Any]:
    return {
        "id": view.id,
        "name": view.name,
        "endpoint": {"host": view.host, "process": view.process},
        "version": view.version,
        "started": view.started.isoformat(),
        "last_seen": view.last_seen.isoformat(),
        "state": view.state,
        "serves": [
            {"subscription": each.subscription, "event_types": list(each.event_types), "consuming": each.consuming}
            for each in view.serves
        ],
    }
