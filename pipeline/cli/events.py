"""`pipeline events`: the event log, read, counted, written down, replayed. In: arguments. Out: tables, JSON, files."""

from __future__ import annotations

import json as _json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="The event log: look at it, write it down, replay it.")

Topology = Annotated[str | None, typer.Option(help="Topology file or folder.", envvar="PIPELINE_TOPOLOGY")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]
Types = Annotated[
    list[str] | None, typer.Option("--type", help="Only this event type, or pattern as payment.*; may be repeated.")
]
Since = Annotated[str, typer.Option("--since", help="From here on: first, 2h, a time, or an offset of the log.")]
Until = Annotated[str, typer.Option("--until", help="Up to here, itself not: 2h, a time, or an offset.")]
Where = Annotated[str, typer.Option("--where", help="Only where this holds, such as 'data.amount > 100'.")]


@app.command()
def tail(
    types: Types = None,
    where: Where = "",
    count: Annotated[int, typer.Option("-n", min=0, help="How many of the last ones.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    topology: Topology = None,
    as_json: AsJson = False,
) -> None:
    """Show the last events, and with --follow those that come."""
    from pipeline.cli.common import run_async
    from pipeline.cli.events_views import Desk, show_event
    from pipeline.event_log import looking

    desk = Desk(topology)
    selection = desk.selection(types, where=where)

    async def show() -> None:
        found, behind = await looking.tail(desk.settings, desk.topology, selection, count)
        for entry in found:
            show_event(entry, as_json)
        if follow:
            async for entry in looking.follow(desk.settings, desk.topology, selection, behind):
                show_event(entry, as_json)

    run_async(show())


@app.command()
def show(
    event_id: Annotated[str, typer.Argument(help="The event's id.", metavar="ID")],
    topology: Topology = None,
    as_json: AsJson = False,
) -> None:
    """Show one event, as it was first published. Exit codes: 0 found, 1 not in the log."""
    from pipeline.cli.common import Progress, run_async
    from pipeline.cli.events_views import Desk, show_whole, watching
    from pipeline.dead_letters.printable import one_line
    from pipeline.event_log.looking import find

    desk = Desk(topology)
    with Progress("reading the log", None, quiet=as_json) as progress:
        entry = run_async(find(desk.settings, desk.topology, event_id, watching(progress)))
    if entry is None:
        typer.echo(f"the log holds no event {one_line(event_id, 80)}", err=True)
        raise typer.Exit(1)
    show_whole(entry, as_json)


@app.command()
def stats(
    types: Types = None, since: Since = "", until: Until = "", topology: Topology = None, as_json: AsJson = False
) -> None:
    """Count the events of the log, by type, with their rate over time."""
    from pipeline.cli.common import Progress, run_async
    from pipeline.cli.events_views import Desk, show_stats, watching
    from pipeline.event_log.looking import stats as count

    desk = Desk(topology)
    selection = desk.selection(types, since, until)
    with Progress("reading the log", None, quiet=as_json) as progress:
        found = run_async(count(desk.settings, desk.topology, selection, watching(progress)))
    show_stats(found, as_json)


@app.command()
def export(
    to: Annotated[Path, typer.Option("--to", help="The file to write.")],
    types: Types = None,
    since: Since = "",
    until: Until = "",
    where: Where = "",
    topology: Topology = None,
    as_json: AsJson = False,
) -> None:
    """Write events down: JSON Lines, each a CloudEvent in structured mode."""
    from pipeline.cli.common import Progress, run_async
    from pipeline.cli.events_views import Desk, watching
    from pipeline.event_log.looking import export as write

    desk = Desk(topology)
    selection = desk.selection(types, since, until, where)
    with Progress(f"writing {to}", None, quiet=as_json) as progress:
        count = run_async(write(desk.settings, desk.topology, selection, to, watching(progress)))
    typer.echo(_json.dumps({"file": str(to), "events": count}) if as_json else f"{count:,} events in {to}")


@app.command()
def archive(
    to: Annotated[Path, typer.Option("--to", help="The archive's folder.")],
    form: Annotated[str, typer.Option("--format", help="jsonl (compressed) or parquet.")] = "jsonl",
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes.")] = False,
    every: Annotated[str, typer.Option("--every", help="How often a file is written while following.")] = "5m",
    from_earliest: Annotated[
        bool, typer.Option("--from-earliest", help="Go on though events were dropped before they were archived.")
    ] = False,
    topology: Topology = None,
    as_json: AsJson = False,
) -> None:
    """Bring an archive up to date: files by day that last longer than the log."""
    from pipeline.cli.common import Progress, run_async
    from pipeline.cli.events_views import Desk
    from pipeline.cli.moments import seconds_of
    from pipeline.event_log.archive import summary
    from pipeline.event_log.archiving import archive as write

    desk = Desk(topology)
    with Progress(f"archiving to {to}", None, quiet=as_json) as progress:
        found = run_async(
            write(
                desk.settings,
                desk.topology,
                to,
                form,
                follow=follow,
                every=seconds_of(every),
                from_earliest=from_earliest,
                watch=progress.advance,
            )
        )
    done = summary(found)
    typer.echo(
        _json.dumps(done)
        if as_json
        else f"{done['events']:,} events in {done['files']:,} files of {to}, up to offset {done['next']:,} of the log"
    )


@app.command()
def replay(
    to: Annotated[str, typer.Option("--to", help="The subscription that gets them.")],
    types: Types = None,
    since: Since = "",
    until: Until = "",
    where: Where = "",
    rate: Annotated[float | None, typer.Option(help="Events a second, at most.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be replayed.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Have events processed again that were processed before.")
    ] = False,
    from_earliest: Annotated[
        bool, typer.Option("--from-earliest", help="Go on though the log no longer holds the first of them.")
    ] = False,
    from_archive: Annotated[
        Path | None, typer.Option("--from-archive", help="Read this archive instead of the log.")
    ] = None,
    topology: Topology = None,
    as_json: AsJson = False,
) -> None:
    """Give events of the log to one subscription again. Interrupted, the same command goes on where it was."""
    from pipeline.cli.common import Progress, run_async
    from pipeline.cli.events_views import Desk, show_report, watching
    from pipeline.event_log.replaying import Replay
    from pipeline.event_log.replaying import replay as run

    desk = Desk(topology)
    asked = Replay(to, desk.selection(types, since, until, where), force, from_archive, rate, dry_run, from_earliest)
    with Progress(f"replaying to {to}", None, quiet=as_json) as progress:
        watch = watching(progress)
        try:
            report = run_async(run(desk.settings, desk.topology, asked, lambda done, total, copied: watch(done, total)))
        except KeyboardInterrupt:
            typer.echo("interrupted; the same command goes on where it was", err=True)
            raise typer.Exit(130) from None
    show_report(report, as_json)
