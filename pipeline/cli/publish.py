"""`pipeline publish`: one event from the command line, or many from a file."""

from __future__ import annotations

import json as _json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated

import typer

from pipeline.cli.common import Progress, run_async, start_logging

BAD_LINES_SHOWN = 20


def publish(
    event_type: Annotated[str, typer.Argument(help="Event type, e.g. order.created.", metavar="TYPE")] = "",
    data: Annotated[str | None, typer.Argument(help="The event's data as JSON.")] = None,
    file: Annotated[
        str | None, typer.Option(help="JSON Lines: data, or whole CloudEvents; - for standard input.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where publishing this file broke off.")] = False,
    event_id: Annotated[str | None, typer.Option("--id", help="Event id; the same id is the same event.")] = None,
    subject: Annotated[str | None, typer.Option(help="CloudEvents subject.")] = None,
    source: Annotated[str, typer.Option(help="CloudEvents source.")] = "pipeline",
    after: Annotated[str | None, typer.Option(help="Arrives so much later: 90s, 2h, 30d.", metavar="DELAY")] = None,
    at: Annotated[
        str | None, typer.Option(help="Arrives at this time: 2027-01-31T06:00+01:00; local without a zone.")
    ] = None,
    topology: Annotated[str | None, typer.Option(help="Topology file or folder.", envvar="PIPELINE_TOPOLOGY")] = None,
    json: Annotated[bool, typer.Option("--json", help="The result as one JSON object.")] = False,
) -> None:
    """Publish events and wait until the broker has confirmed them.

    Exit codes: 0 all confirmed; 1 some lines are no events (the others are confirmed); 2 wrong event, file or usage; 4
    no broker; 6 not confirmed: --resume continues a file.
    """
    from pipeline.cli.moments import due_option

    start_logging("warning")
    due = due_option(after, at)
    if (data is None) == (file is None):
        raise typer.BadParameter("give either the data or --file")
    if resume and (file is None or file == "-"):
        raise typer.BadParameter("--resume needs a --file that can be read again")
    if data is not None:
        if not event_type:
            raise typer.BadParameter("give the event type before its data")
        run_async(_publish_one(event_type, data, event_id, subject, source, due, topology, json))
        return
    assert file is not None
    if event_id or subject:
        raise typer.BadParameter("--id and --subject are for one event; in a file each line says its own")
    raise typer.Exit(run_async(_publish_file(event_type, file, resume, source, due, topology, json)))


async def _publish_one(
    event_type: str,
    data: str,
    event_id: str | None,
    subject: str | None,
    source: str,
    due: datetime | None,
    topology: str | None,
    json: bool,
) -> None:
    from pipeline.amqp.publisher import Publisher
    from pipeline.event import Event, new_id, utc_now
    from pipeline.settings import load_settings

    settings = load_settings(topology=topology)
    publisher = Publisher(settings.topology, settings, source)
    event = Event(event_type, os.fsencode(data), event_id or new_id(), source, utc_now(), subject)
    message = publisher.codec.encode_raw(event, due)
    async with publisher:
        errors = await publisher.send([message])
    if errors:
        raise errors[0]
    answer = {"id": event.id, "confirmed": 1} | ({"due": due.isoformat()} if due else {})
    typer.echo(_json.dumps(answer) if json else event.id)


async def _publish_file(
    event_type: str, file: str, resume: bool, source: str, due: datetime | None, topology: str | None, json: bool
) -> int:
    from pipeline.amqp.publisher import Publisher
    from pipeline.feed import Feed, FeedReport, ResumePoint
    from pipeline.settings import load_settings

    settings = load_settings(topology=topology)
    point = None
    if file != "-":
        point = ResumePoint(settings.state_dir / "publish", Path(file))
        if resume:
            point.load()
    report = FeedReport()
    with _open(file) as lines:
        async with Publisher(settings.topology, settings, source) as publisher:
            if event_type:
                publisher.codec.payload(event_type)  # a type that is not declared is one error, not one a line
            with Progress("publishing", _count(file, point.lines if point else 0), quiet=json) as progress:
                await Feed(publisher, lines, file, event_type, point, due).run(report, progress.advance)
    if json:
        summary = {
            "confirmed": report.confirmed,
            "unconfirmed": report.unconfirmed,
            "resumed_at": report.resumed_at,
            "bad": [{"file": bad.file, "line": bad.line, "message": bad.message} for bad in report.bad],
            "error": str(report.error) if report.error else None,
        }
        typer.echo(_json.dumps(summary))
    else:
        for bad in report.bad[:BAD_LINES_SHOWN]:
            typer.echo(str(bad), err=True)
        if len(report.bad) > BAD_LINES_SHOWN:
            typer.echo(f"and {len(report.bad) - BAD_LINES_SHOWN} more lines that are no events", err=True)
        typer.echo(
            f"{report.confirmed:,} events confirmed" + (f", {len(report.bad)} lines refused" if report.bad else "")
        )
    if report.error is not None:
        typer.echo(
            f"error: {report.error}\n{report.confirmed:,} events are confirmed, the rest are not known to be"
            + ("" if file == "-" else f"; continue with `pipeline publish {event_type} --file {file} --resume`"),
            err=True,
        )
        return report.error.exit_code
    return 1 if report.bad else 0


def _open(file: str) -> IO[bytes]:
    from pipeline.errors import ConfigurationError

    if file == "-":
        return sys.stdin.buffer
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise ConfigurationError(f"{file} can't be read: {error.strerror}") from error


def _count(file: str, skip: int) -> int | None:
    """How many lines there are to publish; None for standard input."""
    if file == "-":
        return None
    with Path(file).open("rb") as lines:
        return max(0, sum(1 for _ in lines) - skip)
