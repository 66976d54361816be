"""`pipeline db prune`: says what goes, asks, refuses what is dangerous, and does it. As processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.event import utc_now
from pipeline.store import Store
from pipeline.store.producer import ProducerStore
from pipeline.store.times import as_text
from tests.store.conftest import effects
from tests.store.events import event
from tests.support.topologies import until

LONG_AGO = as_text(utc_now() - timedelta(days=60))
TOPOLOGY = """\
version: 1
exchanges:
  events: {type: topic}
events:
  order.created: {exchange: events}
event_log: {exchange: events, max_age: 40d}
subscriptions:
  payments: {events: [order.created], handler: handlers}
  shipping: {events: [order.created], handler: handlers}
"""


@dataclass(frozen=True, slots=True)
class Desk:
    """A folder with a topology and databases; each of them has an old row and a young one."""

    folder: Path

    @property
    def environ(self) -> dict[str, str]:
        data = f"sqlite+aiosqlite:///{self.folder}"
        return {
            "PATH": os.environ["PATH"],
            "PIPELINE_STATE_DIR": str(self.folder / "state"),
            "PIPELINE_TOPOLOGY": str(self.folder / "topology.yaml"),
            "PIPELINE_DATABASE_URL": f"{data}/{{subscription}}.db?timeout=0.2",
            "PIPELINE_PRODUCER_DATABASE_URL": f"{data}/producer.db",
        }

    async def make(self, names: Iterable[str]) -> None:
        (self.folder / "topology.yaml").write_text(TOPOLOGY)
        for name in names:
            store = await Store.open(self.environ["PIPELINE_DATABASE_URL"], name)
            await store.commit([effects(event_id="old", result=b"1"), effects(event_id="young")])
            await store.close()
            self.run_sql(name, f"UPDATE pipeline_inbox SET processed_at = '{LONG_AGO}' WHERE event_id = 'old'")  # noqa: S608
        producer = await ProducerStore.open(self.environ["PIPELINE_PRODUCER_DATABASE_URL"])
        await producer.accept([event("old"), event("waiting")], 10)
        await producer.close()
        self.run_sql("producer", f"UPDATE pipeline_event SET accepted_at = '{LONG_AGO}'")  # noqa: S608
        self.run_sql("producer", f"UPDATE pipeline_event SET published_at = '{LONG_AGO}' WHERE id = 'old'")  # noqa: S608

    def run_sql(self, name: str, sql: str) -> list[str]:
        """The first column of what it gives."""
        with closing(sqlite3.connect(self.folder / f"{name}.db", isolation_level=None)) as connection:
            return [row[0] for row in connection.execute(sql)]

    def left(self) -> list[list[str]]:
        """The events that payments, shipping and the producer still know."""
        inbox = "SELECT event_id FROM pipeline_inbox ORDER BY 1"
        events = "SELECT id FROM pipeline_event ORDER BY 1"
        return [self.run_sql(*each) for each in (("payments", inbox), ("shipping", inbox), ("producer", events))]

    async def prune(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pipeline", "db", "prune", *arguments),
            env=self.environ,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        assert "Traceback" not in err.decode()
        return process.returncode, out.decode(), err.decode()


ALL = [["old", "young"], ["old", "young"], ["old", "waiting"]]


@pytest.fixture
async def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    await made.make(["payments", "shipping"])
    return made


async def test_it_says_what_is_old_and_removes_it(desk: Desk) -> None:
    # when it is only to say, then it says it of each table
    code, out, err = await desk.prune("--older-than", "50d", "--dry-run")
    assert code == 0, err
    assert f"{desk.folder}/payments.db: pipeline_inbox of payments: 1 of 2 rows are old (inbox)" in out
    assert f"{desk.folder}/producer.db: pipeline_event: 1 of 2 rows are old (events)" in out
    assert "3 rows would be removed; nothing was changed" in out
    assert desk.left() == ALL

    # when one subscription is named, then only its own goes
    code, out, err = await desk.prune("--older-than", "50d", "--subscription", "shipping", "--yes", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert (said["old"], said["removed"], said["dry_run"], said["errors"]) == (1, 1, False, [])
    assert [each for each in said["tables"] if each["old"]] == [
        {
            "database": f"{desk.folder}/shipping.db",
            "subscription": "shipping",
            "what": "inbox",
            "table": "pipeline_inbox",
            "rows": 2,
            "old": 1,
            "removed": 1,
        }
    ]
    assert desk.left() == [ALL[0], ["young"], ALL[2]]

    # when everything is meant, then the rest goes, but for results
    code, out, err = await desk.prune("--older-than", "50d", "--yes")
    assert (code, out.splitlines()[-1]) == (0, "2 rows removed"), err
    assert desk.left() == [["young"], ["young"], ["waiting"]]
    assert desk.run_sql("payments", "SELECT event_id FROM pipeline_result") == ["old"]


async def test_what_is_dangerous_is_refused(desk: Desk) -> None:
    for arguments, said in [
        (
            ("--older-than", "30d", "--yes"),
            "the event log keeps events for 40 d (max_age), and inbox rows older than 30 d",
        ),
        (("--older-than", "59m", "--what", "notes", "--yes"), "younger than 1 hour may still be in use"),
        (("--older-than", "0s", "--force", "--yes"), "must be above 0"),
        (("--older-than", "50d"), "prune asks before it removes, and there is no terminal here; add --yes"),
        (("--older-than", "50d", "--subscription", "shiping"), "has no subscription shiping (did you mean shipping?)"),
    ]:
        code, out, err = await desk.prune(*arguments)
        assert (code, said in " ".join(err.replace("│", "").split()), out) == (2, True, ""), err
    assert desk.left() == ALL

    code, _, err = await desk.prune("--older-than", "30d", "--yes", "--force")
    assert code == 0, err
    assert desk.left()[0] == ["young"]


async def test_a_database_that_can_not_be_used_hides_no_other(desk: Desk) -> None:
    # given a database that somebody holds for long
    with closing(sqlite3.connect(desk.folder / "payments.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        code, out, err = await desk.prune("--older-than", "50d", "--yes")
        other.execute("ROLLBACK")

    # then it is named, and the others are done
    assert code == 5
    assert f"{desk.folder}/payments.db: error: " in err
    assert out.splitlines()[-1] == "2 rows removed"
    assert desk.left() == [ALL[0], ["young"], ["waiting"]]


SLOW = """\
CREATE TRIGGER slow AFTER DELETE ON pipeline_inbox BEGIN
  SELECT count(*) FROM (WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1000) SELECT n FROM n);
