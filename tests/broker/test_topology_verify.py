"""The look at the broker before a worker starts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from pipeline.amqp.connection import open_connection
from pipeline.amqp.declare import declare, own_channel, unbind
from pipeline.amqp.live import live_objects
from pipeline.amqp.management import Management
from pipeline.amqp.verify import verify
from pipeline.errors import BrokerUnavailable, ConfigurationError, ObjectMissing, TopologyDrift
from pipeline.settings import Settings
from pipeline.topology.model import Binding, Policy, Queue
from tests.support.broker import TestVhost
from tests.support.topologies import applied, settings_of, topology_of

SHOP = topology_of("""\
exchanges: {events: {}, other: {}}
events: {created: {exchange: events}, paid: {exchange: other}}
subscriptions:
  payments: {events: [created], retry: {delays: [1s]}}
  mail: {events: [paid]}
""")
NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def settings(vhost: TestVhost) -> Settings:
    return settings_of(vhost)


async def delete(settings: Settings, *queues: str) -> None:
    """Delete queues by hand."""
    async with open_connection(settings, "test") as connection, own_channel(connection) as channel:
        for queue in queues:
            await channel.queue_delete(queue)


async def refused(settings: Settings, subscription: str = "payments") -> str:
    """What `verify` refuses with."""
    with pytest.raises(TopologyDrift) as caught:
        await verify(settings, SHOP, [subscription])
    assert caught.value.exit_code == 3
    return str(caught.value)


async def test_an_applied_topology_is_fine(settings: Settings) -> None:
    await applied(settings, SHOP)

    await verify(settings, SHOP, ["payments", "mail"])


async def test_a_topology_that_was_never_applied_names_what_is_missing_and_the_command(settings: Settings) -> None:
    said = await refused(settings)

    assert "exchange events is missing" in said
    assert "queue payments.retry.1s is missing" in said
    assert "binding events → payments (created) is missing" in said
    assert "policy pipeline.payments is missing" in said
    assert said.endswith("`pipeline topology apply` mends it")
    assert "mail" not in said


async def test_the_trouble_of_other_subscriptions_does_not_concern(settings: Settings) -> None:
    # given a queue that is gone, of another subscription
    await applied(settings, SHOP)
    await delete(settings, "mail")

    await verify(settings, SHOP, ["payments"])
    assert "queue mail is missing" in await refused(settings, "mail")


async def test_a_lost_binding_stops_a_worker(settings: Settings) -> None:
    await applied(settings, SHOP)
    async with open_connection(settings, "test") as connection, own_channel(connection) as channel:
        await unbind(channel, Binding("events", "payments", "created"))

    assert "binding events → payments (created) is missing" in await refused(settings)


async def test_a_binding_too_many_names_prune(settings: Settings) -> None:
    await applied(settings, SHOP)
    async with open_connection(settings, "test") as connection, own_channel(connection) as channel:
        await declare(channel, Binding("other", "payments", "#"))

    said = await refused(settings)

    assert "binding other → payments (#) is too many" in said
    assert said.endswith("`pipeline topology apply --prune` removes what is too many")


async def test_a_changed_policy_stops_a_worker(settings: Settings) -> None:
    await applied(settings, SHOP)
    async with Management(settings) as management:
        await management.put_policy(Policy("pipeline.payments", "^payments$", {"delivery-limit": 2}, priority=10))

    assert "policy pipeline.payments differs: delivery-limit 2 → 20" in await refused(settings)


async def test_other_arguments_are_said_to_need_destruction(settings: Settings) -> None:
    await applied(settings, SHOP)
    await delete(settings, "payments.dlq")
    async with open_connection(settings, "test") as connection, own_channel(connection) as channel:
        await declare(channel, Queue("payments.dlq", arguments={"x-queue-type": "classic"}))

    said = await refused(settings)

    assert "queue payments.dlq differs for good: x-queue-type classic → quorum" in said
    assert "needs destruction" in said


async def test_an_unknown_subscription_is_told_with_the_nearest_name(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match=r"no subscription payment \(did you mean payments\?\)"):
        await verify(settings, SHOP, ["payment"])


# --- without the management API


async def test_amqp_alone_finds_an_applied_topology_fine_and_says_what_it_did_not_check(settings: Settings) -> None:
    await applied(settings, SHOP)
    before = await live_objects(settings)

    with capture_logs() as logs:
        await verify(replace(settings, management_url=NOBODY), SHOP, ["payments"])

    assert [entry["event"].split(":")[0] for entry in logs] == ["bindings and policies were not checked"]
    assert await live_objects(settings) == before


async def test_amqp_alone_finds_a_missing_queue_and_creates_nothing(settings: Settings) -> None:
    await applied(settings, SHOP)
    await delete(settings, "payments.retry.1s")

    said = await refused(replace(settings, management_url=NOBODY))

    assert "queue payments.retry.1s is missing" in said
    async with Management(settings) as management:
        with pytest.raises(ObjectMissing):
            await management.queue("payments.retry.1s")


async def test_amqp_alone_finds_other_arguments(settings: Settings) -> None:
    await applied(settings, SHOP)
    await delete(settings, "payments.dlq")
    async with open_connection(settings, "test") as connection, own_channel(connection) as channel:
        await declare(channel, Queue("payments.dlq", arguments={"x-queue-type": "classic"}))

    said = await refused(replace(settings, management_url=NOBODY))

    assert "queue payments.dlq differs for good: " in said
    assert "x-queue-type" in said


async def test_without_any_broker_it_is_not_called_drift(settings: Settings) -> None:
    nowhere = replace(settings, management_url=NOBODY, amqp_url="amqp://guest:guest@127.0.0.1:1/")

    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1"):
        await verify(nowhere, SHOP, ["payments"])
