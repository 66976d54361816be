"""What a user can get wrong, and what can lie in a queue: one clear sentence, the right exit code, nothing lost."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from pipeline.properties import Properties, encode_properties
from tests.support.application import Application, Ended
from tests.support.broker import TestVhost
from tests.support.rabbit import rabbit

TOPOLOGY = """\
version: 1
exchanges:
  events: {type: topic}
events:
  order.created: {exchange: events, model: "handlers:Order"}
  order.noted: {exchange: events}
subscriptions:
  payments:
    events: [order.created]
    handler: handlers
    retry: {attempts: 2, delays: [100ms]}
    delivery_limit: 3
queues:
  notes: {type: quorum}
bindings:
  - {exchange: events, queue: notes, routing_key: "#"}
"""
HANDLERS = """\
from pydantic import BaseModel, Field, field_validator
from pipeline import Event, Worker

class Order(BaseModel):
    order_id: int = Field(gt=0)
    note: str = ""

    @field_validator("note")
    @classmethod
    def check(cls, note: str) -> str:
        if note == "broken":
            raise KeyError("a validator with a bug")
        return note

worker = Worker("payments")

@worker.handle("order.created")
async def take(event: Event[Order]) -> None: ...
"""
MEGABYTE = 1024 * 1024


@pytest.fixture
def app(vhost: TestVhost, tmp_path: Path) -> Application:
    """An application whose topology is not on the broker yet."""
    app = Application(vhost, tmp_path)
    app.write("topology.yaml", TOPOLOGY)
    app.write("handlers.py", HANDLERS)
    return app


def is_one_sentence(done: Ended, code: int, *words: str) -> None:
    """The command ended with `code` and one line of error that has these words."""
    assert done.code == code, done.err
    assert done.err.startswith("error: "), done.err
    assert len(done.err.splitlines()) == 1, done.err
    for word in words:
        assert word in done.err, done.err


async def every_command(app: Application, amqp_url: str) -> list[Ended]:
    """What the commands say that need a broker, at that address."""
    environ = {"PIPELINE_AMQP_URL": amqp_url}
    ended = await asyncio.gather(
        app.run("publish", "order.noted", "1", environ=environ),
        app.run("worker", "start", "payments", environ=environ),
        app.run("dlq", "list", environ=environ),
    )
    return list(ended)


async def test_no_broker(app: Application) -> None:
    for done in await every_command(app, "amqp://shop:hunter2@127.0.0.1:1/v"):
        is_one_sentence(done, 4, "amqp://shop:***@127.0.0.1:1/v can't be reached", "is the broker running?")
        assert "hunter2" not in done.err


async def test_wrong_password(app: Application) -> None:
    parts = urlsplit(app.vhost.amqp_url)
    url = urlunsplit(parts._replace(netloc=f"{parts.username}:hunter2@{parts.hostname}:{parts.port}"))
    for done in await every_command(app, url):
        is_one_sentence(done, 4, f"amqp://{parts.username}:***@", "refused the user or password", "PIPELINE_AMQP_URL")
        assert "hunter2" not in done.err


async def test_missing_virtual_host(app: Application) -> None:
    url = urlunsplit(urlsplit(app.vhost.amqp_url)._replace(path="/nowhere"))
    for done in await every_command(app, url):
        is_one_sentence(done, 4, "virtual host 'nowhere' at amqp://", "does not exist")


async def test_an_address_that_is_none(app: Application) -> None:
    url = "amqp://shop:hun/ter2@host/"
    done = await app.run("publish", "order.noted", "1", environ={"PIPELINE_AMQP_URL": url})
    is_one_sentence(done, 2, "PIPELINE_AMQP_URL can't be read", "write / as %2F")
    assert "hun" not in done.err


async def test_topology_not_applied_or_drifted(app: Application) -> None:
    # Given a broker on which nothing is declared, then a worker refuses to start
    missing = await app.run("worker", "start", "payments")
    assert missing.code == 3
    assert "queue payments is missing" in missing.err
    assert "`pipeline topology apply` mends it" in missing.err

    # Given the topology was applied and then changed by hand
    await app.apply()
    await app.good("publish", "order.created", '{"order_id": 1}')
    async with rabbit(app.vhost) as broker:
        await (await broker.channel.get_queue("payments")).unbind("events", "order.created")
    # Then a worker refuses again, saying what differs, and touches nothing
    drifted = await app.run("worker", "start", "payments")
    assert drifted.code == 3
    assert "binding events → payments (order.created) is missing" in drifted.err
    assert "`pipeline topology apply` mends it" in drifted.err
    assert "Traceback" not in missing.err + drifted.err

    # And what it says mends it: nothing was lost
    await app.good("topology", "apply")
    await app.good("worker", "start", "--until-empty")
    assert app.count("payments") == 1


async def test_a_database_that_can_not_be_used(app: Application) -> None:
    # Given a file where the folder of the databases should be, one that is no database, and a kind nobody knows
    await app.apply()
    await app.good("publish", "order.created", '{"order_id": 1}')
    app.write("file", "")
    app.write("payments.db", "this is not SQLite" * 100)
    folder, broken, unknown = await asyncio.gather(
        *(
            app.run("worker", "start", "payments", environ={"PIPELINE_DATABASE_URL": url})
            for url in (
                f"sqlite+aiosqlite:///{app.folder}/file/{{subscription}}.db",
                f"sqlite+aiosqlite:///{app.folder}/{{subscription}}.db",
                "oracle://scott:tiger@db/{subscription}",
            )
        )
    )
    # Then the worker says so
    is_one_sentence(folder, 5, f"the folder {app.folder}/file for the database can't be made", "in the database URL")
    is_one_sentence(broken, 5, f"the database {app.folder}/payments.db can't be used")
    is_one_sentence(unknown, 2, "the database URL oracle://scott:***@db", "sqlite+aiosqlite:///")

    # And the event is still there for one that has a database
    async with rabbit(app.vhost) as broker:
        await broker.until_count("payments", 1)


async def test_handlers_that_can_not_be_used(app: Application) -> None:
    # Other ways to be wrong are in tests/unit/worker/test_loading.py.
    app.write("no_worker.py", "")
    other = app.write("other.yaml", TOPOLOGY.replace("handler: handlers", "handler: handlres"))
    empty = app.write("empty.yaml", TOPOLOGY.replace("handler: handlers", "handler: no_worker"))
    missing, wrong = await asyncio.gather(
        *(app.run("worker", "start", "payments", "--topology", str(each)) for each in (other, empty))
    )
    is_one_sentence(missing, 2, "handler module 'handlres' of subscription 'payments' is not found in", str(app.folder))
    is_one_sentence(wrong, 2, "module 'no_worker' has no Worker('payments')")


async def test_an_unknown_subscription(app: Application) -> None:
    done = await app.run("worker", "start", "paymets")
    is_one_sentence(done, 2, "no subscription is called 'paymets'; did you mean 'payments'?")


def message(event_id: str, kind: str = "order.created", **facts: Any) -> Properties:
    """The properties of an event as somebody else's program may write them."""
    return Properties(**{"message_id": event_id, "type": kind, "content_type": "application/json", **facts})