END
"""
MANY = """\
WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000)
INSERT INTO pipeline_inbox SELECT 'payments', 'many' || n, 't', '2026-01-01T00:00:00.000Z' FROM n
"""


async def test_interrupted_it_says_so_and_is_done_with_another_time(desk: Desk) -> None:
    # given a removal that takes its time, interrupted when the first rows are gone
    desk.run_sql("payments", MANY)
    desk.run_sql("payments", SLOW)

    async def count() -> int:
        return int(desk.run_sql("payments", "SELECT count(*) FROM pipeline_inbox")[0])

    async def some_gone() -> bool:
        return await count() < 20_002

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pipeline", "db", "prune", "--older-than", "50d", "--yes"),
        env={**desk.environ, "PIPELINE_DATABASE_URL": f"sqlite+aiosqlite:///{desk.folder}/{{subscription}}.db"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    await until(some_gone, "the first rows to go")
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 60)

    # then it ends, having said how far it came
    assert (process.returncode, "removed; start it again for the rest" in err.decode()) == (130, True), err.decode()
    assert "Traceback" not in err.decode()
    assert 1 < await count() < 20_002

    # and the next one does the rest
    desk.run_sql("payments", "DROP TRIGGER slow")
    code, _, said = await desk.prune("--older-than", "50d", "--yes")
    assert code == 0, said
    assert desk.left() == [["young"], ["young"], ["waiting"]]


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("y", 0)])
async def test_on_a_terminal_it_asks(desk: Desk, answer: str, code: int) -> None:
    terminal, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pipeline", "db", "prune", "--older-than", "50d"),
        env={**desk.environ, "COLUMNS": "200"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    async with asyncio.timeout(60):
        while b"Remove 3 rows older than 50d for good? [y/N]" not in shown:
            shown += await asyncio.to_thread(os.read, terminal, 65536)
    assert b"processed AGAIN if it is delivered again" in shown
    assert desk.left() == ALL

    os.write(terminal, f"{answer}\n".encode())

    assert await asyncio.wait_for(process.wait(), 60) == code
    os.close(terminal)
    assert desk.left() == (ALL if answer == "n" else [["young"], ["young"], ["waiting"]])
