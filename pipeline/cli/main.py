"""The command `pipeline`. Commands live in the files beside this one; errors end here, without a traceback.

Exit codes: 0 well; 1 ran, but the result is not good; 2 usage, settings or files are wrong (`topology plan`: there are
changes to apply); 3 topology differs in what only destruction could change, or is not applied; 4 broker; 5 database;
6 events not confirmed; 130 interrupted.
"""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli import (
    accounts,
    broker,
    consumers,
    db,
    delayed,
    dlq,
    events,
    gateway,
    keys,
    outbox,
    publish,
    scheduler,
    topology,
    worker,
)
from pipeline.cli.common import guarded

app = typer.Typer(
    name="pipeline",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Event pipelines on RabbitMQ: declare a topology, publish, run workers, look into dead letters.",
)
app.add_typer(topology.app, name="topology")
app.add_typer(worker.app, name="worker")
app.add_typer(dlq.app, name="dlq")
app.add_typer(delayed.app, name="delayed")
app.add_typer(events.app, name="events")
app.add_typer(scheduler.app, name="scheduler")
app.add_typer(broker.app, name="broker")
app.add_typer(gateway.app, name="gateway")
app.add_typer(keys.app, name="keys")
app.add_typer(outbox.app, name="outbox")
app.add_typer(db.app, name="db")
app.command(name="publish")(publish.publish)
app.command(name="accounts")(accounts.accounts)
app.command(name="consumers")(consumers.consumers)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("event-pipeline"))
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Event pipelines on RabbitMQ."""


def run() -> None:
    """Run the command line; exit with its code."""
    guarded(app)
