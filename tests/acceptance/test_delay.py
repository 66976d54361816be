"""Delays through the real command line and a real worker: events, follow-up events and retries that wait."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pipeline.event import utc_now
from tests.support.application import Application
from tests.support.broker import TestVhost
from tests.support.topologies import until

TOPOLOGY = """\
version: 1
exchanges: {events: {}}
events: {order.created: {}, reminder.due: {}, alarm.due: {}}
subscriptions:
  orders:
    events: [order.created, reminder.due, alarm.due]
    handler: handlers
    retry: {attempts: 3, delays: [100ms]}
delay: {max: 1h}
"""
HANDLERS = """\
import time
from datetime import UTC, datetime, timedelta
from sqlmodel import Field, SQLModel
from pipeline import Context, Event, Publish, Retry, Worker

worker = Worker("orders")

class Seen(SQLModel, table=True):
    row: int | None = Field(default=None, primary_key=True)
    type: str
    number: int
    attempt: int
    at: float
    due: float
    extensions: str

def seen(event, context, due):
    at = time.time()
    return Seen(type=event.type, number=event.data["number"], attempt=context.attempt, at=at, due=due,
                extensions=",".join(event.extensions))

@worker.handle("order.created")
async def created(event: Event[dict], context: Context):
    now = datetime.now(UTC)
    if event.data.get("slow") and context.attempt == 1:
        raise Retry("the bank opens later", after=event.data["slow"])
    number, soon = event.data["number"], now + timedelta(seconds=1.5)
    context.publish("alarm.due", {"number": number, "due": soon.timestamp()}, at=soon)
    later = Publish("reminder.due", {"number": number, "due": now.timestamp() + 1}, after=1)
    return [later, seen(event, context, event.data.get("due", 0.0))]

@worker.handle("reminder.due", "alarm.due")
async def due(event: Event[dict], context: Context):
    return seen(event, context, event.data["due"])
"""


@pytest.fixture
def app(vhost: TestVhost, tmp_path: Path) -> Application:
    """The application, not applied yet."""
    app = Application(vhost, tmp_path)
    app.write("topology.yaml", TOPOLOGY)
    app.write("handlers.py", HANDLERS)
    return app


async def test_events_follow_ups_and_retries_come_when_they_are_due_and_once(app: Application) -> None:
    await app.apply()
    # Given an order for later that is published twice, one of a file, and one whose handler asks for a long wait
    data = {"number": 1, "due": utc_now().timestamp() + 1}
    for _ in range(2):
        await app.good("publish", "order.created", json.dumps(data), "--id", "o1", "--after", "1s")
    at = utc_now() + timedelta(seconds=2)
    app.write("more.jsonl", json.dumps({"number": 2, "due": at.timestamp()}) + "\n")
    await app.good("publish", "order.created", "--file", "more.jsonl", "--at", at.isoformat())
    published = utc_now().timestamp()
    await app.good("publish", "order.created", json.dumps({"number": 3, "slow": 3}), "--id", "o3")
    await app.good("publish", "order.created", json.dumps({"number": 4, "slow": 600}), "--id", "o4")

    # When a worker runs
    async with app.worker() as running:
        await running.until_said("retrying", times=2)

        async def in_the_ladder() -> bool:
            found = (await app.good("delayed", "list", "--json")).json()
            return ("o4", "retry", "orders") in [(each["id"], each["kind"], each["to"]) for each in found]

        # Then a retry that is longer than the subscription's own delays waits in the ladder; it can't be cancelled
        await until(in_the_ladder, "the retry in the ladder")
        refused = await app.run("delayed", "cancel", "o4")
        assert refused.code == 1
        assert "waits to be tried again by orders; that can't be cancelled" in refused.err
        await app.until_count("orders", 9, "seen")
        assert await running.drain() == 0

    # and everything has come once, nothing before its time, without a mark that a handler could see
    rows = app.rows("orders", "SELECT type, number, attempt, at, due, extensions FROM seen")
    expected = [(kind, number) for kind in ("alarm.due", "order.created", "reminder.due") for number in (1, 2, 3)]
    assert sorted((kind, number) for kind, number, *_ in rows) == expected
    assert [row for row in rows if row[3] < row[4]] == []
    assert {row[5] for row in rows} == {"", "causationid"}
    (slow,) = [row for row in rows if row[:2] == ("order.created", 3)]
    assert slow[2] == 2
    assert slow[3] >= published + 3
    assert [each["id"] for each in (await app.good("delayed", "list", "--json")).json()] == ["o4"]


async def test_what_waits_is_listed_and_cancelled(app: Application) -> None:
    await app.apply()
    told = (
        await app.good("publish", "order.created", '{"number": 1}', "--id", "o1", "--after", "90s", "--json")
    ).json()
    await app.good("publish", "alarm.due", '{"number": 2}', "--id", "a1", "--after", "30m")

    # The list tells what, when and where to
    first, second = (await app.good("delayed", "list", "--json")).json()
    assert (first["id"], first["type"], first["to"], first["kind"]) == ("o1", "order.created", "events", "event")
    assert first["due"] == told["due"]
    assert abs(datetime.fromisoformat(first["due"]) - utc_now() - timedelta(seconds=85)) < timedelta(seconds=60)
    assert second["id"] == "a1"
    assert [each["id"] for each in (await app.good("delayed", "list", "--type", "alarm.due", "--json")).json()] == [
        "a1"
    ]
    table = (await app.good("delayed", "list")).out.splitlines()
    assert [line.split()[0] for line in table] == ["id", "o1", "a1"]

    # One is called off, and only that one
    assert "cancelled order.created o1, which was due at" in (await app.good("delayed", "cancel", "o1")).out
    again = await app.run("delayed", "cancel", "o1")
    assert (again.code, again.err) == (1, "no event o1 waits: it is due already, was cancelled, or never waited\n")
    assert (await app.run("delayed", "cancel", "o1", "--json")).json()["cancelled"] == []
    assert [each["id"] for each in (await app.good("delayed", "list", "--json")).json()] == ["a1"]
    assert (await app.good("delayed", "resend")).out == "0 events published, 0 left\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["publish", "order.created", "{}", "--after", "2h"], 2, "longer than the longest, 1h"),
        (["publish", "order.created", "{}", "--after", "soon"], 2, "'soon' is no duration"),
        (["publish", "order.created", "{}", "--after", "-5s"], 2, "'-5s' is no duration"),
        (["publish", "order.created", "{}", "--at", "tomorrow"], 2, "'tomorrow' is no time"),
        (["publish", "order.created", "{}", "--after", "1s", "--at", "2027-01-01"], 2, "exclude each other"),
        (["delayed", "list", "--topology", "plain.yaml"], 2, "declares no delay ladder"),
        (["delayed", "cancel", "x", "--topology", "plain.yaml"], 2, "declares no delay ladder"),
        (["publish", "order.created", "{}", "--after", "1s", "--topology", "plain.yaml"], 2, "add `delay: {max: 30d}`"),
        (["delayed", "list"], 4, "`pipeline topology apply` declares"),
    ],
)
async def test_what_can_not_be_is_said_in_a_sentence(
    app: Application, arguments: list[str], code: int, said: str
) -> None:
    app.write("plain.yaml", TOPOLOGY.replace("delay: {max: 1h}", ""))

    ended = await app.run(*arguments)

    assert ended.code == code, ended.err
    assert said in " ".join(ended.err.replace("│", "").split())
    assert "Traceback" not in ended.err
