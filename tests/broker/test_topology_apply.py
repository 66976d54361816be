"""Topologies brought to a real broker."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import aio_pika
import pytest

from pipeline.amqp.apply import apply_plan
from pipeline.amqp.connection import open_connection
from pipeline.amqp.declare import declare, own_channel, unbind
from pipeline.amqp.live import live_objects
from pipeline.amqp.management import Management
from pipeline.errors import (
    AccessRefused,
    AuthenticationFailed,
    BrokerError,
    BrokerUnavailable,
    ConfigurationError,
    TopologyDrift,
    VirtualHostMissing,
)
from pipeline.settings import Settings
from pipeline.topology.expand import expand
from pipeline.topology.load import load_topology
from pipeline.topology.model import Binding, BrokerObjects, Policy, Queue
from pipeline.topology.plan import plan
from tests.support.broker import TestVhost, manage
from tests.support.topologies import applied, planned, settings_of, short, topology_of, until

PROJECT = Path(__file__).parents[2]
SHOP = """\
exchanges: {events: {}}
events: {order.created: {}, order.paid: {}}
subscriptions: {payments: {events: [order.created], retry: {delays: [1s]}}}
"""


@pytest.fixture
def settings(vhost: TestVhost) -> Settings:
    return settings_of(vhost)


async def test_after_applying_there_is_nothing_to_do(settings: Settings) -> None:
    # given the reference application and an empty virtual host
    topology = load_topology(PROJECT / "topology").topology
    assert (await planned(settings, topology)).exit_code == 2

    # when it is applied
    done = await applied(settings, topology)

    # then the broker holds just what the files say
    assert done.exit_code == 0
    assert (await planned(settings, topology)).steps == ()
    live = await live_objects(settings)
    assert set(live.queues) == set(expand(topology).queues)
    # and applying again does nothing
    assert (await applied(settings, topology)).done == ()


EVERY_KEY = """\
exchanges:
  events: {type: topic, alternate_exchange: unrouted}
  unrouted: {type: fanout, internal: true}
  old: {type: direct, auto_delete: true}
  by-header: {type: headers, arguments: {x-own: 5}}
  parts: {type: x-consistent-hash}
events: {e: {exchange: events}}
subscriptions:
  s: {events: [e], policy: {max-length: 100000}}
  part.1: {routing_keys: ["1"], exchange: parts, dead_letter: false}
queues:
  quorum:
    {ttl: 5s, expires: 1h, max_length: 10, max_bytes: 1MB, overflow: reject-publish, dead_letter_exchange: unrouted,
     dead_letter_routing_key: k, dead_letter_strategy: at-least-once, single_active_consumer: true, delivery_limit: 3,
     arguments: {x-queue-leader-locator: balanced, x-quorum-initial-group-size: 1}}
  classic:
    {type: classic, auto_delete: true, ttl: 0s, expires: 1h, max_length: 10, max_bytes: 1MB,
     overflow: reject-publish-dlx, dead_letter_exchange: "", dead_letter_routing_key: quorum, max_priority: 5,
     single_active_consumer: true, arguments: {x-queue-version: 2}}
  stream: {type: stream, max_bytes: 1GB, max_age: 36h, segment_bytes: 64MB, arguments: {x-initial-cluster-size: 1}}
bindings:
  - {exchange: unrouted, queue: quorum}
  - {exchange: by-header, queue: classic, arguments: {x-match: all, kind: a, size: 1}}
  - {exchange: by-header, queue: classic, arguments: {x-match: all, kind: b, size: 1}}
  - {exchange: events, to_exchange: by-header, routing_key: "#"}
  - {exchange: amq.topic, queue: stream, routing_key: "a.*"}
policies:
  short: {pattern: ^stream$, definition: {max-age: 1D}, priority: 1}
  exchanges: {pattern: ^old$, apply_to: exchanges, definition: {alternate-exchange: unrouted}}
