"""Several processes on one database, and processes that die in the middle of a transaction."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline.store import Counts, Store
from tests.store.conftest import Look
from tests.store.models import TABLES

ROOT = Path(__file__).parents[2]


def start(url: str, *numbers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.store.committer", url, *map(str, numbers)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What it printed until its end."""
    out, _ = process.communicate(timeout=60)
    return [json.loads(line) for line in out.splitlines()]


async def test_processes_that_commit_the_same_events_share_them(url: str, look: Look) -> None:
    # given two processes that open a new database at once and commit overlapping events, each in an order of its own
    processes = [start(url, 1, 0, 699, 25), start(url, 2, 300, 999, 25)]

    # when both are through
    reports = [report for process in processes for report in said(process)]
    assert [process.returncode for process in processes] == [0, 0]

    # then every event was processed by just one of them, and its effects are there once
    processed = [event_id for report in reports for event_id in report["processed"]]
    assert sorted(processed) == sorted(f"e{number}" for number in range(1000))
    assert sum(report["duplicates"] for report in reports) == 400
    assert sum(report["rejected"] for report in reports) == 0
    assert look("SELECT count(*), count(DISTINCT order_id) FROM payment") == [(1000, 1000)]
    store = await Store.open(url, "payments", TABLES)
    assert await store.counts() == Counts(1000, 1000, 1000)
    await store.close()


async def test_a_process_that_dies_in_a_transaction_leaves_whole_batches(url: str, look: Look) -> None:
    # given a process that kills itself in the middle of a transaction, with inbox and half of the rows written
    process = start(url, 3, 0, 1999, 400, 1000)
    reports = said(process)
    assert process.returncode == -signal.SIGKILL
    committed = [event_id for report in reports for event_id in report["processed"]]
    assert 0 < len(committed) < 2000

    # when the database is opened again, then all that was said to be committed is there, and nothing of the rest
    store = await Store.open(url, "payments", TABLES)
    everything = [f"e{number}" for number in range(2000)]
    assert await store.seen(everything) == set(committed)
    assert {f"e{key}" for (key,) in look("SELECT order_id FROM payment")} == set(committed)
    assert await store.counts() == Counts(*[len(committed)] * 3)
    await store.close()

    # and another process that gets them all again does just the rest
    (rest,) = said(start(url, 4, 0, 1999, 2000))
    assert (len(rest["processed"]), rest["duplicates"]) == (2000 - len(committed), len(committed))
    assert look("SELECT count(*), count(DISTINCT order_id) FROM payment") == [(2000, 2000)]


async def test_a_process_killed_at_any_moment_loses_nothing_it_said(url: str, look: Look) -> None:
    # given a process that is killed from outside while it commits
    process = start(url, 5, 0, 99_999, 100)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(20)]
    process.kill()
    lines += process.communicate(timeout=60)[0].splitlines()

    # when the database is opened again
    committed = {event_id for line in lines for event_id in json.loads(line)["processed"]}
    store = await Store.open(url, "payments", TABLES)

    # then what it said is there, and at most one batch more, whole
    inbox = {event_id for (event_id,) in look("SELECT event_id FROM pipeline_inbox")}
    assert committed <= inbox
    assert len(inbox) - len(committed) in (0, 100)
    assert {f"e{key}" for (key,) in look("SELECT order_id FROM payment")} == inbox
    assert await store.counts() == Counts(*[len(inbox)] * 3)
    await store.close()
