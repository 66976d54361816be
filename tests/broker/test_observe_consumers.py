"""Who works: worker processes that live, stall, stop, die and end, as told by databases and broker."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.observe.consumers import ConsumerView, State, SubscriptionView, consumers, crew, subscriptions
from pipeline.observe.status import EventStatuses
from pipeline.topology.load import load_topology
from tests.support.application import Application
from tests.support.broker import TestVhost, manage
from tests.support.topologies import until

TOPOLOGY = """\
version: 1
exchanges:
  events: {type: topic}
events:
  order.created: {exchange: events}
  order.paid: {exchange: events}
subscriptions:
  payments:
    events: [order.created]
    handler: handlers
    retry: {attempts: 2, delays: [100ms]}
  shipping:
    events: [order.created, order.paid]
    handler: handlers
    retry: {attempts: 2, delays: [100ms]}
  audit:
    events: [order.paid]
    handler: handlers
    retry: {attempts: 2, delays: [100ms]}
"""
HANDLERS = """\
from pipeline import Event, Worker

payments, shipping = Worker("payments"), Worker("shipping")

@payments.handle("order.created")
@shipping.handle("order.created")
@shipping.handle("order.paid")
async def done(event: Event[int]) -> None:
    pass
"""
SILENCE = 7.0  # s until a process counts as gone, here; it tells of itself every 5 s


@pytest.fixture
async def app(vhost: TestVhost, tmp_path: Path) -> Application:
    """An application whose topology is on the broker."""
    made = Application(vhost, tmp_path)
    made.write("topology.yaml", TOPOLOGY)
    made.write("handlers.py", HANDLERS)
    await made.apply()
    return made


async def seen(app: Application) -> list[ConsumerView]:
    return await consumers(app.settings, load_topology(app.settings.topology).topology)


async def until_seen(app: Application, what: str, condition: Callable[[dict[int, State]], bool]) -> dict[int, State]:
    """The states by process id, once they are right."""

    async def right() -> dict[int, State] | None:
        states = {each.process: each.state for each in await seen(app)}
        return states if condition(states) else None

    found = await until(right, what, deadline=60)
    assert found is not None
    return found


async def listed(app: Application) -> tuple[int, dict[str, Any]]:
    """Exit code and answer of the command."""
    done = await app.run("consumers", "--json")
    return done.code, json.loads(done.out)


async def test_a_worker_lives_stalls_freezes_dies_and_ends(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.observe.consumers.GONE", SILENCE)
    topology = load_topology(app.settings.topology).topology

    # given nobody, then nobody is there, and the command says who is missing
    assert await listed(app) == (0, {"consumers": [], "unserved": ["payments", "shipping", "audit"], "unknown": {}})

    async with app.worker("payments", "shipping") as running:
        # when a process works, then it is live, and one for both subscriptions
        await running.until_said("working")
        (first,) = await until_seen(app, "one live process", lambda found: list(found.values()) == ["live"])
        assert [first] == running.pids
        code, answer = await listed(app)
        (worker,) = answer["consumers"]
        assert (code, worker["state"], worker["endpoint"]["process"]) == (0, "live", first)
        assert worker["serves"] == [
            {"subscription": "payments", "event_types": ["order.created"], "consuming": True},
            {"subscription": "shipping", "event_types": ["order.created", "order.paid"], "consuming": True},
        ]
        assert answer["unserved"] == ["audit"]
        assert await subscriptions(app.settings, topology) == [
            SubscriptionView("payments", worker["id"], "order.created"),
            SubscriptionView("shipping", worker["id"], "order.created"),
            SubscriptionView("shipping", worker["id"], "order.paid"),
            SubscriptionView("audit", "", "order.paid"),
        ]

        # when its consumer on one queue is taken away, then it is stalled there
        manage(app.vhost.management_url, "DELETE", f"/api/queues/{app.vhost.name}/payments")
        await until_seen(app, "a stalled process", lambda found: found == {first: "stalled"})
        (view,) = await seen(app)
        assert {each.subscription: each.consuming for each in view.serves} == {"payments": False, "shipping": True}

        async def told() -> bool:
            return (await listed(app))[0] == 1

        await until(told, "the command to say that something is wrong")
        # and live again once there is a queue
        await app.apply()
        await until_seen(app, "a live process", lambda found: found == {first: "live"})

        # when it stands still, then it is gone
        os.kill(first, signal.SIGSTOP)
        await until_seen(app, "a process that is gone", lambda found: found == {first: "gone"})

        # when it is killed, then it stays gone, and another one lives
        os.kill(first, signal.SIGKILL)
        states = await until_seen(app, "one gone, one live", lambda found: sorted(found.values()) == ["gone", "live"])
        assert states[first] == "gone"

        # when that one ends in order, then it is not there any more
        assert await running.drain() == 0
    assert {each.process: each.state for each in await seen(app)} == {first: "gone"}


async def test_who_can_not_be_asked_is_named_and_hides_nobody_else(app: Application) -> None:
    # given a worker, a database that is none, and a management API that is not there
    async with app.worker("payments") as running:
        await running.until_said("working")
        await until_seen(app, "one live process", lambda found: list(found.values()) == ["live"])
        (app.folder / "data" / "shipping.db").write_text("this is no database" * 100)
        app.environ["PIPELINE_MANAGEMENT_URL"] = "http://guest:very-secret@127.0.0.1:1"

        # when they are asked for, then the worker is there, and what is not known is named
        found = await crew(app.settings, load_topology(app.settings.topology).topology)
        assert [(each.state, each.serves[0].consuming) for each in found.consumers] == [("live", None)]
        assert set(found.unknown) == {"shipping", "broker"}
        done = await app.run("consumers")
        assert done.code == 1
        assert "no worker process serves audit" in done.out
        assert "shipping could not be asked: the database" in done.err
        assert "very-secret" not in done.err + done.out
        assert "Traceback" not in done.err
        with suppress(ProcessLookupError):
            assert await running.drain() == 0


async def test_statuses_close_what_they_opened(app: Application) -> None:
    statuses = EventStatuses.open(app.settings, load_topology(app.settings.topology).topology)
    assert [each.state for each in await statuses.of("x", "order.paid")] == ["waiting", "waiting"]
    await statuses.close()