"""


async def test_every_key_reaches_the_broker_and_reads_back_the_same(settings: Settings) -> None:
    topology = topology_of(EVERY_KEY)

    await applied(settings, topology)

    assert short(await planned(settings, topology)) == []


async def test_a_binding_deleted_by_hand_is_planned_and_mended(settings: Settings) -> None:
    # given an applied topology, and somebody who unbinds its queue
    topology = topology_of(SHOP)
    await applied(settings, topology)
    async with open_connection(settings, "test") as connection, own_channel(connection) as channel:
        await unbind(channel, Binding("events", "payments", "order.created"))

    # then the plan says so, and applying it mends it
    found = await planned(settings, topology)
    assert short(found) == [("create", "binding", "events → payments (order.created)")]
    assert found.exit_code == 2
    await applied(settings, topology)
    assert (await planned(settings, topology)).exit_code == 0


async def test_a_policy_changed_by_hand_is_planned_and_mended(settings: Settings) -> None:
    topology = topology_of(SHOP)
    await applied(settings, topology)
    async with Management(settings) as management:
        await management.put_policy(Policy("pipeline.payments", "^payments$", {"delivery-limit": 3}, priority=10))

    found = await planned(settings, topology)

    assert short(found) == [("change", "policy", "pipeline.payments")]
    assert found.steps[0].detail == "delivery-limit 3 → 20"
    assert (await applied(settings, topology)).exit_code == 0
    assert (await planned(settings, topology)).exit_code == 0


async def test_a_queue_of_other_arguments_is_named_and_left_while_the_rest_is_done(settings: Settings) -> None:
    # given a queue somebody declared differently, with a message in it
    topology = topology_of(SHOP)
    other = Queue("payments.dlq", arguments={"x-queue-type": "classic", "x-max-length": 5})
    async with open_connection(settings, "test") as connection, own_channel(connection) as channel:
        await declare(channel, other)
        await channel.basic_publish(b"kept", routing_key="payments.dlq")
        # when the topology is applied
        done = await applied(settings, topology)

        # then that queue is named and untouched, and everything else is there
        assert done.exit_code == 3
        assert [(step.name, step.detail) for step in done.left] == [
            ("payments.dlq", "x-queue-type classic → quorum; x-max-length 5 → none")
        ]
        assert short(await planned(settings, topology)) == [("immutable", "queue", "payments.dlq")]
        assert (await channel.basic_get("payments.dlq")).body == b"kept"


async def test_a_queue_declared_differently_meanwhile_ends_in_an_error_that_names_it(settings: Settings) -> None:
    # given a plan that is overtaken by somebody else's declaration
    topology = topology_of(SHOP)
    overtaken = plan(expand(topology), BrokerObjects({}, {}, (), {}))
    async with open_connection(settings, "test") as connection, own_channel(connection) as channel:
        await declare(channel, Queue("payments", arguments={"x-queue-type": "classic"}))

    with pytest.raises(TopologyDrift, match=r"payments.*pipeline topology plan"):
        await apply_plan(settings, overtaken)


async def test_a_foreign_policy_that_takes_the_queue_needs_hands(settings: Settings) -> None:
    topology = topology_of(SHOP)
    await applied(settings, topology)
    async with Management(settings) as management:
        await management.put_policy(Policy("ha", "pay", {"max-length": 1}, "all", 99))

    done = await applied(settings, topology)

    assert done.exit_code == 3
    assert "lower it, or delete it" in done.left[0].detail


async def test_two_processes_may_apply_at_once(vhost: TestVhost, settings: Settings, tmp_path: Path) -> None:
    # given an empty virtual host and a topology of some size
    text = (PROJECT / "topology" / "orders.yaml").read_text()
    (tmp_path / "orders.yaml").write_text(text)
    environ = {
        **os.environ,
        "PIPELINE_AMQP_URL": vhost.amqp_url,
        "PIPELINE_MANAGEMENT_URL": vhost.management_url,
    }
    command = [sys.executable, "-m", "pipeline", "topology", "apply", "--topology", str(tmp_path)]

    # when two processes apply it at the same time
    running = [
        await asyncio.create_subprocess_exec(*command, env=environ, cwd=PROJECT, stdout=PIPE, stderr=PIPE)
        for _ in range(2)
    ]
    said = await asyncio.wait_for(asyncio.gather(*(process.communicate() for process in running)), 60)

    # then both succeed and the broker is as the files say
    assert [process.returncode for process in running] == [0, 0], said
    assert (await planned(settings, load_topology(tmp_path).topology)).steps == ()


async def test_queues_of_one_connection_are_nobody_elses_business(settings: Settings) -> None:
    # given an exclusive queue, one the broker named, and bindings to them
    topology = topology_of(SHOP)
    await applied(settings, topology)
    async with open_connection(settings, "test") as connection:
        channel = await connection.channel()
        for queue in (
            await channel.declare_queue("mine", exclusive=True),
            await channel.declare_queue(None, exclusive=True),
        ):
            await queue.bind("events", "#")

        assert (await planned(settings, topology)).steps == ()


async def test_an_exchange_type_the_broker_lacks_is_a_clear_error(settings: Settings) -> None:
    topology = topology_of("exchanges: {late: {type: x-no-such-plugin}}\n")

    with pytest.raises(ConfigurationError, match=r"refused late.*is the plugin that brings its type enabled\?"):
        await applied(settings, topology)


async def test_a_policy_the_broker_does_not_know_is_a_clear_error(settings: Settings) -> None:
    topology = topology_of("policies: {mine: {pattern: a, definition: {no-such-setting: 1}}}\n")

    with pytest.raises(
        ConfigurationError, match=r"RabbitMQ refused policies/.*/mine: .*no-such-setting.*not recognised"
    ):
        await applied(settings, topology)


async def test_a_user_without_the_tag_is_told_which(settings: Settings, vhost: TestVhost) -> None:
    # given a user who may use the virtual host, but not the management API
    user, secret = f"u-{vhost.name}", "p"
    manage(vhost.management_url, "PUT", f"/api/users/{user}", {"password": secret, "tags": ""})
    try:
        parts = urlsplit(settings.management_url)
        theirs = urlunsplit(parts._replace(netloc=f"{user}:{secret}@{parts.hostname}:{parts.port}"))
        with pytest.raises(AccessRefused, match=r"Not management user; .* needs the tag policymaker"):
            await live_objects(replace(settings, management_url=theirs))
    finally:
        manage(vhost.management_url, "DELETE", f"/api/users/{user}")


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (
            {"management_url": "http://127.0.0.1:1"},
            BrokerUnavailable,
            "127.0.0.1:1 can't be reached.*PIPELINE_MANAGEMENT",
        ),
        ({"management_url": ""}, BrokerUnavailable, "unknown; set PIPELINE_MANAGEMENT_URL"),
        ({"amqp_url": "amqp://x@localhost/no-such-vhost"}, VirtualHostMissing, "'no-such-vhost' does not exist"),
    ],
)
async def test_a_management_api_that_can_not_be_used_is_a_clear_error(
    settings: Settings, change: dict[str, str], error: type[BrokerError], said: str
) -> None:
    with pytest.raises(error, match=said):
        await live_objects(replace(settings, **change))  # type: ignore[arg-type]


async def test_the_amqp_port_is_no_management_api(settings: Settings) -> None:
    amqp = urlsplit(settings.amqp_url)
    wrong = replace(settings, management_url=f"http://guest:guest@{amqp.hostname}:{amqp.port}")

    with pytest.raises(BrokerUnavailable, match="is PIPELINE_MANAGEMENT_URL right"):
        await live_objects(wrong)


async def test_a_wrong_password_is_told_without_showing_it(settings: Settings) -> None:
    parts = urlsplit(settings.management_url)
    wrong = urlunsplit(parts._replace(netloc=f"{parts.username}:s3cret-and-wrong@{parts.hostname}:{parts.port}"))

    with pytest.raises(AuthenticationFailed, match=f"refused user '{parts.username}'") as caught:
        await live_objects(replace(settings, management_url=wrong))

    assert "s3cret" not in str(caught.value)


async def test_counts_tell_ready_messages(settings: Settings) -> None:
    topology = topology_of(SHOP)
    await applied(settings, topology)
    async with open_connection(settings, "test") as connection:
        channel = await connection.channel()
        await channel.default_exchange.publish(aio_pika.Message(b"one"), "payments")

    async def counted() -> bool:
        async with Management(settings) as management:
            return await management.queue_counts(["payments", "payments.dlq", "none"]) == {
                "payments": (1, 0),
                "payments.dlq": (0, 0),
            }

    assert await until(counted, "one ready message in the statistics")
