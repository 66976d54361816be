"""`pipeline worker`: start worker processes."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Run handlers on what subscriptions receive.")

Topology = Annotated[str | None, typer.Option(help="Topology file or folder.", envvar="PIPELINE_TOPOLOGY")]
LogLevel = Annotated[str, typer.Option(help="debug, info, warning or error.", envvar="PIPELINE_LOG_LEVEL")]
JsonLogs = Annotated[bool | None, typer.Option("--json/--no-json", help="Logs as JSON lines; default: off a terminal.")]
UntilEmpty = Annotated[bool, typer.Option(help="End once the queues are empty and everything is settled.")]


@app.command()
def start(
    subscriptions: Annotated[
        list[str] | None, typer.Argument(help="Subscriptions to serve; all that have a handler by default.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, max=256, help="Processes; each serves all of them.")] = 1,
    until_empty: UntilEmpty = False,
    topology: Topology = None,
    log_level: LogLevel = "info",
    json: JsonLogs = None,
) -> None:
    """Start supervised worker processes; Ctrl-C or SIGTERM drains them.

    Exit codes: 0 drained or, with --until-empty, done; 2 configuration; 3 topology not applied; 4 broker; 5 database.
    """
    from pipeline.cli.common import start_logging
    from pipeline.settings import load_settings
    from pipeline.worker.supervisor import Supervisor, child_command

    start_logging(log_level, json)
    settings = load_settings(topology=topology)
    arguments = [*(subscriptions or ()), "--topology", str(settings.topology), "--log-level", log_level]
    if until_empty:
        arguments.append("--until-empty")
    if json is not None:
        arguments.append("--json" if json else "--no-json")
    supervisor = asyncio.run(_supervise(Supervisor, child_command(arguments), processes, settings.drain_deadline))
    raise typer.Exit(supervisor)


async def _supervise(kind: type, command: list[str], processes: int, drain_deadline: float) -> int:
    code: int = await kind(command, processes, drain_deadline).run()
    return code


@app.command(hidden=True)
def run_process(
    subscriptions: Annotated[list[str] | None, typer.Argument()] = None,
    parent: int = 0,
    status: int = -1,
    until_empty: UntilEmpty = False,
    topology: Topology = None,
    log_level: LogLevel = "info",
    json: JsonLogs = None,
) -> None:
    """One worker process (what `start` supervises)."""
    from pipeline.cli.common import run_async, start_logging
    from pipeline.settings import load_settings
    from pipeline.topology.load import load_topology
    from pipeline.worker.process import Assignment, run_process

    start_logging(log_level, json)
    settings = load_settings(topology=topology)
    loaded = load_topology(settings.topology)
    run_async(
        run_process(settings, loaded.topology, Assignment(tuple(subscriptions or ()), until_empty, parent, status))
    )