GOOD = b'{"order_id": 1}'
DEEP: dict[str, Any] = {}
for _ in range(40):
    DEEP = {"deeper": DEEP}
BAD: list[tuple[Properties, bytes, str]] = [  # properties, body, and the reason it must be given
    (message("not-json"), b"{order_id: 1}", "undecodable"),
    (message("cut-off"), b'{"order_id": 1', "undecodable"),
    (message("empty"), b"", "undecodable"),
    (message("not-utf8"), b'{"order_id": 1, "note": "\xff"}', "undecodable"),
    (message("big-and-bad"), b"x" * (10 * MEGABYTE), "undecodable"),
    (message("too-large"), b"x" * (12 * MEGABYTE), "too_large"),
    (message("xml", content_type="text/xml"), b"<order/>", "undecodable"),
    (message("encoding", content_encoding="br"), GOOD, "undecodable"),
    (message("no-gzip", content_encoding="gzip"), GOOD, "undecodable"),
    (message("bad-time", timestamp=2**64 - 1), GOOD, "undecodable"),
    (message("odd-time", headers={"cloudEvents_time": "noon"}), GOOD, "undecodable"),
    (message("deep-headers", headers={"deep": DEEP}), GOOD, "undecodable"),
    (message("model"), b'{"order_id": -1}', "invalid"),
    (message("wrong-type"), b"[1]", "invalid"),
    (message("validator"), b'{"order_id": 1, "note": "broken"}', "exhausted"),
    (message("unknown", kind="order.lost"), GOOD, "unknown_type"),
    (message("no-handler", kind="order.noted"), GOOD, "no_handler"),
    (message(""), GOOD, "missing_id"),
    (message("nul\0id"), GOOD, "exhausted"),
    (message("large-headers", headers={"x": "y" * 130_000}), b"{}", "invalid"),
]
FINE: dict[str, tuple[Properties | bytes, bytes]] = {
    "plain": (message("plain"), GOOD),
    "big": (message("big"), json.dumps({"order_id": 1, "note": "x" * (10 * MEGABYTE)}).encode()),
    "odd-attempt": (message("odd-attempt", headers={"pipeline-attempt": "many", "pipeline-history": 7}), GOOD),
    "negative-attempt": (message("negative-attempt", headers={"pipeline-attempt": -5}), GOOD),
    "far-future": (message("far-future", headers={"pipeline-not-before": 2**62}), GOOD),
    "latin-1": (encode_properties(message("id-X", priority=0)).replace(b"id-X", b"id-\xff"), GOOD),
    "last": (message("last"), GOOD),
}


async def test_whatever_lies_in_the_queue_has_an_outcome(app: Application) -> None:
    # Given a queue in which good messages lie between everything that can be wrong with one
    await app.apply()
    fine = list(FINE.values())
    await app.put_raw("payments", fine[0], *((properties, body) for properties, body, _ in BAD), *fine[1:])

    # When a worker that takes bodies up to 11 MB works until the queue is empty
    done = await app.run("worker", "start", "--until-empty", environ={"PIPELINE_MAX_BODY": str(11 * MEGABYTE)})
    assert done.code == 0, done.err

    # Then each bad one is a dead letter with its reason, its body to the byte
    exported = await app.good("dlq", "export", "payments")
    letters = [json.loads(line) for line in exported.out.splitlines()]
    found = Counter((letter["id"], letter["reason"], body_of(letter)) for letter in letters)
    assert found == Counter((properties.message_id, reason, body) for properties, body, reason in BAD)

    # And the good ones are processed, each once
    assert app.count("payments") == len(FINE)


def body_of(letter: dict[str, Any]) -> bytes:
    """The body of an exported dead letter."""
    if "body_base64" in letter:
        return b64decode(letter["body_base64"])
    return b"" if letter["size"] == 0 else json.dumps(letter["body"]).encode()
