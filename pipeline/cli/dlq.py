"""`pipeline dlq`: look at dead letters, send back, remove, write down. In: arguments. Out: tables, JSON, files."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import ConfigurationError

app = typer.Typer(
    no_args_is_help=True, help="Dead letters: look at them, send them back, remove them, write them down."
)

Name = Annotated[str, typer.Argument(help="Subscription.", metavar="SUBSCRIPTION")]
Ids = Annotated[list[str] | None, typer.Option("--id", help="Only this event id; may be repeated.")]
Errors = Annotated[
    list[str] | None,
    typer.Option("--error", help="Only where the error's kind or message contains this, or fits it as a glob (*, ?)."),
]
Types = Annotated[list[str] | None, typer.Option("--type", help="Only this event type; may be repeated.")]
Reasons = Annotated[
    list[str] | None, typer.Option("--reason", help="Only this reason: exhausted, rejected, delivery_limit, ...")
]
OlderThan = Annotated[str, typer.Option("--older-than", help="Only those that died longer ago: 30m, 2h, 7d.")]
All = Annotated[bool, typer.Option("--all", help="Every dead letter.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Topology = Annotated[str | None, typer.Option(help="Topology file or folder.", envvar="PIPELINE_TOPOLOGY")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]

EXAMPLES = 20  # letters shown before they are removed


@app.command("list")
def list_(
    names: Annotated[list[str] | None, typer.Argument(help="Subscriptions; all by default.")] = None,
    topology: Topology = None,
    as_json: AsJson = False,
) -> None:
    """Show how many dead letters each subscription has, the oldest, and the most frequent errors."""
    from pipeline.cli.dlq_run import Desk
    from pipeline.cli.dlq_views import show_summaries

    desk = Desk(topology, quiet=as_json)
    rows = [desk.summary(subscription) for subscription in desk.subscriptions(names or ())]
    show_summaries(rows, as_json)
    raise typer.Exit(max((row.exit_code for row in rows), default=0))


@app.command()
def show(
    name: Name,
    ids: Ids = None,
    errors: Errors = None,
    types: Types = None,
    reasons: Reasons = None,
    older_than: OlderThan = "",
    limit: Annotated[int, typer.Option(min=0, help="At most this many; 0 for all.")] = 50,
    topology: Topology = None,
    as_json: AsJson = False,
) -> None:
    """Look at dead letters, oldest first, without changing anything. With --id: payload, traceback and history too.

    Exit code 1: an --id is not there.
    """
    from pipeline.cli.dlq_run import Desk
    from pipeline.cli.dlq_views import show_letters, show_missing
    from pipeline.dead_letters import make_selection, peek

    desk = Desk(topology, quiet=as_json)
    subscription = desk.subscription(name)
    selection = make_selection(ids, errors, types, reasons, older_than)
    whole = bool(ids)
    letters = desk.run("looking", lambda watch: peek(desk.settings, subscription, selection, whole=whole, watch=watch))
    show_letters(letters[: limit or None], len(letters), name, whole, as_json)
    if missing := sorted(selection.ids - {letter.id for letter in letters}):
        show_missing(missing, name)
        raise typer.Exit(1)


@app.command()
def redrive(
    name: Name,
    ids: Ids = None,
    errors: Errors = None,
    types: Types = None,
    reasons: Reasons = None,
    older_than: OlderThan = "",
    everything: All = False,
    rate: Annotated[float | None, typer.Option(help="At most this many a second.")] = None,
    dry_run: DryRun = False,
    topology: Topology = None,
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to their work queue, with a whole retry budget again and their history.

    Each is removed only after its copy is confirmed: interrupting loses nothing. Exit code 1: an --id is not there.
    """
    from pipeline.cli.dlq_run import Desk
    from pipeline.cli.dlq_views import show_report
    from pipeline.dead_letters import make_selection, require_choice
    from pipeline.dead_letters import redrive as send_back

    desk = Desk(topology, quiet=as_json)
    subscription = desk.subscription(name)
    selection = make_selection(ids, errors, types, reasons, older_than)
    require_choice(selection, everything, "redrive")
    report = desk.run(
        "redriving",
        lambda watch: send_back(desk.settings, subscription, selection, rate=rate, dry_run=dry_run, watch=watch),
        done=f"of {name} redriven; the others are still in {subscription.dead_letter_queue}",
    )
    show_report(report, name, "redriven", as_json)
    raise typer.Exit(1 if report.missing else 0)


@app.command()
def discard(
    name: Name,
    ids: Ids = None,
    errors: Errors = None,
    types: Types = None,
    reasons: Reasons = None,
    older_than: OlderThan = "",
    everything: All = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    export: Annotated[Path | None, typer.Option(help="First write them to this file (JSON Lines).")] = None,
    dry_run: DryRun = False,
    topology: Topology = None,
    as_json: AsJson = False,
) -> None:
    """Remove dead letters for good. Asks first; without a terminal it wants --yes.

    Exit codes: 0 removed; 1 an --id is not there, or the answer was no.
    """
    from pipeline.cli.dlq_run import Desk
    from pipeline.cli.dlq_views import counted, show_letters, show_report
    from pipeline.dead_letters import discard as remove
    from pipeline.dead_letters import make_selection, peek, require_choice

    desk = Desk(topology, quiet=as_json)
    subscription = desk.subscription(name)
    selection = make_selection(ids, errors, types, reasons, older_than)
    require_choice(selection, everything, "discard")
    if not (yes or dry_run):
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise ConfigurationError("discard asks before it removes, and there is no terminal here; add --yes")
        letters = desk.run("looking", lambda watch: peek(desk.settings, subscription, selection, watch=watch))
        # What dies while the question stands there was not asked about.
        selection = replace(selection, fingerprints=frozenset(letter.fingerprint for letter in letters))
        if letters:
            show_letters(letters[:EXAMPLES], len(letters), name)
            typer.confirm(f"Remove {counted(len(letters))} of {name} for good?", abort=True)
    report = desk.run(
        "discarding",
        lambda watch: remove(desk.settings, subscription, selection, export_to=export, dry_run=dry_run, watch=watch),
        done=f"of {name} removed",
    )
    show_report(report, name, "removed", as_json)
    raise typer.Exit(1 if report.missing else 0)


@app.command()
def export(
    name: Name,
    ids: Ids = None,
    errors: Errors = None,
    types: Types = None,
    reasons: Reasons = None,
    older_than: OlderThan = "",
    output: Annotated[str, typer.Option("--output", "-o", help="File to write; - for standard output.")] = "-",
    topology: Topology = None,
) -> None:
    """Write dead letters down as JSON Lines, bodies and all; nothing is removed. Exit code 1: an --id is not there."""
    from pipeline.cli.dlq_run import Desk
    from pipeline.cli.dlq_views import counted, show_missing
    from pipeline.dead_letters import export as write_down
    from pipeline.dead_letters import make_selection, whole_file

    desk = Desk(topology, quiet=False)
    subscription = desk.subscription(name)
    selection = make_selection(ids, errors, types, reasons, older_than)
    with whole_file(Path(output)) if output != "-" else nullcontext(sys.stdout.buffer.write) as write:
        report = desk.run(
            "exporting", lambda watch: write_down(desk.settings, subscription, selection, write, watch=watch)
        )
    sys.stdout.buffer.flush()
    where = output if output != "-" else "standard output"
    typer.echo(f"{counted(report.done)} of {name} written to {where}", err=True)
    if report.missing:
        show_missing(report.missing, name)
        raise typer.Exit(1)
