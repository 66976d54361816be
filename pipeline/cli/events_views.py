"""What the `events` commands share: settings, progress, and how events and figures are shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import typer

from pipeline.cli.common import Progress, start_logging
from pipeline.cli.tables import print_table
from pipeline.dead_letters.printable import one_line
from pipeline.event_log.choosing import Selection
from pipeline.event_log.entry import Entry
from pipeline.event_log.looking import Stats, TypeStats
from pipeline.event_log.replaying import Report
from pipeline.settings import load_settings
from pipeline.topology.load import load_topology

DATA_SHOWN = 120  # characters of data in a line


class Desk:
    """Settings and topology of one command."""

    def __init__(self, topology: str | None) -> None:
        start_logging()
        self.settings = load_settings(topology=topology)
        self.topology = load_topology(self.settings.topology).topology

    def selection(self, types: Sequence[str] | None, since: str = "", until: str = "", where: str = "") -> Selection:
        """What the options say."""
        return Selection(tuple(types or ()), since, until, where)


def watching(progress: Progress) -> Callable[[int, int | None], None]:
    """Shows offsets read as progress; a second pass over the log begins anew."""
    last = 0

    def watch(done: int, total: int | None) -> None:
        nonlocal last
        progress.expect(total)
        progress.advance(done - last)
        last = done

    return watch


def show_event(entry: Entry, as_json: bool) -> None:
    """One event in a line."""
    if as_json:
        typer.echo(entry.structured({"logoffset": entry.offset}).decode("utf-8", "replace"))
        return
    text = entry.json_text
    data = text.decode("utf-8", "replace") if text is not None else f"{len(entry.delivery.body)} bytes, not JSON"
    when = entry.time.strftime("%Y-%m-%d %H:%M:%S")
    typer.echo(
        f"{entry.offset:>8}  {when}  {one_line(entry.type, 60)}  {one_line(entry.id, 80)}  {one_line(data, DATA_SHOWN)}"
    )


def show_whole(entry: Entry, as_json: bool) -> None:
    """One event with all that is known of it."""
    if as_json:
        show_event(entry, True)
        return
    facts = {**entry.attributes(), "offset": entry.offset, "exchange": entry.exchange}
    for name, value in {**facts, "routing key": entry.routing_key}.items():
        typer.echo(f"{one_line(str(name), 60):<16} {one_line(str(value), 2000)}")
    text = entry.json_text
    typer.echo(json.dumps(entry.data, indent=2, ensure_ascii=True) if text is not None else "(the body is not JSON)")


def show_stats(found: Stats, as_json: bool) -> None:
    """The figures."""
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "stream": found.stream,
                    "begin": found.begin,
                    "end": found.end,
                    **_figures(found.whole),
                    "types": {name: _figures(each) for name, each in found.types.items()},
                }
            )
        )
        return
    if not found.whole.count:
        typer.echo(f"{found.stream} holds no such event")
        return
    rows = [
        (
            one_line(name, 60),
            f"{each.count:,}",
            f"{each.size:,}",
            _when(each, "first"),
            _when(each, "last"),
            _rate(each),
            each.sparkline,
        )
        for name, each in [*sorted(found.types.items(), key=lambda item: -item[1].count), ("all", found.whole)]
    ]
    print_table(("type", "events", "bytes", "first (UTC)", "last (UTC)", "rate", "over time"), rows)
    typer.echo(f"offsets {found.begin:,} to {found.end:,} of {found.stream}")


def show_report(report: Report, as_json: bool) -> None:
    """What a replay did."""
    if as_json:
        found: dict[str, Any] = {
            "replay": report.id,
            "subscription": report.subscription,
            "seen": report.seen,
            "copied": report.copied,
            "before": report.resumed,
            "dry_run": report.dry_run,
        }
        typer.echo(json.dumps(found))
        return
    for event_id, event_type, time in report.first if report.dry_run else ():
        typer.echo(f"  {time:%Y-%m-%d %H:%M:%S}  {one_line(event_type, 60)}  {one_line(event_id, 80)}")
    done = "would be replayed" if report.dry_run else f"replayed to {report.subscription}, as replay {report.id}"
    typer.echo(f"{report.copied:,} of {report.seen:,} events {done}")
    if report.resumed:
        typer.echo(f"{report.resumed:,} of them before this run: it went on where it was interrupted")
    if report.log_begins is not None:
        typer.echo(f"the log begins at {report.log_begins:%Y-%m-%d %H:%M:%S} UTC: what is older is not in it", err=True)


def _figures(each: TypeStats) -> dict[str, Any]:
    return {
        "count": each.count,
        "size": each.size,
        "first": each.first.isoformat() if each.first else None,
        "last": each.last.isoformat() if each.last else None,
        "rate": round(each.rate, 3),
        "over_time": each.buckets,
    }


def _when(each: TypeStats, name: str) -> str:
    moment = getattr(each, name)
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else ""


def _rate(each: TypeStats) -> str:
    return f"{each.rate:,.1f}/s" if each.rate >= 0.1 else f"{each.rate * 3600:,.1f}/h"
