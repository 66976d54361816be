"""`pipeline db prune`: old rows of the library's own tables. In: arguments. Out: what is old, a question, fewer."""

from __future__ import annotations

import json as _json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

OlderThan = Annotated[str, typer.Option("--older-than", help="What is older than this: 30d, 90d. Not below 1h.")]
Subscriptions = Annotated[
    list[str] | None, typer.Option("--subscription", help="Only of this subscription; may be repeated.")
]
What = Annotated[
    list[str] | None,
    typer.Option(
        "--what", help="Of inbox, notes, order, consumers, events, results: these only. All but results by default."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Even where events may be processed twice after it.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Topology = Annotated[str | None, typer.Option(help="Topology file or folder.", envvar="PIPELINE_TOPOLOGY")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object.")]

DANGER = (
    "An event whose inbox row is gone is processed AGAIN if it is delivered again: by a replay, by the redrive of an"
    " older dead letter, by a late double. An accepted event that is gone is accepted again if its request is repeated."
)


def prune(
    older_than: OlderThan,
    subscription: Subscriptions = None,
    what: What = None,
    force: Force = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    topology: Topology = None,
    as_json: AsJson = False,
) -> None:
    """Remove old rows of the library's own tables, for good, while workers work. Asks first.

    An event whose inbox row is gone is processed AGAIN if it is delivered again (replay, redrive of an older dead
    letter, late double): --older-than has to be longer than the event log keeps events and than dead letters wait. It
    can be interrupted at any moment, and started again. Your own tables, what is not published, what is still tried
    again, and what holds up a parked key are never touched.

    Exit codes: 0 done; 1 the answer was no; 2 configuration, or refused without --force; 5 a database can't be used,
    the others are done.
    """
    from pipeline.cli.moments import seconds_of
    from pipeline.errors import ConfigurationError
    from pipeline.store.retention import check_age, what_of

    seconds = seconds_of(older_than)
    if not seconds > 0:
        raise typer.BadParameter("--older-than must be above 0")
    meant = what_of(what or ())
    run = _Run(topology, seconds, meant, subscription or (), what is not None, quiet=as_json)
    if not force:
        check_age(seconds, meant, run.log_max_age)
    if not (yes or dry_run or (sys.stdin.isatty() and sys.stdout.isatty())):
        raise ConfigurationError("prune asks before it removes, and there is no terminal here; add --yes")
    run.look()
    if not as_json:
        run.show()
    if run.old and not dry_run:
        if not yes:
            typer.echo(DANGER)
            typer.confirm(f"Remove {_rows(run.old)} older than {older_than} for good?", abort=True)
        run.remove()
    if as_json:
        typer.echo(_json.dumps(run.as_json(dry_run)))
    elif dry_run:
        typer.echo(f"{_rows(run.old)} would be removed; nothing was changed")
    else:
        typer.echo(f"{_rows(run.removed)} removed")
    raise typer.Exit(run.code)


class _Run:
    """One command: its databases, what was found in each, what went."""

    def __init__(
        self,
        topology: str | None,
        older_than: float,
        what: Sequence[str],
        names: Sequence[str],
        named: bool,
        quiet: bool,
    ) -> None:
        from datetime import timedelta

        from pipeline.cli.common import start_logging
        from pipeline.errors import ConfigurationError
        from pipeline.event import utc_now
        from pipeline.settings import load_settings
        from pipeline.store.migrating import targets
        from pipeline.store.revisions import PRODUCER
        from pipeline.topology.findings import did_you_mean
        from pipeline.topology.load import load_topology

        start_logging()
        settings = load_settings(topology=topology)
        loaded = load_topology(settings.topology).topology
        for name in names:
            if name not in loaded.subscriptions:
                hint = did_you_mean(name, loaded.subscriptions)
                raise ConfigurationError(f"{settings.topology} has no subscription {name} ({hint})")
        try:
            self._before = utc_now() - timedelta(seconds=older_than)
        except OverflowError:
            raise typer.BadParameter("--older-than reaches back before the calendar begins") from None
        # Who names subscriptions does not mean the gateway's events, unless those are named, too.
        others = {PRODUCER} if names and not named else set()
        every = targets(settings, names or loaded.subscriptions)
        self._targets = [target for target in every if target.family not in others]
        self._what = what
        self._quiet = quiet
        self._found: list[tuple[Any, list[Any]]] = []
        self._gone: dict[int, int] = {}
        self._errors: list[tuple[Any, Any]] = []
        self.log_max_age = loaded.event_log.max_age if loaded.event_log else None
        self.removed = 0
        self.code = 0

    @property
    def old(self) -> int:
        """Rows that are to go."""
        return sum(each.old for _, found in self._found for each in found)

    def look(self) -> None:
        """Find what is old, in every database; one that fails does not keep the others from it."""
        from pipeline.cli.common import Progress, run_async
        from pipeline.errors import PipelineError
        from pipeline.store.pruning import look

        with Progress("looking", None, self._quiet) as progress:
            for target in self._targets:
                try:
                    self._found.append((target, run_async(look(target, self._what, self._before, progress.advance))))
                except PipelineError as error:
                    self._failed(target, error)

    def remove(self) -> None:
        """Remove it, in every database. Ctrl-C says how far it came."""
        from pipeline.cli.common import Progress, run_async
        from pipeline.errors import PipelineError
        from pipeline.store.pruning import remove

        with Progress("removing", self.old, self._quiet) as progress:

            def watch(each: Any, gone: int) -> None:
                self._gone[id(each)] = self._gone.get(id(each), 0) + gone
                self.removed += gone
                progress.advance(gone)

            for target, found in self._found:
                try:
                    run_async(remove(target, found, self._before, watch))
                except PipelineError as error:
                    self._failed(target, error)
                except KeyboardInterrupt:
                    done = f"at least {_rows(self.removed)}"  # the slice that was under way goes to its end
                    typer.echo(f"interrupted: {done} removed; start it again for the rest", err=True)
                    raise typer.Exit(130) from None

    def show(self) -> None:
        """What was found, for people."""
        for target, found in self._found:
            for each in found:
                if each.rows:
                    whose = f" of {each.subscription}" if each.subscription else ""
                    old = f"{each.old:,} of {each.rows:,} rows are old ({each.rule.what})"
                    typer.echo(f"{target.place}: {each.rule.table.name}{whose}: {old}")

    def as_json(self, dry_run: bool) -> dict[str, Any]:
        """What was found and what went, for a script."""
        return {
            "before": self._before.isoformat(),
            "dry_run": dry_run,
            "old": self.old,
            "removed": self.removed,
            "tables": [
                {
                    "database": target.place,
                    "subscription": each.subscription,
                    "what": each.rule.what,
                    "table": each.rule.table.name,
                    "rows": each.rows,
                    "old": each.old,
                    "removed": self._gone.get(id(each), 0),
                }
                for target, found in self._found
                for each in found
            ],
            "errors": [{"database": target.place, "message": str(error)} for target, error in self._errors],
        }

    def _failed(self, target: Any, error: Any) -> None:
        self.code = max(self.code, error.exit_code)
        self._errors.append((target, error))
        if not self._quiet:
            typer.echo(f"{target.place}: error: {error}", err=True)


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
