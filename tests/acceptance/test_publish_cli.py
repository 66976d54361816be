"""`pipeline publish` as users and scripts meet it: what it says, its exit codes, and what is then in the queue."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.application import Application
from tests.support.broker import TestVhost
from tests.support.proxy import proxy_to
from tests.support.rabbit import Rabbit, rabbit
from tests.support.topologies import until

TOPOLOGY = """\
version: 1
exchanges:
  events: {type: topic}
events:
  order.created: {exchange: events, model: "models:Order"}
  order.noted: {exchange: events}
subscriptions:
  payments:
    events: [order.created, order.noted]
    retry: {attempts: 1}
"""
MODELS = """\
from pydantic import BaseModel, Field

class Order(BaseModel):
    order_id: int = Field(gt=0)
    note: str = ""
"""
MEGABYTE = 1024 * 1024


@pytest.fixture
async def app(vhost: TestVhost, tmp_path: Path) -> Application:
    """An application whose topology is on the broker; nobody consumes."""
    app = Application(vhost, tmp_path)
    app.write("topology.yaml", TOPOLOGY)
    app.write("models.py", MODELS)
    await app.apply()
    return app


async def test_one_event_is_in_the_queue_when_the_command_ends(app: Application) -> None:
    # When one event is published with everything that can be said about it
    done = await app.good(
        *("publish", "order.created", '{"order_id": 7}', "--id", "order-7", "--subject", "seven", "--source", "/shop")
    )

    # Then the command says its id, and the message is a persistent CloudEvent
    assert done.out == "order-7\n"
    (message,) = await app.take("payments")
    assert (message.message_id, message.type, message.body) == ("order-7", "order.created", b'{"order_id": 7}')
    assert (message.content_type, message.delivery_mode) == ("application/json", 2)
    attributes = {name: value for name, value in message.headers.items() if name.startswith("cloudEvents_")}
    assert datetime.fromisoformat(str(attributes.pop("cloudEvents_time"))) <= datetime.now(UTC)
    assert attributes == {
        "cloudEvents_specversion": "1.0",
        "cloudEvents_source": "/shop",
        "cloudEvents_subject": "seven",
    }


async def test_a_script_gets_one_json_object(app: Application) -> None:
    # When several events are published with --json, one of them wrong
    app.write("few.jsonl", '{"order_id": 1}\n{"order_id": "x"}\n\n{"order_id": 3}\n')
    one = await app.good("publish", "order.noted", "17", "--json")
    few = await app.run("publish", "order.created", "--file", "few.jsonl", "--json")

    # Then standard output is one JSON object and standard error is silent
    assert set(one.json()) == {"id", "confirmed"}
    assert few.code == 1
    assert few.err == ""
    bad = {
        "file": "few.jsonl",
        "line": 2,
        "message": "order_id: Input should be a valid integer, unable to parse string as an integer",
    }
    assert few.json() == {"confirmed": 2, "unconfirmed": 0, "resumed_at": 0, "bad": [bad], "error": None}


async def test_whole_events_come_from_standard_input(app: Application) -> None:
    # Given lines that are CloudEvents: a plain one, one with extensions, one of long ago
    lines = [
        {"specversion": "1.0", "id": "a", "type": "order.created", "source": "/x", "data": {"order_id": 1}},
        {"specversion": "1.0", "id": "b", "type": "order.noted", "source": "/x", "data": [1, None], "traceid": "t1"},
        {
            "specversion": "1.0",
            "id": "c",
            "type": "order.noted",
            "source": "/x",
            "data": 0,
            "time": "1955-11-05T06:00Z",
        },
    ]
    # When they come through a pipe
    done = await app.good("publish", "--file", "-", stdin=jsonl(lines))

    # Then all are there, attributes and all
    assert "3 events confirmed" in done.out
    found = {message.message_id: message for message in await app.take("payments")}
    assert {name: message.type for name, message in found.items()} == {
        "a": "order.created",
        "b": "order.noted",
        "c": "order.noted",
    }
    assert found["b"].headers["cloudEvents_traceid"] == "t1"
    assert found["c"].headers["cloudEvents_time"] == "1955-11-05T06:00:00+00:00"


async def test_bad_lines_are_named_and_the_others_go(app: Application) -> None:
    # Given a file with a bad line of every kind
    app.write(
        "orders.jsonl",
        '{"order_id": 1}\n'  # 1, good
        '{"order_id": 2\n'  # 2, cut off
        '{"order_id": 0}\n'  # 3, not over 0
        '{"specversion": "1.0", "type": "order.craeted", "data": {"order_id": 4}}\n'  # 4, no such type
        '{"specversion": "1.0", "type": "order.created"}\n'  # 5, no data
        '{"specversion": "1.0", "type": "order.created", "data": {"order_id": 6}, "time": "noon"}\n'  # 6, no time
        '{"specversion": "1.0", "type": "order.noted", "data": NaN}\n'  # 7, no JSON
        "\n"  # 8, nothing
        '{"specversion": "1.0", "type": "order.noted", "data": 9, "id": "' + "x" * 256 + '"}\n'  # 9, id too long
        '{"order_id": 10}',  # 10, good, without an end
    )
    # When it is published
    done = await app.run("publish", "order.created", "--file", "orders.jsonl")

    # Then each is named in a line of its own, and the good ones are there
    assert done.code == 1
    assert done.out == "2 events confirmed, 7 lines refused\n"
    named = {int(line.split(":")[1]): line.split(": ", 1)[1] for line in done.err.splitlines()}
    assert set(named) == {2, 3, 4, 5, 6, 7, 9}
    assert "not JSON" in named[2]
    assert named[3] == "order_id: Input should be greater than 0"
    assert named[4] == "event type 'order.craeted' is not in the topology; did you mean 'order.created'?"
    assert named[5] == "data: missing"
    assert named[6] == "time: 'noon' is no ISO 8601 time"
    assert "not JSON" in named[7]
    assert "255 bytes" in named[9]
    assert sorted(message.body for message in await app.take("payments")) == [
        b'{"order_id": 10}',
        b'{"order_id": 1}',
    ]


async def test_wrong_events_end_in_a_sentence_and_publish_nothing(app: Application) -> None:
    # When events are published that can't be
    unknown = await app.run("publish", "order.craeted", '{"order_id": 1}')
    unknown_file = await app.run("publish", "order.craeted", "--file", str(app.write("one.jsonl", "{}")))
    no_json = await app.run("publish", "order.created", "{order_id: 1}")
    no_text = await app.run("publish", "order.created", "\udcff")  # a byte that is no UTF-8
    no_model = await app.run("publish", "order.created", '{"order_id": 0}')
    no_file = await app.run("publish", "order.created", "--file", "nowhere.jsonl")

    # Then each says what is wrong and how, with the exit code for wrong input
    assert [each.code for each in (unknown, unknown_file, no_json, no_text, no_model, no_file)] == [2] * 6
    assert unknown.err == "error: event type 'order.craeted' is not in the topology; did you mean 'order.created'?\n"
    assert unknown_file.err == unknown.err
    assert no_json.err.startswith("error: body is not JSON: ")
    assert no_text.err.startswith("error: body is not JSON: ")
    assert no_model.err == "error: order_id: Input should be greater than 0\n"
    assert no_file.err == "error: nowhere.jsonl can't be read: No such file or directory\n"
    assert await app.take("payments") == []


async def test_large_bodies_go_and_those_over_the_limit_do_not(app: Application) -> None:
    # Given bodies of 10 MB and a little more than 12 MB, and a limit between them
    big, bigger = (json.dumps({"order_id": 1, "note": "x" * (size * MEGABYTE)}) for size in (10, 12))
    app.write("orders.jsonl", f"{big}\n{bigger}\n")
    app.environ["PIPELINE_MAX_BODY"] = str(11 * MEGABYTE)

    # When both are published
    done = await app.run("publish", "order.created", "--file", "orders.jsonl")

    # Then the larger is refused by name, the other is there
    assert done.code == 1
    assert "orders.jsonl:2: " in done.err
    assert f"at most {11 * MEGABYTE} are taken (PIPELINE_MAX_BODY)" in done.err
    assert [len(message.body) for message in await app.take("payments")] == [len(big)]


async def test_an_unroutable_event_is_an_error(app: Application) -> None:
    # Given an event type whose queue is gone
    async with rabbit(app.vhost) as broker:
        await broker.delete("payments")
    # When one is published, then the command says that nobody would have got it
    done = await app.run("publish", "order.noted", "1", "--id", "order-1")
    assert done.code == 6
    assert done.err.startswith("error: event order-1: the broker has no queue for routing key 'order.noted'")


async def test_a_file_is_resumed_where_the_broker_went_away(app: Application) -> None:
    # Given a file of some thousand events and a broker behind a proxy
    lines = 6000
    app.write("orders.jsonl", "".join(f'{{"order_id": {number}}}\n' for number in range(1, lines + 1)))
    environ = {"PIPELINE_PUBLISH_DEADLINE": "1", "PIPELINE_CONNECT_TIMEOUT": "1"}
    async with proxy_to(app.vhost.amqp_url) as proxy, rabbit(app.vhost) as broker:
        command = ("publish", "order.created", "--file", "orders.jsonl")
        proxy.delay = 0.02  # so that the cut comes in the middle
        running = await app.start(*command, environ={**environ, "PIPELINE_AMQP_URL": proxy.url})

        # When the broker goes away in the middle
        await until(lambda: more_than(1500, broker), "some of the file is there")
        proxy.refusing = True
        proxy.cut()
        out, err = await running.communicate()

        # Then the command says how many are confirmed and how to go on
        assert running.returncode == 6
        confirmed = int(out.decode().split(" events confirmed")[0].replace(",", ""))
        assert 1000 <= confirmed <= await broker.count("payments") < lines
        assert f"{confirmed:,} events are confirmed, the rest are not known to be; continue with" in err.decode()
        assert "`pipeline publish order.created --file orders.jsonl --resume`" in err.decode()

        # And when it is resumed, then every line is there, each under one id
        resumed = await app.good(*command, "--resume", "--json")
        report = resumed.json()
        assert 0 < report["resumed_at"] <= confirmed
        assert report["confirmed"] == lines - report["resumed_at"]
        found = set(app.take_ids("payments", 2 * lines))
        assert len({body for _, body in found}) == len({event_id for event_id, _ in found}) == len(found) == lines

        # And there is nothing left to resume
        again = await app.run(*command, "--resume")
        assert again.code == 2
        assert "nothing to resume for" in again.err


async def test_progress_is_a_bar_with_rate_and_time_left_on_a_terminal(app: Application) -> None:
    # Given a terminal
    app.write("orders.jsonl", '{"order_id": 1}\n' * 2000)
    ours, its = pty.openpty()
    # When a file is published
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pipeline", "publish", "order.created", "--file", "orders.jsonl"),
        cwd=app.folder,
        env={**app.environ, "TERM": "xterm-256color", "COLUMNS": "120"},
        stdout=its,
        stderr=its,
    )
    os.close(its)
    shown = await asyncio.to_thread(read_all, ours)
    assert await running.wait() == 0

    # Then its bar ends full, with a rate and the time left
    assert "publishing" in shown
    assert "2000/2000" in shown
    assert "/s" in shown
    assert "left" in shown
    assert "2,000 events confirmed" in shown


def read_all(terminal: int) -> str:
    """What is written to the terminal until its last writer ends."""
    shown = b""
    with open(terminal, "rb", buffering=0) as reader:
        try:
            while chunk := reader.read(65536):
                shown += chunk
        except OSError:  # how Linux says that nobody writes any more
            pass
    return shown.decode()


async def more_than(count: int, broker: Rabbit) -> bool:
    """Whether so many messages and more are in the queue."""
    return await broker.count("payments") > count


def jsonl(events: Iterable[object]) -> bytes:
    """JSON Lines."""
    return "".join(json.dumps(event) + "\n" for event in events).encode()
